"""Filters over a neighbourhood: dilate, erode, opening, closing, maximum.

A neighbourhood consists of rows that are centred on the pixel, so a filter merges a few
rows. Pixels outside the image belong to no neighbourhood.
"""

import math
from collections.abc import Callable, Iterable
from functools import partial, reduce

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Integer

from metaseg import checks
from metaseg.typing import Labels, Masks

__all__ = ["SHAPES", "closing", "dilate", "erode", "maximum", "opening"]

_UNROLLED = 12  # largest radius whose rows are compiled one by one, the faster way

# For each shape, half the width of the row at distance `dy` from the centre row.
SHAPES: dict[str, Callable[[int, int], int]] = {
    "disk": lambda radius, dy: math.isqrt(radius**2 - dy**2),
    "square": lambda radius, dy: radius,
    "cross": lambda radius, dy: 0 if dy else radius,
}


def dilate(
    mask: Masks, radius: int, *, shape: str = "disk"
) -> Bool[jax.Array, "*batch H W"]:
    """Dilates masks: sets each pixel whose neighbourhood has a pixel of the mask.

    Equal to `scipy.ndimage.binary_dilation` and to scikit-image's `dilation` with
    `mode="ignore"`, with the same footprint.

    Args:
      mask: Boolean `[..., H, W]`.
      radius: Radius of the neighbourhood in pixels, static.
      shape: Shape of the neighbourhood, static. "disk" holds the pixels within the
        Euclidean distance `radius`, "square" has `2 radius + 1` pixels a side, and
        "cross" holds the pixels of a square in the same row or column.

    Returns:
      Boolean array of the shape of `mask`.

    Raises:
      InputError: If `mask` is not a boolean array `[..., H, W]`, `radius` is not an
        integer >= 0, or `shape` is unknown.

    Example:
      >>> import numpy as np
      >>> mask = np.eye(3, dtype=bool)[:, :2]
      >>> dilate(mask, 1, shape="cross").astype(int)
      Array([[1, 1],
             [1, 1],
             [0, 1]], dtype=int32)
    """
    checks.masks("mask", mask)
    return maximum(mask.astype(jnp.uint8), radius, shape=shape).astype(bool)


def erode(
    mask: Masks, radius: int, *, shape: str = "disk"
) -> Bool[jax.Array, "*batch H W"]:
    """Erodes masks: keeps each pixel whose neighbourhood is inside the mask.

    The part of a neighbourhood that is outside of the image is ignored. Equal to
    `scipy.ndimage.binary_erosion` with `border_value=1` and to scikit-image's `erosion`
    with `mode="ignore"`.

    Args:
      mask: Boolean `[..., H, W]`.
      radius: Radius of the neighbourhood in pixels, static.
      shape: Shape of the neighbourhood, as in `dilate`.

    Returns:
      Boolean array of the shape of `mask`.

    Raises:
      InputError: If `mask` is not a boolean array `[..., H, W]`, `radius` is not an
        integer >= 0, or `shape` is unknown.
    """
    checks.masks("mask", mask)
    return ~dilate(~mask, radius, shape=shape)


def opening(
    mask: Masks, radius: int, *, shape: str = "disk"
) -> Bool[jax.Array, "*batch H W"]:
    """Opens masks: removes parts that are smaller than the neighbourhood.

    An erosion and then a dilation. Equal to scikit-image's `opening` with
    `mode="ignore"`.

    Args:
      mask: Boolean `[..., H, W]`.
      radius: Radius of the neighbourhood in pixels, static.
      shape: Shape of the neighbourhood, as in `dilate`.

    Returns:
      Boolean array of the shape of `mask`.

    Raises:
      InputError: If `mask` is not a boolean array `[..., H, W]`, `radius` is not an
        integer >= 0, or `shape` is unknown.
    """
    return dilate(erode(mask, radius, shape=shape), radius, shape=shape)


def closing(
    mask: Masks, radius: int, *, shape: str = "disk"
) -> Bool[jax.Array, "*batch H W"]:
    """Closes masks: fills gaps that are smaller than the neighbourhood.

    A dilation and then an erosion. Equal to scikit-image's `closing` with
    `mode="ignore"`.

    Args:
      mask: Boolean `[..., H, W]`.
      radius: Radius of the neighbourhood in pixels, static.
      shape: Shape of the neighbourhood, as in `dilate`.

    Returns:
      Boolean array of the shape of `mask`.

    Raises:
      InputError: If `mask` is not a boolean array `[..., H, W]`, `radius` is not an
        integer >= 0, or `shape` is unknown.
    """
    return erode(dilate(mask, radius, shape=shape), radius, shape=shape)


