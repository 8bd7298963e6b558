"""Label maps: class ids of pixels, and void for pixels without a label.

A label map is an integer array `[..., H, W]` of class ids `0..K-1`. `VOID`, 255, means
"no label", and so does every negative number: -1 is the ignore mark of other packages.
All functions of the package share this rule. Where values are known, which is outside
of `jax.jit`, `jax.vmap` and the like, an id that is neither a class nor void is an
`InputError`. Where they are traced, such an id counts as void.

All functions are pure functions of arrays except `validate`, `check_ids` and
`from_mask`, which read values on the host. May import `errors` and `typing`.
"""

import warnings
from typing import Any, TypeVar, cast

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Bool, Float32, Int32, Integer, Real, Shaped, UInt8

from metaseg.errors import InputError
from metaseg.typing import AnyArray, Labels

__all__ = [
    "VOID",
    "check_ids",
    "class_counts",
    "from_mask",
    "is_void",
    "one_hot",
    "replace_void",
    "validate",
]

VOID = 255
Array = TypeVar("Array", bound=AnyArray)


def is_void(
    labels: Shaped[Array, "*shape"], num_classes: int | None = None
) -> Bool[Array, "*shape"]:
    """Returns where a label map holds no label.

    Args:
      labels: Class ids, integer or float, of any shape; 255 and negative numbers are
        void.
      num_classes: Number of classes K. With it, ids from K on are void too.

    Returns:
      Boolean, the shape of `labels`; true where void.
    """
    ids: Any = labels
    if ids.dtype == np.int8:  # it holds neither 255 nor all numbers of classes
        ids = ids.astype(np.int16)
    void = ids == VOID if num_classes is None else ids >= num_classes
    if not jnp.issubdtype(ids.dtype, jnp.unsignedinteger) and ids.dtype != bool:
        void = void | (ids < 0)
    return cast(Array, void)


def replace_void(
    labels: Integer[AnyArray, "*shape"],
    num_classes: int | None = None,
    *,
    by: int = VOID,
) -> Integer[jax.Array, "*shape"]:
    """Replaces all void, in whatever number, by one id.

    Args:
      labels: Class ids, integer, of any shape; 255 and negative numbers are void.
      num_classes: Number of classes K. With it, ids from K on are void too.
      by: The id that void gets.

    Returns:
      Class ids of the shape and dtype of `labels`.
    """
    ids = jnp.asarray(labels)
    return jnp.where(is_void(ids, num_classes), jnp.asarray(by, ids.dtype), ids)


def one_hot(
    labels: Integer[AnyArray, "*shape"], num_classes: int
) -> Float32[jax.Array, "*shape K"]:
    """Returns the indicator of each class.

    Args:
      labels: Class ids, integer `[..., H, W]`; 255 and negative numbers are void.
      num_classes: Number of classes K.

    Returns:
      float32 `[..., H, W, K]`; all zero where void.

    Raises:
      InputError: If an id is neither in `0..K-1` nor void.
    """
    check_ids(labels, num_classes)
    return jax.nn.one_hot(labels, num_classes, dtype=jnp.float32)


def class_counts(labels: Labels, num_classes: int) -> Int32[jax.Array, "*batch K"]:
    """Counts the pixels of each class in each map; void is not counted.

    Args:
      labels: Class ids, integer `[..., H, W]`; 255 and negative numbers are void.
      num_classes: Number of classes K.

    Returns:
      int32 `[..., K]`.

    Raises:
      InputError: If an id is neither in `0..K-1` nor void.
    """
    check_ids(labels, num_classes)
    hits = jnp.asarray(labels)[..., None] == jnp.arange(num_classes, dtype=labels.dtype)
    return hits.sum(axis=(-3, -2), dtype=jnp.int32)


def from_mask(
    mask: Real[AnyArray, "*shape"] | Bool[AnyArray, "*shape"],
) -> UInt8[np.ndarray, "*shape"]:
    """Converts a mask, such as one of 0 and 255, to class ids.

    Args:
      mask: Booleans, or numbers that are 0 and at most one other value; of any shape.

    Returns:
      uint8, the shape of `mask`: 0 where `mask` is 0 or false, and 1 elsewhere.

    Raises:
      InputError: If `mask` holds two values besides 0.

    Example:
      >>> from_mask(np.array([[0, 255], [255, 0]]))
      array([[0, 1],
             [1, 0]], dtype=uint8)
    """
    values = np.asarray(mask)
    others = np.unique(values[values != 0])
    if len(others) > 1:
        raise InputError(
            f"mask: got {others[0]} and {others[1]} besides 0, expected 0 and one "
            "other value"
        )
    return (values != 0).astype(np.uint8)


def check_ids(
    ids: ArrayLike, num_classes: int | None = None, *, where: str = "labels"
) -> None:
    """Checks that class ids are below K or void; traced ids pass.

    Warns, once, of ids that are 0 and 255 alone where two classes are expected: they
    may be a mask whose foreground would count as void.

    Args:
      ids: Integer class ids, of any shape. 255 and negative numbers are void.
      num_classes: Number of classes K, at most 255; None if it is not known.
      where: Name of the file, argument or field, for the message.

    Raises:
      InputError: If an id is neither in `0..K-1` nor void; names the id.
    """
    if isinstance(ids, jax.core.Tracer) or not getattr(
        ids, "is_fully_addressable", True
    ):
        return
    values = np.asarray(ids)
    known = VOID if num_classes is None else num_classes
    if not values.size or values.dtype == bool or values.max() < known:
        return
    wrong = (values >= known) & (values != VOID)
    if wrong.any():
        raise InputError(
            f"{where}: class id {values[wrong].min()}, "
            f"expected 0..{known - 1} or {VOID} (void)"
        )
    if num_classes in (None, 2) and _is_mask(values):
        warnings.warn(
            f"{where}: holds 0 and {VOID} alone, and {VOID} is void; if {VOID} is "
            "foreground, convert it with metaseg.labels.from_mask",
            stacklevel=2,
        )


def _is_mask(values: np.ndarray) -> bool:
    """Tells whether ids are 0 and 255, both of them, and nothing else."""
    background, void = values == 0, values == VOID
    return bool(background.any() and void.any() and (background | void).all())


def validate(
    labels: ArrayLike, num_classes: int | None = None, *, where: str = "labels"
) -> None:
    """Checks the type, shape and values of label maps; the values of traced ones pass.

    Args:
      labels: Integer class ids `[..., H, W]`. 255 and negative numbers are void.
      num_classes: Number of classes K, at most 255; None if it is not known.
      where: Name of the file, argument or field, for the message.

    Raises:
      InputError: If `labels` is not an integer array, has fewer than two axes, or holds
        an id that is neither in `0..K-1` nor void; names the id.

    Example:
      >>> validate(np.array([[0, 1, 255, -1]]), num_classes=2)
    """
    values: Any = labels if hasattr(labels, "dtype") else np.asarray(labels)
    if np.dtype(values.dtype).kind not in "iu":
        raise InputError(
            f"{where}: got dtype {values.dtype}, expected integer class ids"
        )
    if values.ndim < 2:
        raise InputError(f"{where}: got shape {values.shape}, expected [..., H, W]")
    check_ids(values, num_classes, where=where)
