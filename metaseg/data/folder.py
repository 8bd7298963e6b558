"""A folder of images and labels, `DIR/{train,val,test}/{images,labels}/NAME.png`.

Host-side NumPy; imports no jax. Finds the pairs, reads them, and decodes the label maps
by the encoding that all of them share.
"""

import functools
import itertools
import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from tqdm import tqdm

from metaseg.data import (
    collect,
    image_files,
    label_encoding,
    label_files,
    normalize,
)
from metaseg.data.collect import Item
from metaseg.data.dataset import SPLITS, VOID, Dataset, Example, Split, stack_examples
from metaseg.data.file_options import DEFAULT, FileOptions
from metaseg.data.image_files import finding, some
from metaseg.data.image_files.finding import FilePairs
from metaseg.data.image_files.samples import shown
from metaseg.data.label_encoding import Survey
from metaseg.errors import InputError, escaped
from metaseg.text import count_of

__all__ = [
    "FilePair",
    "check",
    "common_channels",
    "load",
    "match_pairs",
    "unpaired",
]

ENDINGS = ", ".join(image_files.IMAGE_SUFFIXES)
PROGRESS_FROM = 200  # pairs; fewer take no time


class FilePair(NamedTuple):
    """The files of an example.

    Attributes:
      name: Name of the example: that of its image.
      image: The image.
      label: The label map; None in a split without labels.
    """

    name: str
    image: Item
    label: Item | None


class _Stored(NamedTuple):
    """A pair as stored; the last two are None without a label map."""

    image: np.ndarray
    values: np.ndarray | None
    survey: Survey | None


def load(
    config: Any, options: FileOptions = DEFAULT, *, need_labels: bool = True
) -> Dataset:
    """Reads a folder of images and labels.

    Grey and colour files may be mixed: then grey images are repeated into three
    channels in all splits. Images of different sizes are padded at the bottom and right
    to the largest height and width of the data set (image 0 after normalisation, label
    255). The validation and the test split may be missing, or have images alone, whose
    labels are void.

    Args:
      config: Has the attributes `dir`, `num_classes` (2 if missing), `normalize`,
        `mean` and `std`, see `normalize.build`.
      options: How the files are read.
      need_labels: Whether a training split without label maps is refused.

    Returns:
      The data set, named like its folder, each split sorted by name. Its notes say what
      was left out and how the labels are encoded.

    Raises:
      InputError: If a field, the layout or a file is wrong, or the encoding of the
        labels is not clear.
    """
    root, num_classes, normalizer = check(config)
    lines: dict[str, list[str]] = {split: [] for split in SPLITS}
    pairs = {s: _split_pairs(root, s, options, lines[s]) for s in SPLITS}
    notes = finding.describe_splits(lines)
    if need_labels and all(pair.label is None for pair in pairs["train"]):
        raise InputError(
            f"{shown(root / 'train')}: {count_of(len(pairs['train']), 'image')} without"
            " label maps; expected labels/NAME.* for images/NAME.*, or label maps"
            " beside the images whose names end with a suffix such as _mask"
        )
    every = list(itertools.chain(*pairs.values()))
    stored = _read_all(every, options)
    surveys = [
        (pair.label.where, one.survey)
        for pair, one in zip(every, stored, strict=True)
        if pair.label is not None and one.survey is not None
    ]
    encoding = None
    if surveys:
        encoding = label_encoding.recognise(
            surveys, options=options, num_classes=num_classes
        )
        num_classes = encoding.num_classes
        notes.append(encoding.describe())
    channels = common_channels(
        (pair.image.where, one.image.shape[-1])
        for pair, one in zip(every, stored, strict=True)
    )
    examples = iter(
        [_decoded(*pair, encoding) for pair in zip(every, stored, strict=True)]
    )
    size = np.max([one.image.shape for one in stored], axis=0).tolist()
    size = (*size[:2], channels)

    def stack(split: str) -> Split:
        names = [pair.name for pair in pairs[split]]
        own = list(itertools.islice(examples, len(names)))
        return stack_examples(split, names, own, size=size, normalizer=normalizer)

    return Dataset(
        name=escaped(root.name),
        train=stack("train"),
        val=stack("val"),
        test=stack("test"),
        num_classes=num_classes,
        class_names=None if encoding is None else encoding.class_names(),
        channel_names=channel_names(every[0].image, options, channels),
        files=options,
        notes=tuple(notes),
    )


def match_pairs(
    folder: Path, options: FileOptions = DEFAULT, *, notes: list[str] | None = None
) -> list[FilePair]:
    """Pairs the images and label maps of one split by name.

    They are in `folder/images` and `folder/labels`, or both in `folder`, where a suffix
    tells them apart. Sub-folders are searched too; `finding` says which files count.

    Args:
      folder: Folder of one split.
      options: Suffixes, and the page to take.
      notes: Gets lines on what was left out and on the suffix of names.

    Returns:
      Pairs sorted by name, at least one. Without label maps (no folder `labels`, or one
      without files) no pair has a label.

    Raises:
      InputError: If a folder is missing or empty, two files of one folder share a
        name, or some files have no partner.
    """
    images, labels = finding.split_folders(folder)
    found = finding.pair(images, labels, options=options)
    if notes is not None:
        notes.append(finding.describe_suffix(found.suffix))
        notes.append(finding.describe_left_out(found.left_out))
    if found.problems:
        raise InputError(found.problems[0])
    if found.no_label and not found.both and not found.no_image:
        return _without_labels(found.no_label, options)
    if found.no_label or found.no_image:
        raise InputError(f"{shown(folder)}: {unpaired(found)}")
    if not found.both:
        left_out = finding.describe_left_out(found.left_out)
        raise InputError(
            f"{shown(images)}: no image"
            + (f" ({left_out})" if left_out else "")
            + f"; expected {ENDINGS}"
        )
    items = collect.find_pairs(found, options)
    return [FilePair(image.name, image, label) for image, label in items]


