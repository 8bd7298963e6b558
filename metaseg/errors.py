"""The one exception for wrong input, as opposed to a fault of the package."""

import contextlib
import contextvars
import re
import traceback
import unicodedata
from collections.abc import Callable, Iterator

__all__ = [
    "DamagedError",
    "InputError",
    "decoder_errors",
    "escaped",
    "prefixed",
    "with_prefixes",
]

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


class DamagedError(Exception):
    """The bytes of a file violate its format."""


@contextlib.contextmanager
def decoder_errors() -> Iterator[None]:
    """Turns whatever a library raises for damaged bytes into a `DamagedError`.

    Libraries raise errors of any class for damaged bytes, TypeError and AssertionError
    included. The block should hold calls of a library only: an error of our own code
    that is raised inside a call would be taken for one of the library. An attribute,
    name or argument that is wrong in the block itself, or in a function of this package
    that it calls, is raised as it is.

    Raises:
      DamagedError: With the class and the text of the library's error.
      OSError: If the operating system cannot read the file.
    """
    try:
        yield
    except (DamagedError, MemoryError, ImportError):
        raise
    except Exception as error:
        # This generator and the block are two frames; a call of a library adds its own.
        frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
        last = str(frames[-1].f_globals.get("__name__"))
        own = len(frames) == 2 or last.startswith("metaseg.")
        if own and isinstance(error, (AttributeError, NameError, TypeError)):
            raise
        if isinstance(error, OSError) and error.strerror:
            raise
        raise DamagedError(f"{type(error).__name__}: {error}") from error


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
    if text.isprintable():  # nearly all names
        return text
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

    def with_options(said: str) -> str:
        return re.sub(_OPTION, named, said)

    token = _prefixes.set((with_options, *_prefixes.get()))
    try:
        yield
    except InputError as error:
        said = with_options(str(error))
        if is_ours(said.partition(":")[0]):
            said = f"{prefix}{said}"
        if said == str(error):
            raise
        raise InputError(said) from error.__cause__
    finally:
        _prefixes.reset(token)


_prefixes: contextvars.ContextVar[tuple[Callable[[str], str], ...]] = (
    contextvars.ContextVar("prefixes", default=())
)


def with_prefixes(said: str) -> str:
    """Names the options of a message that is printed and not raised.

    Args:
      said: The message, such as that of an error in a list.

    Returns:
      The message with the prefixes of the blocks of `prefixed` that it is in.

    Example:
      >>> with prefixed("--", "page"):
      ...     print(with_prefixes("a.tif: 3 pages; expected `page=0`"))
      a.tif: 3 pages; expected `--page=0`
    """
    for with_options in _prefixes.get():
        said = with_options(said)
    return said
