"""Pairs of image and label: what importers return, and how pairs are found.

Looks at names only; nothing is decoded here but the headers that count pages.
"""

import itertools
import unicodedata
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from metaseg.data import image_files
from metaseg.data.dataset import SPLITS, VOID
from metaseg.data.file_options import FileOptions
from metaseg.data.image_files import some
from metaseg.errors import InputError

__all__ = [
    "SPLITS",
    "VOID",
    "Found",
    "ImportExample",
    "ImportItem",
    "ImportOptions",
    "Matched",
    "by_name",
    "classes",
    "draw",
    "entries",
    "folder",
    "join",
    "match",
    "pages",
    "read_pair",
]

# A JPEG label is found, so that the message gives the reason and not "missing".
LABELS = (*image_files.LABEL_SUFFIXES, ".jpg", ".jpeg")
PAGED = (".tif", ".tiff", ".npy", ".npz")


class ImportOptions(NamedTuple):
    """Choices of the user; each source takes some of them.

    Attributes:
      name: of the data set.
      shares: of train, val and test, where they are drawn.
      seed: of that draw.
      page: the one page to take of files with many; None takes each as an example.
      channel: the one channel of the images to take.
      num_classes: K, where the source does not fix it; None finds it.
      class_names: K names.
      values: class id of each stored value of a label; 255 is void.
      features: names of the features `image` and `label` of a catalog's data set.
    """

    name: str | None = None
    shares: tuple[float, ...] | None = None
    seed: int | None = None
    page: int | None = None
    channel: int | None = None
    num_classes: int | None = None
    class_names: tuple[str, ...] | None = None
    values: Mapping[int, int] | None = None
    features: Mapping[str, str] | None = None


class ImportItem(NamedTuple):
    """One example to import.

    Attributes:
      name: what it is called in its split.
      split: "train", "val", "test", or "" where the split is to be drawn.
      files: image first, then label or masks; what is read and what is watched.
      page: of image and label, None for files that have one.
    """

    name: str
    split: str
    files: tuple[Path, ...]
    page: int | None = None


class ImportExample(NamedTuple):
    """One example as stored.

    Attributes:
      image: `[H, W, 1]` or `[H, W, 3]`.
      label: integers `[H, W]`, the stored values.
      image_file: holds `image` and nothing else, or None.
      label_file: holds `label` and nothing else, or None.
      kind: what images are filtered by, or "".
      overlap: pixels that belong to more than one object.
    """

    image: np.ndarray
    label: np.ndarray
    image_file: Path | None = None
    label_file: Path | None = None
    kind: str = ""
    overlap: int = 0


class Found(NamedTuple):
    """The examples of a source, not yet read.

    Attributes:
      items: the examples; files of many pages are one item each until `pages`.
      read: reads one of them; travels to worker processes.
      problems: one line for each file that cannot be used.
      table: class id of each stored value; None: the values are the ids, to be found.
      num_classes: K; 0: to be found.
      class_names: K names, or None.
      keep: the `kind` of the examples that are wanted; "" for all.
      page: as in `ImportOptions`.
    """

    items: list[ImportItem]
    read: Callable[[ImportItem], ImportExample]
    problems: list[str]
    table: Mapping[int, int] | None = None
    num_classes: int = 0
    class_names: tuple[str, ...] | None = None
    keep: str = ""
    page: int | None = None


class Matched(NamedTuple):
    """Pairs of files of one split, and files without a partner.

    Attributes:
      items: Items of one split.
      problems: A line for each file that has no partner.
    """

    items: list[ImportItem]
    problems: list[str]


