"""Skeletons by Zhang and Suen's thinning.

Work is done on bits: a word of 32 bits holds one pixel of each of 32 horizontal strips
of the image, so that a step to the side is an array shift, a step up or down is an
array shift whose outermost row moves one bit (to the next strip), and one instruction
works on 32 pixels.
"""

import jax
import jax.numpy as jnp

from metaseg import checks

__all__ = ["skeletonize", "skeletonize_classes"]

_STRIPS = 32


def skeletonize(mask: jax.Array) -> jax.Array:
    """One-pixel wide skeleton by Zhang and Suen's thinning.

    Equal to scikit-image's 2-D `skeletonize`, pixel for pixel. Source: Zhang and Suen,
    "A fast parallel algorithm for thinning digital patterns", CACM 27(3), 1984.

    Args:
      mask: boolean `[..., H, W]`.

    Returns:
      Boolean `[..., H, W]`, the shape of `mask`.

    Raises:
      InputError: wrong mask.
    """
    checks.masks("mask", mask)
    every = jnp.uint32(0xFFFFFFFF)
    return _unpack(_thin(_pack(mask), [every] * 8), mask.shape[-2])


def skeletonize_classes(classes: jax.Array) -> jax.Array:
    """Pixels on the skeleton of their own class, boolean `[..., H, W]`.

    Each class but 0 is thinned by itself, all at once: a neighbour counts only where it
    is of the pixel's own class.

    Args:
      classes: class ids, integer `[..., H, W]`; 0 has no skeleton.

    Returns:
      Boolean `[..., H, W]`.

    Raises:
      InputError: wrong classes.
    """
    checks.label_maps("classes", classes)
    height, width = classes.shape[-2:]
    framed = _pad(classes, (1, 1), (1, 1))
    same = [
        _pack(framed[..., 1 + dy :, 1 + dx :][..., :height, :width] == classes)
        for dy, dx in _RING
    ]
    return _unpack(_thin(_pack(classes != 0), same), height)


# The eight neighbours in circular order, from north-west clockwise.
_RING = ((-1, -1), (-1, 0), (-1, 1), (0, 1), (1, 1), (1, 0), (1, -1), (0, -1))

# Neighbourhoods, bit i being ring neighbour i, in which scikit-image's table departs
# from the published rule, in the first and in the second half step: it also removes
# some corners of one-pixel stairs, and keeps some ends with two or three neighbours.
_DEPARTURES = (
    (10, 11, 24, 40, 48, 56, 96, 129, 130, 134, 160, 161, 192, 194, 198, 224),
    (3, 6, 10, 12, 14, 26, 40, 48, 104, 108, 129, 130, 131, 160, 176),
)


def _removable(second: bool) -> tuple[bool, ...]:
    """For each of the 256 neighbourhoods, whether the half step removes the pixel."""

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
    """Evaluate a truth table on words: 32 look-ups at a time, as logic.

    Shannon's expansion: halve the table by its highest bit until halves are constant or
    equal; halves met before are computed once.
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
def _thin(words: jax.Array, same: list[jax.Array]) -> jax.Array:
    """Zhang-Suen thinning of packed masks until nothing changes.

    `same[i]` has the bits where ring neighbour i may count as foreground.
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

    start = (words, jnp.array(True))
    thinned, _ = jax.lax.while_loop(lambda state: state[1], step, start)
    return thinned


def _pad(values: jax.Array, rows: tuple[int, int], cols: tuple[int, int]) -> jax.Array:
    return jnp.pad(values, [(0, 0)] * (values.ndim - 2) + [rows, cols])


def _horizontal(values: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The left and the right neighbour of each pixel, 0 outside."""
    left = _pad(values[..., :, :-1], (0, 0), (1, 0))
    right = _pad(values[..., :, 1:], (0, 0), (0, 1))
    return left, right


def _packed_vertical(words: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The upper and the lower neighbour, 0 outside: across strips by one bit."""
    upper = jnp.concatenate([words[..., -1:, :] << 1, words[..., :-1, :]], axis=-2)
    lower = jnp.concatenate([words[..., 1:, :], words[..., :1, :] >> 1], axis=-2)
    return upper, lower


def _pack(mask: jax.Array) -> jax.Array:
    """Boolean `[..., H, W]` to uint32 `[..., ceil(H/32), W]`; bit b is of strip b."""
    *batch, height, width = mask.shape
    rows = -(-height // _STRIPS)
    strips = _pad(mask, (0, rows * _STRIPS - height), (0, 0)).astype(jnp.uint32)
    strips = strips.reshape(*batch, _STRIPS, rows, width)
    bit = jnp.arange(_STRIPS, dtype=jnp.uint32)[:, None, None]
    return jnp.sum(strips << bit, axis=-3, dtype=jnp.uint32)


def _unpack(words: jax.Array, height: int) -> jax.Array:
    *batch, rows, width = words.shape
    bit = jnp.arange(_STRIPS, dtype=jnp.uint32)[:, None, None]
    mask = (words[..., None, :, :] >> bit) & 1
    return mask.reshape(*batch, _STRIPS * rows, width)[..., :height, :].astype(bool)
