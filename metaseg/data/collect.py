"""Images to predict: finding them, reading ahead, and writing what comes of them.

Imports no jax.
"""

import collections
import glob
import itertools
import os
import unicodedata
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
import tifffile
from PIL import Image

from metaseg.data import image_files
from metaseg.errors import InputError

__all__ = [
    "UNFINISHED",
    "Job",
    "Loaded",
    "ScoreFile",
    "find",
    "find_labels",
    "stream",
    "write_png",
]

UNFINISHED = ".*.part"  # what files are called that are being written
PAGED = (".tif", ".tiff", ".npy", ".npz")  # formats that can hold several images
_READERS = 2
_AHEAD = 32  # images read ahead at most
_AHEAD_PIXELS = 1 << 25  # and pixels, but for the next image


class Job(NamedTuple):
    """One image: a file, or a page of one.

    Attributes:
      name: of its results: the path below the folder without ending, and `#PAGE`.
      path: the file.
      page: from 0, or None of a file with one.
      stamp: bytes and time of change in ns, which tell a file that was changed.
    """

    name: str
    path: Path
    page: int | None
    stamp: tuple[int, int]


class Loaded(NamedTuple):
    """What reading one image gave: pixels `[H, W, C]` as stored, or what is wrong."""

    pixels: np.ndarray | None
    error: str = ""


def find(
    images: str, output: Path, field: str = "--images"
) -> tuple[list[Job], list[tuple[str, str]]]:
    """Images by folder, file or pattern, sorted by name.

    Args:
      images: what the field says.
      output: files below it are left out, as those of an earlier run.
      field: its name, for messages.

    Returns:
      The images, and names of damaged files with what is wrong.

    Raises:
      InputError: no image there.
    """
    root = Path(images).expanduser()
    if root.is_dir():
        paths = image_files.walk(root, image_files.IMAGE_SUFFIXES)
    elif root.is_file():
        root, paths = root.parent, [root]
    else:
        paths = [Path(p) for p in sorted(glob.glob(str(root), recursive=True))]
        paths = [
            p
            for p in paths
            if p.is_file() and p.suffix.lower() in image_files.IMAGE_SUFFIXES
        ]
        fixed = itertools.takewhile(lambda part: not glob.has_magic(part), root.parts)
        root = Path(*fixed)
    mine = output.resolve()
    paths = [path for path in paths if mine not in path.resolve().parents]
    if not paths:
        raise InputError(
            f"{field}: no image at '{images}'; expected a folder, file or pattern of"
            f" {', '.join(image_files.IMAGE_SUFFIXES)}"
        )
    jobs: list[Job] = []
    bad: list[tuple[str, str]] = []
    for path, name in _names(paths, root).items():
        try:
            jobs += _pages(path, name)
        except (InputError, OSError) as error:
            bad.append((name, str(error)))
    return jobs, bad


def _names(paths: Sequence[Path], root: Path) -> dict[Path, str]:
    """The path below the root, without ending unless files differ in it alone."""
    below = {path: path.relative_to(root) for path in paths}
    count = collections.Counter(_plain(part.with_suffix("")) for part in below.values())
    return {
        path: _plain(
            part if count[_plain(part.with_suffix(""))] > 1 else part.with_suffix("")
        )
        for path, part in below.items()
    }


def _plain(path: Path) -> str:
    """With `/`, and letters as one code each: macOS stores them decomposed."""
    return unicodedata.normalize("NFC", path.as_posix())


def _pages(path: Path, name: str) -> list[Job]:
    status = path.stat()
    stamp = (status.st_size, status.st_mtime_ns)
    if any(unicodedata.category(letter) in ("Cc", "Cs") for letter in name):
        raise InputError(f"{path!a}: expected a name of printable letters")
    pages = image_files.count_pages(path) if path.suffix.lower() in PAGED else 1
    if pages == 1:
        return [Job(name, path, None, stamp)]
    return [Job(f"{name}#{page}", path, page, stamp) for page in range(pages)]


def find_labels(root: Path, jobs: Sequence[Job]) -> dict[str, Job]:
    """True label maps of the images, by the images' names.

    Raises:
      InputError: no such folder, or no name in common.
    """
    if not root.is_dir():
        raise InputError(f"--labels: no folder '{root}'")
    paths = image_files.walk(root, image_files.LABEL_SUFFIXES)
    known: dict[str, Job] = {}
    wanted = {job.name for job in jobs} | {job.name.partition("#")[0] for job in jobs}
    for path, name in _names(paths, root).items():
        if name in wanted:
            known |= {label.name: label for label in _pages(path, name)}
    found = {job.name: known[job.name] for job in jobs if job.name in known}
    if not found:
        raise InputError(
            f"--labels: no name in '{root}' like '{jobs[0].name}'; expected label maps"
            " named as the images"
        )
    return found


def stream(jobs: Sequence[Job], channel: int | None) -> Iterator[Loaded]:
    """Reads images in order, some ahead of who takes them, within bounds of memory."""
    todo = iter(jobs)
    ahead: collections.deque[Future[Loaded]] = collections.deque()
    limit = 1
    with ThreadPoolExecutor(_READERS) as pool:
        try:
            while True:
                for job in todo:
                    ahead.append(pool.submit(_load, job, channel))
                    if len(ahead) >= limit:
                        break
                if not ahead:
                    return
                loaded = ahead.popleft().result()
                if loaded.pixels is not None:
                    limit = max(1, min(_AHEAD, _AHEAD_PIXELS // loaded.pixels.size))
                yield loaded
        finally:
            for future in ahead:
                future.cancel()


def _load(job: Job, channel: int | None) -> Loaded:
    try:
        return Loaded(image_files.read_image(job.path, page=job.page, channel=channel))
    except InputError as error:
        return Loaded(None, str(error))


def _scratch(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    return path.with_name(f".{os.getpid()}.part")


def write_png(path: Path, pixels: np.ndarray) -> None:
    """Writes uint8 `[H, W]` or `[H, W, 3]`; the file is there whole or not at all."""
    scratch = _scratch(path)
    Image.fromarray(pixels).save(scratch, "PNG")
    scratch.replace(path)


class ScoreFile:
    """A 32-bit TIFF that is written strip by strip, and appears when it is whole."""

    def __init__(self, path: Path, planes: int, height: int, width: int) -> None:
        shape = (planes, height, width) if planes > 1 else (height, width)
        self._path, self._scratch = path, _scratch(path)
        self._size = (height, width)
        tifffile.imwrite(
            self._scratch,
            shape=shape,
            dtype=np.float32,
            photometric="minisblack",
            bigtiff=4 * planes * height * width > 4_000_000_000,
        )
        with tifffile.TiffFile(self._scratch) as file:
            self._first = file.pages.first.dataoffsets[0]
            self._dtype = np.dtype(np.float32).newbyteorder(file.byteorder)
        self._file = self._scratch.open("r+b")

    def write(self, start: int, scores: np.ndarray) -> None:
        """Writes rows `[h, W, planes]` from row `start` on."""
        height, width = self._size
        for plane, rows in enumerate(np.moveaxis(scores, -1, 0)):
            self._file.seek(self._first + 4 * width * (plane * height + start))
            self._file.write(np.ascontiguousarray(rows, self._dtype).data)

    def close(self) -> None:
        """Moves the file to its place."""
        self._file.close()
        self._scratch.replace(self._path)
