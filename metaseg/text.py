"""Words of messages: counts, suggestions, and paths that can be pasted into a shell."""

import difflib
import os
import shlex
import sys
from collections.abc import Iterable
from pathlib import Path

__all__ = ["command_line", "count_of", "did_you_mean", "one_line", "quoted"]


def command_line() -> str:
    """Returns the command of this process as it can be pasted into a shell."""
    program = Path(sys.argv[0])
    if program.name == "__main__.py":  # python -m
        return shlex.join(["python", "-m", program.parent.name, *sys.argv[1:]])
    if program.suffix == ".py":
        return shlex.join(["python", *sys.argv])
    return shlex.join([program.name, *sys.argv[1:]])


def count_of(number: float, noun: str) -> str:
    """Returns a number with its noun.

    Args:
      number: The number.
      noun: The noun in the singular; its last word takes the plural.

    Example:
      >>> count_of(1, "file"), count_of(0, "class"), count_of(2, "label map")
      ('1 file', '0 classes', '2 label maps')
    """
    shown = f"{number:g}" if isinstance(number, float) else f"{number}"
    return f"{shown} {noun if number == 1 else _plural(noun)}"


def _plural(noun: str) -> str:
    if noun.endswith(("s", "x", "ch", "sh")):
        return f"{noun}es"
    if noun.endswith("y") and noun[-2:-1] not in tuple("aeiou"):
        return f"{noun[:-1]}ies"
    return f"{noun}s"


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Returns a suggestion to append to a message, or "".

    Args:
      word: What was given.
      known: What is expected.

    Example:
      >>> did_you_mean("trane", ["train", "audit"])
      ' (did you mean train?)'
    """
    close = difflib.get_close_matches(word, list(known), 1, 0.6)
    return f" (did you mean {close[0]}?)" if close else ""


def one_line(error: BaseException) -> str:
    """Returns class and text of an error on one line.

    Args:
      error: The error.
    """
    return " ".join(f"{type(error).__name__}: {error}".split()).removesuffix(":")


def quoted(path: str | os.PathLike[str]) -> str:
    """Returns a path as it can be pasted into a shell.

    Args:
      path: The path.

    Example:
      >>> quoted("my images/a.png")
      "'my images/a.png'"
    """
    return shlex.quote(os.fspath(path))
