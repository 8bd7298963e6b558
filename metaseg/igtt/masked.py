"""Sums and ranges over the valid pixels of maps `[..., H, W]`. Imports jax only."""

import jax
import jax.numpy as jnp

__all__ = ["count", "extremes", "floats", "total", "unit"]

_AXES = (-2, -1)


def floats(values: jax.Array, valid: jax.Array | None) -> tuple[jax.Array, jax.Array]:
    """Values as float32, 0 where not valid, and which are; by default all."""
    values = jnp.asarray(values, jnp.float32)
    if valid is None:
        return values, jnp.ones(values.shape, bool)
    return jnp.where(valid, values, 0), valid


def total(values: jax.Array, valid: jax.Array) -> jax.Array:
    """Sum over each image's valid pixels, `[...]`."""
    return jnp.sum(jnp.where(valid, values, 0), axis=_AXES)


def count(valid: jax.Array) -> jax.Array:
    """Valid pixels of each image, int32 `[...]`, at least 1 so as to divide by it."""
    return jnp.maximum(jnp.sum(valid, axis=_AXES, dtype=jnp.int32), 1)


def extremes(values: jax.Array, valid: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Lowest and highest value, `[...]`; inf and -inf where no pixel is valid."""
    low = jnp.min(values, _AXES, where=valid, initial=jnp.inf)
    return low, jnp.max(values, _AXES, where=valid, initial=-jnp.inf)


def unit(values: jax.Array, valid: jax.Array) -> jax.Array:
    """Values with each image's range brought to [0, 1]; 0 if constant or not valid."""
    low, high = (x[..., None, None] for x in extremes(values, valid))
    span = jnp.where(high > low, high - low, 1)
    return jnp.where(valid, (values - low) / span, 0)
