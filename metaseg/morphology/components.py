"""Connected components, and what follows from them.

Every pixel carries the lowest pixel index that it has heard of in its component.
Sweeps down, up, right and left carry the news along straight ways; after each round a
pixel also tells the pixel whose index it held before, and asks the one whose index it
holds now (hooking and pointer jumping, as in Shiloach and Vishkin's algorithm, J.
Algorithms 3, 1982), so that mazes take a number of rounds like their logarithm.
"""

import math
from functools import partial

import jax
import jax.numpy as jnp

from metaseg import checks
from metaseg.errors import InputError

__all__ = ["components", "fill_holes", "roots"]

_NOBODY = jnp.iinfo(jnp.int32).max


def components(mask: jax.Array, connectivity: int = 2) -> jax.Array:
    """Number the connected components of a mask.

    Equal to `scipy.ndimage.label` with `generate_binary_structure(2, connectivity)`, up
    to the order of the numbers: here by each component's first pixel in raster order.

    Args:
      mask: boolean `[..., H, W]`.
      connectivity: static: 1, neighbours share an edge; 2, or a corner.

    Returns:
      int32 `[..., H, W]`: 0 outside the mask, components from 1 in each image.

    Raises:
      InputError: wrong mask or connectivity.
    """
    checks.masks("mask", mask)
    root = roots(mask.astype(jnp.uint8), connectivity)
    *batch, height, width = root.shape
    flat = root.reshape(*batch, height * width)
    first = flat == jnp.arange(flat.shape[-1])
    number = jnp.cumsum(first, axis=-1, dtype=jnp.int32)
    numbers = jnp.take_along_axis(number, jnp.maximum(flat, 0), axis=-1)
    return jnp.where(mask, numbers.reshape(root.shape), 0)


def fill_holes(mask: jax.Array) -> jax.Array:
    """Adds all background that the edges of the image do not reach.

    Equal to `scipy.ndimage.binary_fill_holes`: background connects by edges.

    Args:
      mask: boolean `[..., H, W]`.

    Returns:
      Boolean `[..., H, W]`, the shape of `mask`.

    Raises:
      InputError: wrong mask.
    """
    checks.masks("mask", mask)
    frame = [(0, 0)] * (mask.ndim - 2) + [(1, 1), (1, 1)]
    background = jnp.pad(~mask, frame, constant_values=True)
    outside = roots(background.astype(jnp.uint8), connectivity=1) == 0
    return ~outside[..., 1:-1, 1:-1]


def roots(classes: jax.Array, connectivity: int = 2) -> jax.Array:
    """Name each pixel's component, of pixels of one class, by its first pixel.

    Args:
      classes: class ids, integer `[..., H, W]`; 0 belongs to no component.
      connectivity: static: 1, neighbours share an edge; 2, or a corner.

    Returns:
      int32 `[..., H, W]`: the index `row * W + column` of the component's first pixel
      in raster order; -1 where the class is 0.

    Raises:
      InputError: wrong classes or connectivity.
    """
    checks.label_maps("classes", classes)
    if not checks.is_integer(connectivity) or connectivity not in (1, 2):
        raise InputError(f"connectivity: got {connectivity!r}, expected 1 or 2")
    *batch, height, width = classes.shape
    maps = classes.reshape(math.prod(batch), height, width)
    return _settle(maps, connectivity).reshape(classes.shape)


# Jitted so that eager calls compile a loop only once.
@partial(jax.jit, static_argnames="connectivity")
def _settle(maps: jax.Array, connectivity: int) -> jax.Array:
    """`roots` of `[B, H, W]`."""
    height, width = maps.shape[1:]
    place = jnp.arange(height * width, dtype=jnp.int32).reshape(height, width)
    inside = maps != 0
    start = jnp.where(inside, place, _NOBODY)

    def unsettled(state: tuple[jax.Array, jax.Array]) -> jax.Array:
        return state[1]

    def turn(state: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        before, _ = state
        heard = _sweeps(before, maps, connectivity)
        told = jax.vmap(_tell_and_ask)(before, heard)
        return told, jnp.any(told != before)

    settled, _ = jax.lax.while_loop(unsettled, turn, (start, jnp.array(True)))
    return jnp.where(inside, settled, -1)


def _sweeps(heard: jax.Array, classes: jax.Array, connectivity: int) -> jax.Array:
    """Lowest index heard along columns, then along rows, `[B, H, W]`.

    Diagonal steps are taken on the way along columns.
    """
    for axis, diagonal in ((1, connectivity == 2), (2, False)):
        lines = jnp.moveaxis(heard, axis, 0), jnp.moveaxis(classes, axis, 0)
        heard = jnp.moveaxis(_there_and_back(*lines, diagonal), 0, axis)
    return heard


_Line = tuple[jax.Array, jax.Array]  # what is heard, and classes, `[B, M]`


def _there_and_back(heard: jax.Array, classes: jax.Array, diagonal: bool) -> jax.Array:
    """Carry the lowest index along the first axis of `[N, B, M]` in both directions."""

    def step(last: _Line, line: _Line) -> tuple[_Line, jax.Array]:
        here, kind = line
        for by in (0, 1, -1) if diagonal else (0,):
            news, source = _shift(last[0], by, _NOBODY), _shift(last[1], by, 0)
            connected = (kind == source) & (kind != 0)
            here = jnp.where(connected, jnp.minimum(here, news), here)
        return (here, kind), here

    nothing = jnp.full_like(heard[0], _NOBODY), jnp.zeros_like(classes[0])
    _, there = jax.lax.scan(step, nothing, (heard, classes))
    _, back = jax.lax.scan(step, nothing, (there, classes), reverse=True)
    return back


def _shift(line: jax.Array, by: int, fill: int) -> jax.Array:
    """`line`, `[B, M]`, moved by one to either side, or not."""
    if by == 0:
        return line
    padded = jnp.pad(line, ((0, 0), (1, 1)), constant_values=fill)
    return padded[:, 1 - by :][:, : line.shape[1]]


def _tell_and_ask(before: jax.Array, heard: jax.Array) -> jax.Array:
    """Pass news to the pixel heard of before, then ask the one heard of now."""
    old, new = before.ravel(), heard.ravel()
    told = new.at[old].min(new, mode="drop")
    asked = told.at[told].get(mode="fill", fill_value=_NOBODY)
    return jnp.minimum(told, asked).reshape(heard.shape)