def unpaired(found: FilePairs) -> str:
    """Says which files have no partner, and which option would pair them.

    Args:
      found: Files of one split, some of them without a partner.

    Returns:
      Text such as "2 images without a label map (a.png, b.png); expected ...".
    """
    alone = [
        f"{count_of(len(files), noun)} without {other}"
        f" ({some([escaped(path.name) for path in files.values()])})"
        for files, noun, other in (
            (found.no_label, "image", "a label map"),
            (found.no_image, "label map", "an image"),
        )
        if files
    ]
    return (
        f"{' and '.join(alone)}; expected an image and a label map of each name"
        + finding.hint(found.no_label, found.no_image)
    )


def _without_labels(files: Mapping[str, Path], options: FileOptions) -> list[FilePair]:
    return [
        FilePair(item.name, item, None)
        for name, path in sorted(files.items())
        for item in collect.pages(path, name, options.page)
    ]


def _split_pairs(
    root: Path, split: str, options: FileOptions, notes: list[str]
) -> list[FilePair]:
    """Pairs of a split; none if it is missing, unless it is the training split."""
    if split != "train" and not (root / split).exists():
        return []
    return match_pairs(root / split, options, notes=notes)


def check(config: Any) -> tuple[Path, int, normalize.Normalizer]:
    """Checks the fields of a config before anything is read.

    Args:
      config: As for `load`.

    Returns:
      The folder, the number of classes, and how images are normalised.

    Raises:
      InputError: If a field is wrong, or there is no such folder.
    """
    folder = getattr(config, "dir", None)
    if not folder:
        raise InputError(
            "data.dir: not given; expected a folder with train, val and test,"
            " each with images and labels"
        )
    root = Path(os.path.abspath(Path(folder).expanduser()))
    if not root.is_dir():
        found = "is not a folder" if root.exists() else "does not exist"
        raise InputError(f"data.dir: {root} {found}; expected a folder")
    num_classes = getattr(config, "num_classes", 2)
    whole = isinstance(num_classes, int | np.integer)
    if not whole or not 2 <= num_classes <= VOID:
        raise InputError(
            f"data.num_classes: got {num_classes!r}, expected an integer in 2..{VOID}"
        )
    return root, int(num_classes), normalize.of_config(config)


def _read(pair: FilePair, options: FileOptions) -> _Stored | InputError:
    """Reads a pair as stored."""
    try:
        image = collect.read_image(pair.image, options)
        if pair.label is None:
            return _Stored(image, None, None)
        values = label_files.read_values(pair.label, options=options)
        if image.shape[:2] != values.shape[:2]:
            raise InputError(
                f"{pair.label.where}: {_size(values)} (height x width); expected"
                f" {_size(image)}, the size of its image {pair.image.where}"
            )
        return _Stored(image, values, label_encoding.survey(values, options=options))
    except InputError as error:
        return error


def _read_all(pairs: Sequence[FilePair], options: FileOptions) -> list[_Stored]:
    """Reads all pairs; the first error also says how many others there are."""
    read, errors = [], []
    quiet = len(pairs) <= PROGRESS_FROM or not sys.stderr.isatty()
    workers = min(8, os.cpu_count() or 1)
    with ThreadPoolExecutor(workers) as pool:
        for result in tqdm(
            pool.map(functools.partial(_read, options=options), pairs),
            desc="reading images",
            total=len(pairs),
            unit="pair",
            leave=False,
            disable=quiet,
        ):
            if isinstance(result, InputError):
                errors.append(result)
            else:
                read.append(result)
    if errors:
        more = len(errors) - 1
        raise InputError(
            f"{errors[0]}" + (f" (and {count_of(more, 'more file')})" * bool(more))
        )
    return read


def _decoded(
    pair: FilePair, stored: _Stored, encoding: label_encoding.Encoding | None
) -> Example:
    if pair.label is None or stored.values is None or encoding is None:
        return stored.image, np.full(stored.image.shape[:2], VOID, np.uint8)
    where = pair.label.where
    return stored.image, label_encoding.decode(stored.values, encoding, where=where)


def common_channels(images: Iterable[tuple[str, int]]) -> int:
    """Returns the number of channels that all images of a data set get.

    Args:
      images: Name and number of channels of each image.

    Returns:
      The number; 3 if some images are grey and the others have three channels.

    Raises:
      InputError: If images have different numbers of channels otherwise; names two.
    """
    first: dict[int, str] = {}
    for where, channels in images:
        first.setdefault(channels, where)
    numbers = sorted(first)
    if numbers in ([1, 3], numbers[:1]):
        return numbers[-1]
    few, many = numbers[0], numbers[-1]
    raise InputError(
        f"{first[few]}: {count_of(few, 'channel')}, but {first[many]} has {many}; "
        "expected the same number in all images, or a choice, such as `channels=0`"
    )


def channel_names(
    item: Item, options: FileOptions, channels: int
) -> tuple[str, ...] | None:
    """Returns the names of the channels that were taken of an image, or None.

    Args:
      item: The image.
      options: Channels that were taken.
      channels: Their number.
    """
    if item.path is None:
        return None
    names = image_files.channel_names(item.path, page=item.page)
    if names and options.channels is not None:
        names = tuple(c if isinstance(c, str) else names[c] for c in options.channels)
    return names if names and len(names) == channels else None


def _size(array: np.ndarray) -> str:
    return f"{array.shape[0]} x {array.shape[1]}"
