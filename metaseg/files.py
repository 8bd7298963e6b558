"""Files that appear whole or not at all: text, JSON, PNG; journals; buckets.

Imports no jax and nothing of metaseg but `errors`.
"""

import errno
import importlib.util
import json
import math
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TextIO, cast

import numpy as np

from metaseg.errors import InputError
from metaseg.text import one_line

__all__ = [
    "UNFINISHED",
    "Journal",
    "bucket",
    "expanded",
    "in_bucket",
    "plain",
    "read_run",
    "scratch",
    "upload",
    "write_json",
    "write_png",
    "write_text",
]

BUCKET = "gs://"  # start of an address in Google Cloud Storage
UNFINISHED = ".*.part"  # pattern of the names of files that are being written


def scratch(path: Path) -> Path:
    """Returns a hidden name beside `path` to write to; creates the folder.

    Args:
      path: Final path of the file.

    Returns:
      A path in the same folder that matches `UNFINISHED` and that no other process
      writes to.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    return path.with_name(f".{path.name}.{os.getpid()}.part")


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Writes a text file beside its final path and moves it there in one step.

    Files in a bucket cannot be moved but appear whole, so the text is written directly.

    Args:
      path: File to write; its folder is created if it is missing.
      text: Whole content, stored as UTF-8.

    Raises:
      OSError: If the file cannot be written; an earlier file at `path` is left as it
        was.
    """
    if in_bucket(path):
        upload(path, text.encode())
        return
    draft = scratch(Path(path))
    try:
        draft.write_text(text, encoding="utf-8")
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)


def write_json(path: str | os.PathLike[str], value: Any) -> None:
    """Writes `plain(value)` as an indented JSON file, as `write_text` does.

    Args:
      path: File to write.
      value: Dictionaries, sequences, NumPy arrays, numbers and strings.

    Raises:
      OSError: If the file cannot be written.
    """
    write_text(path, json.dumps(plain(value), indent=2) + "\n")


def read_run(folder: Path, name: str) -> dict[str, Any]:
    """Reads a JSON file of a finished run.

    Args:
      folder: Work folder of the run.
      name: Name of the file.

    Returns:
      Its content.

    Raises:
      InputError: If the file is missing, unreadable or not JSON.
    """
    try:
        return json.loads((folder / name).read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(
            f"{folder}: no {name} ({error.strerror}); expected the work folder of a "
            "finished run"
        ) from error
    except ValueError as error:
        raise InputError(f"{folder / name}: not JSON ({error})") from error


def write_png(path: Path, pixels: np.ndarray) -> None:
    """Writes a PNG file beside its final path and moves it there in one step.

    Args:
      path: File to write; its folder is created if it is missing.
      pixels: uint8 `[H, W]` grey levels or `[H, W, 3]` RGB; or uint16 `[H, W]`.

    Raises:
      OSError: If the file cannot be written.
    """
    from PIL import Image  # imported late: most callers write text alone

    draft = scratch(path)
    try:
        Image.fromarray(pixels).save(draft, "PNG")
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)


