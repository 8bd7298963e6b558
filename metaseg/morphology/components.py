"""Connected components of masks and label maps, and holes.

A run consists of the pixels of one class that follow each other in a row. Of two runs
that touch, one touches the other with its first pixel. So each run needs two edges: to
a run of the row above and to one of the row below. At first the edges upwards form
trees. Runs take the run that their own run holds until all hold the first of their tree
(pointer jumping). Then the edges downwards hook trees to earlier ones. The number of
rounds grows like the logarithm of a component's size, in mazes too. Source: Shiloach
and Vishkin, "An O(log n) parallel connectivity algorithm", J. Algorithms 3, 1982.

Runs are numbered in raster order. A packed mask of their first pixels, 32 pixels in an
integer, leads from pixels to runs and back: by counting bits, and by a search.
"""

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.custom_batching import custom_vmap
from jaxtyping import Bool, Int32

from metaseg import checks
from metaseg.errors import InputError
from metaseg.labels import replace_void
from metaseg.typing import AnyArray, Labels, Masks

__all__ = ["components", "fill_holes", "roots"]

_WORD = 32  # pixels in an integer
_BITS = np.arange(_WORD, dtype=np.uint32)
_FEW = 512  # so many runs take no time worth saving


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
    _check_connectivity(connectivity)
    numbers = partial(_numbers, connectivity=connectivity)
    return _over_batch(numbers, mask, jnp.int32)


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
    return _over_batch(_filled, mask, bool)


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
    _check_connectivity(connectivity)
    first = partial(_first_pixels, connectivity=connectivity)
    return _over_batch(first, replace_void(classes, by=0), jnp.int32)


def _check_connectivity(connectivity: Any) -> None:
    if not checks.is_integer(connectivity) or connectivity not in (1, 2):
        raise InputError(f"connectivity: got {connectivity!r}, expected 1 or 2")


def _over_batch(
    function: Callable[[AnyArray], jax.Array], maps: AnyArray, dtype: Any
) -> jax.Array:
    """Applies a function of maps `[B, H, W]` over any leading axes.

    `vmap` adds a leading axis too. Otherwise it would make the loops copy their whole
    state at each step, where some maps need more steps than others.
    """
    if not maps.size:
        return jnp.zeros(maps.shape, dtype)

    @custom_vmap
    def apply(maps: AnyArray) -> jax.Array:
        *batch, height, width = maps.shape
        flat = maps.reshape(math.prod(batch), height, width)
        return function(flat).reshape(maps.shape)

    @apply.def_vmap
    def batched(_: int, __: list[bool], maps: AnyArray) -> tuple[jax.Array, bool]:
        return apply(maps), True

    return apply(jnp.asarray(maps))


# Jitted so that eager calls compile the loops only once.
@partial(jax.jit, static_argnames="connectivity")
def _first_pixels(classes: jax.Array, connectivity: int) -> jax.Array:
    """Returns `roots` of maps `[B, H, W]` without void."""
    first = _by_component(classes, connectivity, _take)
    return jnp.where(classes != 0, first, -1)


@partial(jax.jit, static_argnames="connectivity")
def _numbers(mask: jax.Array, connectivity: int) -> jax.Array:
    """Returns `components` of masks `[B, H, W]`."""

    def number(pixel: jax.Array, root: jax.Array) -> jax.Array:
        is_root = root == jax.lax.broadcasted_iota(jnp.int32, root.shape, 1)
        return _take(jnp.cumsum(is_root, axis=1, dtype=jnp.int32), root)

    return jnp.where(mask, _by_component(mask, connectivity, number), 0)


@jax.jit
def _filled(mask: jax.Array) -> jax.Array:
    """Returns `fill_holes` of masks `[B, H, W]`."""
    frame = ((0, 0), (1, 1), (1, 1))
    background = jnp.pad(~mask, frame, constant_values=True)
    root = _by_component(background, 1, lambda _, root: root)
    return mask | (root[:, 1:-1, 1:-1] != 0)


