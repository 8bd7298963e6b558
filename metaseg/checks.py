"""Checks of arguments, which raise an `InputError` with one line.

Every function takes `where`, the name of the argument, with which the message starts.
Traced values pass, because they are not known yet. Imports no jax until label maps are
checked, so that fields of a config are refused without it. May import `errors` and
`labels`.
"""

import sys
from collections.abc import Collection, Sequence
from numbers import Integral, Real
from typing import Any

import numpy as np

from metaseg.errors import InputError

__all__ = [
    "choice",
    "class_ids",
    "fill",
    "flag",
    "integer",
    "integers",
    "is_integer",
    "is_traced",
    "label_maps",
    "masks",
    "num_classes",
    "number",
    "prior",
    "same_shape",
    "seed",
    "shares",
    "shown",
    "sums_to_one",
]

VOID = 255  # that of `labels`, which imports jax


def shown(value: Any) -> str:
    """Returns a value in one line of bounded length, for messages.

    Args:
      value: Any value.

    Returns:
      Its `repr` on one line, shortened in the middle to about 80 characters.
    """
    text = " ".join(repr(value).split())
    return text if len(text) <= 80 else f"{text[:60]} ... {text[-16:]}"


def is_traced(value: Any) -> bool:
    """Returns whether any part of a value is traced by a JAX transformation.

    Args:
      value: Any value or tree of values.

    Returns:
      True if a leaf is a tracer, whose numbers are not known yet.
    """
    jax = sys.modules.get("jax")
    if jax is None:  # nothing can be traced yet
        return False
    return any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(value))


def is_integer(value: Any) -> bool:
    """Returns whether a value is an integer; bools are not.

    Args:
      value: Any value.

    Returns:
      True for integers of Python and NumPy.
    """
    return isinstance(value, Integral) and not isinstance(value, bool)


def integer(where: str, value: Any, low: int, unit: str = "") -> None:
    """Checks that a value is a static integer of at least `low`.

    Args:
      where: Name of the argument, for the message.
      value: Value to check.
      low: Smallest value allowed.
      unit: Unit, for the message.

    Raises:
      InputError: If the check fails; the message starts with `where`.
    """
    if not is_integer(value) or value < low:
        unit = f" ({unit})" if unit else ""
        raise InputError(
            f"{where}: got {shown(value)}, expected an integer >= {low}{unit}"
        )


def seed(where: str, value: Any) -> None:
    """Checks that a value is a seed: an integer of 32 bits.

    JAX would drop higher bits, so that two seeds would draw the same numbers.

    Args:
      where: Name of the argument, for the message.
      value: Value to check.

    Raises:
      InputError: If the check fails; the message starts with `where`.
    """
    if not is_integer(value) or not 0 <= value < 1 << 32:
        raise InputError(
            f"{where}: got {shown(value)}, expected an integer from 0 to 4294967295"
        )


def number(
    where: str,
    value: Any,
    low: float,
    high: float = np.inf,
    unit: str = "",
    *,
    open_ends: bool = False,
) -> None:
    """Checks that a value is a finite number in [low, high], or in (low, high).

    Args:
      where: Name of the argument, for the message.
      value: Value to check.
      low: Lower end.
      high: Upper end.
      unit: Unit, for the message.
      open_ends: Whether the ends are excluded.

    Raises:
      InputError: If the check fails; the message starts with `where`.
    """
    if is_traced(value):
        return
    scalar = isinstance(value, Real) or getattr(value, "shape", None) == ()
    right = scalar and not isinstance(value, bool) and np.isfinite(value)
    if not right or not (low < value < high if open_ends else low <= value <= high):
        ends, more = ("()", ">") if open_ends else ("[]", ">=")
        bounds = f"in {ends[0]}{low:g}, {high:g}{ends[1]}"
        bounds = bounds if np.isfinite(high) else f"{more} {low:g}"
        unit = f" ({unit})" if unit else ""
        raise InputError(
            f"{where}: got {shown(value)}, expected a number {bounds}{unit}"
        )


