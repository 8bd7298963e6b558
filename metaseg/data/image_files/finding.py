"""Files below a folder: images and label maps, their names, and which belong together.

Every command finds its files here. Looks at names, and at headers to count pages.
"""

import collections
import itertools
import os
import unicodedata
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from metaseg.data.file_options import DEFAULT, FileOptions
from metaseg.data.image_files import reading
from metaseg.data.image_files.samples import shown, some
from metaseg.data.image_files.unsupported import unsupported
from metaseg.errors import InputError, escaped
from metaseg.text import count_of

__all__ = [
    "KNOWN_SUFFIXES",
    "FilePairs",
    "Listing",
    "NamedFiles",
    "describe_left_out",
    "describe_splits",
    "describe_suffix",
    "hint",
    "images_of",
    "known_files",
    "labels_of",
    "listing",
    "name_of",
    "page_names",
    "pair",
    "same_names",
    "split_folders",
]

# What annotation tools put between the name of an image and the ending of its label.
KNOWN_SUFFIXES = (
    "_mask",
    "_masks",
    "_seg",
    "_segmentation",
    "_label",
    "_labels",
    "_gt",
    "_cp_masks",
)
_ENDINGS = (*reading.IMAGE_SUFFIXES, ".ome.tif", ".ome.tiff")
_JPEG = (".jpg", ".jpeg")
_PAGED = (".tif", ".tiff", ".npy", ".gif")


class Listing(NamedTuple):
    """Files below a folder that may hold images or label maps.

    Attributes:
      root: The folder; names start from it.
      files: Files, sorted by their path below `root`.
      left_out: Number of other files by their ending, or by another reason.
    """

    root: Path
    files: tuple[Path, ...]
    left_out: collections.Counter[str]


class NamedFiles(NamedTuple):
    """Images or label maps of a folder.

    Attributes:
      files: Files by name; several of one name differ in their endings.
      suffix: Known suffix that was taken off the names of label maps, or "".
      left_out: As in `Listing`.
    """

    files: dict[str, list[Path]]
    suffix: str
    left_out: collections.Counter[str]


class FilePairs(NamedTuple):
    """Images and label maps of the same names.

    Attributes:
      both: Image and label map by name, sorted by name.
      no_label: Images without a label map by name.
      no_image: Label maps without an image by name.
      problems: A line for each name that several files have.
      suffix: Known suffix that was taken off the names of label maps, or "".
      left_out: As in `Listing`, of both folders.
    """

    both: dict[str, tuple[Path, Path]]
    no_label: dict[str, Path]
    no_image: dict[str, Path]
    problems: list[str]
    suffix: str
    left_out: collections.Counter[str]


def listing(root: Path, *, exclude: Path | None = None) -> Listing:
    """Lists the files below a folder that may hold images or label maps.

    Hidden files and folders are left out and not counted. Symbolic links are followed,
    but no folder is entered twice: one that a link also leads to keeps its own name.

    Args:
      root: The folder.
      exclude: A folder below it whose files are left out and not counted.

    Returns:
      The files, sorted by their path relative to `root`.

    Raises:
      InputError: If the folder, or one below it, cannot be listed.
    """
    root = Path(root)
    cure = unsupported(root)
    if cure is not None and root.is_dir():
        raise InputError(f"{shown(root)}: {cure}")
    found: list[Path] = []
    left_out: collections.Counter[str] = collections.Counter()
    excluded = None if exclude is None else exclude.resolve()
    if excluded is not None and root.resolve().is_relative_to(excluded):
        return Listing(root, (), left_out)
    entered = set()
    waiting = collections.deque([root])
    while waiting:
        folder = waiting.popleft()
        try:
            status = folder.stat()
            if (status.st_dev, status.st_ino) in entered:
                continue
            entered.add((status.st_dev, status.st_ino))
            with os.scandir(folder) as entries:
                visible = [entry for entry in entries if entry.name[0] != "."]
        except OSError as error:
            raise InputError(
                f"{shown(folder)}: {error.strerror}; expected a folder"
            ) from error
        for entry in sorted(visible, key=lambda entry: entry.name):
            path = folder / entry.name
            link = entry.is_symlink()
            kind = path if link else entry  # a path calls a link to itself no file
            if kind.is_dir():
                if path.suffix.lower() == ".zarr":
                    left_out[_other(path) or ""] += 1
                elif excluded is None or path.resolve() != excluded:
                    (waiting.append if link else waiting.appendleft)(path)
            elif kind.is_file():
                reason = _other(path)
                if reason is None:
                    found.append(path)
                else:
                    left_out[reason] += 1
    files = sorted(found, key=lambda path: path.relative_to(root))
    return Listing(root, tuple(files), left_out)


