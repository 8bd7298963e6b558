"""How pixels are drawn at random: independently, by class probabilities, or exactly.

Probabilities become integer cuts in units of 2^-24, so that 0 means never, 1 means
always, a class of probability 0 is never drawn, and a pixel costs one random word.
Imports jax only.
"""

import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax.extend.random import threefry_2x32
from jax.typing import ArrayLike

__all__ = [
    "IDS",
    "ONE",
    "by_class",
    "categorical",
    "exact_counts",
    "integers",
    "smallest",
    "to_cut",
    "words",
]

_BITS = 24
ONE = 1 << _BITS
_DIGIT = 4  # bits that a step of the selection looks at
_RADIX = 1 << _DIGIT
IDS = 256  # class ids and void


def words(key: jax.Array, shape: Sequence[int]) -> jax.Array:
    """Uniform integers in `0..2^24 - 1`, uint32, one per pixel.

    Random bits are what noise costs, so two pixels, a quarter of a map or more apart,
    share 32 of them: one reads them from the top, the other from the middle. Each is
    exactly uniform; what one says of the other is less than one part in 2^16. The bits
    are Threefry-2x32's (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3",
    SC'11), both words of each block, of which `jax.random.bits` keeps only the XOR.

    Args:
      key: PRNG key.
      shape: of the result, `[..., H, W]`.
    """
    size, batch = math.prod(shape[-2:]), math.prod(shape[:-2])
    blocks = batch * -(-size // 4)
    seed = jax.random.bits(key, (2,), jnp.uint32)
    drawn = threefry_2x32(seed, jax.lax.iota(jnp.uint32, 2 * blocks))
    # Stacked in fours: XLA's CPU backend runs other layouts three times slower.
    first, second = drawn.reshape(2, batch, -1)
    parts = [first, _half_turn(first), second, _half_turn(second)]
    quarters = jnp.stack(parts, axis=1) >> (32 - _BITS)
    return quarters.reshape(batch, -1)[:, :size].reshape(tuple(shape))


def _half_turn(word: jax.Array) -> jax.Array:
    return (word << 16) | (word >> 16)


def to_cut(probability: ArrayLike) -> jax.Array:
    """Integer c, uint32, such that `words < c` with this probability."""
    scaled = jnp.asarray(probability, jnp.float32) * ONE
    return jnp.round(scaled).astype(jnp.uint32)


def integers(word: jax.Array, count: ArrayLike) -> jax.Array:
    """Words as uniform integers in `0..count - 1`, int32; count below 2^16."""
    half = _BITS // 2
    count = jnp.asarray(count, jnp.uint32)
    high, low = word >> half, word & ((1 << half) - 1)
    return ((high * count + ((low * count) >> half)) >> half).astype(jnp.int32)


def by_class(
    labels: jax.Array, values: ArrayLike, classes: Sequence[int] | None = None
) -> jax.Array:
    """A class's value at each of its pixels.

    Args:
      labels: class ids, integer, any shape.
      values: scalar, or one per class of `classes`.
      classes: class ids; by default as many as there are values, from 0.

    Returns:
      `values` spread over the pixels; a scalar comes back as it is.
    """
    values = jnp.asarray(values)
    if values.ndim == 0:
        return values
    chosen = range(values.shape[0]) if classes is None else classes
    spread = jnp.zeros(labels.shape, values.dtype)
    for index, class_id in enumerate(chosen):
        spread = jnp.where(labels == class_id, values[index], spread)
    return spread


def categorical(key: jax.Array, rows: jax.Array, matrix: jax.Array) -> jax.Array:
    """Classes drawn from the rows of a matrix, one random word per pixel.

    Args:
      key: PRNG key.
      rows: for each pixel, which row to draw from: int32, any shape.
      matrix: probabilities `[R, K]`, rows sum to 1; may be traced.

    Returns:
      Class ids `0..K-1`, uint32, the shape of `rows`.
    """
    num_classes = matrix.shape[1]
    drawn = words(key, rows.shape)
    last = _cumulative_cuts(matrix)[:, :-1]
    if num_classes <= 4:
        at_pixel = [by_class(rows, last[:, j]) for j in range(num_classes - 1)]
        reached = jnp.zeros(rows.shape, jnp.uint32)
        for cut in at_pixel:
            reached += drawn >= cut
        return reached
    # Binary search for the number of cuts that the word has reached.
    steps = (num_classes - 1).bit_length()
    padding = ((0, 0), (0, (1 << steps) - num_classes))
    table = jnp.pad(last, padding, constant_values=ONE).ravel()
    first = rows.astype(jnp.uint32) * ((1 << steps) - 1)
    reached = jnp.zeros(rows.shape, jnp.uint32)
    for step in reversed(range(steps)):
        probe = reached + (1 << step)
        cut = table.at[first + probe - 1].get(mode="promise_in_bounds")
        reached = jnp.where(drawn >= cut, probe, reached)
    return reached


def _cumulative_cuts(matrix: jax.Array) -> jax.Array:
    """Right ends of each row's classes in `0..2^24`; empty where a class has none."""
    shares = to_cut(matrix).astype(jnp.int32)
    rounding = ONE - shares.sum(axis=1)
    largest = jnp.argmax(shares, axis=1)
    shares = shares.at[jnp.arange(matrix.shape[0]), largest].add(rounding)
    return jnp.cumsum(shares, axis=1).astype(jnp.uint32)


def exact_counts(
    key: jax.Array,
    labels: jax.Array,
    fraction: ArrayLike,
    classes: Sequence[int] | None = None,
) -> jax.Array:
    """Choose exactly `ceil(n * fraction)` of the n pixels of each class in each map.

    Each pixel draws a word; a radix selection finds the smallest ones of each class.

    Args:
      key: PRNG key.
      labels: class ids, integer `[..., H, W]`, fewer than 2^22 pixels to a map.
      fraction: share in [0, 1], scalar or one per class of `classes`; may be traced.
      classes: class ids the fractions belong to, as in `by_class`.

    Returns:
      Boolean `[..., H, W]`, true where chosen.
    """
    share = by_class(jnp.arange(IDS), fraction, classes)
    maps = labels.reshape(-1, labels.shape[-2] * labels.shape[-1]).astype(jnp.int32)

    def choose(ids: jax.Array, drawn: jax.Array) -> jax.Array:
        pixels = jnp.zeros(IDS, jnp.int32).at[ids].add(1)
        return smallest(ids, drawn, _ceil_share(pixels, share))

    drawn = words(key, labels.shape).reshape(maps.shape)
    return jax.vmap(choose)(maps, drawn).reshape(labels.shape)


# Turn, chosen pixels, pixels still tied, and what each class may still choose.
_State = tuple[jax.Array, jax.Array, jax.Array, jax.Array]


@jax.jit  # so that eager calls compile the loop only once
def smallest(ids: jax.Array, drawn: jax.Array, quota: jax.Array) -> jax.Array:
    """Where the `quota` smallest words of each class are; equal words go by place.

    Digit by digit from the highest: pixels below the digit at which their class's
    quota runs out are chosen, those above are not, those at it go on to the next.

    Args:
      ids: class ids of one map, int32 `[N]`.
      drawn: random words, uint32 `[N]`.
      quota: how many of each class, int32 `[256]`, no more than there are.

    Returns:
      Boolean `[N]`.
    """
    size = ids.shape[0]
    place = jnp.arange(size, dtype=jnp.uint32)
    place_digits = -(-(size - 1).bit_length() // _DIGIT)
    word_digits = _BITS // _DIGIT
    shifts = [*reversed(range(word_digits)), *reversed(range(place_digits))]
    shift_of = jnp.array(shifts, jnp.uint32) * _DIGIT

    def unsettled(state: _State) -> jax.Array:
        turn, _, _, quota = state
        return (turn < len(shifts)) & jnp.any(quota > 0)

    def next_digit(state: _State) -> _State:
        turn, chosen, tied, quota = state
        number = jnp.where(turn < word_digits, drawn, place)
        digit = ((number >> shift_of[turn]) % _RADIX).astype(jnp.int32)
        pixels = jnp.zeros(IDS * _RADIX, jnp.int32)
        cell = ids * _RADIX + digit
        pixels = pixels.at[cell].add(tied, mode="promise_in_bounds")
        up_to = jnp.cumsum(pixels.reshape(IDS, _RADIX), axis=1)
        within = up_to <= quota[:, None]
        last = within.sum(axis=1, dtype=jnp.int32)
        spent = jnp.max(jnp.where(within, up_to, 0), axis=1)
        chosen |= tied & (digit < last[ids])
        tied &= digit == last[ids]
        return turn + 1, chosen, tied, quota - spent

    nobody, everybody = jnp.zeros(size, bool), jnp.ones(size, bool)
    start = (jnp.array(0), nobody, everybody, quota)
    return jax.lax.while_loop(unsettled, next_digit, start)[1]


def _ceil_share(count: jax.Array, fraction: ArrayLike) -> jax.Array:
    """`ceil(count * fraction)` in integers, int32.

    Floats would make `ceil(30 * 0.1)` four. The fraction is read in units of 2^-24,
    half a unit or so off; products this close above an integer count as that integer.
    """
    fraction = jnp.asarray(fraction)
    units, count = to_cut(fraction), count.astype(jnp.uint32)
    half = _BITS // 2
    low = jnp.uint32((1 << half) - 1)
    count_high, count_low = count >> half, count & low
    units_high, units_low = units >> half, units & low
    middle = count_high * units_low + count_low * units_high
    rest = ((middle & low) << half) + count_low * units_low
    whole = count_high * units_high + (middle >> half) + (rest >> _BITS)
    above = (rest & (ONE - 1)) > count - count // 4
    share = (whole + above).astype(jnp.int32)
    return jnp.where((count > 0) & (fraction > 0), jnp.maximum(share, 1), 0)
