"""Pairs of image and label: what importers return, and how pairs are found.

Looks at names only; nothing is decoded here but the headers that count pages.
"""

import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from metaseg.data import image_files, label_encoding
from metaseg.data.dataset import SPLITS, VOID
from metaseg.data.file_options import DEFAULT, FileOptions
from metaseg.data.image_files import finding, some
from metaseg.data.label_encoding import Encoding
from metaseg.errors import InputError
from metaseg.text import count_of

__all__ = [
    "SPLITS",
    "VOID",
    "Found",
    "ImportExample",
    "ImportItem",
    "ImportOptions",
    "Matched",
    "classes",
    "draw",
    "entries",
    "folder",
    "join",
    "match",
    "pages",
    "read_pair",
    "told",
]


class ImportOptions(NamedTuple):
    """Choices of the user; each source takes some of them.

    Attributes:
      name: of the data set.
      shares: of train, val and test, where they are drawn.
      seed: of that draw.
      num_classes: K, where the source does not fix it; None finds it.
      class_names: K names.
      features: names of the features `image` and `label` of a catalog's data set.
      files: how the files are read.
    """

    name: str | None = None
    shares: tuple[float, ...] | None = None
    seed: int | None = None
    num_classes: int | None = None
    class_names: tuple[str, ...] | None = None
    features: Mapping[str, str] | None = None
    files: FileOptions = DEFAULT


class ImportItem(NamedTuple):
    """One example to import.

    Attributes:
      name: what it is called in its split.
      split: "train", "val", "test", or "" where the split is to be drawn.
      files: image first, then label or masks; what is read and what is watched. The
        image alone has no label.
      page: of image and label, None for files that have one.
    """

    name: str
    split: str
    files: tuple[Path, ...]
    page: int | None = None