def known_files(paths: Iterable[Path], root: Path) -> Listing:
    """Tells which of some paths are files that may hold images or label maps.

    Args:
      paths: Files and folders; folders are not counted.
      root: Folder that names start from.

    Returns:
      The files in their order.
    """
    found = []
    left_out: collections.Counter[str] = collections.Counter()
    for path in paths:
        if path.is_file():
            reason = _other(path)
            if reason is None:
                found.append(path)
            else:
                left_out[reason] += 1
    return Listing(root, tuple(found), left_out)


def _other(path: Path) -> str | None:
    """Returns None for a file that may be read, else its ending, or what helps."""
    cure = unsupported(path)
    if cure is not None:
        return f"{path.suffix.lower()}: {cure}"
    return None if path.suffix.lower() in _ENDINGS else path.suffix.lower()


def describe_left_out(left_out: Mapping[str, int]) -> str:
    """Returns a line that counts files that were left out; "" if there are none.

    Args:
      left_out: Number of files by ending or by another reason, as in `Listing`.
    """
    parts = []
    endings = sorted(ending for ending in left_out if " " not in ending)
    if endings:
        names = [ending or "no ending" for ending in endings]
        total = sum(left_out[ending] for ending in endings)
        parts.append(f"{count_of(total, 'file')} of other endings ({some(names, 8)})")
    parts += [
        f"{count_of(left_out[reason], 'file')} {reason}"
        for reason in sorted(left_out.keys() - set(endings))
    ]
    return f"left out: {', '.join(parts)}" if parts else ""


def describe_suffix(suffix: str) -> str:
    """Returns a line about the known suffix of names; "" if there is none.

    Args:
      suffix: As in `NamedFiles`.
    """
    return f"label maps are named like their images and {suffix}" if suffix else ""


def describe_splits(lines: Mapping[str, Iterable[str]]) -> list[str]:
    """Joins lines that are the same for several splits.

    Args:
      lines: Lines by the name of a split; "" stands for the whole data set.

    Returns:
      Each line once, after the names of its splits.

    Example:
      >>> describe_splits({"train": ["a", "b"], "val": ["a"]})
      ['train, val: a', 'train: b']
    """
    splits: dict[str, list[str]] = {}
    for split, own in lines.items():
        for line in own:
            if line:
                splits.setdefault(line, []).append(split)
    return [
        f"{', '.join(names)}: {line}" if any(names) else line
        for line, names in splits.items()
    ]


def name_of(path: Path, root: Path) -> str:
    """Returns the name of a file: its path below a folder without the ending.

    Args:
      path: The file; `.ome.tif` is one ending.
      root: The folder.

    Returns:
      The name with `/` between folders and in Unicode's composed form (NFC), since
      macOS stores names decomposed; with escapes for bytes that are not UTF-8.
    """
    below = path.relative_to(root).as_posix()
    ending = next((e for e in _ENDINGS[::-1] if below.lower().endswith(e)), path.suffix)
    name = below[: len(below) - len(ending)]
    return escaped(unicodedata.normalize("NFC", name))


def images_of(
    found: Listing, *, options: FileOptions = DEFAULT, beside: bool
) -> NamedFiles:
    """Tells which files are images, and names them.

    Args:
      found: Files of a folder.
      options: Suffixes that the user gave.
      beside: Whether label maps may lie beside the images: files that are called like
        another one and a suffix.

    Returns:
      The images.
    """
    left_out = collections.Counter(found.left_out)
    suffix = options.image_suffix or ""
    files = _without_suffix(_grouped(found), suffix)
    if suffix:
        others = len(found.files) - sum(map(len, files.values()))
        left_out.update({f"without the suffix {suffix}": others} if others else {})
    elif beside and options.label_suffix != "":
        given = options.label_suffix
        labels = (
            _labels_beside(files)
            if given is None
            else [name for name in files if name.endswith(given)]
        )
        for name in labels:
            left_out["that are label maps by their suffix"] += len(files.pop(name))
    return NamedFiles(files, "", left_out)


