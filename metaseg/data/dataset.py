"""What every data source hands over: three splits of images, labels, names and ids.

Host-side NumPy; imports no jax, so that reading files needs no device.
"""

import dataclasses
import zlib
from collections.abc import Iterator, Sequence

import numpy as np

__all__ = ["Dataset", "Split", "example_ids"]


@dataclasses.dataclass(frozen=True)
class Split:
    """Examples of one split, padded to one size.

    Attributes:
      images: float32 `[N, H, W, C]`, standardised; zeros where padded.
      labels: uint8 `[N, H, W]` class ids; 255 (void) where padded or not labelled.
      ids: uint32 `[N]`; an example's noise depends on this id and on nothing else.
      names: `N` names as a user knows them (file names without their ending).
      sizes: int32 `[N, 2]`, height and width before padding.
    """

    images: np.ndarray
    labels: np.ndarray
    ids: np.ndarray
    names: tuple[str, ...]
    sizes: np.ndarray

    def __len__(self) -> int:
        return len(self.ids)


@dataclasses.dataclass(frozen=True)
class Dataset:
    """A named data set: `train`, `val` and `test` with one label vocabulary."""

    name: str
    train: Split
    val: Split
    test: Split
    num_classes: int
    class_names: tuple[str, ...] | None = None

    def splits(self) -> Iterator[tuple[str, Split]]:
        """Yields `(name, split)` for train, val and test."""
        yield from (("train", self.train), ("val", self.val), ("test", self.test))

    @property
    def channels(self) -> int:
        """Channels of every image."""
        return self.train.images.shape[-1]


def example_ids(split: str, names: Sequence[str]) -> np.ndarray:
    """Ids that follow from an example's name alone, so that adding files moves none.

    Args:
      split: name of the split; the same file name in two splits gets two ids.
      names: names of the examples.

    Returns:
      uint32 `[len(names)]`, CRC-32 of `split/name`.
    """
    return np.array([zlib.crc32(f"{split}/{n}".encode()) for n in names], np.uint32)
