"""Segmentation from absurdly noisy labels, in JAX and Flax.

`import metaseg` imports no jax: a module is imported when it is first used, as in
`metaseg.noise.flip`.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submodules=[
        "audit",
        "checkpoint",
        "checks",
        "data",
        "decoding",
        "density",
        "errors",
        "igtt",
        "information",
        "labels",
        "losses",
        "metrics",
        "models",
        "morphology",
        "noise",
        "ntm",
        "optimizers",
        "parallel",
        "prediction",
        "report",
        "runs",
        "training",
        "unsupervised",
    ],
    submod_attrs={"prediction": ["predict"], "version": ["__version__"]},
)
