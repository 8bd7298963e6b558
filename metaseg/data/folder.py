"""A folder of images and labels, `DIR/{train,val,test}/{images,labels}/NAME.png`.

Host-side NumPy; imports no jax. Finds the pairs and reads them with `image_files`.
"""

import itertools
import os
import sys
import unicodedata
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from tqdm import tqdm

from metaseg.data import image_files, normalize
from metaseg.data.dataset import SPLITS, VOID, Dataset, Example, Split, stack_examples
from metaseg.data.image_files import some
from metaseg.errors import InputError

__all__ = ["FilePair", "load", "match_pairs"]

SUFFIXES = image_files.IMAGE_SUFFIXES  # labels too: a JPEG is refused with the reason
ENDINGS = ", ".join(SUFFIXES)
PROGRESS_FROM = 200  # pairs; fewer take no time


class FilePair(NamedTuple):
    """The two files of an example.

    Attributes:
      name: Name that the files share.
      image: File of the image.
      label: File of the label map.
    """

    name: str
    image: Path
    label: Path


def load(config: Any) -> Dataset:
    """Reads a folder of images and labels.

    Grey and colour files may be mixed: then grey images are repeated into three
    channels in all splits. Images of different sizes are padded at the bottom and right
    to the largest height and width of the data set (image 0 after normalisation, label
    255).

    Args:
      config: Has the attributes `dir`, `num_classes` (2 if missing), `normalize`,
        `mean` and `std`, see `normalize.build`.

    Returns:
      The data set, named like its folder, each split sorted by name. With two classes
      the foreground is 255 or 1, the same in all files; with more, 255 is void.

    Raises:
      InputError: If a field, the layout or a file is wrong.
    """
    root, num_classes, normalizer = _settings(config)
    pairs = {split: match_pairs(root / split) for split in SPLITS}
    every_pair = list(itertools.chain(*pairs.values()))
    examples = _read_all(every_pair, num_classes)
    if num_classes == 2:
        _check_one_foreground(every_pair, [label for _, label in examples])
        examples = [(image, (label > 0).astype(np.uint8)) for image, label in examples]
    size = np.max([image.shape for image, _ in examples], axis=0).tolist()
    example_of = dict(zip(every_pair, examples, strict=True))

    def stack(split: str) -> Split:
        own = [example_of[pair] for pair in pairs[split]]
        names = [pair.name for pair in pairs[split]]
        return stack_examples(split, names, own, size=size, normalizer=normalizer)

    return Dataset(
        name=root.name,
        train=stack("train"),
        val=stack("val"),
        test=stack("test"),
        num_classes=num_classes,
    )


def match_pairs(folder: Path) -> list[FilePair]:
    """Pairs the files of `folder/images` and `folder/labels` by name without ending.

    Hidden files, sub-folders and files with other endings are ignored.

    Args:
      folder: Folder of one split.

    Returns:
      Pairs sorted by name, at least one.

    Raises:
      InputError: If a folder is missing or empty, two files of one folder share a
        name, or a file has no partner.
    """
    images = _files_by_name(folder / "images")
    labels = _files_by_name(folder / "labels")
    unpaired = [
        f"{len(alone)} without a {other} of the same name ({some(alone)})"
        for alone, other in (
            ([images[name].name for name in sorted(images.keys() - labels)], "label"),
            ([labels[name].name for name in sorted(labels.keys() - images)], "image"),
        )
        if alone
    ]
    if unpaired:
        raise InputError(
            f"{folder}: {' and '.join(unpaired)}; expected labels/NAME"
            f" ({ENDINGS}) for each images/NAME and the reverse"
        )
    return [FilePair(name, images[name], labels[name]) for name in sorted(images)]


def _settings(config: Any) -> tuple[Path, int, normalize.Normalizer]:
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


def _files_by_name(folder: Path) -> dict[str, Path]:
    try:
        entries = sorted(folder.iterdir())
    except OSError as error:
        raise InputError(
            f"{folder}: {error.strerror}; expected a folder of {ENDINGS}"
        ) from error
    found: dict[str, Path] = {}
    for path in entries:
        hidden = path.name.startswith(".")
        if hidden or path.suffix.lower() not in SUFFIXES or path.is_dir():
            continue
        # macOS stores decomposed letters: one name, one id, on every system.
        name = unicodedata.normalize("NFC", path.stem)
        if name in found:
            raise InputError(
                f"{folder}: {found[name].name} and {path.name} have the same name;"
                " expected one file per name"
            )
        if any(unicodedata.category(letter) in ("Cc", "Cs") for letter in name):
            raise InputError(
                f"{folder}: file name {path.name!a}; expected printable letters"
            )
        found[name] = path
    if not found:
        others = f" among {some([p.name for p in entries])}" if entries else ""
        raise InputError(f"{folder}: no file of {ENDINGS}{others}")
    return found


def _read_all(pairs: Sequence[FilePair], num_classes: int) -> list[Example]:
    """Reads all pairs; the first error also says how many others there are."""

    def read(pair: FilePair) -> Example | InputError:
        try:
            image, label = (
                image_files.read_image(pair.image),
                image_files.read_label(pair.label, num_classes),
            )
            if image.shape[:2] != label.shape:
                raise InputError(
                    f"{pair.label}: {_size(label)} (height x width); expected"
                    f" {_size(image)}, the size of its image {pair.image.name}"
                )
        except InputError as error:
            return error
        return image, label

    examples, errors = [], []
    quiet = len(pairs) <= PROGRESS_FROM or not sys.stderr.isatty()
    workers = min(8, os.cpu_count() or 1)
    with ThreadPoolExecutor(workers) as pool:
        for result in tqdm(
            pool.map(read, pairs),
            desc="reading images",
            total=len(pairs),
            unit="pair",
            leave=False,
            disable=quiet,
        ):
            if isinstance(result, InputError):
                errors.append(result)
            else:
                examples.append(result)
    if errors:
        more = len(errors) - 1
        noun = "file" if more == 1 else "files"
        raise InputError(f"{errors[0]}" + (f" (and {more} more {noun})" * bool(more)))
    return examples


def _check_one_foreground(
    pairs: Sequence[FilePair], labels: Sequence[np.ndarray]
) -> None:
    """Refuses 255 in one file and 1 in another: 255 could be foreground or void."""
    with_one = [p.label for p, label in zip(pairs, labels, strict=True) if 1 in label]
    with_255 = [p.label for p, label in zip(pairs, labels, strict=True) if 255 in label]
    if with_one and with_255:
        raise InputError(
            f"{with_255[0]}: foreground 255, but 1 in {with_one[0]}; expected the same"
            f" in all labels ({len(with_255)} have 255, {len(with_one)} have 1)"
        )


def _size(array: np.ndarray) -> str:
    return f"{array.shape[0]} x {array.shape[1]}"