class ImportExample(NamedTuple):
    """One example as stored.

    Attributes:
      image: `[H, W, C]`.
      label: `[H, W]` or `[H, W, 3]`, the stored values; None: all void.
      image_file: holds `image` and nothing else, or None.
      label_file: holds `label` and nothing else, or None.
      kind: what images are filtered by, or "".
      overlap: pixels that belong to more than one object.
    """

    image: np.ndarray
    label: np.ndarray | None
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
      notes: lines on what was found and left out, by split.
      encoding: how labels are stored; None: to be found.
      num_classes: K; 0: to be found.
      class_names: K names, or None.
      keep: the `kind` of the examples that are wanted; "" for all.
      options: as in `ImportOptions.files`.
    """

    items: list[ImportItem]
    read: Callable[[ImportItem], ImportExample]
    problems: list[str]
    notes: Mapping[str, Sequence[str]] = {}
    encoding: Encoding | None = None
    num_classes: int = 0
    class_names: tuple[str, ...] | None = None
    keep: str = ""
    options: FileOptions = DEFAULT


class Matched(NamedTuple):
    """Pairs of files of one split, and files without a partner.

    Attributes:
      items: Items of one split.
      problems: A line for each file that has no partner.
      notes: Lines on what was found and left out, by split.
    """

    items: list[ImportItem]
    problems: list[str]
    notes: Mapping[str, Sequence[str]] = {}


def read_pair(item: ImportItem, options: FileOptions = DEFAULT) -> ImportExample:
    """Reads an image and its label map.

    Args:
      item: ImportItem with two files, image and label map, or with the image alone.
      options: How files are read.

    Returns:
      The example.

    Raises:
      InputError: if one of them cannot be read.
    """
    image_file, *label_files = item.files
    options = options._replace(page=None)  # the item says which page
    image = image_files.read_image(image_file, page=item.page, options=options)
    own = image_file if item.page is None and options == DEFAULT else None
    if not label_files:
        return ImportExample(image, None, own)
    (label_file,) = label_files
    label = image_files.read_label_values(label_file, page=item.page, options=options)
    return ImportExample(image, label, own, label_file if item.page is None else None)


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


def match(
    images: Path, labels: Path | None, split: str = "", options: FileOptions = DEFAULT
) -> Matched:
    """Pairs the files of two folders by name.

    Args:
      images: folder of images; sub-folders are looked into.
      labels: folder of labels, in the same sub-folders; or the same folder, where a
        suffix tells them apart; None: images have no labels.
      split: that the items get.
      options: suffixes of the names.

    Returns:
      Items, and a line for each file without a partner.
    """
    found = finding.pair(images, labels, options=options)
    problems = list(found.problems)
    notes = [
        finding.describe_suffix(found.suffix),
        finding.describe_left_out(found.left_out),
    ]
    if not found.both and not found.no_image:
        items = [ImportItem(n, split, (path,)) for n, path in found.no_label.items()]
        notes.append("no label maps: labels are void")
        return Matched(items, problems, {split: notes})
    hint = finding.hint(found.no_label, found.no_image)
    problems += [
        f"{path}: no label map of this name{hint}" for path in found.no_label.values()
    ]
    problems += [
        f"{path}: no image of this name{hint}" for path in found.no_image.values()
    ]
    items = [ImportItem(name, split, files) for name, files in found.both.items()]
    return Matched(items, problems, {split: notes})


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
        {split: lines for part in parts for split, lines in part.notes.items()},
    )


def told(values: Mapping[int, int], class_names: Sequence[str]) -> dict[str, Any]:
    """Returns the fields of `Found` of a source that says what its values mean.

    Args:
      values: Class id of each stored value.
      class_names: K names.
    """
    table = label_encoding.parse_values(values)
    return {
        "encoding": Encoding("values", len(class_names), table),
        "num_classes": len(class_names),
        "class_names": tuple(class_names),
    }


def classes(options: ImportOptions) -> dict[str, Any]:
    """Returns the fields of `Found` that say which classes there are.

    Args:
      options: Options that the user gave.

    Returns:
      Keyword arguments of `Found`.

    Raises:
      InputError: If the options contradict each other.
    """
    number, names = options.num_classes, options.class_names
    if names and number and len(names) != number:
        got = count_of(len(names), "name")
        raise InputError(f"class_names: got {got}, expected {number}")
    if names and not number:
        number = len(names)
    if number is not None and not 2 <= number <= VOID:
        raise InputError(f"num_classes: got {number}, expected an integer in 2..{VOID}")
    label_encoding.check(options.files)
    return {"num_classes": number or 0, "class_names": names, "options": options.files}


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
        names = [_page_names(path) for path in item.files]
        first, last = len(names[0]), len(names[-1])
        if max(map(len, names)) == 1:
            paged.append(item)
        elif first != last:
            problems.append(
                f"{item.files[-1]}: {count_of(last, 'page')}; expected {first}, as"
                f" {item.files[0].name} has"
            )
        elif page is not None:
            paged.append(item._replace(page=page))
        else:
            paged += [
                item._replace(name=f"{item.name}#{name}", page=i)
                for i, name in enumerate(names[0])
            ]
    return Matched(paged, problems)


def _page_names(path: Path) -> list[str]:
    try:
        return finding.page_names(path)
    except InputError:  # reported when the file is read
        return ["0"]


def draw(
    groups: Sequence[str], shares: Sequence[float], seed: int
) -> list[tuple[int, ...]]:
    """Draws which examples go to which part; examples of one group stay together.

    Args:
      groups: of each example, such as the file whose page it is.
      shares: of the parts.
      seed: of the draw.

    Returns:
      For each part the indices of its examples in their order: at least one, but none
      for a share of 0.

    Raises:
      InputError: if there are fewer groups than parts with a share.
    """
    members: dict[str, list[int]] = {}
    for index, group in enumerate(groups):
        members.setdefault(group, []).append(index)
    wanted = [i for i, share in enumerate(shares) if share > 0]
    if len(members) < len(wanted):
        raise InputError(
            f"shares: {count_of(len(members), 'independent example')}; expected at "
            f"least {len(wanted)}, one for each split"
        )
    order = np.random.default_rng(seed).permutation(len(members))
    names = list(members)
    given = [shares[i] for i in wanted]
    bounds = np.cumsum(given)[:-1] / sum(given) * len(members)
    cuts = np.rint(bounds).astype(int)
    for i in range(len(cuts)):  # every part with a share gets a group
        low = (cuts[i - 1] if i else 0) + 1
        cuts[i] = np.clip(cuts[i], low, len(members) - (len(cuts) - i))
    drawn: list[tuple[int, ...]] = [()] * len(shares)
    for i, part in zip(wanted, np.split(order, cuts), strict=True):
        drawn[i] = tuple(sorted(k for group in part for k in members[names[group]]))
    return drawn
