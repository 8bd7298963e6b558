"""What iGTT is given: images, and truth that is looked at only to measure.

Images travel without their labels, so that a label that must not be read cannot be.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from ml_collections import ConfigDict

from metaseg.data import collect, normalize
from metaseg.data.dataset import VOID, Dataset, Examples, Split, stack_examples
from metaseg.errors import InputError, prefixed
from metaseg.runs.train import run as train

__all__ = [
    "IMAGES",
    "LABELS",
    "Images",
    "check",
    "images_of",
    "in_batches",
    "labels_of",
    "load",
]

IMAGES = "images"  # config.data.name of a folder without labels
LABELS = ("none", "measure", "choose")


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
    """The images of a split; its labels are not touched.

    Raises:
      InputError: they do not lie in memory.
    """
    split = _in_memory(split)
    height, width = split.images.shape[1:3]
    rows = np.arange(height)[None, :, None] < split.valid_size[:, 0, None, None]
    columns = np.arange(width)[None, None, :] < split.valid_size[:, 1, None, None]
    return Images(split.images, rows & columns, split.ids, split.valid_size)


def labels_of(split: Examples) -> np.ndarray:
    """The labels of a split, which nothing else of iGTT reads.

    Raises:
      InputError: they do not lie in memory.
    """
    return _in_memory(split).labels


def _in_memory(split: Examples) -> Split:
    if isinstance(split, Split):
        return split
    raise InputError(
        f"config.data.memory_gb: the {len(split)} images do not fit in it; expected "
        "more, as iGTT keeps them in memory"
    )


def in_batches(images: Images, size: int) -> Iterator[Images]:
    """Batches of one size in order, the last one filled up with the last image."""
    count = len(images.ids)
    for first in range(0, count, size):
        rows = np.minimum(np.arange(first, first + size), count - 1)
        yield Images(*(x[rows] for x in images))


def check(config: ConfigDict) -> None:
    """Raises InputError for data that cannot be segmented in two."""
    if config.data.name != IMAGES:
        train.check_source(config)
    elif config.igtt.labels != "none":
        raise InputError(
            f"config.igtt.labels: got '{config.igtt.labels}', but a folder of images "
            "alone has none; expected 'none'"
        )
    if config.data.num_classes != 2:
        raise InputError(
            f"config.data.num_classes: got {config.data.num_classes}, expected 2: iGTT "
            "tells foreground from background"
        )
    if config.data.endless:
        raise InputError(
            "config.data.endless: got True, expected False: images come again with the "
            "labels of the round before"
        )


def load(config: ConfigDict, workdir: Path) -> Dataset:
    """The data set, or a folder of images as one whose labels are void.

    Raises:
      InputError: a wrong field or file, or images too small for the crop.
    """
    if config.data.name != IMAGES:
        return train.load_data(config)
    images = _load_images(config, workdir)
    train.check_window(config, images)
    return images


def _load_images(config: ConfigDict, workdir: Path) -> Dataset:
    """Every image of the folder, to train on and to segment."""
    c = config.data
    if not c.dir or not Path(c.dir).expanduser().is_dir():
        raise InputError(
            f"config.data.dir: no folder '{c.dir}', expected a folder of images"
        )
    with prefixed("config."):
        normalizer = normalize.of_config(c)
    items = collect.find(c.dir, field="config.data.dir", exclude=workdir)
    loaded = list(collect.stream(items, None))
    bad = [one.error for one in loaded if one.error]
    if bad:
        more = len(bad) - 1
        others = f" (and {more} more file{'s' * (more > 1)})" * bool(more)
        raise InputError(bad[0] + others)
    read = [one.content for one in loaded if one.content is not None]
    size = np.max([image.shape for image in read], axis=0).tolist()
    gigabytes = len(read) * size[0] * size[1] * (4 * size[2] + 1) / 1e9
    if gigabytes > c.memory_gb:
        raise InputError(
            f"config.data.memory_gb: got {c.memory_gb}, but {len(read)} images of up "
            f"to {size[0]} x {size[1]} need {gigabytes:.2f}; expected as much"
        )
    names = [item.name for item in items]
    void = [(image, np.full(image.shape[:2], VOID, np.uint8)) for image in read]
    every = stack_examples("train", names, void, size, normalizer)
    name = Path(c.dir).expanduser().resolve().name
    return Dataset(name, every, every.take(np.arange(0)), every, num_classes=2)
