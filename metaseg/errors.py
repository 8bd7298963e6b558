"""The one exception for wrong input, as opposed to a fault of the package."""

import contextlib
import re
from collections.abc import Iterator

__all__ = ["InputError", "prefixed"]

_OPTION = r"`([a-z_]+(?:\.[a-z_]+)*)(?==[^`]*`|`)"


class InputError(ValueError):
    """Wrong input: a file, argument, config field, shape, class id, rate or matrix.

    The message is one line: `FIELD: got X, expected Y`, or `FILE: ...`. Entry points
    print it without a traceback and exit with status 2. An option that helps is named
    in backquotes, with a value that can be pasted into a shell: `label_threshold=128`.
    """


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
