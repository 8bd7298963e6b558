"""A lock on a folder that names its owner: one run at a time writes there.

Imports nothing of the package but `errors`.
"""

import contextlib
import json
import os
import shlex
import socket
import sys
import time
from pathlib import Path
from typing import Any

from metaseg.errors import InputError

try:
    import fcntl
except ImportError:  # Windows: the file alone is the lock
    fcntl = None  # type: ignore[assignment]

__all__ = ["NAME", "FolderLock"]

NAME = ".lock"


class FolderLock:
    """The file `.lock` of a folder, locked by this process.

    The operating system (`flock`) releases the lock when its process ends, however it
    ends. On file systems without such locks, the process that the file names counts:
    the lock of a process that is gone is taken over.
    """

    def __init__(self, folder: Path) -> None:
        """Takes the lock.

        Args:
          folder: The folder, which is made if it is missing.

        Raises:
          InputError: If another process has the lock.
          OSError: If the folder cannot be written.
        """
        self._made = not folder.exists()
        folder.mkdir(parents=True, exist_ok=True)
        self._folder, self._path = folder, folder / NAME
        self._file = self._open()
        text = json.dumps(
            {
                "host": socket.gethostname(),
                "pid": os.getpid(),
                "command": shlex.join(sys.argv),
                "since": time.strftime("%Y-%m-%d %H:%M:%S"),
            }
        )
        os.ftruncate(self._file, 0)
        os.write(self._file, text.encode("utf-8", "backslashreplace"))

    def _open(self) -> int:
        """Returns a file descriptor of the locked file."""
        while True:
            file = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o644)
            state = self._try(file)
            if state == "locked" and self._same(file):
                return file
            owner = self._owner(file)
            os.close(file)
            if state == "locked":  # its owner has removed the file meanwhile
                continue
            if not _is_gone(owner):
                raise InputError(_message(self._folder, owner))
            # A child of a dead process may still hold its lock: use another file.
            self._path.unlink(missing_ok=True)

    def _try(self, file: int) -> str:
        if fcntl is not None:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return "taken"
            except OSError:  # the file system has no locks
                pass
            else:
                return "locked"
        owner = self._owner(file)
        free = not owner or owner.get("host") != socket.gethostname()
        return "locked" if free or _is_gone(owner) else "taken"

    def _same(self, file: int) -> bool:
        """Returns whether the path still names the file."""
        try:
            return os.path.samestat(os.fstat(file), os.stat(self._path))
        except OSError:
            return False

    def _owner(self, file: int) -> dict[str, Any]:
        os.lseek(file, 0, os.SEEK_SET)
        try:
            found = json.loads(os.read(file, 1 << 16))
        except (OSError, ValueError):
            return {}
        return found if isinstance(found, dict) else {}

    def release(self) -> None:
        """Removes the file, and the folder if it is new and has stayed empty."""
        with contextlib.suppress(OSError):
            self._path.unlink()
        os.close(self._file)
        if self._made:
            with contextlib.suppress(OSError):
                self._folder.rmdir()


def _is_gone(owner: dict[str, Any]) -> bool:
    """Returns whether the owner was a process of this machine that has ended."""
    pid = owner.get("pid")
    if owner.get("host") != socket.gethostname() or not isinstance(pid, int):
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except OSError:  # it belongs to another user
        return False
    return False


def _message(folder: Path, owner: dict[str, Any]) -> str:
    who = f"process {owner.get('pid', 'unknown')} on {owner.get('host', 'unknown')}"
    if owner.get("since"):
        who += f" since {owner['since']}"
    if owner.get("command"):
        who += f": {owner['command'][:200]}"
    return (
        f"workdir: '{folder}' is in use by another run ({who}); expected another "
        "folder, or that this run ends first"
    )
