"""Segmentation from absurdly noisy labels, in JAX and Flax.

`import metaseg` costs nothing: a module is imported when it is first used, as in
`metaseg.noise.flip`.
"""

import importlib
from types import ModuleType

__all__ = [
    "audit",
    "checkpoint",
    "checks",
    "data",
    "density",
    "information",
    "labels",
    "losses",
    "metrics",
    "models",
    "morphology",
    "noise",
    "ntm",
    "optimizers",
    "readings",
    "report",
    "training",
]


def __getattr__(name: str) -> ModuleType:
    if name in __all__:
        return importlib.import_module(f"metaseg.{name}")
    raise AttributeError(f"module 'metaseg' has no attribute '{name}'")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
