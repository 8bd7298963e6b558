"""Sums and ranges over the valid pixels of maps `[..., H, W]`.

May import `checks`, `errors` and `typing`.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float, Integer, Real

from metaseg import checks
from metaseg.errors import InputError
from metaseg.typing import AnyArray, Masks

__all__ = [
    "check_images",
    "count",
    "extremes",
    "floats",
    "total",
    "unit",
    "validity",
]

_AXES = (-2, -1)


def floats(
    values: Real[AnyArray, "*batch H W"], valid: Masks | None
) -> tuple[Float[jax.Array, "*batch H W"], Bool[jax.Array, "*batch H W"]]:
    """Converts values to float32 and sets invalid pixels to 0.

    Args:
      values: Numbers `[..., H, W]`.
      valid: Boolean `[..., H, W]`, false at padding; None means all pixels are valid.

    Returns:
      The values, float32 `[..., H, W]`, and their validity, boolean `[..., H, W]`.

    Raises:
      InputError: If `values` has fewer than two axes, or `valid` another shape.
    """
    if jnp.ndim(values) < 2:
        raise InputError(f"scores: got shape {jnp.shape(values)}, expected [..., H, W]")
    values = jnp.asarray(values, jnp.float32)
    if valid is None:
        return values, jnp.ones(values.shape, bool)
    valid = validity(values, valid, "scores")
    return jnp.where(valid, values, 0), valid


def validity(
    values: AnyArray, valid: Masks | None, name: str
) -> Bool[jax.Array, "*batch H W"]:
    """Returns which pixels of maps are valid.

    Args:
      values: Maps `[..., H, W]`.
      valid: Boolean `[..., H, W]`, false at padding; None means all pixels are valid.
      name: Name of the maps, for the message.

    Returns:
      Boolean, the shape of `values`.

    Raises:
      InputError: If `valid` has another shape.
    """
    if valid is None:
        return jnp.ones(values.shape, bool)
    checks.same_shape("valid", valid, values.shape, name)
    return jnp.asarray(valid)


def check_images(images: AnyArray, shape: Sequence[int], name: str) -> None:
    """Checks that images have the pixels of maps.

    Args:
      images: Numbers `[..., H, W, C]`.
      shape: Shape of the maps, `[..., H, W]`.
      name: Name of the maps, for the message.

    Raises:
      InputError: If the shapes differ.
    """
    if jnp.shape(images)[:-1] != tuple(shape):
        raise InputError(
            f"images: got shape {jnp.shape(images)}, expected {tuple(shape)} and "
            f"channels, as {name}"
        )


def total(
    values: Real[AnyArray, "*batch H W"], valid: Masks
) -> Real[jax.Array, "*batch"]:
    """Sums the valid pixels of each map.

    Args:
      values: Numbers `[..., H, W]`.
      valid: Boolean `[..., H, W]`.

    Returns:
      Sums `[...]`.
    """
    return jnp.sum(jnp.where(valid, values, 0), axis=_AXES)


def count(valid: Masks) -> Integer[jax.Array, "*batch"]:
    """Counts the valid pixels of each map.

    Args:
      valid: Boolean `[..., H, W]`.

    Returns:
      int32 `[...]`, at least 1, so that the count can be a divisor.
    """
    return jnp.maximum(jnp.sum(valid, axis=_AXES, dtype=jnp.int32), 1)


def extremes(
    values: Float[AnyArray, "*batch H W"], valid: Masks
) -> tuple[Float[jax.Array, "*batch"], Float[jax.Array, "*batch"]]:
    """Finds the lowest and the highest valid value of each map.

    Args:
      values: Float `[..., H, W]`.
      valid: Boolean `[..., H, W]`.

    Returns:
      Lowest and highest value, both `[...]`; inf and -inf where no pixel is valid.
    """
    low = jnp.min(values, _AXES, where=valid, initial=jnp.inf)
    return low, jnp.max(values, _AXES, where=valid, initial=-jnp.inf)


def unit(
    values: Float[AnyArray, "*batch H W"], valid: Masks
) -> Float[jax.Array, "*batch H W"]:
    """Scales the valid values of each map to [0, 1].

    Args:
      values: Float `[..., H, W]`.
      valid: Boolean `[..., H, W]`.

    Returns:
      Scaled values `[..., H, W]`; 0 for constant maps and where not valid.
    """
    low, high = (x[..., None, None] for x in extremes(values, valid))
    span = jnp.where(high > low, high - low, 1)
    return jnp.where(valid, (values - low) / span, 0)
