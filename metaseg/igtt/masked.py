"""Sums and ranges over the valid pixels of maps `[..., H, W]`. Imports jax only."""

import jax
import jax.numpy as jnp

__all__ = ["count", "extremes", "floats", "total", "unit"]

_AXES = (-2, -1)


def floats(values: jax.Array, valid: jax.Array | None) -> tuple[jax.Array, jax.Array]:
    """Converts values to float32 and sets invalid pixels to 0.

    Args:
      values: Numbers `[..., H, W]`.
      valid: Boolean `[..., H, W]`, false at padding; None means all pixels are valid.

    Returns:
      float32 values and boolean validity, both `[..., H, W]`.
    """
    values = jnp.asarray(values, jnp.float32)
    if valid is None:
        return values, jnp.ones(values.shape, bool)
    return jnp.where(valid, values, 0), valid


def total(values: jax.Array, valid: jax.Array) -> jax.Array:
    """Sums `values` `[..., H, W]` over the valid pixels of each map, `[...]`."""
    return jnp.sum(jnp.where(valid, values, 0), axis=_AXES)


def count(valid: jax.Array) -> jax.Array:
    """Counts the valid pixels of each map, int32 `[...]`.

    The count is at least 1, so that it can be a divisor.
    """
    return jnp.maximum(jnp.sum(valid, axis=_AXES, dtype=jnp.int32), 1)


def extremes(values: jax.Array, valid: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Returns the lowest and highest valid value of each map, both `[...]`.

    They are inf and -inf where no pixel is valid.
    """
    low = jnp.min(values, _AXES, where=valid, initial=jnp.inf)
    return low, jnp.max(values, _AXES, where=valid, initial=-jnp.inf)


def unit(values: jax.Array, valid: jax.Array) -> jax.Array:
    """Scales the valid values of each map to [0, 1].

    Constant maps and invalid pixels become 0.
    """
    low, high = (x[..., None, None] for x in extremes(values, valid))
    span = jnp.where(high > low, high - low, 1)
    return jnp.where(valid, (values - low) / span, 0)
