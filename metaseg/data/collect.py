"""Folder, file, pattern, paths or arrays -> items with names, which are read ahead.

An item is one image or one label map: a file, a page of a file, or an array. Its name
is the path below the folder without the ending; `#PAGE` follows for a page of a file
that has several, `#ARRAY` for an array of a .npz file. Images, label maps and
references belong together if their names are equal, but for the suffix that names of
label maps may have, see `image_files.finding`.

Imports no jax, so that worker processes start fast.
"""

import collections
import glob
import itertools
import os
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, Generic, NamedTuple, TypeVar

import numpy as np
from jaxtyping import Real

from metaseg.data import image_files
from metaseg.data.file_options import DEFAULT, FileOptions
from metaseg.data.image_files import finding
from metaseg.data.image_files.finding import FilePairs, Listing, NamedFiles
from metaseg.errors import InputError, escaped
from metaseg.text import count_of

__all__ = [
    "Item",
    "Loaded",
    "Source",
    "described",
    "find",
    "find_pairs",
    "find_partners",
    "pages",
    "read_ahead",
    "read_image",
    "stream",
    "unstacked",
]

Source = str | os.PathLike[str] | np.ndarray | Sequence[Any]
T = TypeVar("T")
Say = Callable[[str], object]

KINDS = {False: "image", True: "label map"}
_READERS = 2
_AHEAD = 32  # most images that are read ahead
_AHEAD_PIXELS = 1 << 25  # most pixels of them; one image is always read ahead


class Item(NamedTuple):
    """One image or label map.

    Attributes:
      name: Name for results and for finding partners, see the module.
      path: File, or None for an array.
      page: Page of the file from 0, or None if the file holds one.
      stamp: Bytes and time of change in ns of the file, or bytes and CRC-32 of the
        array; another stamp means another content.
      pixels: The array, or None for a file.
      where: What messages name.
      error: What is wrong with the file, if its pages could not be counted.
      stem: Name of the file, without the page.
    """

    name: str
    path: Path | None
    page: int | None
    stamp: tuple[int, int]
    pixels: np.ndarray | None = None
    where: str = ""
    error: str = ""
    stem: str = ""


class Loaded(NamedTuple, Generic[T]):
    """Result of reading an item: its content, or one line that says what is wrong.

    Attributes:
      content: What was read; None if it could not be read.
      error: One line that says what is wrong; empty if nothing is.
    """

    content: T | None
    error: str = ""


def find(
    source: Source,
    *,
    field: str,
    labels: bool = False,
    exclude: Path | None = None,
    unique: bool = False,
    options: FileOptions = DEFAULT,
    say: Say | None = None,
) -> list[Item]:
    """Finds images or label maps.

    Args:
      source: A folder (its sub-folders are searched too), a file or a glob pattern; a
        sequence of files; or arrays, see `unstacked`.
      field: Name of the argument, for messages.
      labels: Whether label maps are looked for.
      exclude: Folder whose files are left out.
      unique: Whether two files that differ in their ending alone are an error.
        Otherwise such files keep their endings in their names.
      options: Suffixes and the page to take.
      say: Gets a line about files that were left out, and about the suffix of names.

    Returns:
      The items, sorted by path; arrays in their order, named by their index. Damaged
      files are among them: reading them says what is wrong.

    Raises:
      InputError: If there is no item, or `unique` is violated.
    """
    given = _arrays(source, field, labels)
    if given is not None:
        return given
    found, loose = _listed(source, field, exclude)
    if labels:
        files = finding.labels_of(found, options=options)
    else:
        files = finding.images_of(found, options=options, beside=not loose)
    return _items(source, found, files, field, labels, unique, options, say)


def check(source: Source, *, field: str, labels: bool = False) -> None:
    """Checks that a folder or file is there, without looking into it.

    Args:
      source: As in `find`; patterns and arrays pass.
      field: As in `find`.
      labels: As in `find`.

    Raises:
      InputError: If there is no such folder or file.
    """
    if not isinstance(source, str | os.PathLike) or glob.has_magic(os.fspath(source)):
        return
    if not Path(source).expanduser().exists():
        find(source, field=field, labels=labels)  # says what is wrong


