"""Label maps on disk: finding them, reading them in worker processes, in order.

Imports no jax: the workers would start it each.
"""

import collections
import multiprocessing
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np

from metaseg.data import image_files
from metaseg.errors import InputError

__all__ = ["SUFFIXES", "Encoding", "LabelFile", "Loaded", "encoding", "find", "stream"]

SUFFIXES = image_files.LABEL_SUFFIXES
_ANY = 255  # classes that a file may hold before their number is known
_LOOKED_AT = 200  # files that tell how many classes there are


class LabelFile(NamedTuple):
    """One label map: a file, or an array of a .npz file.

    Attributes:
      name: what maps and their references are matched by: the path below the folder
        without ending, and for .npz the array's name.
      path: the file.
      page: of which array of a .npz file, else None.
      stamp: bytes and time of change in ns, which tell a file that was changed.
    """

    name: str
    path: Path
    page: int | None
    stamp: tuple[int, int]


class Encoding(NamedTuple):
    """How class ids are stored.

    Attributes:
      num_classes: K.
      foreground: the stored value of class 1: 255 in masks of 0 and 255, else 1.
    """

    num_classes: int
    foreground: int = 1


class Loaded(NamedTuple):
    """What reading one map, and its reference, gave.

    Attributes:
      labels: integer `[H, W]`, or None.
      reference: integer `[H, W]`, or None if there is none.
      error: one line that says what is wrong, or "".
    """

    labels: np.ndarray | None
    reference: np.ndarray | None = None
    error: str = ""


def find(root: Path, flag: str) -> list[LabelFile]:
    """Label maps below a folder, sorted by name; hidden files are left out.

    Args:
      root: the folder.
      flag: what a message names.

    Raises:
      InputError: no such folder, no label map in it, or two of one name.
    """
    if not root.is_dir():
        raise InputError(f"{flag}: no folder '{root}'")
    found: dict[str, LabelFile] = {}
    for path in image_files.walk(root, SUFFIXES):
        status = path.stat()
        stamp = (status.st_size, status.st_mtime_ns)
        name = path.relative_to(root).with_suffix("").as_posix()
        for page, array in _arrays(path):
            own = f"{name}:{array}" if array else name
            if own in found:
                raise InputError(
                    f"{flag}: '{found[own].path}' and '{path}' have the same name, "
                    "expected one label map per name"
                )
            found[own] = LabelFile(own, path, page, stamp)
    if not found:
        raise InputError(
            f"{flag}: no label map in '{root}', expected {', '.join(SUFFIXES)}"
        )
    return list(found.values())


def _arrays(path: Path) -> list[tuple[int | None, str]]:
    """Pages of a .npz file and their names; none for other files and damaged ones."""
    if path.suffix.lower() != ".npz":
        return [(None, "")]
    try:
        names = image_files.array_names(path)
    except InputError:  # it is named when it is read
        return [(None, "")]
    return list(enumerate(Path(name).name for name in names)) or [(None, "")]


def read(file: LabelFile) -> np.ndarray:
    """The stored values of one label map, integer `[H, W]`.

    Raises:
      InputError: unreadable, not integers, or not one plane.
    """
    return image_files.read_label_values(file.path, page=file.page)


def encoding(files: Sequence[LabelFile], num_classes: int) -> Encoding:
    """How many classes there are, and whether masks are of 0 and 255.

    Looks at up to 200 files spread over the list; unreadable ones are left for later.

    Args:
      files: the label maps.
      num_classes: K if it is known, else 0: then one more than the highest id but 255.
    """
    step = max(1, len(files) // _LOOKED_AT)
    seen: set[int] = set()
    for file in files[::step]:
        try:
            seen.update(np.unique(read(file)).tolist())
        except InputError:
            continue
    masks = 255 in seen and not seen & {1} and max(seen - {255}, default=0) == 0
    known = max((i for i in seen - {255} if 0 <= i < _ANY), default=1) + 1
    if num_classes == 0:
        num_classes = max(2, known)
    return Encoding(num_classes, 255 if masks and num_classes == 2 else 1)


def load(
    file: LabelFile,
    reference: LabelFile | None,
    stored: Encoding,
    reference_stored: Encoding | None,
) -> Loaded:
    """Reads one map and its reference; never raises."""
    try:
        labels = _decoded(read(file), stored)
        if reference is None or reference_stored is None:
            return Loaded(labels)
        clean = _decoded(read(reference), reference_stored)
        if clean.shape != labels.shape:
            return Loaded(
                None,
                error=f"{file.path}: {labels.shape[0]} x {labels.shape[1]}, expected "
                f"{clean.shape[0]} x {clean.shape[1]} as its reference",
            )
        return Loaded(labels, clean)
    except InputError as error:
        return Loaded(None, error=str(error))


def _decoded(values: np.ndarray, stored: Encoding) -> np.ndarray:
    if stored.foreground == 1:
        return values
    return np.where(values == stored.foreground, 1, values)


def stream(
    files: Sequence[LabelFile],
    references: Sequence[LabelFile | None],
    stored: Encoding,
    reference_stored: Encoding | None,
    workers: int,
) -> Iterator[Loaded]:
    """Reads maps in worker processes, in order, a few ahead of the reader.

    Args:
      files: the label maps.
      references: for each of them its reference, or None.
      stored: how class ids of the maps are stored.
      reference_stored: the same for the references.
      workers: processes; 0 reads in this one.
    """
    jobs = zip(files, references, strict=True)
    if workers == 0:
        for file, reference in jobs:
            yield load(file, reference, stored, reference_stored)
        return
    # Forking a process that runs jax can hang it.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context) as pool:
        ahead: collections.deque[Future[Loaded]] = collections.deque()
        try:
            for file, reference in jobs:
                ahead.append(
                    pool.submit(load, file, reference, stored, reference_stored)
                )
                if len(ahead) > 4 * workers:
                    yield ahead.popleft().result()
            while ahead:
                yield ahead.popleft().result()
        finally:
            for future in ahead:
                future.cancel()
