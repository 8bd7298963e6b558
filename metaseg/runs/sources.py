"""Data sources by name: built-in families, folders, prepared data sets, plug-ins.

Imports no jax before images are rendered.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from ml_collections import ConfigDict

import metaseg.data as data_lib
from metaseg import registry
from metaseg.data import (
    collect,
    families,
    file_options,
    folder,
    label_encoding,
    normalize,
    prepared,
)
from metaseg.data.dataset import VOID, Dataset, stack_examples
from metaseg.data.file_options import FileOptions
from metaseg.errors import InputError, escaped, prefixed
from metaseg.text import count_of

__all__ = [
    "IMAGES",
    "SOURCES",
    "blank",
    "check",
    "check_files",
    "check_folder",
    "check_window",
    "load",
    "load_images",
    "window",
]

IMAGES = "images"  # config.data.name of a folder of images without labels, for iGTT


FOLDER = "folder"


def _rendered(config: Any) -> Dataset:
    return data_lib.synthetic.load(config)


# A source takes `config.data` and returns a data set. A plug-in is given in a config by
# its "package.module:name".
SOURCES: dict[str, Callable[[Any], Dataset]] = {
    FOLDER: folder.load,
    "prepared": prepared.load,
    **dict.fromkeys(families.CLASS_NAMES, _rendered),
}


def check_files(config: ConfigDict) -> None:
    """Checks `config.files` before anything is read.

    Args:
      config: Settings of a run.

    Raises:
      InputError: If a field is wrong, or the source has no files of its own.
    """
    with prefixed("files.", *FileOptions._fields):
        options = file_options.of_config(config.files)
        label_encoding.check(options)
    name = config.data.name
    if name in SOURCES and name != FOLDER:
        with prefixed("files.", *FileOptions._fields):
            _refuse_files(options, name)


def _refuse_files(options: FileOptions, name: str) -> None:
    """Refuses options for files of a data set that has none to read."""
    for field, value in file_options.changed(options).items():
        what = "it has no files" if name in families.CLASS_NAMES else "it is prepared"
        raise InputError(
            f"{field}: got {value!r} for '{name}', expected nothing: {what}"
            + "; `metaseg prepare` takes this option" * (what == "it is prepared")
        )


def check(config: ConfigDict) -> None:
    """Checks `config.data` before anything is read.

    Args:
      config: The section `data`.

    Raises:
      InputError: If the source is unknown, or a field does not suit it.
    """
    registry.lookup(config.name, SOURCES, field="data.name")
    if config.name in families.CLASS_NAMES:
        num_classes = families.num_classes(config.name)
        if config.num_classes != num_classes:
            raise InputError(
                f"data.num_classes: got {config.num_classes}, expected {num_classes}, "
                f"the number of classes of '{config.name}'"
            )
    elif config.endless:
        raise InputError(
            f"data.endless: got True, but '{config.name}' has a fixed number of "
            "images; expected False, or a built-in family: "
            + ", ".join(sorted(families.CLASS_NAMES))
        )


def check_folder(config: ConfigDict) -> None:
    """Checks that the folder with the data of a run is there.

    Args:
      config: Settings of a run.

    Raises:
      InputError: If there is no such folder, or it holds no such data set.
    """
    c = config.data
    if c.name == IMAGES:
        _check_images(c)
    if c.name not in (FOLDER, "prepared"):
        return
    with (
        prefixed("config.", "data"),
        prefixed("config.data.", "num_classes", "mean", "std"),
    ):
        if c.name == FOLDER and not _is_prepared(c):
            folder.check(c)
        else:
            prepared.check(c)


def _is_prepared(c: ConfigDict) -> bool:
    """Returns whether prepare has made a data set of a folder."""
    return bool(c.dir and c.dataset and prepared.find(Path(c.dir), c.dataset))


def _check_images(c: ConfigDict) -> None:
    if not c.dir or not Path(c.dir).expanduser().is_dir():
        raise InputError(
            f"config.data.dir: no folder '{c.dir}', expected a folder of images"
        )


def load(config: ConfigDict, *, need_labels: bool = True) -> Dataset:
    """Loads the data set that a config names.

    Args:
      config: Checked settings of a run.
      need_labels: Whether a folder without labels of training images is refused.

    Returns:
      The data set.

    Raises:
      InputError: If a field or a file is wrong.
    """
    source = registry.lookup(config.data.name, SOURCES, field="config.data.name")
    c = config.data
    options = file_options.of_config(config.files)
    with (
        prefixed("config.", "data"),
        prefixed("config.files.", *FileOptions._fields),
        prefixed("config.data.", "num_classes", "mean", "std"),
    ):
        if c.name != FOLDER:
            data = source(c)
        elif _is_prepared(c):
            _refuse_files(options, c.dataset)
            data = prepared.load(c)  # what prepare made of a folder
        else:
            data = folder.load(c, options, need_labels=need_labels)
    if not isinstance(data, Dataset):
        raise InputError(
            f"config.data.name: got {config.data.name!r}, which returned a "
            f"{type(data).__name__}; expected a metaseg.data.dataset.Dataset"
        )
    return data


def blank(config: ConfigDict) -> Dataset | None:
    """Returns the data set that a config names with images and labels of zeros.

    Args:
      config: Checked settings of a run.

    Returns:
      The data set; None if its sizes are not known before it is loaded.

    Raises:
      InputError: If a field is wrong.
    """
    if config.data.name not in families.CLASS_NAMES:
        return None
    with prefixed("config.", "data"):
        return data_lib.synthetic.blank(config.data)


def load_images(config: ConfigDict, exclude: Path | None = None) -> Dataset:
    """Loads a folder of images without labels, to train on and to segment.

    Args:
      config: Checked settings of a run of iGTT; `config.data.dir` is the folder.
      exclude: Folder of results, whose images are left out.

    Returns:
      A data set with the images as training and test split and void labels.

    Raises:
      InputError: If the folder has no image, an image cannot be read, or the images
        need more memory than `config.data.memory_gb`.
    """
    c = config.data
    _check_images(c)
    with prefixed("config."):
        normalizer = normalize.of_config(c)
    options = file_options.of_config(config.files)
    notes: list[str] = []
    with prefixed("config.files.", *FileOptions._fields):
        items = collect.find(
            c.dir,
            field="config.data.dir",
            exclude=exclude,
            options=options,
            say=notes.append,
        )
        loaded = list(collect.stream(items, options))
        bad = [one.error for one in loaded if one.error]
        if bad:
            more = len(bad) - 1
            others = f" (and {count_of(more, 'more file')})" * bool(more)
            raise InputError(bad[0] + others)
        read = [one.content for one in loaded if one.content is not None]
        channels = folder.common_channels(
            (item.where, image.shape[-1])
            for item, image in zip(items, read, strict=True)
        )
    size = [*np.max([image.shape[:2] for image in read], axis=0).tolist(), channels]
    gigabytes = len(read) * size[0] * size[1] * (4 * size[2] + 1) / 1e9
    if gigabytes > c.memory_gb:
        raise InputError(
            f"config.data.memory_gb: got {c.memory_gb}, but "
            f"{count_of(len(read), 'image')} of up to {size[0]} x {size[1]} take "
            f"{gigabytes:.2f}; expected as much"
        )
    names = [item.name for item in items]
    void = [(image, np.full(image.shape[:2], VOID, np.uint8)) for image in read]
    every = stack_examples("train", names, void, size=size, normalizer=normalizer)
    return Dataset(
        escaped(Path(c.dir).expanduser().resolve().name),
        train=every,
        val=every.take(np.arange(0)),
        test=every,
        num_classes=2,
        channel_names=folder.channel_names(items[0], options, channels),
        files=options,
        notes=tuple(notes),
    )


def check_window(config: ConfigDict, data: Dataset) -> None:
    """Checks that the training images are as large as the crop.

    Args:
      config: Settings of a run.
      data: Its data set.

    Raises:
      InputError: If an image is smaller than the crop, or the windows are not square
        and are to be rotated by 90 degrees.
    """
    crop = config.augment.crop
    small = np.flatnonzero((data.train.valid_size < crop).any(axis=1))
    if crop and len(small):
        height, width = data.train.valid_size[small[0]]
        raise InputError(
            f"augment.crop: training image '{data.train.names[small[0]]}' is "
            f"{height} x {width}, smaller than the crop of {crop} x {crop}; expected a "
            "smaller crop, or 0 for whole images"
        )
    shape = window(config, data)
    if config.augment.rot90 and shape[0] != shape[1]:
        raise InputError(
            f"augment.rot90: got True with windows of {shape[0]} x {shape[1]}, "
            "expected square ones: augment.crop > 0, or augment.rot90 False"
        )


def window(config: ConfigDict, data: Dataset) -> tuple[int, int]:
    """Returns height and width in pixels of the images that the network trains on.

    Args:
      config: Settings of a run.
      data: Its data set.
    """
    crop = config.augment.crop
    return (crop, crop) if crop else data.train.shape[:2]