def maximum(
    values: Labels, radius: int, *, shape: str = "disk"
) -> Integer[jax.Array, "*batch H W"]:
    """Replaces each value by the highest value of its neighbourhood.

    Equal to `scipy.ndimage.maximum_filter` with the same footprint, `mode="constant"`.

    Args:
      values: Integers >= 0 `[..., H, W]`.
      radius: Radius of the neighbourhood in pixels, static.
      shape: Shape of the neighbourhood, as in `dilate`.

    Returns:
      Integers of the shape and dtype of `values`.

    Raises:
      InputError: If `values` is not such an array, `radius` is not an integer >= 0, or
        `shape` is unknown.
    """
    checks.integers("values", values)
    checks.integer("radius", radius, 0, "pixels")
    checks.choice("shape", shape, SHAPES)
    if not values.size:
        return jnp.asarray(values)
    height, width = values.shape[-2:]
    # No pixel is farther away within the image.
    rows_reached, cols_reached = min(radius, height - 1), min(radius, width - 1)
    half = tuple(
        min(SHAPES[shape](radius, dy), cols_reached) for dy in range(rows_reached + 1)
    )
    if max(rows_reached, cols_reached) > _UNROLLED:
        around_row = np.array([half[abs(dy)] for dy in range(-rows_reached, len(half))])
        table = jnp.asarray(around_row, jnp.int32)
        return _maximum_in_loop(jnp.asarray(values), table, cols_reached)
    return _maximum_unrolled(jnp.asarray(values), half, cols_reached)


@partial(jax.jit, static_argnums=(1, 2))  # so that eager calls compile only once
def _maximum_unrolled(
    values: jax.Array, half: tuple[int, ...], reach: int
) -> jax.Array:
    """Returns `maximum` for rows of half widths `half`, at most `reach`."""
    height, width = values.shape[-2:]
    rows_reached = len(half) - 1
    margins = [(rows_reached, rows_reached), (reach, reach)]
    padded = jnp.pad(values, [(0, 0)] * (values.ndim - 2) + margins)

    def columns(steps: Iterable[int]) -> list[jax.Array]:
        return [padded[..., reach + dx :][..., :width] for dx in steps]

    # XLA compiles plain slices of one padded array to vector instructions in one loop.
    # Without the barriers it would compute a row again at each height where it is used.
    row, reached, rows = columns([0])[0], 0, {}
    for wide in sorted(set(half)):
        beside = range(reached + 1, wide + 1)
        parts = columns([*beside, *(-dx for dx in beside)])
        row = jax.lax.optimization_barrier(reduce(jnp.maximum, parts, row))
        rows[wide], reached = row, wide
    stacked = [
        rows[half[abs(dy)]][..., rows_reached + dy :, :][..., :height, :]
        for dy in range(-rows_reached, rows_reached + 1)
    ]
    return reduce(jnp.maximum, stacked)


@partial(jax.jit, static_argnums=2)  # so that eager calls compile the loop only once
def _maximum_in_loop(values: jax.Array, half: jax.Array, reach: int) -> jax.Array:
    """Returns `maximum` for a neighbourhood of many rows, in a program of bounded size.

    The maximum of a window is that of two windows that cover it, whose width is a power
    of two. Windows of these widths are computed first.

    Args:
      values: Integers `[..., H, W]`.
      half: Half widths of the rows of the neighbourhood, int32 `[2 R + 1]`.
      reach: The largest half width, below W.
    """
    rows_reached = len(half) // 2
    margins = [(rows_reached, rows_reached), (reach, reach)]
    windows = [jnp.pad(values, [(0, 0)] * (values.ndim - 2) + margins)]
    for level in range((2 * reach + 1).bit_length() - 1):
        moved = windows[-1][..., 1 << level :]
        unmoved = [(0, 0)] * (values.ndim - 1) + [(0, 1 << level)]
        windows.append(jnp.maximum(windows[-1], jnp.pad(moved, unmoved)))
    of_level = jnp.stack(windows)
    size = (1, *values.shape)
    batch_start = (jnp.int32(0),) * (values.ndim - 2)

    def merge(row: jax.Array, highest: jax.Array) -> jax.Array:
        wide = half[row]
        level = 31 - jax.lax.clz(2 * wide + 1)
        first, last = reach - wide, reach + wide + 1 - (1 << level)
        for column in (first, last):
            start = (level, *batch_start, jnp.asarray(row, jnp.int32), column)
            window = jax.lax.dynamic_slice(of_level, start, size)[0]
            highest = jnp.maximum(highest, window)
        return highest

    return jax.lax.fori_loop(0, len(half), merge, jnp.zeros_like(values))
