"""Binary morphology on device, on boolean masks `[..., H, W]`.

Every function is pure and has static shapes. Leading axes are a batch. Results have the
same bits whether a function is called eagerly, under `jax.jit` or under `jax.vmap`.
May import `labels`, `checks`, `errors` and `typing`.
"""

from metaseg.morphology.components import components, fill_holes, roots
from metaseg.morphology.distance import distance
from metaseg.morphology.footprint import (
    SHAPES,
    closing,
    dilate,
    erode,
    maximum,
    opening,
)
from metaseg.morphology.skeleton import skeletonize, skeletonize_classes

__all__ = [
    "SHAPES",
    "closing",
    "components",
    "dilate",
    "distance",
    "erode",
    "fill_holes",
    "maximum",
    "opening",
    "roots",
    "skeletonize",
    "skeletonize_classes",
]