def read_pair(item: ImportItem, channel: int | None = None) -> ImportExample:
    """Reads an image and its label map.

    Args:
      item: ImportItem with two files, image and label map.
      channel: Channel of the image to read; None: all.

    Returns:
      The example.

    Raises:
      InputError: if one of them cannot be read.
    """
    image_file, label_file = item.files
    whole = item.page is None
    return ImportExample(
        image_files.read_image(
            image_file,
            page=item.page,
            options=FileOptions(channels=None if channel is None else (channel,)),
        ),
        image_files.integers(
            image_files.read_label_values(label_file, page=item.page),
            where=str(label_file),
        ),
        image_file if whole and channel is None else None,
        label_file if whole else None,
    )


def entries(path: Path) -> str:
    """Lists what a folder holds, for a message.

    Args:
      path: The folder.

    Returns:
      The first names, "nothing", or why the folder cannot be listed.
    """
    try:
        names = sorted(p.name for p in path.iterdir() if not p.name.startswith("."))
    except OSError as error:
        return str(error.strerror)
    return some(names, 5) if names else "nothing"


def folder(path: Path, tree: str) -> Path:
    """Checks that a folder exists and can be listed.

    Args:
      path: The folder.
      tree: Expected layout in words, for the message.

    Returns:
      `path`.

    Raises:
      InputError: If it is not such a folder; the message says what is there instead.
    """
    nearest = path
    if path.is_dir():
        try:
            next(path.iterdir(), None)
        except OSError as error:
            raise InputError(
                f"path: cannot list '{path}': {error.strerror}; expected {tree}"
            ) from None
        return path
    while not nearest.is_dir() and nearest != nearest.parent:
        nearest = nearest.parent
    raise InputError(
        f"path: no folder '{path}'; '{nearest}' has {entries(nearest)}; expected {tree}"
    )


def by_name(
    root: Path, suffixes: Sequence[str], ending: str = ""
) -> tuple[dict[str, Path], list[str]]:
    """Files below `root` by their name: the path below it without suffix and ending.

    Args:
      root: the folder.
      suffixes: of the files that count.
      ending: what their names end with before the suffix; others do not count.

    Returns:
      The files, and a line for each name that several files have or none can have.
    """
    found: dict[str, list[Path]] = {}
    for path in image_files.walk(root, suffixes):
        name = path.relative_to(root).with_suffix("").as_posix()
        if name.endswith(ending):
            # macOS stores decomposed letters: one name, one id, on every system.
            name = unicodedata.normalize("NFC", name.removesuffix(ending))
            found.setdefault(name, []).append(path)
    problems = []
    for name, paths in list(found.items()):
        if len(paths) > 1:
            problems.append(
                f"{root}: {some([p.name for p in paths])} have the same name"
                f" '{name}'; expected one file per name"
            )
        elif any(unicodedata.category(letter) in ("Cc", "Cs") for letter in name):
            problems.append(f"{root}: file name {name!a}; expected printable letters")
        else:
            continue
        del found[name]
    return {name: paths[0] for name, paths in found.items()}, problems


def match(
    images: Path,
    labels: Path,
    split: str = "",
    *,
    image_ending: str = "",
    label_ending: str = "",
) -> Matched:
    """Pairs the files of two folders by name.

    Args:
      images: folder of images; sub-folders are looked into.
      labels: folder of labels, in the same sub-folders.
      split: that the items get.
      image_ending: what names of images end with; the rest is the example's name.
      label_ending: the same for labels.

    Returns:
      Items, and a line for each file without a partner.
    """
    image_of, bad_images = by_name(images, image_files.IMAGE_SUFFIXES, image_ending)
    label_of, bad_labels = by_name(labels, LABELS, label_ending)
    problems = [*bad_images, *bad_labels]
    for alone, where, other, ending in (
        (image_of, labels, label_of, label_ending),
        (label_of, images, image_of, image_ending),
    ):
        noun = "label" if other is label_of else "image"
        problems += [
            f"{alone[name]}: no {noun}; expected '{where / name}{ending}.*'"
            for name in sorted(alone.keys() - other)
        ]
    names = sorted(image_of.keys() & label_of)
    items = [
        ImportItem(name, split, (image_of[name], label_of[name])) for name in names
    ]
    return Matched(items, problems)


