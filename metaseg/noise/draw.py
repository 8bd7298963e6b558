"""Random pixels: drawn independently, by class probabilities, or in exact numbers.

A probability becomes an integer threshold in units of 2^-24, and an event happens where
the 24 random bits of a pixel are below it. So a probability of 0 means never and 1
means always, and a class of probability 0 is never drawn. May import `typing`.
"""

import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.random import threefry_2x32
from jax.typing import ArrayLike
from jaxtyping import Bool, Float, Int32, Integer, Shaped, UInt32

from metaseg.typing import AnyArray, Labels, Number, Numbers, PRNGKey

__all__ = [
    "IDS",
    "LARGEST_MOVE",
    "ONE",
    "bits",
    "by_class",
    "categorical",
    "exact_counts",
    "integers",
    "smallest",
    "to_threshold",
]

_BITS = 24
ONE = 1 << _BITS
_DIGIT = 3  # bits of a threshold that one pass over the pixels finds
_RADIX = 1 << _DIGIT
LARGEST_MOVE = (1 << 15) - 1  # pixels to either side, such that `integers` can draw it
IDS = 256  # class ids and void
_IDS_AT_ONCE = 8  # class ids whose pixels one pass counts
_ZERO = np.int32(0)
_Numbers = tuple[jax.Array, ...]


