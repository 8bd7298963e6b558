"""A data set: three splits with images, labels, names and ids of examples.

Host-side NumPy; imports no jax, so that reading files needs no device.
"""

import dataclasses
import zlib
from collections.abc import Iterator, Sequence
from typing import Protocol

import numpy as np

from metaseg.data.file_options import DEFAULT, FileOptions
from metaseg.data.normalize import Normalizer

__all__ = [
    "SPLITS",
    "VOID",
    "Dataset",
    "Example",
    "Examples",
    "Split",
    "example_ids",
    "stack_examples",
]

SPLITS = ("train", "val", "test")
VOID = 255  # that of `labels`, which imports jax
Shape = tuple[int, int, int]
Example = tuple[np.ndarray, np.ndarray]  # image [h, w, C] as stored, labels [h, w]


class Examples(Protocol):
    """A split, in memory or on disk."""

    def __len__(self) -> int:
        """Returns the number of examples N."""

    @property
    def ids(self) -> np.ndarray:
        """uint32 `[N]`; an example's noise depends on this id and on nothing else."""

    @property
    def names(self) -> tuple[str, ...]:
        """N names that the user knows, such as file names without their endings."""

    @property
    def valid_size(self) -> np.ndarray:
        """int32 `[N, 2]`, height and width before padding."""

    @property
    def shape(self) -> Shape:
        """Height, width and channels of every example, padding included."""

    def take(self, rows: Sequence[int] | np.ndarray) -> "Split":
        """Returns the examples of some rows, in memory, in the order of `rows`."""


@dataclasses.dataclass(frozen=True)
class Split:
    """Examples in memory, padded to one size.

    Attributes:
      images: float32 `[N, H, W, C]`, normalised; zeros where padded.
      labels: uint8 `[N, H, W]` class ids; 255 (void) where padded or not labelled.
      ids: uint32 `[N]`; an example's noise depends on this id and on nothing else.
      names: N names that the user knows, such as file names without their endings.
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
        """Returns the examples of some rows, in the order of `rows`."""
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
    """A data set: three splits with one list of classes.

    Attributes:
      name: Name, for reports.
      train: Training split.
      val: Validation split.
      test: Test split.
      num_classes: Number of classes K.
      class_names: K names, or None.
      channel_names: Names of the channels of images, or None.
      files: How the files were read.
      notes: Lines on what was found and left out, for the user.
    """

    name: str
    train: Examples
    val: Examples
    test: Examples
    num_classes: int
    class_names: tuple[str, ...] | None = None
    channel_names: tuple[str, ...] | None = None
    files: FileOptions = DEFAULT
    notes: tuple[str, ...] = ()

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


def stack_examples(
    split: str,
    names: Sequence[str],
    examples: Sequence[Example],
    *,
    size: Sequence[int],
    normalizer: Normalizer,
) -> Split:
    """Normalises examples and pads them to one size.

    Args:
      split: Name of the split, from which ids follow.
      names: Names of the examples.
      examples: Images `[h, w, C]` as stored, with C = 1 or the channels of `size`, and
        labels uint8 `[h, w]`.
      size: Height, width and channels of the result, no smaller than any image.
      normalizer: Normalisation of the images.

    Returns:
      The split, with images 0 and labels 255 where padded.
    """
    height, width, _ = size
    images = np.zeros((len(names), *size), np.float32)
    labels = np.full((len(names), height, width), VOID, np.uint8)
    valid_size = np.array([label.shape for _, label in examples], np.int32)
    for i, (image, label) in enumerate(examples):
        h, w = label.shape
        images[i, :h, :w] = normalizer(image)(image)
        labels[i, :h, :w] = label
    ids = example_ids(split, names)
    return Split(images, labels, ids, tuple(names), valid_size.reshape(-1, 2))
