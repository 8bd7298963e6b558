"""Noise: clean label maps become noisy ones, by pure functions of a key and an array.

Every noise is a function `(key, labels, *, parameters) -> labels` on integer maps
`[..., H, W]`. It keeps shape and dtype, and void stays void. (64-bit integers of NumPy
become 32-bit ones, as everywhere in JAX.) Negative numbers are void too, and become
255. An invalid parameter, or an id that is no class, raises an `InputError`; in traced
labels such ids become void. Noises are fast under `jax.jit`, and eager calls give the
same bits. `build` makes a noise from a config, and `python -m metaseg.noise` lists all
noises.
"""

from metaseg.noise.compose import (
    NOISES,
    Noise,
    NoiseFn,
    build,
    build_matrix,
    chain,
    choose,
    clean,
    only,
    per_example,
)
from metaseg.noise.objects import add, boxes, merge, omit, points, scribbles
from metaseg.noise.perturb import (
    coarsen,
    dilate,
    erode,
    markov,
    random_boundary,
    shift_pixels,
    skeletonize,
)
from metaseg.noise.polygons import jitter_vertices, simplify
from metaseg.noise.random_labels import constant, random, shuffle
from metaseg.noise.randomize import flip, sample, transition
from metaseg.noise.warp import affine, elastic, translate

__all__ = [
    "NOISES",
    "Noise",
    "NoiseFn",
    "add",
    "affine",
    "boxes",
    "build",
    "build_matrix",
    "chain",
    "choose",
    "clean",
    "coarsen",
    "constant",
    "dilate",
    "elastic",
    "erode",
    "flip",
    "jitter_vertices",
    "markov",
    "merge",
    "omit",
    "only",
    "per_example",
    "points",
    "random",
    "random_boundary",
    "sample",
    "scribbles",
    "shift_pixels",
    "shuffle",
    "simplify",
    "skeletonize",
    "transition",
    "translate",
]
