"""Names in a config -> objects: built-in ones, and plug-ins of other packages.

Imports `errors` only.
"""

import importlib
from collections.abc import Mapping
from typing import Any, TypeVar

from metaseg.errors import InputError

__all__ = ["is_plugin", "lookup"]

T = TypeVar("T")


def is_plugin(name: Any) -> bool:
    """Returns whether a name is that of a plug-in, `"package.module:name"`.

    Args:
      name: Value of a config field.

    Returns:
      True for text with a colon.
    """
    return isinstance(name, str) and ":" in name


def lookup(name: Any, known: Mapping[str, T], *, field: str) -> T:
    """Looks a name up among the built-in objects, or imports a plug-in.

    Args:
      name: A key of `known`, or `"package.module:name"` of an object that can be
        imported.
      known: Built-in objects by name.
      field: Name of the argument, for messages.

    Returns:
      The object.

    Raises:
      InputError: If the name is unknown, the module cannot be imported, or it lacks the
        object.

    Example:
      >>> lookup("one", {"one": 1}, field="noise.name")
      1
      >>> lookup("math:pi", {}, field="noise.name")
      3.141592653589793
    """
    if not is_plugin(name):
        if isinstance(name, str) and name in known:
            return known[name]
        raise InputError(
            f"{field}: got {name!r}, expected one of {', '.join(sorted(known))}, or "
            "'package.module:name'"
        )
    module_name, _, attribute = name.partition(":")
    try:
        found: Any = importlib.import_module(module_name)
    except ImportError as error:
        raise InputError(
            f"{field}: got {name!r}, but module '{module_name}' cannot be imported "
            f"({error}); expected 'package.module:name'"
        ) from error
    except ValueError as error:  # an empty or relative module name
        raise InputError(
            f"{field}: got {name!r}, expected 'package.module:name'"
        ) from (error)
    for part in attribute.split("."):
        if not hasattr(found, part):
            raise InputError(
                f"{field}: got {name!r}, but '{module_name}' has no '{attribute}'; "
                "expected 'package.module:name'"
            )
        found = getattr(found, part)
    return found