def find_partners(
    source: Source,
    items: Sequence[Item],
    *,
    field: str,
    labels: bool = True,
    beside: bool = False,
    options: FileOptions = DEFAULT,
    say: Say | None = None,
) -> dict[str, Item]:
    """Finds what belongs to items, such as the true label maps of images.

    Args:
      source: As in `find`. Arrays belong to the items in their order.
      items: The items, at least one.
      field: Name of the argument, for messages.
      labels: Whether label maps are looked for.
      beside: Whether the partners may lie in the folder of the items, whose own files
        are no partners.
      options: As in `find`.
      say: As in `find`.

    Returns:
      Partners by the names of `items`; items without a partner are left out.

    Raises:
      InputError: If no item has a partner, or there is not one array for each item.
    """
    given = _arrays(source, field, labels)
    if given is not None:
        if len(given) != len(items):
            raise InputError(
                f"{field}: got {count_of(len(given), 'array')}, expected one for each "
                f"of {len(items)}"
            )
        return {a.name: b for a, b in zip(items, given, strict=True)}
    found, _ = _listed(source, field, None)
    if beside:
        own = {os.path.abspath(item.path) for item in items if item.path is not None}
        rest = tuple(p for p in found.files if os.path.abspath(p) not in own)
        found = found._replace(files=rest)
    names = [item.stem for item in items]
    if labels:
        files = finding.labels_of(found, names, options=options)
    else:
        files = finding.images_of(found, options=options, beside=False)
    partners = _items(source, found, files, field, labels, False, options, say)
    known = {item.name: item for item in partners}
    if labels:
        known |= _of_other_pages(items, partners)
    matched = {item.name: known[item.name] for item in items if item.name in known}
    if not matched:
        help_ = finding.hint(names, files.files) if labels else ""
        raise InputError(
            f"{field}: no {KINDS[labels]} in '{described(source)}' has a name like"
            f" '{items[0].name}'; expected equal names{help_}"
        )
    return matched


def find_pairs(found: FilePairs, options: FileOptions) -> list[tuple[Item, Item]]:
    """Returns the items of pairs of files: each page is a pair.

    Args:
      found: Pairs of image and label map.
      options: The page to take.

    Returns:
      Items of image and label map, in the order of the pairs. The item of a label map
      whose pages are not those of its image has an error.
    """
    pairs: list[tuple[Item, Item]] = []
    for name, (image_file, label_file) in found.both.items():
        images = pages(image_file, name, options.page)
        labels = pages(label_file, name, options.page)
        if len(images) == len(labels):
            pairs += zip(images, labels, strict=True)
            continue
        error = images[0].error or labels[0].error or _other_pages(labels, images)
        pairs.append((images[0], labels[0]._replace(error=error)))
    return pairs


def _of_other_pages(items: Sequence[Item], partners: Sequence[Item]) -> dict[str, Item]:
    """Partners, with an error, of items whose files have another number of pages."""
    own, others = _by_stem(items), _by_stem(partners)
    return {
        item.name: others[stem][0]._replace(
            error=others[stem][0].error or _other_pages(others[stem], own[stem])
        )
        for stem in own.keys() & others
        if len(own[stem]) != len(others[stem]) and not own[stem][0].error
        for item in own[stem]
    }


def _by_stem(items: Sequence[Item]) -> dict[str, list[Item]]:
    found: dict[str, list[Item]] = {}
    for item in items:
        found.setdefault(item.stem, []).append(item)
    return found


def _other_pages(labels: Sequence[Item], images: Sequence[Item]) -> str:
    """Says that a label map has other pages than its image."""
    image = images[0]
    name = image.where if image.path is None else escaped(image.path.name)
    return (
        f"{labels[0].where}: {count_of(len(labels), 'page')}; expected {len(images)},"
        f" as {name} has"
    )


