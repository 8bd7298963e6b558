"""What a label map is: class ids on a pixel grid, and void where nothing is said.

A label map is an integer array `[..., H, W]` of class ids `0..K-1`; `VOID` means "no
label". Everything here is a pure function of arrays, but for `validate`, which looks
at values on the host. Imports `metaseg.errors` only.
"""

import jax
import jax.numpy as jnp
import numpy as np

from metaseg.errors import InputError

__all__ = ["VOID", "class_counts", "is_void", "one_hot", "validate"]

VOID = 255


def is_void(labels: jax.Array) -> jax.Array:
    """Returns where a label map holds no label.

    Args:
      labels: Class ids, integer or float, of any shape; 255 is void.

    Returns:
      Boolean, the shape of `labels`; true where void.
    """
    return labels == VOID


def one_hot(labels: jax.Array, num_classes: int) -> jax.Array:
    """Returns the indicator of each class.

    Args:
      labels: Class ids, integer `[..., H, W]`; 255 is void.
      num_classes: Number of classes K.

    Returns:
      float32 `[..., H, W, K]`; all zero where void.
    """
    return jax.nn.one_hot(labels, num_classes, dtype=jnp.float32)


def class_counts(labels: jax.Array, num_classes: int) -> jax.Array:
    """Counts the pixels of each class in each map; void is not counted.

    Args:
      labels: class ids, integer `[..., H, W]`.
      num_classes: K.

    Returns:
      int32 `[..., K]`.
    """
    hits = labels[..., None] == jnp.arange(num_classes, dtype=labels.dtype)
    return hits.sum(axis=(-3, -2), dtype=jnp.int32)


def validate(
    labels: np.ndarray | jax.Array, num_classes: int, *, where: str = "labels"
) -> None:
    """Check label maps on the host, before they go anywhere.

    Args:
      labels: what should be integer class ids `[..., H, W]`.
      num_classes: K, at most 255 as `VOID` is taken.
      where: the file or field that the message names.

    Raises:
      InputError: not integers, fewer than two axes, or an id that is neither in
        `0..K-1` nor `VOID`; names the offending id.
    """
    values = np.asarray(labels)
    if values.dtype.kind not in "iu":
        raise InputError(f"{where}: dtype {values.dtype}, expected integer class ids")
    if values.ndim < 2:
        raise InputError(f"{where}: shape {values.shape}, expected [..., H, W]")
    wrong = ((values < 0) | (values >= num_classes)) & (values != VOID)
    if wrong.any():
        raise InputError(
            f"{where}: class id {values[wrong].min()}, "
            f"expected 0..{num_classes - 1} or {VOID} (void)"
        )
