"""Filters over a neighbourhood: dilate, erode, opening, closing, maximum.

A neighbourhood is a stack of rows, each centred on the pixel, so a filter is a merge of
a few rows. Pixels outside the image belong to no neighbourhood.
"""

import functools
import math
from collections.abc import Callable, Iterable

import jax
import jax.numpy as jnp

from metaseg import checks

__all__ = ["SHAPES", "closing", "dilate", "erode", "maximum", "opening"]

# Shape -> half the width of the row `dy` above or below the centre, given the radius.
SHAPES: dict[str, Callable[[int, int], int]] = {
    "disk": lambda radius, dy: math.isqrt(radius**2 - dy**2),
    "square": lambda radius, dy: radius,
    "cross": lambda radius, dy: 0 if dy else radius,
}


def dilate(mask: jax.Array, radius: int, shape: str = "disk") -> jax.Array:
    """Every pixel whose neighbourhood meets the mask.

    Equal to `scipy.ndimage.binary_dilation` and to scikit-image's `dilation` with
    `mode="ignore"`, with the same footprint.

    Args:
      mask: boolean `[..., H, W]`.
      radius: pixels, a static integer >= 0.
      shape: static: "disk", pixels within Euclidean distance `radius`; "square", `2
        radius + 1` pixels a side; "cross", the same row and column.

    Returns:
      Boolean `[..., H, W]`, the shape of `mask`.

    Raises:
      InputError: wrong mask, radius or shape.
    """
    checks.masks("mask", mask)
    return maximum(mask.astype(jnp.uint8), radius, shape).astype(bool)


def erode(mask: jax.Array, radius: int, shape: str = "disk") -> jax.Array:
    """Every pixel whose neighbourhood inside the image is all in the mask.

    Equal to `scipy.ndimage.binary_erosion` with `border_value=1` and to scikit-image's
    `erosion` with `mode="ignore"`: outside the image does not erode.

    Args:
      mask: boolean `[..., H, W]`.
      radius: pixels, a static integer >= 0.
      shape: as in `dilate`.

    Returns:
      Boolean `[..., H, W]`, the shape of `mask`.

    Raises:
      InputError: wrong mask, radius or shape.
    """
    checks.masks("mask", mask)
    return ~dilate(~mask, radius, shape)


def opening(mask: jax.Array, radius: int, shape: str = "disk") -> jax.Array:
    """Erosion, then dilation: drops what the neighbourhood does not fit into.

    Equal to scikit-image's `opening` with `mode="ignore"`.

    Args:
      mask: boolean `[..., H, W]`.
      radius: pixels, a static integer >= 0.
      shape: as in `dilate`.

    Returns:
      Boolean `[..., H, W]`, the shape of `mask`.

    Raises:
      InputError: wrong mask, radius or shape.
    """
    return dilate(erode(mask, radius, shape), radius, shape)


def closing(mask: jax.Array, radius: int, shape: str = "disk") -> jax.Array:
    """Dilation, then erosion: fills gaps that the neighbourhood does not fit into.

    Equal to scikit-image's `closing` with `mode="ignore"`.

    Args:
      mask: boolean `[..., H, W]`.
      radius: pixels, a static integer >= 0.
      shape: as in `dilate`.

    Returns:
      Boolean `[..., H, W]`, the shape of `mask`.

    Raises:
      InputError: wrong mask, radius or shape.
    """
    return erode(dilate(mask, radius, shape), radius, shape)


def maximum(values: jax.Array, radius: int, shape: str = "disk") -> jax.Array:
    """Highest value in each pixel's neighbourhood.

    Equal to `scipy.ndimage.maximum_filter` with the same footprint, `mode="constant"`.

    Args:
      values: integers >= 0 `[..., H, W]`.
      radius: pixels, a static integer >= 0.
      shape: as in `dilate`.

    Returns:
      Integers of the shape and dtype of `values`.

    Raises:
      InputError: wrong values, radius or shape.
    """
    checks.label_maps("values", values)
    checks.integer("radius", radius, 0, "pixels")
    checks.choice("shape", shape, SHAPES)
    height, width = values.shape[-2:]
    around = [(0, 0)] * (values.ndim - 2) + [(radius, radius)] * 2
    padded = jnp.pad(values, around)

    def columns(steps: Iterable[int]) -> list[jax.Array]:
        return [padded[..., radius + dx :][..., :width] for dx in steps]

    # Plain slices of one padded array become vector instructions in one loop; barriers
    # keep XLA from computing a row again at each height it is merged at.
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
