"""Config files: Python files whose `get_config` returns the config of a run.

The package brings those of `configs/`; they are known by name. Imports no jax.
"""

import difflib
import inspect
import runpy
import traceback
from pathlib import Path

from ml_collections import ConfigDict

import metaseg
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
    path = Path(name)
    if path.is_file():
        return path
    if path.name == name:
        brought = _folder() / f"{name.removesuffix('.py')}.py"
        if brought.is_file():
            return brought
    close = difflib.get_close_matches(path.stem, names(), 1, 0.8)
    hint = f" (did you mean {close[0]}?)" if close else ""
    raise InputError(
        f"config: got '{name}', expected a file, or one of {', '.join(names())}{hint}"
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
    try:
        get_config = runpy.run_path(str(path)).get("get_config")
    except InputError as error:
        raise InputError(f"config: '{path}': {error}") from error
    except Exception as error:  # the file may raise anything
        raise InputError(f"config: '{path}': {_place(error, path)}") from error
    if not callable(get_config):
        raise InputError(f"config: '{path}' has no function get_config")
    if colon and not inspect.signature(get_config).parameters:
        raise InputError(f"config: '{path}' takes no arguments, got '{arg}'")
    try:
        config = get_config(arg) if colon else get_config()
    except InputError as error:
        raise InputError(f"config: '{path}': {error}") from error
    except Exception as error:  # the file may raise anything
        raise InputError(f"config: '{path}': {_place(error, path)}") from error
    if not isinstance(config, ConfigDict):
        raise InputError(
            f"config: '{path}': get_config returned {type(config).__name__}, expected "
            "a ConfigDict"
        )
    return config.lock()


def _folder() -> Path:
    """The folder of the configs that the package brings."""
    return next((path for path in _FOLDERS if path.is_dir()), _FOLDERS[0])


def _place(error: Exception, path: Path) -> str:
    """An error of a config file in one line, with the line of the file."""
    if isinstance(error, SyntaxError):
        return f"line {error.lineno}: {error.msg}"
    lines = [
        frame.lineno
        for frame in traceback.extract_tb(error.__traceback__)
        if frame.filename == str(path)
    ]
    where = f"line {lines[-1]}: " if lines else ""
    return f"{where}{type(error).__name__}: {' '.join(str(error).split())}"
