"""Images without their labels: a label that must not be read does not travel along."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from metaseg.data.dataset import Examples, Split
from metaseg.errors import InputError
from metaseg.text import count_of

__all__ = ["Images", "images_of", "in_batches", "labels_of"]


class Images(NamedTuple):
    """Images without labels, padded to one size.

    Attributes:
      pixels: float32 `[N, H, W, C]`.
      valid: bool `[N, H, W]`, false where padded.
      ids: uint32 `[N]`.
      valid_size: int32 `[N, 2]`, height and width before padding.
    """

    pixels: Any
    valid: Any
    ids: Any
    valid_size: Any


def images_of(split: Examples) -> Images:
    """Returns the images of a split, without reading its labels.

    Args:
      split: Examples in memory.

    Raises:
      InputError: If the examples are not in memory.
    """
    split = _in_memory(split)
    height, width = split.images.shape[1:3]
    rows = np.arange(height)[None, :, None] < split.valid_size[:, 0, None, None]
    columns = np.arange(width)[None, None, :] < split.valid_size[:, 1, None, None]
    return Images(split.images, rows & columns, split.ids, split.valid_size)


def labels_of(split: Examples) -> np.ndarray:
    """Returns the labels of a split; no other function of iGTT reads labels.

    Args:
      split: Examples in memory.

    Returns:
      uint8 `[N, H, W]`.

    Raises:
      InputError: If the examples are not in memory.
    """
    return _in_memory(split).labels


def _in_memory(split: Examples) -> Split:
    if isinstance(split, Split):
        return split
    raise InputError(
        f"config.data.memory_gb: too little for {count_of(len(split), 'image')}; "
        "expected more, because iGTT keeps all images in memory"
    )


def in_batches(images: Images, size: int) -> Iterator[Images]:
    """Yields batches of one size in order; the last image fills up the last batch.

    Args:
      images: All images.
      size: Number of images in a batch.
    """
    count = len(images.ids)
    for first in range(0, count, size):
        rows = np.minimum(np.arange(first, first + size), count - 1)
        yield Images(*(x[rows] for x in images))
