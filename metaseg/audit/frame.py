"""Label maps of any size on a few fixed shapes, so that few programs compile.

A map is padded with void at its lower and right end to the next bucket along each axis:
64, 96, 128, 192, 256, ... (powers of two and one and a half of them) up to 2048, then
multiples of 1024. Void counts for nothing, so padding changes no number. At most 33 %
of a padded side is padding. Imports `metaseg.labels`, `metaseg.checks` and
`metaseg.errors` only.
"""

from typing import NamedTuple

import numpy as np

from metaseg import checks
from metaseg.errors import InputError
from metaseg.labels import VOID

__all__ = ["Framed", "bucket", "framed"]

_SMALLEST, _LARGEST, _BEYOND = 64, 2048, 1024
_SHOWN = 16  # distinct wrong class ids that are kept


class Framed(NamedTuple):
    """A label map, padded, and what of it was no class id.

    Attributes:
      labels: uint8 `[H', W']`, ids `0..K-1` or void.
      size: rows and columns of the map itself, int32 `[2]`.
      wrong_ids: the lowest ids that are neither in `0..K-1` nor void, at most 16.
      wrong: pixels that hold such an id; they are void in `labels`.
    """

    labels: np.ndarray
    size: np.ndarray
    wrong_ids: tuple[int, ...]
    wrong: int


def bucket(size: int) -> int:
    """The length that a side of `size` pixels is padded to."""
    length = _SMALLEST
    while length < size and length < _LARGEST:
        # 64, 96, 128, 192, ...
        length = length * 3 // 2 if length & (length - 1) == 0 else length * 4 // 3
    return length if size <= length else -(-size // _BEYOND) * _BEYOND


def framed(labels: np.ndarray, num_classes: int, *, where: str = "labels") -> Framed:
    """Pad one label map to its bucket and void what is no class id.

    Args:
      labels: integer `[H, W]`.
      num_classes: K.
      where: the file or argument that a message names.

    Raises:
      InputError: not an integer array of two axes.
    """
    checks.num_classes("num_classes", num_classes)
    values = np.asarray(labels)
    if values.ndim != 2 or values.dtype.kind not in "iu" or 0 in values.shape:
        raise InputError(
            f"{where}: dtype {values.dtype}, shape {values.shape}, "
            "expected integer class ids [H, W]"
        )
    wrong = ((values < 0) | (values >= num_classes)) & (values != VOID)
    wrong_ids: tuple[int, ...] = ()
    if wrong.any():
        wrong_ids = tuple(int(i) for i in np.unique(values[wrong])[:_SHOWN])
    height, width = values.shape
    padded = np.full((bucket(height), bucket(width)), VOID, np.uint8)
    padded[:height, :width] = np.where(wrong, VOID, values)
    return Framed(padded, np.array(values.shape, np.int32), wrong_ids, int(wrong.sum()))