def stream(
    items: Iterable[Item], options: FileOptions = DEFAULT
) -> Iterator[Loaded[np.ndarray]]:
    """Reads images in order, some ahead of the caller, in bounded memory.

    Args:
      items: The images.
      options: Channels to take, and how files are read.

    Yields:
      For each item, in order, its pixels `[H, W, C]` as stored or what is wrong.
    """

    def limit(last: Loaded[np.ndarray] | None) -> int:
        if last is None or last.content is None:
            return 1
        return max(1, min(_AHEAD, _AHEAD_PIXELS // last.content.size))

    with ThreadPoolExecutor(_READERS) as pool:
        yield from read_ahead(pool, _load, ((item, options) for item in items), limit)


def read_ahead(
    pool: Executor,
    load: Callable[..., T],
    tasks: Iterable[tuple[Any, ...]],
    limit: Callable[[T | None], int],
) -> Iterator[T]:
    """Yields `load(*task)` for each task in order, while others are computed ahead.

    Args:
      pool: Threads or processes.
      load: Function of the arguments in a task.
      tasks: Arguments.
      limit: Returns the most results that may wait, given the last one or, at first,
        None. After a result that is None, or whose limit is unknown, return 1.
    """
    todo = iter(tasks)
    waiting: collections.deque[Future[T]] = collections.deque()
    most = limit(None)
    try:
        while True:
            for task in itertools.islice(todo, max(0, most - len(waiting))):
                waiting.append(pool.submit(load, *task))
            if not waiting:
                return
            result = waiting.popleft().result()
            most = limit(result)
            yield result
    finally:
        for future in waiting:
            future.cancel()


def _load(item: Item, options: FileOptions) -> Loaded[np.ndarray]:
    try:
        return Loaded(read_image(item, options))
    except InputError as error:
        return Loaded(None, str(error))


def read_image(item: Item, options: FileOptions = DEFAULT) -> Real[np.ndarray, "H W C"]:
    """Reads one image as stored.

    Args:
      item: The image.
      options: Channels to take, and how files are read.

    Returns:
      `[H, W, C]`, see `image_files.read_image`.

    Raises:
      InputError: If the image cannot be read or lacks a channel.
    """
    if item.error:
        raise InputError(item.error)
    if item.path is not None:
        options = options._replace(page=None)  # the item says which page
        return image_files.read_image(item.path, page=item.page, options=options)
    assert item.pixels is not None
    pixels = item.pixels[..., None] if item.pixels.ndim == 2 else item.pixels
    if options.channels is None:
        return pixels
    most = pixels.shape[-1]
    chosen = [one for one in options.channels if isinstance(one, int) and one < most]
    for channel in options.channels:
        if channel not in chosen:
            raise InputError(
                f"{item.where}: {count_of(most, 'channel')}, expected one that has "
                f"channel {channel}"
            )
    return pixels[..., chosen]


def unstacked(images: Any, *, field: str = "images") -> list[np.ndarray]:
    """Splits arrays into images and checks that they hold finite numbers.

    Args:
      images: One image `[H, W]` or `[H, W, C]`, a stack `[N, H, W]` or `[N, H, W, C]`,
        or a sequence of images. The last of three axes holds channels if it has at most
        four, or less than a quarter of the length of both others, as in .npy files.
      field: Name of the argument, for messages.

    Returns:
      Images `[H, W]` or `[H, W, C]`; bool as uint8.

    Raises:
      InputError: If an item is not an image.
    """
    given = enumerate(_separate(images, labels=False))
    return [checked(image, f"{field}[{index}]") for index, image in given]


def checked(image: Any, where: str) -> np.ndarray:
    """Returns an image `[H, W]` or `[H, W, C]` of finite numbers; bool as uint8.

    Raises:
      InputError: If it is anything else; names it as `where`.
    """
    array = np.asarray(image)
    if array.ndim not in (2, 3) or array.size == 0 or array.dtype.kind not in "buif":
        raise InputError(
            f"{where}: {array.dtype} of shape {array.shape}, expected numbers"
            " [H, W] or [H, W, C]"
        )
    if not np.isfinite(array).all():
        raise InputError(f"{where}: NaN or infinite values, expected finite ones")
    return array.astype(np.uint8) if array.dtype.kind == "b" else array


def _separate(source: Any, labels: bool) -> list[Any]:
    """Splits a stack of arrays, or lists a sequence."""
    ndim = getattr(source, "ndim", None)
    if ndim == 2 or (
        ndim == 3 and not labels and not image_files.is_stack(source.shape)
    ):
        return [source]
    return list(source)


def _array_item(index: int, value: Any, field: str) -> Item:
    where = f"{field}[{index}]"
    array = checked(value, where)
    stamp = (array.nbytes, zlib.crc32(np.ascontiguousarray(array).tobytes()))
    name = f"{index:06d}"
    return Item(name, None, None, stamp, array, where, stem=name)


def _arrays(source: Source, field: str, labels: bool) -> list[Item] | None:
    """Items of arrays; None if the source is files."""
    if isinstance(source, str | os.PathLike):
        return None
    given = _separate(source, labels)
    if all(isinstance(one, str | os.PathLike) for one in given):
        return None
    return [_array_item(i, x, field) for i, x in enumerate(given)]


def _listed(source: Source, field: str, exclude: Path | None) -> tuple[Listing, bool]:
    """Files of a source, and whether the user listed them one by one."""
    if not isinstance(source, str | os.PathLike):
        paths = [Path(one).expanduser().absolute() for one in source]
        for path in paths:
            if not path.is_file():
                raise InputError(f"{field}: no file '{path}'")
        common = os.path.commonpath([path.parent for path in paths]) if paths else ""
        return Listing(Path(common), tuple(paths), collections.Counter()), True
    root = Path(source).expanduser()
    if root.is_dir():
        return finding.listing(root, exclude=exclude), False
    if root.is_file():
        return Listing(root.parent, (root,), collections.Counter()), True
    matched = [Path(path) for path in sorted(glob.glob(str(root), recursive=True))]
    if exclude is not None:
        folder = exclude.resolve()
        matched = [path for path in matched if folder not in path.resolve().parents]
    fixed = itertools.takewhile(lambda part: not glob.has_magic(part), root.parts)
    return finding.known_files(matched, Path(*fixed)), False


def _items(
    source: Source,
    found: Listing,
    files: NamedFiles,
    field: str,
    labels: bool,
    unique: bool,
    options: FileOptions,
    say: Say | None,
) -> list[Item]:
    """Items of named files, sorted by path."""
    left_out = finding.describe_left_out(files.left_out)
    endings = image_files.LABEL_SUFFIXES if labels else image_files.IMAGE_SUFFIXES
    if not files.files and not isinstance(source, str | os.PathLike):
        raise InputError(f"{field}: no {KINDS[labels]}; expected files or arrays")
    if not files.files:
        raise InputError(
            f"{field}: no {KINDS[labels]} at '{described(source)}'"
            + (f" ({left_out})" if left_out else "")
            + "; expected a folder, file or pattern of"
            f" {', '.join(endings)}"
        )
    if say is not None:
        for line in (finding.describe_suffix(files.suffix), left_out):
            if line:
                say(f"{field}: {line}")
    twice = finding.same_names(files.files, found.root)
    if unique and twice:
        raise InputError(f"{field}: {twice[0]}")
    names = {}
    for name, paths in files.files.items():
        for path in paths:
            names[path] = name if len(paths) == 1 else f"{name}{path.suffix}"
    return [
        item
        for path in found.files
        if path in names
        for item in pages(path, names[path], options.page)
    ]


def described(source: Source) -> str:
    """Returns where items come from, for messages and results.

    Args:
      source: As in `find`.
    """
    if isinstance(source, str | os.PathLike):
        return escaped(os.fspath(source))
    files = isinstance(source[0], str | os.PathLike)
    return "a list of files" if files else "arrays"


def pages(path: Path, name: str, page: int | None) -> list[Item]:
    """Returns the items of one file: of each of its pages, or of the one to take.

    Args:
      path: The file.
      name: Name of the file, for results.
      page: The page to take of a file with several; None: all of them.
    """
    item = Item(name, path, None, (0, 0), None, escaped(str(path)), stem=name)
    try:
        status = path.stat()
        item = item._replace(stamp=(status.st_size, status.st_mtime_ns))
        parts = finding.page_names(path)
    except InputError as error:
        return [item._replace(error=str(error))]
    except OSError as error:
        return [item._replace(error=f"{item.where}: {error.strerror}")]
    if len(parts) < 2:
        return [item]
    if page is not None:
        return [item._replace(page=page)]
    return [
        item._replace(name=f"{name}#{part}", page=index)
        for index, part in enumerate(parts)
    ]