def join(parts: Iterable[Matched]) -> Matched:
    """Joins the items and problems of several parts.

    Args:
      parts: Parts of a data set.

    Returns:
      All items and problems.
    """
    parts = list(parts)
    return Matched(
        list(itertools.chain.from_iterable(part.items for part in parts)),
        list(itertools.chain.from_iterable(part.problems for part in parts)),
    )


def classes(options: ImportOptions) -> dict[str, Any]:
    """Returns the fields of `Found` that say which classes there are.

    Args:
      options: Options that the user gave.

    Returns:
      Keyword arguments of `Found`.

    Raises:
      InputError: If the options contradict each other.
    """
    table, count, names = options.values, options.num_classes, options.class_names
    if table is not None:
        count = count or max([2, *(v + 1 for v in table.values() if v != VOID)])
        wrong = [v for v in table.values() if not (0 <= v < count or v == VOID)]
        if wrong:
            raise InputError(
                f"values: got class id {wrong[0]}, expected 0 to {count - 1}, or {VOID}"
            )
    if names and count and len(names) != count:
        raise InputError(f"class_names: got {len(names)} names, expected {count}")
    if names and not count:
        count = len(names)
    if count is not None and not 2 <= count <= VOID:
        raise InputError(f"num_classes: got {count}, expected an integer in 2..{VOID}")
    return {"table": table, "num_classes": count or 0, "class_names": names}


def pages(items: Sequence[ImportItem], page: int | None) -> Matched:
    """Makes an item of each page of a file, or of one page.

    Args:
      items: Items with one or several pages.
      page: Page to take of each file; None: all pages, as `name#0`, `name#1`, ...

    Returns:
      Items, and a line for each pair whose numbers of pages differ.
    """
    paged: list[ImportItem] = []
    problems: list[str] = []
    for item in items:
        counts = [_page_count(path) for path in item.files]
        if max(counts) == 1:
            paged.append(item)
        elif page is not None:
            paged.append(item._replace(page=page))
        elif counts[0] != counts[-1]:
            problems.append(
                f"{item.files[-1]}: {counts[-1]} pages; expected {counts[0]}, as"
                f" {item.files[0].name} has"
            )
        else:
            paged += [
                item._replace(name=f"{item.name}#{i}", page=i) for i in range(counts[0])
            ]
    return Matched(paged, problems)


def _page_count(path: Path) -> int:
    if path.suffix.lower() not in PAGED:
        return 1
    try:
        return image_files.count_pages(path)
    except InputError:  # reported when the file is read
        return 1


def draw(
    groups: Sequence[str], shares: Sequence[float], seed: int
) -> list[tuple[int, ...]]:
    """Draws which examples go to which part; examples of one group stay together.

    Args:
      groups: of each example, such as the file whose page it is.
      shares: of the parts.
      seed: of the draw.

    Returns:
      For each part the indices of its examples, at least one, in their order.

    Raises:
      InputError: if there are fewer groups than parts.
    """
    members: dict[str, list[int]] = {}
    for index, group in enumerate(groups):
        members.setdefault(group, []).append(index)
    if len(members) < len(shares):
        raise InputError(
            f"shares: {len(members)} independent examples; expected at least"
            f" {len(shares)}, one for each split"
        )
    order = np.random.default_rng(seed).permutation(len(members))
    names = list(members)
    bounds = np.cumsum(shares)[:-1] / sum(shares) * len(members)
    cuts = np.rint(bounds).astype(int)
    for i in range(len(cuts)):  # every part gets a group
        low = (cuts[i - 1] if i else 0) + 1
        cuts[i] = np.clip(cuts[i], low, len(members) - (len(cuts) - i))
    return [
        tuple(sorted(i for group in part for i in members[names[group]]))
        for part in np.split(order, cuts)
    ]
