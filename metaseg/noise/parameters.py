"""Checks of the parameters of noises: one check per name, shared by all noises.

A noise that is decorated with `checked` first checks its parameters. `check` does the
same for the fields of a config. Traced values pass.
"""

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any, ParamSpec

import jax
import jax.numpy as jnp
import numpy as np

from metaseg import checks, morphology, ntm
from metaseg.errors import InputError
from metaseg.labels import check_ids, replace_void
from metaseg.noise import draw

__all__ = ["CHECKS", "check", "check_labels", "checked", "keyword_only"]

P = ParamSpec("P")


def checked(noise: Callable[P, jax.Array]) -> Callable[P, jax.Array]:
    """Makes a noise check its key, labels and parameters first.

    Args:
      noise: Function `(key, labels, *, parameters) -> labels`, of labels that are a jax
        array and hold at least one pixel.

    Returns:
      The same function with the checks, which raise an `InputError`. It takes NumPy
      arrays too, gets 255 for void that has another number, and returns labels without
      pixels as they are.
    """
    signature = inspect.signature(noise)

    @functools.wraps(noise)
    def call(*args: P.args, **kwargs: P.kwargs) -> jax.Array:
        bound = signature.bind(*args, **kwargs)
        bound.apply_defaults()
        given = {
            name: value
            for name, value in bound.arguments.items()
            if value is not None or signature.parameters[name].default is not None
        }
        bound.arguments["key"] = _key(given["key"])
        num_classes = given.get("num_classes")
        if num_classes is not None:
            checks.num_classes("num_classes", num_classes)
        check(given, num_classes)
        labels = _only_classes(given["labels"], _classes_of(given))
        if not labels.size:
            return jnp.asarray(labels)
        bound.arguments["labels"] = jnp.asarray(labels)
        return noise(*bound.args, **bound.kwargs)

    return call


def _key(key: Any) -> jax.Array:
    """Returns a typed PRNG key; `(labels, key)`, a common slip, is an InputError."""
    dtype, shape = getattr(key, "dtype", None), getattr(key, "shape", None)
    is_key = dtype is not None and jax.dtypes.issubdtype(dtype, jax.dtypes.prng_key)
    if dtype == np.uint32 and np.ndim(key) == 1:  # as of jax.random.PRNGKey
        return jax.random.wrap_key_data(jnp.asarray(key))
    if not is_key or shape != ():
        got = checks.shown(key) if dtype is None else f"{dtype} of shape {shape}"
        raise InputError(
            f"key: got {got}, expected a key, as of jax.random.key; the key comes "
            "first: (key, labels)"
        )
    return key


def _classes_of(given: Mapping[str, Any]) -> int | None:
    """Returns the number of classes that the parameters are for, if they tell."""
    if given.get("num_classes") is not None:
        return int(given["num_classes"])
    for name in ("matrix", "rate"):  # a row, or a number, for each class
        value: Any = given.get(name)
        if isinstance(value, tuple | list) or (hasattr(value, "ndim") and value.ndim):
            return len(value)
    return None


def _only_classes(labels: Any, num_classes: int | None) -> Any:
    """Checks label maps; returns them with 255 for all that is void."""
    checks.label_maps("labels", labels, num_classes)
    traced, signed = checks.is_traced(labels), np.dtype(labels.dtype).kind == "i"
    if traced and (signed or num_classes is not None):
        return replace_void(labels, num_classes)
    if not traced and signed and labels.size and labels.min() < 0:
        return replace_void(labels)
    return labels


def check_labels(labels: Any, *noise_fns: Callable[..., Any]) -> None:
    """Checks the ids of label maps before a transformation hides them from noises.

    Args:
      labels: Class ids, or soft targets, which pass.
      *noise_fns: The noises. The number of classes is that of their `num_classes`.

    Raises:
      InputError: If an id is neither below the number of classes nor void.
    """
    if np.dtype(getattr(labels, "dtype", object)).kind not in "iu":
        return
    for noise_fn in noise_fns:
        known = inspect.signature(noise_fn).parameters.get("num_classes")
        default = None if known is None else known.default
        check_ids(labels, default if checks.is_integer(default) else None)


