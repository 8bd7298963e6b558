"""The one exception for wrong input, as opposed to a fault of the package."""

import contextlib
from collections.abc import Iterator

__all__ = ["InputError", "prefixed"]


class InputError(ValueError):
    """Wrong input: a file, argument, config field, shape, class id, rate or matrix.

    The message is one line: `FIELD: got X, expected Y`, or `FILE: ...`. Entry points
    print it without a traceback and exit with status 2.
    """


@contextlib.contextmanager
def prefixed(prefix: str, *fields: str) -> Iterator[None]:
    """Puts a prefix before the field that an `InputError` of the block names.

    Library functions name their arguments; their callers know where a value came from.

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
    try:
        yield
    except InputError as error:
        field = str(error).partition(":")[0]
        if fields and not any(f"{field}.".startswith(f"{known}.") for known in fields):
            raise
        raise InputError(f"{prefix}{error}") from error.__cause__