def labels_of(
    found: Listing,
    images: Collection[str] | None = None,
    *,
    options: FileOptions = DEFAULT,
) -> NamedFiles:
    """Tells which files are label maps, and names them without their suffix.

    The suffix is the one that the user gave. Otherwise it is the known one, or none,
    with which most label maps are called like images; a file beside one with a suffix
    is not among them. Without images it is the one that all names end with, or that
    files end with which lie beside the image.

    Args:
      found: Files of a folder.
      images: Names of the images, if they are known.
      options: Suffixes that the user gave.

    Returns:
      The label maps.

    Raises:
      InputError: If two known suffixes suit equally well.
    """
    left_out = collections.Counter(found.left_out)
    plain = _grouped(found)
    suffix = options.label_suffix
    if suffix is None and images is not None:
        suffix = _best_suffix(images, plain, found.root)
    elif suffix is None:
        beside = _labels_beside(plain)
        suffix = _shared_suffix(beside or plain)
    files = _without_suffix(plain, suffix)
    others = len(found.files) - sum(map(len, files.values()))
    if others:
        left_out[f"without the suffix {suffix}"] += others
    for paths in files.values():  # beside another file, a JPEG is the image
        rest = [path for path in paths if path.suffix.lower() not in _JPEG]
        if rest and len(rest) < len(paths):
            left_out["that are JPEG, beside label maps"] += len(paths) - len(rest)
            paths[:] = rest
    known = suffix if options.label_suffix is None else ""
    return NamedFiles(files, known, left_out)


def _grouped(found: Listing) -> dict[str, list[Path]]:
    """Groups files by name."""
    files: dict[str, list[Path]] = {}
    for path in found.files:
        files.setdefault(name_of(path, found.root), []).append(path)
    return files


def _without_suffix(files: dict[str, list[Path]], suffix: str) -> dict[str, list[Path]]:
    """Takes the suffix off the names; others do not count."""
    return {
        name.removesuffix(suffix): list(paths)
        for name, paths in files.items()
        if name.endswith(suffix) and os.path.basename(name) != suffix
    }


def _labels_beside(names: Collection[str]) -> list[str]:
    """Returns the names that are another name and a known suffix."""
    return [
        name
        for name in names
        if any(
            name.endswith(suffix) and name.removesuffix(suffix) in names
            for suffix in KNOWN_SUFFIXES
        )
    ]


def _best_suffix(images: Collection[str], labels: Collection[str], root: Path) -> str:
    """Returns the suffix with which most names of images are names of labels.

    A file of the name of an image is no label map if one with a suffix lies beside it.
    """
    named, both = set(images), {*images, *labels}

    def plain(name: str) -> bool:
        others = (f"{name}{suffix}" for suffix in KNOWN_SUFFIXES)
        return name in labels and not any(o in both and o not in named for o in others)

    counts = {
        suffix: sum(f"{name}{suffix}" in labels for name in images)
        for suffix in KNOWN_SUFFIXES
    }
    most = max(counts.values())
    if sum(map(plain, images)) >= most:
        return ""
    best = [suffix for suffix, count in counts.items() if count == most]
    if len(best) > 1:
        options = " or ".join(f"`label_suffix={suffix}`" for suffix in best)
        raise InputError(
            f"{shown(root)}: label maps with the suffixes {' and '.join(best)} for as"
            f" many images; expected {options}"
        )
    return best[0]


def _shared_suffix(names: Collection[str]) -> str:
    """Returns the known suffix that all names end with, or ""."""
    for suffix in sorted(KNOWN_SUFFIXES, key=len, reverse=True):
        if names and all(name.endswith(suffix) for name in names):
            return suffix
    return ""


