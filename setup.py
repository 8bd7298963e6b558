"""Packaging of metaseg: name, version, dependencies and extras.

Lower bounds say what the code needs; `requirements.lock` pins what `make` installs.
The name `metaseg` on the public index belongs to another project, so the distribution
is called `metaseg-jax`; the import name is `metaseg`.
"""

import re
from pathlib import Path

from setuptools import find_packages, setup

README = (Path(__file__).parent / "README.md").read_text(encoding="utf-8")
# A page of the package index has neither the pictures nor the files beside the README.
NO_PICTURES = re.sub(r"!\[[^]]*\]\((?!https?:)[^)]*\)\n*", "", README)
DESCRIPTION = re.sub(r"\[([^]]*)\]\((?!https?:)[^)]*\)", r"\1", NO_PICTURES)

setup(
    name="metaseg-jax",
    version="0.1.0",
    description="Segmentation from absurdly noisy labels, in JAX and Flax.",
    long_description=DESCRIPTION,
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    license_files=["LICENSE"],
    python_requires=">=3.11",
    # With the configs in the wheel, `metaseg train --config=cell_flip` works anywhere;
    # metaseg/runs/config_files.py finds them there and in a source tree.
    packages=[*find_packages(include=["metaseg", "metaseg.*"]), "metaseg.configs"],
    package_dir={"metaseg.configs": "configs"},
    package_data={
        "metaseg": ["py.typed", "*.pyi"],
        "metaseg.report.pages": ["*.html.jinja"],
    },
    entry_points={"console_scripts": ["metaseg = metaseg.cli:main"]},
    install_requires=[
        "absl-py>=2.1",
        "chex>=0.1.90",
        "etils[epath]>=1.15",
        "flatbuffers>=24.3",
        "flax>=0.12",
        "fsspec>=2026.4",
        "grain>=0.2.12",
        "imagecodecs>=2026.1",
        "jax>=0.10",
        "jaxtyping>=0.3",
        "jinja2>=3.1",
        "lazy_loader>=0.4",
        "matplotlib>=3.9",
        "ml_collections>=1.0",
        "numpy>=2.0",
        "optax>=0.2.6",
        "orbax-checkpoint>=0.11.30",
        "pillow>=11.0",
        "platformdirs>=4.3",
        "scikit-image>=0.25",
        "scipy>=1.14",
        "tensorboardX>=2.6.2",
        "tensorflow-datasets>=4.9.9",
        "tifffile>=2026.3",
        "tqdm>=4.66",
    ],
    extras_require={
        "cuda13": ["jax[cuda13]>=0.10"],
        # What --workdir=gs://BUCKET/FOLDER needs; TPUs have no other lasting disk.
        "gcs": ["etils[epath-gcs]>=1.15"],
        "tpu": ["etils[epath-gcs]>=1.15", "jax[tpu]>=0.10"],
        "test": [
            "beartype>=0.20",
            "build>=1.2.2",
            "hypothesis>=6.100",
            "import-linter>=2.3",
            "kubernetes-validate>=1.33",
            "mypy>=1.15",
            "pytest>=9.0",
            "pytest-xdist>=3.6",
            "pyyaml>=6.0",
            "ruff>=0.12",
            "setuptools>=77",
            "sybil>=9.0",
            "types-tqdm",
        ],
        "bench": ["torch>=2.6"],
    },
    classifiers=[
        "Development Status :: 4 - Beta",
        "Intended Audience :: Science/Research",
        "Programming Language :: Python :: 3",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Programming Language :: Python :: 3.13",
        "Topic :: Scientific/Engineering :: Image Processing",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
    ],
)
