"""Built-in images with exact masks, rendered by pure, seeded functions on device.

A family is a function `(key, *, height, width) -> (image, label)`. It imitates what
makes real images hard for a threshold; the label map is exact, being what was drawn.
"""

from metaseg.data.families import CLASS_NAMES, num_classes
from metaseg.data.synthetic.cells import cells
from metaseg.data.synthetic.network import network
from metaseg.data.synthetic.source import FAMILIES, blank, examples, load
from metaseg.data.synthetic.tissue import tissue
from metaseg.data.synthetic.tubes import tubes

__all__ = [
    "CLASS_NAMES",
    "FAMILIES",
    "blank",
    "cells",
    "examples",
    "load",
    "network",
    "num_classes",
    "tissue",
    "tubes",
]
