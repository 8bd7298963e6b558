"""Folder, file, pattern, paths or arrays -> items with names, which are read ahead.

An item is one image or one label map: a file, a page of a file, or an array. Its name
is the path below the folder without the ending; `#PAGE` follows for a page of a TIFF or
.npy file that has several, `#ARRAY` for an array of a .npz file. Images, label maps
and references belong together if their names are equal.

Imports no jax, so that worker processes start fast.
"""

import collections
import glob
import itertools
import os
import unicodedata
import zlib
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, Generic, NamedTuple, TypeVar

import numpy as np
from jaxtyping import Real

from metaseg import files
from metaseg.data import image_files
from metaseg.data.file_options import FileOptions
from metaseg.errors import InputError

__all__ = [
    "Item",
    "Loaded",
    "Source",
    "find",
    "find_partners",
    "read_ahead",
    "read_image",
    "stream",
    "unstacked",
]

Source = str | os.PathLike[str] | np.ndarray | Sequence[Any]
T = TypeVar("T")

PAGED = (".tif", ".tiff", ".npy")  # formats that may hold several pages
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
    """

    name: str
    path: Path | None
    page: int | None
    stamp: tuple[int, int]
    pixels: np.ndarray | None = None
    where: str = ""
    error: str = ""


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

    Returns:
      The items, sorted by path; arrays in their order, named by their index. Damaged
      files are among them: reading them says what is wrong.

    Raises:
      InputError: If there is no item, or `unique` is violated.
    """
    if isinstance(source, str | os.PathLike):
        suffixes = image_files.LABEL_SUFFIXES if labels else image_files.IMAGE_SUFFIXES
        paths, root = _expand(Path(source).expanduser(), suffixes)
        expected = f"a folder, file or pattern of {', '.join(suffixes)}"
        where = f" at '{source}'"
    else:
        given = _separate(source, labels)
        if not all(isinstance(one, str | os.PathLike) for one in given):
            return [_array_item(i, x, field) for i, x in enumerate(given)]
        paths = [Path(one).expanduser().absolute() for one in given]
        for path in paths:
            if not path.is_file():
                raise InputError(f"{field}: no file '{path}'")
        common = os.path.commonpath([path.parent for path in paths]) if paths else ""
        root = Path(common)
        expected, where = "files or arrays", ""
    if exclude is not None:
        folder = exclude.resolve()
        paths = [path for path in paths if folder not in path.resolve().parents]
    if not paths:
        raise InputError(f"{field}: no {KINDS[labels]}{where}; expected {expected}")
    names = _names(paths, root, field if unique else "")
    return [item for path, name in names.items() for item in _pages(path, name)]


def find_partners(
    source: Source, items: Sequence[Item], *, field: str, labels: bool = True
) -> dict[str, Item]:
    """Finds what belongs to items, such as the true label maps of images.

    Args:
      source: As in `find`. Arrays belong to the items in their order.
      items: The items, at least one.
      field: Name of the argument, for messages.
      labels: Whether label maps are looked for.

    Returns:
      Partners by the names of `items`; items without a partner are left out.

    Raises:
      InputError: If no item has a partner, or there is not one array for each item.
    """
    found = find(source, field=field, labels=labels)
    if found[0].pixels is not None:
        if len(found) != len(items):
            raise InputError(
                f"{field}: got {len(found)} arrays, expected one for each of"
                f" {len(items)}"
            )
        return {a.name: b for a, b in zip(items, found, strict=True)}
    known = {item.name: item for item in found}
    partners = {item.name: known[item.name] for item in items if item.name in known}
    if not partners:
        raise InputError(
            f"{field}: no {KINDS[labels]} in '{source}' has a name like"
            f" '{items[0].name}'; expected equal names"
        )
    return partners


