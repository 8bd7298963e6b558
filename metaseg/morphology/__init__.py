"""Binary morphology on device, on boolean masks `[..., H, W]`.

Every function is pure, has static shapes, treats leading axes as a batch, gives the
same bits eager, jitted and vmapped, and never calls the host. May import `checks`
and `errors`.
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
