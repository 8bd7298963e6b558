"""Exact Euclidean distance to the background.

The distance `g` within each column comes first, then along rows `D(x)^2 = min over x'
of g(x')^2 + (x - x')^2`. Only the square root is not in integers. Source: Saito and
Toriwaki, "New algorithms for Euclidean distance transformation", Pattern Recognition
27, 1994.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Float32

from metaseg import checks
from metaseg.errors import InputError
from metaseg.typing import AnyArray, Masks

__all__ = ["distance"]

_LONGEST = 11_000  # pixels a side: the diagonal stays below _FAR
_FAR = 1 << 14  # longer than any distance; its square leaves room in 32 bits
_STRIDE = 16  # offsets merged in one pass over memory


def distance(mask: Masks) -> Float32[jax.Array, "*batch H W"]:
    """Computes the distance from each pixel of masks to the nearest pixel outside.

    Equal to `scipy.ndimage.distance_transform_edt`, except for masks without any
    background, for which SciPy's result is not defined. Here the distance is infinite.

    Args:
      mask: Boolean `[..., H, W]`, sides of at most 11 000 pixels.

    Returns:
      float32 `[..., H, W]`, in pixels; 0 outside the mask.

    Raises:
      InputError: If `mask` is not a boolean array `[..., H, W]` or a side is too
        long.

    Example:
      >>> import numpy as np
      >>> distance(np.array([[False, True, True]]))
      Array([[0., 1., 2.]], dtype=float32)
    """
    checks.masks("mask", mask)
    if max(mask.shape[-2:]) > _LONGEST:
        raise InputError(
            f"mask: got shape {mask.shape}, expected sides of at most {_LONGEST} pixels"
        )
    return _distance(mask)


@jax.jit  # so that eager calls compile the loops only once
def _distance(mask: AnyArray) -> jax.Array:
    squared = _along_rows(_column_distance(~mask) ** 2)
    return jnp.where(squared < _FAR**2, jnp.sqrt(squared.astype(jnp.float32)), jnp.inf)


def _column_distance(sites: AnyArray) -> jax.Array:
    """Distance to the nearest site of the column, int32; `_FAR` if there is none."""

    def step(above: jax.Array, row: jax.Array) -> tuple[jax.Array, jax.Array]:
        here = jnp.where(row, 0, jnp.minimum(above + 1, _FAR))
        return here, here

    rows = jnp.moveaxis(sites, -2, 0)
    none = jnp.full(rows.shape[1:], _FAR, jnp.int32)
    _, down = jax.lax.scan(step, none, rows)
    _, up = jax.lax.scan(step, none, rows, reverse=True)
    return jnp.moveaxis(jnp.minimum(down, up), 0, -2)


def _along_rows(squared: jax.Array) -> jax.Array:
    """Computes `min over x' of squared(x') + (x - x')^2` by growing offsets.

    An offset whose square is not below the largest squared distance cannot change the
    result, so the loop ends there.
    """
    width = squared.shape[-1]
    margin = (-(-width // _STRIDE) + 1) * _STRIDE
    around = [(0, 0)] * (squared.ndim - 1) + [(margin, margin)]
    padded = jnp.pad(squared, around, constant_values=_FAR**2)
    size = width + _STRIDE - 1

    def useful(state: tuple[jax.Array, jax.Array]) -> jax.Array:
        done, nearest = state
        return (done < width) & ((done + 1) ** 2 < jnp.max(nearest, initial=0))

    def merge(state: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        done, nearest = state
        left_end, right_end = margin - done - _STRIDE, margin + done + 1
        left = jax.lax.dynamic_slice_in_dim(padded, left_end, size, axis=-1)
        right = jax.lax.dynamic_slice_in_dim(padded, right_end, size, axis=-1)
        for index in range(_STRIDE):
            back = _STRIDE - 1 - index
            pair = jnp.minimum(
                left[..., back : back + width], right[..., index : index + width]
            )
            nearest = jnp.minimum(nearest, pair + (done + 1 + index) ** 2)
        return done + _STRIDE, nearest

    return jax.lax.while_loop(useful, merge, (jnp.int32(0), squared))[1]
