"""Label maps: class ids of pixels, and void for pixels without a label.

A label map is an integer array `[..., H, W]` of class ids `0..K-1`; `VOID` means "no
label". All functions are pure functions of arrays except `validate`, which reads values
on the host. May import `errors` and `typing`.
"""

from typing import TypeVar, cast

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Bool, Float32, Int32, Integer, Shaped

from metaseg.errors import InputError
from metaseg.typing import AnyArray, Labels

__all__ = ["VOID", "class_counts", "is_void", "one_hot", "validate"]

VOID = 255
Array = TypeVar("Array", bound=AnyArray)


def is_void(labels: Shaped[Array, "*shape"]) -> Bool[Array, "*shape"]:
    """Returns where a label map holds no label.

    Args:
      labels: Class ids, integer or float, of any shape; 255 is void.

    Returns:
      Boolean, the shape of `labels`; true where void.
    """
    return cast(Array, labels == VOID)


def one_hot(
    labels: Integer[AnyArray, "*shape"], num_classes: int
) -> Float32[jax.Array, "*shape K"]:
    """Returns the indicator of each class.

    Args:
      labels: Class ids, integer `[..., H, W]`; 255 is void.
      num_classes: Number of classes K.

    Returns:
      float32 `[..., H, W, K]`; all zero where void.
    """
    return jax.nn.one_hot(labels, num_classes, dtype=jnp.float32)


def class_counts(labels: Labels, num_classes: int) -> Int32[jax.Array, "*batch K"]:
    """Counts the pixels of each class in each map; void is not counted.

    Args:
      labels: Class ids, integer `[..., H, W]`; 255 is void.
      num_classes: Number of classes K.

    Returns:
      int32 `[..., K]`.
    """
    hits = jnp.asarray(labels)[..., None] == jnp.arange(num_classes, dtype=labels.dtype)
    return hits.sum(axis=(-3, -2), dtype=jnp.int32)


def validate(labels: ArrayLike, num_classes: int, *, where: str = "labels") -> None:
    """Checks the values of label maps on the host.

    Args:
      labels: Integer class ids `[..., H, W]`.
      num_classes: Number of classes K, at most 255.
      where: Name of the file, argument or field, for the message.

    Raises:
      InputError: If `labels` is not an integer array, has fewer than two axes, or holds
        an id that is neither in `0..K-1` nor `VOID`; names the id.

    Example:
      >>> validate(np.array([[0, 1, 255]]), num_classes=2)
    """
    values = np.asarray(labels)
    if values.dtype.kind not in "iu":
        raise InputError(
            f"{where}: got dtype {values.dtype}, expected integer class ids"
        )
    if values.ndim < 2:
        raise InputError(f"{where}: got shape {values.shape}, expected [..., H, W]")
    wrong = ((values < 0) | (values >= num_classes)) & (values != VOID)
    if wrong.any():
        raise InputError(
            f"{where}: class id {values[wrong].min()}, "
            f"expected 0..{num_classes - 1} or {VOID} (void)"
        )