def shares(where: str, value: Any, count: int | None) -> np.ndarray | None:
    """Checks numbers in [0, 1]: one, or one per class.

    Args:
      where: Name of the argument, for the message.
      value: Value to check.
      count: How many numbers are allowed besides one; None: any.

    Returns:
      The numbers, or None if they are traced.

    Raises:
      InputError: If the check fails; the message starts with `where`.
    """
    if is_traced(value):
        return None
    expected = "expected a number" + (f" or {count} of them" if count else "")
    try:
        numbers = np.asarray(value, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise InputError(
            f"{where}: got {shown(value)}, {expected} in [0, 1]"
        ) from error
    if numbers.ndim > 1 or (numbers.ndim and count not in (None, len(numbers))):
        raise InputError(f"{where}: got {shown(value)}, {expected} in [0, 1]")
    if not ((numbers >= 0) & (numbers <= 1)).all():
        raise InputError(f"{where}: got {shown(value)}, expected values in [0, 1]")
    return numbers


def prior(where: str, value: Any, num_classes: int | None) -> None:
    """Checks class probabilities.

    Args:
      where: Name of the argument, for the message.
      value: K probabilities that sum to 1, to within rounding to 4 digits, or for K = 2
        the foreground's alone. Classes may have a probability of 0.
      num_classes: Number of classes K; None if it is not known.

    Raises:
      InputError: If the check fails; the message starts with `where`.
    """
    numbers = shares(where, value, num_classes)
    if numbers is not None and numbers.ndim == 0 and num_classes not in (None, 2):
        raise InputError(
            f"{where}: got {shown(value)}, expected {num_classes} values, one per class"
        )
    if numbers is not None and numbers.ndim == 1 and not sums_to_one(numbers):
        raise InputError(f"{where}: sums to {numbers.sum():g}, expected 1")


def sums_to_one(numbers: np.ndarray) -> bool:
    """Returns whether probabilities sum to 1, to within rounding.

    Rounding to four digits changes a sum by up to 0.00005 for each number, and rounding
    to float16 by up to 0.0005.

    Args:
      numbers: Probabilities `[K]`.

    Returns:
      Whether the sum differs from 1 by at most these.
    """
    return bool(abs(numbers.sum() - 1) <= max(6e-4, 5.1e-5 * len(numbers)))


def num_classes(where: str, value: Any) -> None:
    """Checks that a value is a number of classes: an integer from 2 to 255.

    Args:
      where: Name of the argument, for the message.
      value: Value to check.

    Raises:
      InputError: If the check fails; the message starts with `where`.
    """
    if not is_integer(value) or not 2 <= value <= VOID:
        raise InputError(
            f"{where}: got {shown(value)}, expected an integer in 2..{VOID}"
        )


def class_ids(where: str, value: Any, num_classes: int | None) -> None:
    """Checks static class ids: below K, each once, at least one.

    Args:
      where: Name of the argument, for the message.
      value: Value to check.
      num_classes: Number of classes K; None if it is not known.

    Raises:
      InputError: If the check fails; the message starts with `where`.
    """
    known = range(VOID if num_classes is None else num_classes)
    if not isinstance(value, tuple | list | range) or not all(
        is_integer(item) and item in known for item in value
    ):
        raise InputError(
            f"{where}: got {shown(value)}, expected class ids in 0..{known[-1]}"
        )
    if not value or len(set(value)) < len(value):
        raise InputError(f"{where}: got {shown(value)}, expected each class once")


def fill(where: str, value: Any, num_classes: int | None) -> None:
    """Checks a static class id below K, or 255 for void.

    Args:
      where: Name of the argument, for the message.
      value: Value to check.
      num_classes: Number of classes K; None if it is not known.

    Raises:
      InputError: If the check fails; the message starts with `where`.
    """
    known = range(VOID if num_classes is None else num_classes)
    if not is_integer(value) or not (value in known or value == VOID):
        raise InputError(
            f"{where}: got {shown(value)}, "
            f"expected a class id in 0..{known[-1]} or {VOID} (void)"
        )


def choice(where: str, value: Any, known: Collection[str]) -> None:
    """Checks that a value is one of some names.

    Args:
      where: Name of the argument, for the message.
      value: Value to check.
      known: Names that are allowed.

    Raises:
      InputError: If the check fails; the message starts with `where`.
    """
    if not isinstance(value, str) or value not in known:
        raise InputError(
            f"{where}: got {shown(value)}, expected one of {', '.join(known)}"
        )


def flag(where: str, value: Any) -> None:
    """Checks that a value is True or False.

    Args:
      where: Name of the argument, for the message.
      value: Value to check.

    Raises:
      InputError: If the check fails; the message starts with `where`.
    """
    if not isinstance(value, bool):
        raise InputError(f"{where}: got {shown(value)}, expected True or False")


def masks(where: str, value: Any) -> None:
    """Checks that a value is a boolean array `[..., H, W]`.

    Args:
      where: Name of the argument, for the message.
      value: Value to check.

    Raises:
      InputError: If the check fails; the message starts with `where`.
    """
    _arrays(where, value, "b", "booleans")


def label_maps(where: str, value: Any, num_classes: int | None = None) -> None:
    """Checks that a value is an integer array `[..., H, W]` of class ids.

    Its type must hold 255, void. Ids are 0 to K - 1, or void: 255 and negative numbers.

    Args:
      where: Name of the argument, for the message.
      value: Value to check. The ids of a traced one are not known and pass.
      num_classes: Number of classes K; None if it is not known.

    Raises:
      InputError: If the check fails; the message starts with `where`.
    """
    _arrays(where, value, "iu", "integer class ids")
    if np.iinfo(value.dtype).max < VOID:
        raise InputError(
            f"{where}: got dtype {value.dtype}, expected one that holds {VOID}"
        )
    from metaseg.labels import check_ids  # late: imports jax

    check_ids(value, num_classes, where=where)


def integers(where: str, value: Any) -> None:
    """Checks that a value is an integer array `[..., H, W]`.

    Args:
      where: Name of the argument, for the message.
      value: Value to check.

    Raises:
      InputError: If the check fails; the message starts with `where`.
    """
    _arrays(where, value, "iu", "integers")


def same_shape(where: str, value: Any, expected: Sequence[int], as_what: str) -> None:
    """Checks that an array has the shape that another argument gives it.

    Args:
      where: Name of the argument, for the message.
      value: Array to check; it may be traced.
      expected: Shape that is expected.
      as_what: The other argument, for the message.

    Raises:
      InputError: If the shapes differ; names both.
    """
    if np.shape(value) != tuple(expected):
        raise InputError(
            f"{where}: got shape {np.shape(value)}, expected {tuple(expected)}, "
            f"as {as_what}"
        )


def _arrays(where: str, value: Any, kinds: str, expected: str) -> None:
    dtype, ndim = getattr(value, "dtype", None), getattr(value, "ndim", 0)
    if dtype is None or np.dtype(dtype).kind not in kinds:
        got = type(value).__name__ if dtype is None else f"dtype {dtype}"
        raise InputError(f"{where}: got {got}, expected an array of {expected}")
    if ndim < 2:
        raise InputError(f"{where}: got shape {value.shape}, expected [..., H, W]")
