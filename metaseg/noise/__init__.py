"""Clean label map -> noisy label map, as pure functions of a key and an array.

Every noise is `(key, labels, *, parameters) -> labels` on integer maps `[..., H, W]`;
it keeps shape and dtype and leaves void alone. `build` binds the parameters from a
config.
"""

from metaseg.noise.compose import (
    NOISES,
    Noise,
    NoiseFn,
    build,
    build_matrix,
    chain,
    clean,
    per_example,
)
from metaseg.noise.perturb import dilate, erode, skeletonize
from metaseg.noise.randomize import flip, sample, transition
from metaseg.noise.structureless import random

__all__ = [
    "NOISES",
    "Noise",
    "NoiseFn",
    "build",
    "build_matrix",
    "chain",
    "clean",
    "dilate",
    "erode",
    "flip",
    "per_example",
    "random",
    "sample",
    "skeletonize",
    "transition",
]
