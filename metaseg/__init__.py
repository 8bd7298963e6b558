"""Segmentation from absurdly noisy labels, in JAX and Flax.

`import metaseg` costs nothing: a module is imported when it is first used, as in
`metaseg.noise.flip`.
"""

import importlib
from typing import Any

__all__ = [
    "audit",
    "checkpoint",
    "checks",
    "data",
    "decoding",
    "density",
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
    "training",
    "unsupervised",
]


def __getattr__(name: str) -> Any:
    if name in __all__:
        return importlib.import_module(f"metaseg.{name}")
    if name == "predict":  # the one function that is more at home here
        return importlib.import_module("metaseg.prediction").predict
    raise AttributeError(f"module 'metaseg' has no attribute '{name}'")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
