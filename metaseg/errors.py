"""The one exception that means "your input is wrong", as opposed to "our code is"."""

__all__ = ["InputError"]


class InputError(ValueError):
    """Bad input by the user: a file, config field, shape, class id, rate or matrix.

    The message is one line that names the file or field, what was got and what was
    expected. Entry points print it without a traceback and exit with status 2.
    """
