"""What every data source hands over: three splits of images, labels, names and ids.

Host-side NumPy; imports no jax, so that reading files needs no device.
"""

import dataclasses
import zlib
from collections.abc import Iterator, Sequence
from typing import Protocol

import numpy as np

__all__ = ["SPLITS", "VOID", "Dataset", "Examples", "Split", "example_ids"]

SPLITS = ("train", "val", "test")
VOID = 255  # that of `labels`, which imports jax
Shape = tuple[int, int, int]


class Examples(Protocol):
    """What any split offers, whether it lies in memory or on disk."""

    def __len__(self) -> int:
        """The number of examples, N."""

    @property
    def ids(self) -> np.ndarray:
        """uint32 `[N]`; an example's noise depends on this id and on nothing else."""

    @property
    def names(self) -> tuple[str, ...]:
        """`N` names as a user knows them (file names without their ending)."""

    @property
    def valid_size(self) -> np.ndarray:
        """int32 `[N, 2]`, height and width before padding."""

    @property
    def shape(self) -> Shape:
        """Height, width and channels of every example, padding included."""

    def take(self, rows: Sequence[int] | np.ndarray) -> "Split":
        """The examples of some rows, in memory, in the order of `rows`."""


@dataclasses.dataclass(frozen=True)
class Split:
    """Examples in memory, padded to one size.

    Attributes:
      images: float32 `[N, H, W, C]`, standardised; zeros where padded.
      labels: uint8 `[N, H, W]` class ids; 255 (void) where padded or not labelled.
      ids: uint32 `[N]`; an example's noise depends on this id and on nothing else.
      names: `N` names as a user knows them (file names without their ending).
      valid_size: int32 `[N, 2]`, height and width before padding.
    """

    images: np.ndarray
    labels: np.ndarray
    ids: np.ndarray
    names: tuple[str, ...]
    valid_size: np.ndarray

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def shape(self) -> Shape:
        """Height, width and channels of every example, padding included."""
        return self.images.shape[1:]

    def take(self, rows: Sequence[int] | np.ndarray) -> "Split":
        """The examples of some rows, in the order of `rows`."""
        rows = np.asarray(rows)
        return Split(
            self.images[rows],
            self.labels[rows],
            self.ids[rows],
            tuple(self.names[i] for i in rows),
            self.valid_size[rows],
        )


@dataclasses.dataclass(frozen=True)
class Dataset:
    """A named data set: `train`, `val` and `test` with one label vocabulary."""

    name: str
    train: Examples
    val: Examples
    test: Examples
    num_classes: int
    class_names: tuple[str, ...] | None = None

    def splits(self) -> Iterator[tuple[str, Examples]]:
        """Yields `(name, split)` for train, val and test."""
        yield from (("train", self.train), ("val", self.val), ("test", self.test))

    @property
    def channels(self) -> int:
        """Channels of every image."""
        return self.train.shape[-1]


def example_ids(split: str, names: Sequence[str]) -> np.ndarray:
    """Ids that follow from an example's name alone, so that adding files moves none.

    Args:
      split: name of the split; the same file name in two splits gets two ids.
      names: names of the examples.

    Returns:
      uint32 `[len(names)]`, CRC-32 of `split/name`.
    """
    return np.array([zlib.crc32(f"{split}/{n}".encode()) for n in names], np.uint32)
