"""Connected components of masks and label maps, and holes.

Every pixel holds the lowest pixel index that is known so far in its component. Sweeps
down, up, right and left pass indices along straight lines. After each round of sweeps a
pixel passes its index to the pixel whose index it held before, and takes the index of
the pixel whose index it holds now (hooking and pointer jumping). The number of rounds
therefore grows like the logarithm of a component's length, in mazes too. Source:
Shiloach and Vishkin, "An O(log n) parallel connectivity algorithm", J. Algorithms 3,
1982.
"""

import math
from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Bool, Int32

from metaseg import checks
from metaseg.errors import InputError
from metaseg.labels import replace_void
from metaseg.typing import AnyArray, Labels, Masks

__all__ = ["components", "fill_holes", "roots"]

_NONE = jnp.iinfo(jnp.int32).max


def components(mask: Masks, *, connectivity: int = 2) -> Int32[jax.Array, "*batch H W"]:
    """Numbers the connected components of masks.

    Equal to `scipy.ndimage.label` with `generate_binary_structure(2, connectivity)`, up
    to the order of the numbers. Here components are in the order of their first pixels
    in raster order.

    Args:
      mask: Boolean `[..., H, W]`.
      connectivity: 1 if neighbours share an edge, 2 if they share an edge or a corner;
        static.

    Returns:
      int32 `[..., H, W]`: 0 outside the mask, and 1, 2, ... in the components of each
      image.

    Raises:
      InputError: If `mask` is not a boolean array `[..., H, W]` or `connectivity` is
        neither 1 nor 2.

    Example:
      >>> import numpy as np
      >>> components(np.eye(2, dtype=bool), connectivity=1)
      Array([[1, 0],
             [0, 2]], dtype=int32)
    """
    checks.masks("mask", mask)
    root = roots(mask.astype(jnp.uint8), connectivity=connectivity)
    if not root.size:
        return root
    *batch, height, width = root.shape
    flat = root.reshape(*batch, height * width)
    first = flat == jnp.arange(flat.shape[-1])
    number = jnp.cumsum(first, axis=-1, dtype=jnp.int32)
    numbers = jnp.take_along_axis(number, jnp.maximum(flat, 0), axis=-1)
    return jnp.where(mask, numbers.reshape(root.shape), 0)


def fill_holes(mask: Masks) -> Bool[jax.Array, "*batch H W"]:
    """Fills holes: background that is not connected to the border of the image.

    Equal to `scipy.ndimage.binary_fill_holes`. Background pixels are connected if they
    share an edge.

    Args:
      mask: Boolean `[..., H, W]`.

    Returns:
      Boolean array of the shape of `mask`.

    Raises:
      InputError: If `mask` is not a boolean array `[..., H, W]`.
    """
    checks.masks("mask", mask)
    frame = [(0, 0)] * (mask.ndim - 2) + [(1, 1), (1, 1)]
    background = jnp.pad(~mask, frame, constant_values=True)
    outside = roots(background.astype(jnp.uint8), connectivity=1) == 0
    return ~outside[..., 1:-1, 1:-1]


def roots(classes: Labels, *, connectivity: int = 2) -> Int32[jax.Array, "*batch H W"]:
    """Finds the first pixel of each pixel's component.

    A component consists of connected pixels of one class.

    Args:
      classes: Integer class ids `[..., H, W]`. Class 0 and void, which is 255 and
        negative numbers, belong to no component.
      connectivity: 1 if neighbours share an edge, 2 if they share an edge or a corner;
        static.

    Returns:
      int32 `[..., H, W]`: the index `row * W + column` of the component's first pixel
      in raster order, or -1 in class 0 and void.

    Raises:
      InputError: If `classes` is not an integer array `[..., H, W]`, or `connectivity`
        is neither 1 nor 2.
    """
    checks.label_maps("classes", classes)
    if not checks.is_integer(connectivity) or connectivity not in (1, 2):
        raise InputError(f"connectivity: got {connectivity!r}, expected 1 or 2")
    if not classes.size:
        return jnp.zeros(classes.shape, jnp.int32)
    *batch, height, width = classes.shape
    maps = replace_void(classes, by=0).reshape(math.prod(batch), height, width)
    return _settle(maps, connectivity).reshape(classes.shape)


# Jitted so that eager calls compile the loop only once.
@partial(jax.jit, static_argnames="connectivity")
def _settle(maps: AnyArray, connectivity: int) -> jax.Array:
    """Returns `roots` of maps `[B, H, W]`."""
    height, width = maps.shape[1:]
    place = jnp.arange(height * width, dtype=jnp.int32).reshape(height, width)
    inside = maps != 0
    start = jnp.where(inside, place, _NONE)

    def unsettled(state: tuple[jax.Array, jax.Array]) -> jax.Array:
        return state[1]

    def one_round(state: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        before, _ = state
        swept = _sweeps(before, maps, connectivity)
        after = jax.vmap(_hook_and_jump)(before, swept)
        return after, jnp.any(after != before)

    settled, _ = jax.lax.while_loop(unsettled, one_round, (start, jnp.array(True)))
    return jnp.where(inside, settled, -1)


def _sweeps(lowest: jax.Array, classes: AnyArray, connectivity: int) -> jax.Array:
    """Passes the lowest index along columns, then along rows of `[B, H, W]`.

    Diagonal steps are part of the sweeps along columns.
    """
    for axis, diagonal in ((1, connectivity == 2), (2, False)):
        lines = jnp.moveaxis(lowest, axis, 0), jnp.moveaxis(classes, axis, 0)
        lowest = jnp.moveaxis(_there_and_back(*lines, diagonal), 0, axis)
    return lowest


_Line = tuple[jax.Array, jax.Array]  # lowest indices and classes, `[B, M]`


def _there_and_back(lowest: jax.Array, classes: jax.Array, diagonal: bool) -> jax.Array:
    """Passes the lowest index along the first axis of `[N, B, M]`, both ways."""

    def step(last: _Line, line: _Line) -> tuple[_Line, jax.Array]:
        here, kind = line
        for by in (0, 1, -1) if diagonal else (0,):
            passed, source = _shift(last[0], by, _NONE), _shift(last[1], by, 0)
            connected = (kind == source) & (kind != 0)
            here = jnp.where(connected, jnp.minimum(here, passed), here)
        return (here, kind), here

    nothing = jnp.full_like(lowest[0], _NONE), jnp.zeros_like(classes[0])
    _, there = jax.lax.scan(step, nothing, (lowest, classes))
    _, back = jax.lax.scan(step, nothing, (there, classes), reverse=True)
    return back


def _shift(line: jax.Array, by: int, fill: int) -> jax.Array:
    """Moves a line `[B, M]` by -1, 0 or 1 pixels."""
    if by == 0:
        return line
    padded = jnp.pad(line, ((0, 0), (1, 1)), constant_values=fill)
    return padded[:, 1 - by :][:, : line.shape[1]]


def _hook_and_jump(before: jax.Array, swept: jax.Array) -> jax.Array:
    """Passes the new index to the pixel of the old one, then takes that of the new."""
    old, new = before.ravel(), swept.ravel()
    hooked = new.at[old].min(new, mode="drop")
    jumped = hooked.at[hooked].get(mode="fill", fill_value=_NONE)
    return jnp.minimum(hooked, jumped).reshape(swept.shape)
