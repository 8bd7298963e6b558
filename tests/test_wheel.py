"""The wheel, installed into an empty environment and used far from the repository."""

import json
import os
import shutil
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[1]
SOURCES = ("LICENSE", "README.md", "configs", "metaseg", "pyproject.toml", "setup.py")
TINY = (
    "--config.data.height=16",
    "--config.data.width=16",
    "--config.data.train_size=8",
    "--config.data.val_size=2",
    "--config.data.test_size=2",
    "--config.augment.crop=16",
    "--config.model.width=2",
    "--config.model.depth=1",
    "--config.parallel.devices=1",
    "--config.training.steps=4",
    "--config.training.batch_size=4",
    "--config.training.eval_batch_size=2",
    "--config.training.eval_every=2",
)

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The wheel, built from a copy of the sources: the tree stays as it is."""
    tree = tmp_path_factory.mktemp("tree")
    for name in SOURCES:
        source = ROOT / name
        if source.is_dir():
            ignored = shutil.ignore_patterns("__pycache__")
            shutil.copytree(source, tree / name, ignore=ignored)
        else:
            shutil.copy(source, tree / name)
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "."]
    done = subprocess.run(command, cwd=tree, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    (path,) = (tree / "dist").iterdir()
    return path


@pytest.fixture(scope="module")
def metaseg(wheel, tmp_path_factory):
    """Runs a program of an environment with the wheel, in an empty folder."""
    place = tmp_path_factory.mktemp("environment")
    venv.create(place / "venv", symlinks=True)
    programs = place / "venv" / "bin"
    kept = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")}
    pip = [sys.executable, "-m", "pip", "--python", str(programs / "python")]
    install = [*pip, "install", "--quiet", "--no-deps", "--no-index", str(wheel)]
    subprocess.run(install, env=kept, check=True)
    # The dependencies of this environment, but not what it installs as editable.
    (site,) = (place / "venv" / "lib").glob("python*/site-packages")
    (site / "dependencies.pth").write_text(f"{Path(np.__file__).parents[1]}\n")
    folder = place / "empty"
    folder.mkdir()

    def run(*command):
        done = subprocess.run(
            [str(programs / command[0]), *command[1:]],
            cwd=folder,
            env=kept,
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    run.folder = folder
    return run


def test_the_wheel_holds_the_package_its_configs_and_nothing_else(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    tops = {name.split("/")[0] for name in names}
    assert tops == {"metaseg", f"{'-'.join(wheel.name.split('-')[:2])}.dist-info"}
    held = {name for name in names if name.startswith("metaseg/")}
    package = {
        str(path.relative_to(ROOT))
        for path in (ROOT / "metaseg").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    configs = {f"metaseg/configs/{p.name}" for p in (ROOT / "configs").glob("*.py")}
    assert held == package | configs


def test_the_installed_command_says_what_it_can(metaseg):
    assert "train" in metaseg("metaseg", "--help")
    assert "flip(rate" in metaseg("python", "-m", "metaseg", "noise")
    code = "import metaseg; print(metaseg.__file__, metaseg.__version__)"
    place, version = metaseg("python", "-c", code).split()
    assert "site-packages" in place
    assert metaseg("metaseg", "--version") == f"metaseg {version}\n"
    assert version[0].isdigit()


def test_a_run_of_a_config_of_the_wheel_predicts(metaseg):
    said = metaseg("metaseg", "train", "--config=cell_flip", "--workdir=run", *TINY)
    assert said.splitlines()[-1] == "report: run/report.html"
    assert "<html" in (metaseg.folder / "run" / "report.html").read_text()
    images = metaseg.folder / "images"
    images.mkdir()
    np.save(images / "one.npy", np.random.default_rng(0).random((19, 23)))
    metaseg("metaseg", "predict", "--run=run", "--images=images", "--output=out")
    assert (metaseg.folder / "out" / "labels" / "one.png").is_file()
    results = json.loads((metaseg.folder / "run" / "results.json").read_text())
    assert results["noise"]["name"] == "flip"