def plain(value: Any) -> Any:
    """Converts a value to the types that JSON has.

    Args:
      value: Dictionaries, sequences, NumPy arrays, numbers and strings.

    Returns:
      The value with NumPy types as Python types, tuples as lists, and NaN and infinity
      as None, which JSON lacks.
    """
    if isinstance(value, Mapping):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [plain(v) for v in value]
    if isinstance(value, np.ndarray | np.generic):
        return plain(value.tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def in_bucket(path: str | os.PathLike[str]) -> bool:
    """Returns whether a path is an address in a bucket.

    Args:
      path: A path.
    """
    return os.fspath(path).startswith(BUCKET)


def upload(path: str | os.PathLike[str], content: bytes) -> None:
    """Writes a whole file in a bucket.

    Args:
      path: Address in the bucket.
      content: Whole content.

    Raises:
      OSError: If the file cannot be written.
    """
    from etils import epath  # imported late: most runs write to a disk

    try:
        epath.Path(path).write_bytes(content)
    except Exception as error:  # network and credentials raise many types
        reason = one_line(error)[:200]
        raise OSError(errno.EIO, reason, os.fspath(path)) from error


def bucket(address: str, *, field: str = "workdir") -> Path:
    """Returns the path of a folder in a bucket of Google Cloud Storage.

    Args:
      address: `gs://BUCKET/FOLDER`.
      field: Name of the argument, for messages.

    Returns:
      A path that Orbax accepts and that has the methods of `pathlib.Path` used here.

    Raises:
      InputError: If the address has another form, or the package gcsfs is missing.
    """
    scheme, _, rest = address.partition("://")
    if scheme != "gs" or not all(rest.rstrip("/").partition("/")):
        raise InputError(
            f"{field}: got '{address}', expected a folder or gs://BUCKET/FOLDER"
        )
    if importlib.util.find_spec("gcsfs") is None:
        raise InputError(
            f"{field}: '{address}' needs the package gcsfs, which is not installed; "
            "expected pip install 'metaseg-jax[gcs]', or a folder"
        )
    import fsspec  # imported late: most runs write to a disk
    from etils.epath import gpath

    # This back end of etils needs no TensorFlow, and no rights beyond those to objects.
    # Its cache of a folder's content is out of date as soon as Orbax has written arrays
    # there, because Orbax does not write through it.
    os.environ["EPATH_USE_TF"] = "0"
    os.environ["GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT"] = "0"
    fsspec.config.conf.setdefault("gcs", {})["use_listings_cache"] = False

    class Bucket(gpath.PosixGPath):
        def absolute(self) -> Self:
            """Returns this path; etils would prepend the working directory."""
            return self

    return cast(Path, Bucket(address))


def expanded(path: str | os.PathLike[str]) -> Path:
    """Returns a path whose leading `~` is the home folder; a bucket stays as it is.

    Args:
      path: Path on a disk or in a `bucket`.
    """
    if not in_bucket(path):
        return Path(path).expanduser()
    return path if isinstance(path, Path) else bucket(os.fspath(path))


class Journal:
    """A file with one JSON row per finished item, by which a stopped job goes on.

    The first line is a header that says what the rows depend on. Rows of another header
    are not used.
    """

    def __init__(self, path: Path, header: Mapping[str, Any]) -> None:
        """Opens no file yet.

        Args:
          path: The file.
          header: Plain values on which all rows depend.
        """
        self._path, self._header = path, json.loads(json.dumps(plain(header)))
        self._out: TextIO | None = None

    @staticmethod
    def header_of(path: Path) -> Any:
        """Returns the header of a journal, or None if `path` is no journal."""
        try:
            with path.open(encoding="utf-8") as lines:
                return json.loads(next(lines, "null"))
        except (OSError, ValueError):
            return None

    @staticmethod
    def rows_of(path: Path) -> Iterator[dict[str, Any]]:
        """Yields the whole rows of a journal, whatever its header says."""
        try:
            with path.open(encoding="utf-8") as lines:
                next(lines, None)
                yield from map(json.loads, lines)
        except (OSError, ValueError):  # the last line may be cut short
            return

    def earlier(self) -> Iterator[dict[str, Any]]:
        """Yields the whole rows of an earlier job with the same header."""
        if self.header_of(self._path) == self._header:
            yield from self.rows_of(self._path)

    def begin(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Writes the header and the rows to keep, then accepts more rows.

        Args:
          rows: Rows of the earlier job to keep; may be read from this file meanwhile.
        """
        draft = scratch(self._path)
        try:
            with draft.open("w", encoding="utf-8") as out:
                out.write(json.dumps(self._header) + "\n")
                for row in rows:
                    out.write(json.dumps(plain(row)) + "\n")
            draft.replace(self._path)
        finally:
            draft.unlink(missing_ok=True)
        self._out = self._path.open("a", encoding="utf-8")

    def append(self, row: Mapping[str, Any]) -> None:
        """Adds the row of one more item and hands it to the operating system."""
        assert self._out is not None, "begin was not called"
        self._out.write(json.dumps(plain(row)) + "\n")
        self._out.flush()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._out is not None:
            self._out.close()
