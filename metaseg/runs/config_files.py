"""Config files: Python files whose `get_config` returns the config of a run.

The package brings those of `configs/`; they are known by name. Imports no jax.
"""

import contextlib
import inspect
import runpy
import traceback
from collections.abc import Iterator
from pathlib import Path

from ml_collections import ConfigDict

import metaseg
from metaseg import text
from metaseg.errors import InputError

__all__ = ["find", "load", "names"]

# The wheel holds configs/ inside the package; in a source tree it lies beside it.
_PACKAGE = Path(metaseg.__file__).parent
_FOLDERS = (_PACKAGE / "configs", _PACKAGE.parent / "configs")


def names() -> list[str]:
    """Returns the names of the configs that the package brings, sorted."""
    return sorted(path.stem for path in _folder().glob("[!_]*.py"))


def find(name: str) -> Path:
    """Finds a config file.

    Args:
      name: Path of a file, or the name of a config that the package brings, such as
        `cell_flip` or `cell_flip.py`; no arguments.

    Returns:
      Path of the file.

    Raises:
      InputError: If there is no such file and no such config.
    """
    path = Path(name).expanduser()
    if path.is_file():
        return path
    if path.name == name:
        brought = _folder() / f"{name.removesuffix('.py')}.py"
        if brought.is_file():
            return brought
    raise InputError(
        f"config: got '{name}', expected a file, or one of {', '.join(names())}"
        + text.did_you_mean(path.stem, names())
    )


def load(spec: str) -> ConfigDict:
    """Loads a config.

    Args:
      spec: Path or name as in `find`; with arguments, `NAME:ARGUMENTS`, such as
        `nuclei:noise=flip,rate=0.4`.

    Returns:
      The config that the file's `get_config` returns; its fields can be set, but none
      can be added.

    Raises:
      InputError: If there is no such config, the file cannot be run, or it does not
        take the arguments.
    """
    name, colon, arg = spec.partition(":")
    path = find(name)
    with _errors_of(path):
        get_config = runpy.run_path(str(path)).get("get_config")
    if not callable(get_config):
        raise InputError(
            f"config: '{path}' has no function get_config; expected one that returns a "
            "config"
        )
    parameters = inspect.signature(get_config).parameters
    if colon and not parameters:
        raise InputError(f"config: '{path}' takes no arguments, got '{arg}'")
    optional = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    needed = [
        p
        for p in parameters.values()
        if p.default is p.empty and p.kind not in optional
    ]
    if needed and not colon:
        raise InputError(
            f"config: got '{name}' without arguments, expected {name}:"
            f"{needed[0].name.upper()}, as its get_config takes one"
        )
    with _errors_of(path):
        config = get_config(arg) if colon else get_config()
    if not isinstance(config, ConfigDict):
        raise InputError(
            f"config: '{path}': get_config returned {type(config).__name__}, expected "
            "a ConfigDict"
        )
    return config.lock()


def _folder() -> Path:
    """The folder of the configs that the package brings."""
    return next((path for path in _FOLDERS if path.is_dir()), _FOLDERS[0])


@contextlib.contextmanager
def _errors_of(path: Path) -> Iterator[None]:
    """Raises an InputError with file and line for whatever a config file raises."""
    try:
        yield
    except InputError as error:
        raise InputError(f"config: '{path}': {error}") from error
    except (Exception, SystemExit) as error:
        raise InputError(f"config: '{path}': {_place(error, path)}") from error


def _place(error: BaseException, path: Path) -> str:
    """Returns an error of a config file in one line, with the line of the file."""
    lines = [
        frame.lineno
        for frame in traceback.extract_tb(error.__traceback__)
        if frame.filename == str(path)
    ]
    where = f"line {lines[-1]}: " if lines else ""
    if not isinstance(error, SyntaxError) or error.lineno is None:
        return f"{where}{text.one_line(error)}"
    if error.filename == str(path):
        return f"line {error.lineno}: {error.msg}"
    return f"{where}'{error.filename}', line {error.lineno}: {error.msg}"