def _by_component(
    maps: jax.Array,
    connectivity: int,
    value_of: Callable[[jax.Array, jax.Array], jax.Array],
) -> jax.Array:
    """Gives each pixel of maps `[B, H, W]` a number of its component.

    Args:
      maps: Class ids; class 0 belongs to no component.
      connectivity: 1 or 2.
      value_of: Computes the numbers of runs, `[B, R]`, from their first pixels and from
        the first runs of their components, of the same shape.

    Returns:
      The numbers `[B, H, W]`; arbitrary in class 0.
    """
    _, height, width = maps.shape
    left = jnp.pad(maps, ((0, 0), (0, 0), (1, 0)))[..., :-1]
    starts = _pack((maps != 0) & ((maps != left) | (jnp.arange(width) == 0)))
    ones = jax.lax.population_count(starts).astype(jnp.int32)
    up_to = jnp.cumsum(ones, axis=1)
    runs = _Runs(starts, up_to - ones, up_to[:, -1])

    def among(size: int) -> Callable[[], jax.Array]:
        def values() -> jax.Array:
            pixel, above, below = _link(runs, maps, connectivity, size)
            of_runs = value_of(pixel, _settle(above, below))
            return jnp.pad(of_runs, ((0, 0), (0, most - size)))

        return values

    most = height * (-(-width // 2) if maps.dtype == bool else width)
    # Most maps have few runs. Shapes are static, so each size is another program.
    few = height * width // 32
    sizes = [few, most] if most > _FEW else [most]
    needed = jnp.max(runs.total)
    which = sum((needed > size).astype(jnp.int32) for size in sizes[:-1])
    values = jax.lax.switch(which, [among(size) for size in sizes])
    return _spread(runs, values, maps.shape)


class _Runs(NamedTuple):
    """The runs of maps.

    Attributes:
      starts: Whether a pixel is the first of a run, packed, uint32 `[B, N / 32]`.
      before: Number of runs that start before these pixels, int32 `[B, N / 32]`.
      total: Number of runs of each map, int32 `[B]`.
    """

    starts: jax.Array
    before: jax.Array
    total: jax.Array


def _link(
    runs: _Runs, maps: jax.Array, connectivity: int, size: int
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Finds the first pixels of runs, and the runs that they touch above and below.

    Args:
      runs: The runs.
      maps: Class ids `[B, H, W]`.
      connectivity: 1 or 2.
      size: Number R of runs, at least as many as each map has.

    Returns:
      Pixels and runs, int32 `[B, R]`; the run itself where it touches no other.
    """
    batch, height, width = maps.shape
    flat = maps.reshape(batch, height * width)
    own = jax.lax.broadcasted_iota(jnp.int32, (batch, size), 1)
    is_run = own < runs.total[:, None]
    pixel = jnp.where(is_run, _pixels(runs, own), 0)
    row, col = pixel // width, pixel % width
    kind = _take(flat, pixel)

    def neighbour(down: int) -> jax.Array:
        inside = is_run & ((row > 0) if down < 0 else (row < height - 1))
        there = jnp.where(inside, pixel + down * width, pixel)
        same = inside & (_take(flat, there) == kind)
        if connectivity == 2:
            diagonal = inside & (col > 0)
            corner = jnp.where(diagonal, there - 1, pixel)
            touches = diagonal & (_take(flat, corner) == kind)
            there, same = jnp.where(same, there, corner), same | touches
        return jnp.where(same, _run_of(runs, there), own)

    return pixel, neighbour(-1), neighbour(1)


def _settle(root: jax.Array, edge: jax.Array) -> jax.Array:
    """Finds the first run of each component, int32 `[B, R]`.

    Args:
      root: A run of the same component that is no later, int32 `[B, R]`.
      edge: Another run of the same component, of this shape.
    """
    _State = tuple[jax.Array, jax.Array]

    def changed(state: _State) -> jax.Array:
        return state[1]

    def jump(state: _State) -> _State:
        root, _ = state
        further = _take(root, root)
        return further, jnp.any(further != root)

    def hook(state: _State) -> _State:
        root, _ = jax.lax.while_loop(changed, jump, state)
        other = _take(root, edge)
        late, early = jnp.maximum(root, other), jnp.minimum(root, other)
        at = jnp.arange(len(root))[:, None], late
        hooked = root.at[at].min(early, mode="promise_in_bounds")
        return hooked, jnp.any(root != other)

    return jax.lax.while_loop(changed, hook, (root, jnp.array(True)))[0]


def _take(values: jax.Array, index: jax.Array) -> jax.Array:
    """Looks up values `[B, M]` by index `[B, R]`."""
    return jnp.take_along_axis(values, index, axis=1, mode="promise_in_bounds")


def _pack(mask: jax.Array) -> jax.Array:
    """Packs boolean `[B, H, W]` into uint32 `[B, ceil(H W / 32)]`, in raster order."""
    flat = mask.reshape(len(mask), -1)
    padded = jnp.pad(flat, ((0, 0), (0, -flat.shape[1] % _WORD)))
    words = padded.reshape(len(mask), -1, _WORD).astype(jnp.uint32)
    return jnp.sum(words << _BITS, axis=-1, dtype=jnp.uint32)


def _run_of(runs: _Runs, pixel: jax.Array) -> jax.Array:
    """Returns the run of pixels `[B, R]`, the last that starts no later."""
    word, bit = pixel // _WORD, (pixel % _WORD).astype(jnp.uint32)
    started = _take(runs.starts, word) & ((jnp.uint32(2) << bit) - 1)
    number = jax.lax.population_count(started).astype(jnp.int32)
    return _take(runs.before, word) + number - 1


def _spread(runs: _Runs, values: jax.Array, shape: Sequence[int]) -> jax.Array:
    """Gives each pixel the value of the last run that starts no later."""
    started = runs.starts[..., None] & ((jnp.uint32(2) << _BITS) - 1)
    number = jax.lax.population_count(started).astype(jnp.int32)
    run = jnp.maximum(runs.before[..., None] + number - 1, 0)
    run = run.reshape(shape[0], -1)[:, : math.prod(shape[1:])]
    return _take(values, run).reshape(tuple(shape))


def _pixels(runs: _Runs, run: jax.Array) -> jax.Array:
    """Returns the first pixels of runs `[B, R]`."""
    words = runs.before.shape[1]
    levels = (words - 1).bit_length()

    def search(level: jax.Array, word: jax.Array) -> jax.Array:
        probe = jnp.minimum(word + (1 << (levels - 1 - level)), words - 1)
        return jnp.where(_take(runs.before, probe) <= run, probe, word)

    # The last word before which no more than `run` runs start.
    word = jax.lax.fori_loop(0, levels, search, jnp.zeros_like(run))
    rest, starts = run - _take(runs.before, word), _take(runs.starts, word)

    def narrow(level: jax.Array, state: tuple[jax.Array, ...]) -> tuple[jax.Array, ...]:
        bit, rest, starts = state
        width = _WORD >> (level + 1)
        half = starts & ((jnp.uint32(1) << width.astype(jnp.uint32)) - 1)
        ones = jax.lax.population_count(half).astype(jnp.int32)
        above = rest >= ones
        starts = jnp.where(above, starts >> width.astype(jnp.uint32), half)
        bit, rest = bit + width * above, rest - ones * above
        return bit, rest, starts

    start = jnp.zeros_like(run), rest, starts
    bit, _, _ = jax.lax.fori_loop(0, _WORD.bit_length() - 1, narrow, start)
    return word * _WORD + bit