def bits(key: PRNGKey, shape: Sequence[int]) -> UInt32[jax.Array, "..."]:
    """Draws uniform integers in `0..2^24 - 1`, one per pixel.

    Drawing random bits is most of the cost of noise. So two pixels that are at least a
    quarter of a map apart share 32 bits: one takes the upper 24, the other those from
    the middle on. Each is exactly uniform; one tells less than 2^-16 of the other. The
    bits are those of Threefry-2x32, both halves of each block, of which
    `jax.random.bits` returns only the XOR. Source: Salmon et al., "Parallel random
    numbers: as easy as 1, 2, 3", SC'11.

    Args:
      key: PRNG key.
      shape: Shape of the result, `[..., H, W]`.

    Returns:
      uint32 of this shape.
    """
    size, batch = math.prod(shape[-2:]), math.prod(shape[:-2])
    blocks = batch * -(-size // 4)
    seed = jax.random.bits(key, (2,), jnp.uint32)
    drawn = threefry_2x32(seed, jax.lax.iota(jnp.uint32, 2 * blocks))
    # Stacked in fours: XLA's CPU backend runs other layouts three times slower.
    first, second = drawn.reshape(2, batch, -(-size // 4))
    parts = [first, _swap_halves(first), second, _swap_halves(second)]
    quarters = jnp.stack(parts, axis=1) >> (32 - _BITS)
    quarters = quarters.reshape(batch, 4 * -(-size // 4))
    return quarters[:, :size].reshape(tuple(shape))


def _swap_halves(block: jax.Array) -> jax.Array:
    return (block << 16) | (block >> 16)


def to_threshold(
    probability: Shaped[ArrayLike, "*shape"] | Sequence[Number],
) -> UInt32[jax.Array, "..."]:
    """Returns the integer that random bits are below with a probability.

    Args:
      probability: Probabilities in [0, 1], of any shape.

    Returns:
      Thresholds t, uint32 in `0..2^24`, such that `bits < t` with this probability.

    Example:
      >>> to_threshold(0.5)
      Array(8388608, dtype=uint32)
    """
    scaled = jnp.asarray(probability, jnp.float32) * ONE
    return jnp.round(scaled).astype(jnp.uint32)


def integers(
    bits: UInt32[AnyArray, "..."], count: Integer[ArrayLike, "..."]
) -> Int32[jax.Array, "..."]:
    """Turns random bits into uniform integers in `0..count - 1`.

    Args:
      bits: Result of `bits`.
      count: Number of values, below 2^16; broadcasts with `bits`.

    Returns:
      Uniform integers, int32.
    """
    half = _BITS // 2
    bits, count = jnp.asarray(bits), jnp.asarray(count, jnp.uint32)
    high, low = bits >> half, bits & ((1 << half) - 1)
    return ((high * count + ((low * count) >> half)) >> half).astype(jnp.int32)


def by_class(
    labels: Integer[AnyArray, "..."],
    values: Numbers,
    *,
    classes: Sequence[int] | None = None,
) -> Shaped[jax.Array, "..."]:
    """Gives each pixel the value of its class.

    Args:
      labels: Integer class ids, of any shape.
      values: One number, or one per class of `classes`.
      classes: Class ids that the values are for; by default 0, 1, ....

    Returns:
      Values of the shape of `labels`, 0 for all other classes; a scalar if `values` is
      one number.

    Example:
      >>> by_class(jnp.array([[0, 1, 1]]), (0.25, 0.5))
      Array([[0.25, 0.5 , 0.5 ]], dtype=float32)
    """
    values = jnp.asarray(values)
    if values.ndim == 0:
        return values
    chosen = range(values.shape[0]) if classes is None else classes
    spread = jnp.zeros(labels.shape, values.dtype)
    for index, class_id in enumerate(chosen):
        spread = jnp.where(labels == class_id, values[index], spread)
    return spread


def categorical(
    key: PRNGKey, rows: Int32[AnyArray, "*shape"], matrix: Float[AnyArray, "R K"]
) -> UInt32[jax.Array, "*shape"]:
    """Draws a class for each pixel from a row of a matrix.

    Args:
      key: PRNG key.
      rows: Row to draw from at each pixel, int32, of any shape.
      matrix: Probabilities `[R, K]`, whose rows sum to 1; may be traced.

    Returns:
      Class ids `0..K-1`, uint32, of the shape of `rows`.
    """
    num_classes = matrix.shape[1]
    drawn = bits(key, rows.shape)
    last = _cumulative_thresholds(matrix)[:, :-1]
    if num_classes <= 4:
        at_pixel = [by_class(rows, last[:, j]) for j in range(num_classes - 1)]
        reached = jnp.zeros(rows.shape, jnp.uint32)
        for threshold in at_pixel:
            reached += drawn >= threshold
        return reached
    # Binary search for the number of thresholds that the bits have reached.
    steps = (num_classes - 1).bit_length()
    padding = ((0, 0), (0, (1 << steps) - num_classes))
    table = jnp.pad(last, padding, constant_values=ONE).ravel()
    first = rows.astype(jnp.uint32) * ((1 << steps) - 1)
    reached = jnp.zeros(rows.shape, jnp.uint32)
    for step in reversed(range(steps)):
        probe = reached + (1 << step)
        threshold = table.at[first + probe - 1].get(mode="promise_in_bounds")
        reached = jnp.where(drawn >= threshold, probe, reached)
    return reached


def _cumulative_thresholds(matrix: AnyArray) -> jax.Array:
    """Right ends of the intervals of each row's classes in `0..2^24`, `[R, K]`."""
    shares = to_threshold(matrix).astype(jnp.int32)
    rounding = ONE - shares.sum(axis=1)
    largest = jnp.argmax(shares, axis=1)
    shares = shares.at[jnp.arange(matrix.shape[0]), largest].add(rounding)
    return jnp.cumsum(shares, axis=1).astype(jnp.uint32)


def exact_counts(
    key: PRNGKey,
    labels: Labels,
    fraction: Numbers,
    *,
    classes: Sequence[int] | None = None,
) -> Bool[jax.Array, "*batch H W"]:
    """Chooses exactly `ceil(n * fraction)` of the n pixels of each class in each map.

    Each pixel draws random bits. The lowest of each class are chosen.

    Args:
      key: PRNG key.
      labels: Integer class ids `[..., H, W]`, below 256; fewer than 2^22 pixels in a
        map.
      fraction: Share in [0, 1], one number or one per class of `classes`; may be
        traced.
      classes: Class ids that are chosen from, static. By default as many as there are
        fractions, or every class and void if `fraction` is one number.

    Returns:
      Boolean `[..., H, W]`, true where a pixel is chosen.
    """
    share = by_class(jnp.arange(IDS), fraction, classes=classes)
    if classes is not None:
        share = jnp.where(np.isin(np.arange(IDS), list(classes)), share, 0)
    flat = (math.prod(labels.shape[:-2]), math.prod(labels.shape[-2:]))
    maps = labels.reshape(flat).astype(jnp.uint8)  # in few bytes, as it is read often

    def choose(ids: AnyArray, drawn: jax.Array) -> jax.Array:
        return smallest(ids, drawn, _ceil_share(_pixels_of_classes(ids), share))

    drawn = bits(key, labels.shape).reshape(maps.shape)
    return jax.vmap(choose)(maps, drawn).reshape(labels.shape)


@jax.jit  # so that eager calls compile the loop only once
def _pixels_of_classes(ids: AnyArray) -> jax.Array:
    """Counts the pixels of each class id of one map, int32 `[256]`.

    A pass over the pixels counts a few consecutive ids and finds the next id.
    """

    def merge(first: _Numbers, second: _Numbers) -> _Numbers:
        counts, following = _add(first[:-1], second[:-1]), (first[-1], second[-1])
        return *counts, jnp.minimum(*following)

    def one_pass(state: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        first, pixels = state
        number = ids.astype(jnp.int32)
        hits = [number == first + step for step in range(_IDS_AT_ONCE)]
        beyond = jnp.where(number < first + _IDS_AT_ONCE, IDS, number)
        planes = *(hit.astype(jnp.int32) for hit in hits), beyond
        initial = *(_ZERO for _ in hits), np.int32(IDS)
        *counts, following = jax.lax.reduce(planes, initial, merge, (0,))
        update = jnp.stack(counts)
        return following, jax.lax.dynamic_update_slice(pixels, update, (first,))

    start = jnp.int32(0), jnp.zeros(IDS + _IDS_AT_ONCE, jnp.int32)
    return jax.lax.while_loop(lambda state: state[0] < IDS, one_pass, start)[1][:IDS]


@jax.jit  # so that eager calls compile the loop only once
def smallest(
    ids: Integer[AnyArray, "N"],
    drawn: UInt32[AnyArray, "N"],
    quota: Int32[AnyArray, "256"],
) -> Bool[jax.Array, "N"]:
    """Finds the pixels with the lowest random bits of each class.

    Works class by class. Pixels with equal bits are chosen in raster order.

    Args:
      ids: Class ids of one map, integer `[N]`.
      drawn: Random bits, uint32 `[N]`.
      quota: Number of pixels to choose of each class, int32 `[256]`; at most as many as
        there are.

    Returns:
      Boolean `[N]`, true where a pixel is chosen.
    """
    drawn, quota = jnp.asarray(drawn), jnp.asarray(quota)
    place = jnp.arange(ids.shape[0], dtype=jnp.uint32)

    def next_class(start: jax.Array) -> jax.Array:
        left = (quota > 0) & (jnp.arange(IDS) >= start)
        return jnp.where(jnp.any(left), jnp.argmax(left), IDS).astype(jnp.int32)

    def choose(state: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        class_id, chosen = state
        among = jnp.asarray(ids == class_id.astype(ids.dtype))
        end, missing = _threshold(among, drawn, quota[class_id], _BITS)
        tied = among & (drawn == end)
        last, _ = _threshold(tied, place, missing, (place.size - 1).bit_length())
        chosen |= (among & (drawn < end)) | (tied & (place < last))
        return next_class(class_id + 1), chosen

    start = next_class(jnp.int32(0)), jnp.zeros(ids.shape, bool)
    return jax.lax.while_loop(lambda state: state[0] < IDS, choose, start)[1]


def _threshold(
    among: jax.Array, values: jax.Array, count: jax.Array, bits: int
) -> tuple[jax.Array, jax.Array]:
    """Finds the threshold that the values of `count` pixels are below.

    Finds it digit by digit, from the highest.

    Args:
      among: Pixels that count, boolean `[N]`.
      values: Values below `2^bits`, uint32 `[N]`.
      count: Number of pixels, int32; at most as many as count.
      bits: Number of bits of the values.

    Returns:
      The threshold, and how many more pixels are sought: 0 unless pixels have the
      threshold itself as their value.
    """

    def next_digit(
        state: tuple[jax.Array, jax.Array, jax.Array],
    ) -> tuple[jax.Array, jax.Array, jax.Array]:
        shift, end, found = state
        shift -= _DIGIT
        ends = [end + (jnp.uint32(digit) << shift) for digit in range(1, _RADIX)]
        planes = tuple((among & (values < one)).astype(jnp.int32) for one in ends)
        # XLA's CPU backend runs a reduction of several arrays as one vectorised loop,
        # and that of one array several times slower.
        below = jax.lax.reduce(planes, (_ZERO,) * len(planes), _add, (0,))
        for one, number in zip(ends, below, strict=True):
            fits = number <= count
            end, found = jnp.where(fits, one, end), jnp.where(fits, number, found)
        return shift, end, found

    digits = -(-bits // _DIGIT)
    start = jnp.uint32(digits * _DIGIT), jnp.uint32(0), jnp.int32(0)
    _, end, found = jax.lax.while_loop(
        lambda state: (state[0] > 0) & (state[2] < count), next_digit, start
    )
    return end, count - found


def _add(first: _Numbers, second: _Numbers) -> _Numbers:
    return tuple(a + b for a, b in zip(first, second, strict=True))


def _ceil_share(count: jax.Array, fraction: ArrayLike) -> jax.Array:
    """Computes `ceil(count * fraction)` in integers, int32.

    In floats `ceil(30 * 0.1)` would be 4. The fraction is rounded to units of 2^-24.
    Products that exceed an integer by no more than this rounding count as that integer.
    """
    fraction = jnp.asarray(fraction)
    units, count = to_threshold(fraction), count.astype(jnp.uint32)
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