def stream(items: Iterable[Item], channel: int | None) -> Iterator[Loaded[np.ndarray]]:
    """Reads images in order, some ahead of the caller, in bounded memory.

    Args:
      items: The images.
      channel: Channel to take, or None.

    Yields:
      For each item, in order, its pixels `[H, W, C]` as stored or what is wrong.
    """

    def limit(last: Loaded[np.ndarray] | None) -> int:
        if last is None or last.content is None:
            return 1
        return max(1, min(_AHEAD, _AHEAD_PIXELS // last.content.size))

    with ThreadPoolExecutor(_READERS) as pool:
        yield from read_ahead(pool, _load, ((item, channel) for item in items), limit)


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


def _load(item: Item, channel: int | None) -> Loaded[np.ndarray]:
    try:
        return Loaded(read_image(item, channel=channel))
    except InputError as error:
        return Loaded(None, str(error))


def read_image(item: Item, *, channel: int | None = None) -> Real[np.ndarray, "H W C"]:
    """Reads one image as stored.

    Args:
      item: The image.
      channel: Channel to take, or None.

    Returns:
      `[H, W, C]`, see `image_files.read_image`.

    Raises:
      InputError: If the image cannot be read or lacks the channel.
    """
    if item.error:
        raise InputError(item.error)
    if item.path is not None:
        chosen = None if channel is None else (channel,)
        options = FileOptions(channels=chosen)
        return image_files.read_image(item.path, page=item.page, options=options)
    assert item.pixels is not None
    pixels = item.pixels[..., None] if item.pixels.ndim == 2 else item.pixels
    if channel is None:
        return pixels
    if not 0 <= channel < pixels.shape[-1]:
        raise InputError(
            f"{item.where}: {pixels.shape[-1]} channels, expected one that has channel"
            f" {channel}"
        )
    return pixels[..., channel : channel + 1]


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
    return Item(f"{index:06d}", None, None, stamp, array, where)


def _expand(root: Path, suffixes: Collection[str]) -> tuple[list[Path], Path]:
    """Files of a folder, file or pattern, and the folder that names start from."""
    if root.is_dir():
        return image_files.walk(root, tuple(suffixes)), root
    if root.is_file():
        return [root], root.parent
    paths = (Path(path) for path in sorted(glob.glob(str(root), recursive=True)))
    fixed = itertools.takewhile(lambda part: not glob.has_magic(part), root.parts)
    return [
        path for path in paths if path.is_file() and path.suffix.lower() in suffixes
    ], Path(*fixed)


def _names(paths: Sequence[Path], root: Path, unique: str) -> dict[Path, str]:
    """Paths below the root, with their endings only where others differ in them."""
    below = {path: path.relative_to(root) for path in paths}
    groups: dict[str, list[Path]] = collections.defaultdict(list)
    for path, part in below.items():
        groups[_composed(part.with_suffix(""))].append(path)
    names = {}
    for name, group in groups.items():
        if unique and len(group) > 1:
            raise InputError(
                f"{unique}: '{group[0]}' and '{group[1]}' have the same name, expected"
                " one file per name"
            )
        for path in group:
            names[path] = name if len(group) == 1 else _composed(below[path])
    return {path: names[path] for path in paths}


def _composed(path: Path) -> str:
    """The path with `/`, and each letter as one code: macOS stores them decomposed."""
    return unicodedata.normalize("NFC", path.as_posix())


def _pages(path: Path, name: str) -> list[Item]:
    """Items of one file."""
    item = Item(name, path, None, (0, 0), None, str(path))
    try:
        files.printable(Path(name))
        status = path.stat()
        item = item._replace(stamp=(status.st_size, status.st_mtime_ns))
        parts = _parts(path)
    except (InputError, OSError) as error:
        return [item._replace(name=_escaped(name), error=str(error))]
    if len(parts) < 2:
        return [item]
    return [
        item._replace(name=f"{name}#{part}", page=page)
        for page, part in enumerate(parts)
    ]


def _parts(path: Path) -> list[str]:
    """What the pages of a file are called."""
    suffix = path.suffix.lower()
    if suffix == ".npz":
        arrays = image_files.array_names(path)
        plain = all(name.isprintable() and not set(name) & {*"/\\"} for name in arrays)
        if plain and len(set(arrays)) == len(arrays):
            return arrays
        return [str(page) for page in range(len(arrays))]
    count = image_files.count_pages(path) if suffix in PAGED else 1
    return [str(page) for page in range(count)]


def _escaped(name: str) -> str:
    return name if name.isprintable() else ascii(name)[1:-1]
