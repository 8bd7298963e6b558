"""Pads label maps to a few fixed shapes, so that few programs are compiled.

A map is padded with void at its lower and right border to the next bucket size of each
axis: 64, 96, 128, 192, 256, ... (powers of two, and 1.5 times these) up to 2048, then
multiples of 1024. No measure counts void, so padding changes no number. At most 33 % of
a padded side is padding. May import `labels`, `checks`, `errors` and `typing`.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Integer

from metaseg import checks
from metaseg.errors import InputError
from metaseg.labels import VOID, is_void
from metaseg.typing import AnyArray

__all__ = ["Framed", "bucket", "framed"]

_SMALLEST, _LARGEST, _BEYOND = 64, 2048, 1024
_SHOWN = 16  # distinct wrong class ids that are kept


class Framed(NamedTuple):
    """A padded label map.

    Attributes:
      labels: uint8 `[H', W']`, class ids 0 to K - 1 or void.
      size: Rows and columns before padding, int32 `[2]`.
      wrong_ids: Ids that are neither a class nor void; the lowest 16.
      wrong: Number of pixels with such an id. They are void in `labels`.
    """

    labels: np.ndarray
    size: np.ndarray
    wrong_ids: tuple[int, ...]
    wrong: int


def bucket(size: int) -> int:
    """Returns the length of a side after padding.

    Args:
      size: Length of the side in pixels.

    Returns:
      Smallest bucket size that is not below `size`, in pixels.

    Example:
      >>> [bucket(size) for size in (1, 64, 65, 97, 2049)]
      [64, 64, 96, 128, 3072]
    """
    length = _SMALLEST
    while length < size and length < _LARGEST:
        # 64, 96, 128, 192, ...
        length = length * 3 // 2 if length & (length - 1) == 0 else length * 4 // 3
    return length if size <= length else -(-size // _BEYOND) * _BEYOND


def framed(
    labels: Integer[AnyArray, "H W"], num_classes: int, *, where: str = "labels"
) -> Framed:
    """Pads one label map to its bucket and replaces wrong class ids by void.

    Args:
      labels: Integer class ids `[H, W]`; 255 and negative numbers are void.
      num_classes: Number of classes K, at most 255.
      where: Name of the file or argument in error messages.

    Returns:
      The padded map and its wrong ids.

    Raises:
      InputError: If `labels` is not an integer array of two axes, or is empty.
    """
    checks.num_classes("num_classes", num_classes)
    values = np.asarray(labels)
    if values.ndim != 2 or values.dtype.kind not in "iu" or 0 in values.shape:
        raise InputError(
            f"{where}: dtype {values.dtype}, shape {values.shape}, "
            "expected integer class ids [H, W]"
        )
    void = is_void(values, num_classes)
    wrong = (values >= num_classes) & (values != VOID)
    wrong_ids: tuple[int, ...] = ()
    if wrong.any():
        wrong_ids = tuple(int(i) for i in np.unique(values[wrong])[:_SHOWN])
    height, width = values.shape
    padded = np.full((bucket(height), bucket(width)), VOID, np.uint8)
    padded[:height, :width] = np.where(void, VOID, values)
    return Framed(padded, np.array(values.shape, np.int32), wrong_ids, int(wrong.sum()))
