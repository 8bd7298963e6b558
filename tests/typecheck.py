"""The checker of array annotations, applied to all of metaseg by `conftest.py`.

Every argument that violates its annotation must be refused: by the function itself,
with an error of its own, or else by this checker. So a function is called before its
arguments are checked; if it raises, its error is the one that counts. What it returns
is checked always. Only annotations of arrays are looked at.
"""

import inspect
from collections.abc import Callable
from typing import Any, get_args

from beartype import BeartypeConf, beartype
from jaxtyping import AbstractArray

# An int passes as a float.
_beartype = beartype(conf=BeartypeConf(is_pep484_tower=True))


def typechecked(stub: Callable) -> Callable:
    """What jaxtyping asks of a type checker, for two stubs of each function.

    One, whose result is `Any`, is called with the arguments before the function is, and
    passes here. The other is called afterwards, with the arguments and the result.
    """
    annotations = stub.__annotations__
    if annotations["return"] is Any:
        return stub
    stub.__annotations__ = {
        name: annotation if _holds_arrays(annotation) else Any
        for name, annotation in annotations.items()
    }
    if all(annotation is Any for annotation in stub.__annotations__.values()):
        return stub
    return _beartype(stub)


def _holds_arrays(annotation: Any) -> bool:
    if inspect.isclass(annotation) and issubclass(annotation, AbstractArray):
        return True
    return any(map(_holds_arrays, get_args(annotation)))
