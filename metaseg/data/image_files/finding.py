"""Files below a folder.

Imports neither jax nor NumPy.
"""

import collections
import os
from collections.abc import Sequence
from pathlib import Path

from metaseg.data.image_files.samples import shown
from metaseg.errors import InputError

__all__ = ["walk"]


def walk(root: Path, suffixes: Sequence[str]) -> list[Path]:
    """Finds the files below a folder that have certain endings.

    Hidden files and folders are left out. Symbolic links are followed, but no folder
    is entered twice: one that a link also leads to keeps its own name.

    Args:
      root: the folder.
      suffixes: endings in lower case, with the dot; files may have them in any case.

    Returns:
      Files, sorted by their path relative to `root`.

    Raises:
      InputError: if the folder, or one below it, cannot be listed.
    """
    root = Path(root)
    found = []
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
                (waiting.append if link else waiting.appendleft)(path)
            elif path.suffix.lower() in suffixes and kind.is_file():
                found.append(path)
    return sorted(found, key=lambda path: path.relative_to(root))
