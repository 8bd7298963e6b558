"""Skeletons by Zhang and Suen's thinning.

Masks are packed: an integer of 32 bits holds one pixel of each of 32 horizontal strips
of the image, so that one instruction works on 32 pixels. A step to the side is an array
shift. A step up or down is an array shift too, in which the outermost row moves by one
bit, to the next strip.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Bool

from metaseg import checks
from metaseg.labels import replace_void
from metaseg.typing import AnyArray, Labels, Masks

__all__ = ["skeletonize", "skeletonize_classes"]

_STRIPS = 32


def skeletonize(mask: Masks) -> Bool[jax.Array, "*batch H W"]:
    """Thins masks to skeletons that are one pixel wide.

    Equal to scikit-image's 2-D `skeletonize`, pixel for pixel. Source: Zhang and Suen,
    "A fast parallel algorithm for thinning digital patterns", CACM 27(3), 1984.

    Args:
      mask: Boolean `[..., H, W]`.

    Returns:
      Boolean array of the shape of `mask`.

    Raises:
      InputError: If `mask` is not a boolean array `[..., H, W]`.
    """
    checks.masks("mask", mask)
    every = jnp.uint32(0xFFFFFFFF)
    return _unpack(_thin(_pack(mask), [every] * 8), mask.shape[-2])


def skeletonize_classes(classes: Labels) -> Bool[jax.Array, "*batch H W"]:
    """Thins every class of label maps to its skeleton.

    Each class is thinned by itself: a neighbour counts only if it is of the pixel's own
    class. All classes are thinned at once.

    Args:
      classes: Integer class ids `[..., H, W]`. Class 0 and void, which is 255 and
        negative numbers, have no skeleton.

    Returns:
      Boolean array of the shape of `classes`, true on the skeletons.

    Raises:
      InputError: If `classes` is not an integer array `[..., H, W]`.
    """
    checks.label_maps("classes", classes)
    classes = replace_void(classes, by=0)
    height, width = classes.shape[-2:]
    framed = _pad(classes, (1, 1), (1, 1))
    same = [
        _pack(framed[..., 1 + dy :, 1 + dx :][..., :height, :width] == classes)
        for dy, dx in _RING
    ]
    return _unpack(_thin(_pack(classes != 0), same), height)


# The eight neighbours in circular order, from north-west clockwise.
_RING = ((-1, -1), (-1, 0), (-1, 1), (0, 1), (1, 1), (1, 0), (1, -1), (0, -1))

# Neighbourhoods (bit i is ring neighbour i) in which scikit-image's table departs from
# the published rule, in the first and in the second half step. The table also removes
# some corners of one-pixel stairs, and keeps some ends with two or three neighbours.
_DEPARTURES = (
    (10, 11, 24, 40, 48, 56, 96, 129, 130, 134, 160, 161, 192, 194, 198, 224),
    (3, 6, 10, 12, 14, 26, 40, 48, 104, 108, 129, 130, 131, 160, 176),
)


def _removable(second: bool) -> tuple[bool, ...]:
    """Whether a half step removes the pixel, for each of the 256 neighbourhoods."""

    def published(ring: list[bool]) -> bool:
        _, north, _, east, _, south, _, west = ring
        rises = sum(not ring[i - 1] and ring[i] for i in range(8))
        if second:
            on_side = not (north and west and (east or south))
        else:
            on_side = not (east and south and (north or west))
        return rises == 1 and 2 <= sum(ring) <= 6 and on_side

    return tuple(
        published([bool(code >> i & 1) for i in range(8)])
        != (code in _DEPARTURES[second])
        for code in range(256)
    )


def _look_up(table: tuple[bool, ...], bits: list[jax.Array]) -> jax.Array:
    """Evaluates a truth table by logic on packed masks, 32 look-ups at a time.

    By Shannon's expansion: the table is halved by its highest bit until its halves are
    constant or equal. A half that occurs again is computed once.
    """
    known: dict[tuple[bool, ...], jax.Array] = {}

    def expand(part: tuple[bool, ...], level: int) -> jax.Array:
        if not any(part):
            return jnp.zeros_like(bits[0])
        if all(part):
            return ~jnp.zeros_like(bits[0])
        if part not in known:
            middle = len(part) // 2
            clear, set_ = part[:middle], part[middle:]
            if clear == set_:
                known[part] = expand(clear, level - 1)
            else:
                low, high = expand(clear, level - 1), expand(set_, level - 1)
                known[part] = low ^ (bits[level] & (low ^ high))
        return known[part]

    return expand(table, len(bits) - 1)


@jax.jit  # so that eager calls compile the loop only once
def _thin(packed: jax.Array, same: list[jax.Array]) -> jax.Array:
    """Thins packed masks until nothing changes.

    Ring neighbour i counts as foreground only where the bits of `same[i]` are set.
    """
    tables = [_removable(second) for second in (False, True)]

    def half_step(alive: jax.Array, table: tuple[bool, ...]) -> jax.Array:
        upper, lower = _packed_vertical(alive)
        rows = {-1: upper, 0: alive, 1: lower}
        beside = {dy: _horizontal(row) for dy, row in rows.items()}
        ring = [
            (rows[dy] if dx == 0 else beside[dy][dx > 0]) & allowed
            for (dy, dx), allowed in zip(_RING, same, strict=True)
        ]
        return alive & ~_look_up(table, ring)

    def step(state: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        alive, _ = state
        thinner = half_step(half_step(alive, tables[0]), tables[1])
        return thinner, jnp.any(thinner != alive)

    start = (packed, jnp.array(True))
    thinned, _ = jax.lax.while_loop(lambda state: state[1], step, start)
    return thinned


def _pad(values: AnyArray, rows: tuple[int, int], cols: tuple[int, int]) -> jax.Array:
    return jnp.pad(values, [(0, 0)] * (values.ndim - 2) + [rows, cols])


def _horizontal(values: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The left and the right neighbour of each pixel, 0 outside of the image."""
    left = _pad(values[..., :, :-1], (0, 0), (1, 0))
    right = _pad(values[..., :, 1:], (0, 0), (0, 1))
    return left, right


def _packed_vertical(packed: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The upper and the lower neighbour of each pixel, 0 outside of the image."""
    upper = jnp.concatenate([packed[..., -1:, :] << 1, packed[..., :-1, :]], axis=-2)
    lower = jnp.concatenate([packed[..., 1:, :], packed[..., :1, :] >> 1], axis=-2)
    return upper, lower


def _pack(mask: AnyArray) -> jax.Array:
    """Packs boolean `[..., H, W]` into uint32 `[..., ceil(H/32), W]`, a bit a strip."""
    *batch, height, width = mask.shape
    rows = -(-height // _STRIPS)
    strips = _pad(mask, (0, rows * _STRIPS - height), (0, 0)).astype(jnp.uint32)
    strips = strips.reshape(*batch, _STRIPS, rows, width)
    bit = jnp.arange(_STRIPS, dtype=jnp.uint32)[:, None, None]
    return jnp.sum(strips << bit, axis=-3, dtype=jnp.uint32)


def _unpack(packed: jax.Array, height: int) -> jax.Array:
    *batch, rows, width = packed.shape
    bit = jnp.arange(_STRIPS, dtype=jnp.uint32)[:, None, None]
    mask = (packed[..., None, :, :] >> bit) & 1
    return mask.reshape(*batch, _STRIPS * rows, width)[..., :height, :].astype(bool)