def pair(
    images: Path, labels: Path | None, *, options: FileOptions = DEFAULT
) -> FilePairs:
    """Pairs the images and label maps of two folders, or of one, by their names.

    Names of label maps may end with a suffix that those of images lack, see
    `labels_of`. In one folder the suffix tells label maps from images.

    Args:
      images: Folder of images; its sub-folders are searched too.
      labels: Folder of label maps in the same sub-folders, or the same folder; None if
        there are none.
      options: Suffixes that the user gave.

    Returns:
      The pairs, and the files without a partner.

    Raises:
      InputError: If a folder cannot be listed, or two known suffixes suit equally well.
    """
    one_folder = images == labels
    found = listing(images)
    image_files = images_of(found, options=options, beside=one_folder)
    if one_folder:
        taken = {path for paths in image_files.files.values() for path in paths}
        rest = tuple(path for path in found.files if path not in taken)
        found = found._replace(files=rest)
    elif labels is None:
        found = Listing(images, (), collections.Counter())
    else:
        found = listing(labels)
    label_files = labels_of(found, image_files.files, options=options)
    left_out = label_files.left_out
    if not one_folder:
        left_out = left_out + image_files.left_out
    problems = [
        *same_names(image_files.files, images),
        *same_names(label_files.files, found.root),
    ]
    every = [*image_files.files.items(), *label_files.files.items()]
    twice = {name for name, paths in every if len(paths) > 1}
    image_of, label_of = (
        {name: paths[0] for name, paths in files.items() if name not in twice}
        for files in (image_files.files, label_files.files)
    )
    names = sorted(image_of.keys() & label_of)
    return FilePairs(
        {name: (image_of[name], label_of[name]) for name in names},
        {name: image_of[name] for name in sorted(image_of.keys() - label_of)},
        {name: label_of[name] for name in sorted(label_of.keys() - image_of)},
        problems,
        label_files.suffix,
        left_out,
    )


def split_folders(folder: Path) -> tuple[Path, Path | None]:
    """Returns the folders of images and of label maps of a split.

    Args:
      folder: Folder of the split.

    Returns:
      `images` and `labels` in it, with None for `labels` if it is missing. If both are
      missing, the folder itself twice.
    """
    images, labels = folder / "images", folder / "labels"
    if images.is_dir() or labels.is_dir():
        return images, labels if labels.is_dir() else None
    return folder, folder


def same_names(files: Mapping[str, Sequence[Path]], root: Path) -> list[str]:
    """Returns a line for each name that several files have.

    Args:
      files: Files by name.
      root: Their folder.
    """
    return [
        f"{shown(root)}: {some([path.name for path in paths])} have the same name"
        f" '{name}'; expected one file per name"
        for name, paths in files.items()
        if len(paths) > 1
    ]


def hint(images: Iterable[str], labels: Iterable[str]) -> str:
    """Returns options that would pair files without a partner, or "".

    Args:
      images: Names of images without a label map.
      labels: Names of label maps without an image.

    Returns:
      Text such as "; or `label_suffix=_foreground`".

    Example:
      >>> hint(["1", "2"], ["1_nuclei", "2_nuclei"])
      '; or `label_suffix=_nuclei`'
    """
    first, second = sorted(images), sorted(labels)
    ends = set()
    for image, label in zip(first, second, strict=False):
        pairs = zip(image, label, strict=False)
        same = "".join(a for a, _ in itertools.takewhile(lambda p: p[0] == p[1], pairs))
        if same not in (image, label):
            same = same.rstrip("_-. ")
        ends.add((image[len(same) :], label[len(same) :]) if same else ("", ""))
    if len(first) != len(second) or len(ends) != 1:
        return ""
    fields = zip(("image_suffix", "label_suffix"), ends.pop(), strict=True)
    given = " and ".join(f"`{field}={end}`" for field, end in fields if end)
    return f"; or {given}" if given else ""


def page_names(path: Path) -> list[str]:
    """Returns what the pages of a file are called; one name if it has one page.

    Args:
      path: The file.

    Returns:
      Numbers from 0; for .npz files the names of the arrays, where they suit.

    Raises:
      InputError: If the file is damaged.
    """
    ending = path.suffix.lower()
    if ending == ".npz":
        arrays = reading.array_names(path)
        plain = all(name.isprintable() and not set(name) & {*"/\\"} for name in arrays)
        if plain and len(set(arrays)) == len(arrays):
            return arrays
        return [str(page) for page in range(len(arrays))]
    pages = reading.count_pages(path) if ending in _PAGED else 1
    return [str(page) for page in range(pages)]
