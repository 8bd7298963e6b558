"""Filters over a neighbourhood: dilate, erode, opening, closing, maximum.

A neighbourhood consists of rows that are centred on the pixel, so a filter merges a few
rows. Pixels outside the image belong to no neighbourhood.
"""

import functools
import math
from collections.abc import Callable, Iterable

import jax
import jax.numpy as jnp
from jaxtyping import Bool, Integer

from metaseg import checks
from metaseg.typing import Labels, Masks

__all__ = ["SHAPES", "closing", "dilate", "erode", "maximum", "opening"]

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
    height, width = values.shape[-2:]
    around = [(0, 0)] * (values.ndim - 2) + [(radius, radius)] * 2
    padded = jnp.pad(values, around)

    def columns(steps: Iterable[int]) -> list[jax.Array]:
        return [padded[..., radius + dx :][..., :width] for dx in steps]

    # XLA compiles plain slices of one padded array to vector instructions in one loop.
    # Without the barriers it would compute a row again at each height where it is used.
    half = [SHAPES[shape](radius, dy) for dy in range(radius + 1)]
    row, reached, rows = columns([0])[0], 0, {}
    for reach in sorted(set(half)):
        beside = range(reached + 1, reach + 1)
        parts = columns([*beside, *(-dx for dx in beside)])
        row = jax.lax.optimization_barrier(functools.reduce(jnp.maximum, parts, row))
        rows[reach], reached = row, reach
    stacked = [
        rows[half[abs(dy)]][..., radius + dy :, :][..., :height, :]
        for dy in range(-radius, radius + 1)
    ]
    return functools.reduce(jnp.maximum, stacked)
