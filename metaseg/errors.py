"""The one exception for wrong input, as opposed to a fault of the package."""

import contextlib
import re
import unicodedata
from collections.abc import Iterator

__all__ = ["InputError", "escaped", "prefixed"]

_OPTION = r"`([a-z_]+(?:\.[a-z_]+)*)(?==[^`]*`|`)"


class InputError(ValueError):
    """Wrong input: a file, argument, config field, shape, class id, rate or matrix.

    The message is one line: `FIELD: got X, expected Y`, or `FILE: ...`. Entry points
    print it without a traceback and exit with status 2. An option that helps is named
    in backquotes, with a value that can be pasted into a shell: `label_threshold=128`.
    Bytes of file names that are not UTF-8 become escapes, so that any terminal shows
    the message.
    """

    def __init__(self, message: str = "") -> None:
        super().__init__(_SURROGATES.sub(_escape, message))


_SURROGATES = re.compile("[\ud800-\udfff]")


def escaped(text: str) -> str:
    r"""Returns a name with escapes for what no name can show.

    Args:
      text: A name, perhaps of a file.

    Returns:
      The text with escapes for control characters, and for bytes that are not UTF-8,
      which Python keeps as lone surrogates. File systems of other encodings have such
      names.

    Example:
      >>> print(escaped(b"Zelle_\xfc".decode("utf-8", "surrogateescape")))
      Zelle_\xfc
    """
    return "".join(
        _escape(letter) if unicodedata.category(letter) in ("Cc", "Cs") else letter
        for letter in text
    )


def _escape(letter: str | re.Match[str]) -> str:
    if not isinstance(letter, str):
        letter = letter[0]
    if "\udc80" <= letter <= "\udcff":  # a byte that surrogateescape kept
        return f"\\x{ord(letter) - 0xDC00:02x}"
    return letter.encode("unicode_escape").decode()


@contextlib.contextmanager
def prefixed(prefix: str, *fields: str) -> Iterator[None]:
    """Puts a prefix before the fields that an `InputError` of the block names.

    Library functions name their arguments; their callers know where a value came from.
    A message names the field at fault at its start, and fields that help in backquotes.

    Args:
      prefix: Text before the name of the argument, such as "config." or "--".
      *fields: Names that get the prefix, with the fields below them (`data.dir` is
        below `data`). Messages that name something else, such as a file, are left as
        they are. Without names every message gets the prefix.

    Raises:
      InputError: The error of the block, with the prefix.

    Example:
      >>> with prefixed("config."):
      ...     raise InputError("noise.rate: got 2, expected a number in [0, 1]")
      Traceback (most recent call last):
      ...
      metaseg.errors.InputError: config.noise.rate: got 2, expected a number in [0, 1]
    """

    def is_ours(field: str) -> bool:
        below = (f"{field}.".startswith(f"{known}.") for known in fields)
        return not fields or any(below)

    def named(found: re.Match[str]) -> str:
        return f"`{prefix}{found[1]}" if is_ours(found[1]) else found[0]

    try:
        yield
    except InputError as error:
        said = re.sub(_OPTION, named, str(error))
        if is_ours(said.partition(":")[0]):
            said = f"{prefix}{said}"
        if said == str(error):
            raise
        raise InputError(said) from error.__cause__