def check(
    given: Mapping[str, Any],
    num_classes: int | None,
    fields: Mapping[str, str] | None = None,
) -> None:
    """Checks parameters by name.

    Args:
      given: Parameters. Traced ones and those that have no check pass.
      num_classes: K, or None if it is not known.
      fields: Names of the parameters in error messages; by default their own names.

    Raises:
      InputError: If a parameter is out of range; names the first such.
    """
    fields = {} if fields is None else fields
    for name, check_one in CHECKS.items():
        if name in given and not checks.is_traced(given[name]):
            check_one(fields.get(name, name), given[name], num_classes, given)


def keyword_only(fn: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    """Returns the parameters of a noise: its keyword-only parameters.

    Args:
      fn: Function `(key, labels, *, parameters) -> labels`.

    Returns:
      Parameters by name.
    """
    return {
        name: parameter
        for name, parameter in inspect.signature(fn).parameters.items()
        if parameter.kind is inspect.Parameter.KEYWORD_ONLY
    }


# Arguments: name for messages, value, K or None, all parameters that are given.
_Check = Callable[[str, Any, int | None, Mapping[str, Any]], None]


def _value(check_one: Callable[..., None], *args: Any, **kwargs: Any) -> _Check:
    """Makes a check that depends on the value only."""
    return lambda where, value, *_: check_one(where, value, *args, **kwargs)


def _with_classes(check_one: Callable[[str, Any, int | None], Any]) -> _Check:
    """Makes a check that depends on the value and the number of classes."""
    return lambda where, value, num_classes, _: check_one(where, value, num_classes)


def _fraction(
    where: str, value: Any, num_classes: int | None, given: Mapping[str, Any]
) -> None:
    classes = given.get("classes")
    count = None if num_classes is None else num_classes - 1
    if classes is not None:
        count = len(classes)
    checks.shares(where, value, count)


def _matrix(where: str, value: Any, num_classes: int | None) -> None:
    if num_classes is None:
        num_classes = len(value) if hasattr(value, "__len__") else 2
    ntm.validate(value, num_classes, where=where)


def _weights(
    where: str, value: Any, num_classes: int | None, given: Mapping[str, Any]
) -> None:
    del num_classes
    count = len(given["noises"])
    try:
        weights = np.asarray(value, dtype=np.float64)
    except (TypeError, ValueError):
        weights = np.zeros(0)
    if weights.shape != (count,) or not (weights >= 0).all() or not weights.sum() > 0:
        raise InputError(
            f"{where}: got {checks.shown(value)}, expected {count} numbers >= 0, one "
            "per noise, not all of them 0"
        )


def _shift(where: str, value: Any) -> None:
    checks.integer(where, value, 0, "pixels")
    if value > draw.LARGEST_MOVE:
        raise InputError(
            f"{where}: got {value}, expected an integer in 0..{draw.LARGEST_MOVE}"
        )


_pixels = _value(checks.integer, 0, "pixels")
_distance = _value(checks.number, 0, unit="pixels")
_share = _value(checks.number, 0, 1)

CHECKS: dict[str, _Check] = {
    "classes": _with_classes(checks.class_ids),  # first, as `fraction` depends on it
    "rate": _with_classes(checks.shares),
    "fraction": _fraction,
    "prior": _with_classes(checks.prior),
    "matrix": _with_classes(_matrix),
    "fill": _with_classes(checks.fill),
    "exact": _value(checks.flag),
    "radius": _pixels,
    "shape": _value(checks.choice, tuple(morphology.SHAPES)),
    "per": _value(checks.choice, ("image", "object")),
    "shift": _value(_shift),
    "angle": _value(checks.number, 0, 180, "degrees"),
    "scale": _value(checks.number, 0, 0.9),
    "shear": _value(checks.number, 0, 60, "degrees"),
    "amplitude": _value(checks.number, 0, 256, "pixels"),
    "wavelength": _value(checks.number, 2, unit="pixels"),
    "steps": _value(checks.integer, 0),
    "theta1": _share,
    "theta2": _share,
    "theta3": _share,
    "blur": _distance,
    "sigma": _distance,
    "tolerance": _distance,
    "factor": _value(checks.integer, 1, "pixels"),
    "count": _value(checks.integer, 0),
    "background": _value(checks.integer, 0),
    "length": _distance,
    "weights": _weights,
}
