"""Perturbed clean labels: noise that changes the shape of the foreground.

Every function is `(key, labels, *, ...) -> labels` on integer maps `[..., H, W]`. It
keeps shape and dtype, and void stays void. Functions that draw nothing ignore the key.
Class 0 is background, and all other classes are foreground. All decisions are made in
integers, so the same key gives the same bits on every device.

Sources: Luo et al., "Deep Neural Networks Learn Meta-Structures from Noisy Labels in
Semantic Segmentation", AAAI 2022 (dilate, erode, skeletonize, shift_pixels); Yao et
al., "Learning to Segment from Noisy Annotations: A Spatial Correction Approach", ICLR
2023 (markov, random_boundary).
"""

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Integer

from metaseg import morphology
from metaseg.errors import InputError
from metaseg.labels import VOID, is_void
from metaseg.noise import draw, randomize
from metaseg.noise.parameters import checked
from metaseg.typing import AnyArray, Labels, Number, PRNGKey

__all__ = [
    "coarsen",
    "dilate",
    "erode",
    "markov",
    "random_boundary",
    "shift_pixels",
    "skeletonize",
]

_REACH = 2  # pixels to either side in markov's blur, as in its source
_LARGEST_RADIUS = 1024  # of `random_boundary`, whose order then fits in 32 bits
_UNROLLED = 32  # largest radius whose offsets are compiled one by one
_TAP_UNITS = 1 << 12  # sums of integer weights have the same bits in any order


@checked
def dilate(
    key: PRNGKey, labels: Labels, *, radius: int, shape: str = "disk"
) -> Integer[jax.Array, "*batch H W"]:
    """Dilates the foreground into the background.

    Foreground does not grow into other foreground. Background within the radius of
    several classes becomes the highest class id.

    Args:
      key: Not used.
      labels: Integer class ids `[..., H, W]`; 255 is void.
      radius: Radius in pixels, static.
      shape: Shape of the neighbourhood, static: "disk" (Euclidean distance),
        "square" or "cross".

    Returns:
      Label maps of the shape and dtype of `labels`.

    Raises:
      InputError: If an argument is of a wrong type or out of range.
    """
    del key
    grown = morphology.maximum(_foreground(labels), radius, shape=shape)
    return jnp.where(labels == 0, grown, labels)


@checked
def erode(
    key: PRNGKey, labels: Labels, *, radius: int, shape: str = "disk"
) -> Integer[jax.Array, "*batch H W"]:
    """Erodes the foreground: its pixels near background become background.

    Borders with another foreground class, with void or with the outside of the image do
    not erode.

    Args:
      key: Not used.
      labels: Integer class ids `[..., H, W]`; 255 is void.
      radius: Radius in pixels, static.
      shape: Shape of the neighbourhood, static: "disk" (Euclidean distance),
        "square" or "cross".

    Returns:
      Label maps of the shape and dtype of `labels`.

    Raises:
      InputError: If an argument is of a wrong type or out of range.
    """
    del key
    eaten = morphology.dilate(labels == 0, radius, shape=shape) & ~is_void(labels)
    return jnp.where(eaten, jnp.zeros_like(labels), labels)


@checked
def random_boundary(
    key: PRNGKey, labels: Labels, *, radius: int, per: str = "image"
) -> Integer[jax.Array, "*batch H W"]:
    """Dilates or erodes by a random radius, an integer drawn uniformly from [-r, r].

    Background that several objects reach becomes the one in whose disk it lies deepest
    (lowest `distance^2 - drawn^2`, then highest class id). Where an object shrinks, its
    pixels within the drawn distance of background become background.

    Args:
      key: PRNG key.
      labels: Integer class ids `[..., H, W]`; 255 is void.
      radius: Largest radius r in pixels, static, at most 1024.
      per: Whether a radius is drawn for each "image" or for each "object", an
        8-connected component; static.

    Returns:
      Label maps of the shape and dtype of `labels`.

    Raises:
      InputError: If an argument is of a wrong type or out of range.
    """
    if radius > _LARGEST_RADIUS:
        raise InputError(
            f"radius: got {radius}, expected an integer in 0..{_LARGEST_RADIUS}"
        )
    if per == "image":
        drawn = draw.bits(key, (*labels.shape[:-2], 1, 1))
    else:
        owner = morphology.roots(_foreground(labels))
        bits = draw.bits(key, labels.shape)
        flat = (*labels.shape[:-2], -1)
        drawn = jnp.take_along_axis(
            bits.reshape(flat), jnp.maximum(owner.reshape(flat), 0), axis=-1
        ).reshape(labels.shape)
    change = draw.integers(drawn, 2 * radius + 1) - radius

    # One number orders the objects that reach a pixel: by depth, then by class.
    ids = VOID + 1
    deepest = radius**2 - change**2
    beyond = 4 * radius**2 + 1
    grows = (_foreground(labels) > 0) & (change > 0)
    order = deepest * ids + (VOID - labels.astype(jnp.int32))
    site = jnp.where(grows, order, beyond * ids)
    best = _lower_parabolas(site, radius, ids, beyond * ids)
    grown = jnp.where(best // ids <= radius**2, VOID - best % ids, 0)

    nothing = jnp.where(labels == 0, 0, beyond)
    away = _lower_parabolas(nothing, radius, 1, beyond)
    shrunk = (change < 0) & (away <= change**2) & ~is_void(labels)
    noisy = jnp.where(labels == 0, grown, jnp.where(shrunk, 0, labels))
    return noisy.astype(labels.dtype)


@functools.partial(jax.jit, static_argnums=(1, 2, 3))
def _lower_parabolas(
    heights: jax.Array, radius: int, slope: int, beyond: int
) -> jax.Array:
    """Computes `min over u of heights(u) + slope |x - u|^2`, `|x - u| <= radius`."""
    for axis in (-2, -1):
        heights = _lower_along(axis, heights, radius, slope, beyond)
        heights = jax.lax.optimization_barrier(heights)
    return heights


def _lower_along(
    axis: int, heights: jax.Array, radius: int, slope: int, beyond: int
) -> jax.Array:
    size = heights.shape[axis]
    reach = min(radius, size - 1)
    around = [(0, 0)] * heights.ndim
    around[axis] = (reach, reach)
    padded = jnp.pad(heights, around, constant_values=beyond)

    def lower(start: Any, lowest: jax.Array) -> jax.Array:
        moved = jax.lax.dynamic_slice_in_dim(padded, start, size, axis=axis)
        away = jnp.asarray(start - reach, jnp.int32)
        return jnp.minimum(lowest, moved + slope * away**2)

    if reach > _UNROLLED:
        return jax.lax.fori_loop(0, 2 * reach + 1, lower, heights)
    for start in range(2 * reach + 1):
        heights = lower(start, heights)
    return heights


@checked
def skeletonize(key: PRNGKey, labels: Labels) -> Integer[jax.Array, "*batch H W"]:
    """Replaces each foreground class by its skeleton.

    Each class is thinned by itself, as `morphology.skeletonize` does.

    Args:
      key: Not used.
      labels: Integer class ids `[..., H, W]`; 255 is void.

    Returns:
      Label maps of the shape and dtype of `labels`.

    Raises:
      InputError: If an argument is of a wrong type or out of range.
    """
    del key
    kept = morphology.skeletonize_classes(_foreground(labels)) | is_void(labels)
    return jnp.where(kept, labels, jnp.zeros_like(labels))


@checked
def shift_pixels(
    key: PRNGKey, labels: Labels, *, radius: int
) -> Integer[jax.Array, "*batch H W"]:
    """Moves every foreground pixel by itself, uniformly within a square.

    Moves end at the border of the image. Of pixels that move to the same place the
    highest class id remains. Pixels that move onto void are lost, and places that no
    pixel moves to become background.

    Args:
      key: PRNG key.
      labels: Integer class ids `[..., H, W]`; 255 is void.
      radius: Largest move along each axis in pixels, static; at most 32 767.

    Returns:
      Label maps of the shape and dtype of `labels`.

    Raises:
      InputError: If an argument is of a wrong type or out of range.
    """
    if radius > draw.LARGEST_MOVE:
        raise InputError(
            f"radius: got {radius}, expected an integer in 0..{draw.LARGEST_MOVE}"
        )
    height, width = labels.shape[-2:]
    bits = draw.bits(key, (2, *labels.shape))
    moves = draw.integers(bits, 2 * radius + 1) - radius
    rows = jnp.clip(jnp.arange(height)[:, None] + moves[0], 0, height - 1)
    cols = jnp.clip(jnp.arange(width) + moves[1], 0, width - 1)

    def land(classes: jax.Array, place: jax.Array) -> jax.Array:
        return jnp.zeros_like(classes).at[place].max(classes)

    shape = (math.prod(labels.shape[:-2]), height * width)
    landed = jax.vmap(land)(
        _foreground(labels).reshape(shape), (rows * width + cols).reshape(shape)
    )
    return jnp.where(is_void(labels), labels, landed.reshape(labels.shape))


@checked
def markov(
    key: PRNGKey,
    labels: Labels,
    *,
    steps: int = 250,
    theta1: Number = 0.8,
    theta2: Number = 0.05,
    theta3: Number = 0.2,
    blur: float = 2.0,
    num_classes: int = 2,
) -> Integer[jax.Array, "*batch H W"]:
    """Lets the boundary walk at random, then flips pixels and smooths.

    With probability `theta1` a step flips pixels of the outer boundary (background that
    shares an edge with foreground), otherwise pixels of the inner boundary (foreground
    that shares an edge with background), each with probability `theta2`. A pixel of the
    outer boundary becomes the highest class that it shares an edge with. After all
    steps every pixel flips with probability `theta3`, to all other classes with equal
    probability. Last, the indicator of each class is blurred by a Gaussian of 5 x 5
    pixels, with the image mirrored at its border, and each pixel becomes the class of
    the highest value (of equal values, the lowest class).

    The boundary moves outwards if `theta1` is above 1/2, and inwards if it is below.

    Args:
      key: PRNG key.
      labels: Integer class ids `[..., H, W]`, sides of at least 3 pixels; 255 is
        void.
      steps: Number of steps T, static.
      theta1: Probability that a step goes outwards; may be traced.
      theta2: Probability that a boundary pixel flips in a step; may be traced.
      theta3: Probability that any pixel flips in the end; may be traced.
      blur: Standard deviation of the Gaussian in pixels, static; 0 for none.
      num_classes: K, static, at least 2.

    Returns:
      Label maps of the shape and dtype of `labels`.

    Raises:
      InputError: If an argument is of a wrong type or out of range.
    """
    which, ways, last = jax.random.split(key, 3)
    coins = draw.bits(which, (steps, *labels.shape[:-2], 1, 1))
    outward, flips = coins < draw.to_threshold(theta1), draw.to_threshold(theta2)
    walked = _walk(ways, jnp.asarray(labels), outward, flips)
    flipped = randomize.flip(last, walked, rate=theta3, num_classes=num_classes)
    return _smooth(flipped, blur, num_classes) if blur else flipped


@jax.jit  # so that eager calls compile the loop only once
def _walk(
    key: jax.Array, labels: jax.Array, outward: jax.Array, flips: jax.Array
) -> jax.Array:
    """Takes the steps of `markov`, those of `outward` `[T, ..., 1, 1]` outwards."""

    def step(index: jax.Array, classes: jax.Array) -> jax.Array:
        drawn = draw.bits(jax.random.fold_in(key, index), labels.shape) < flips
        beside = morphology.maximum(_foreground(classes), 1, shape="cross")
        inner = (classes > 0) & morphology.dilate(classes == 0, 1, shape="cross")
        grown = jnp.where(drawn & (classes == 0), beside, classes)
        shrunk = jnp.where(drawn & inner & ~is_void(classes), 0, classes)
        return jnp.where(outward[index], grown, shrunk).astype(labels.dtype)

    return jax.lax.fori_loop(0, len(outward), step, labels)


def _smooth(labels: jax.Array, blur: float, num_classes: int) -> jax.Array:
    """Returns the class of highest Gaussian weight in 5 x 5 pixels; void has none."""
    weights = np.exp(-0.5 * (np.arange(-_REACH, _REACH + 1) / blur) ** 2)
    taps = np.round(weights / weights.sum() * _TAP_UNITS).astype(int)

    def weight_of(class_id: int) -> jax.Array:
        weight = (labels == class_id).astype(jnp.int32)
        for axis in (-2, -1):
            around = [(0, 0)] * labels.ndim
            around[axis] = (_REACH, _REACH)
            padded = jnp.pad(weight, around, mode="reflect")
            size = labels.shape[axis]
            parts = [
                jax.lax.slice_in_dim(padded, i, i + size, axis=axis) * int(tap)
                for i, tap in enumerate(taps)
            ]
            weight = functools.reduce(jnp.add, parts)
        return weight

    best, most = jnp.zeros_like(labels), weight_of(0)
    for class_id in range(1, num_classes):
        weight = weight_of(class_id)
        best = jnp.where(weight > most, class_id, best).astype(labels.dtype)
        most = jnp.maximum(most, weight)
    return jnp.where(is_void(labels), labels, best)


@checked
def coarsen(
    key: PRNGKey, labels: Labels, *, factor: int, num_classes: int = 2
) -> Integer[jax.Array, "*batch H W"]:
    """Draws labels at a lower resolution: each block takes its most frequent class.

    Blocks start at the first row and column; the last ones may be cut off. Void is not
    counted. Of equally frequent classes the lowest is taken.

    Args:
      key: Not used.
      labels: Integer class ids `[..., H, W]`; 255 is void.
      factor: Side of a block in pixels, static.
      num_classes: K, static.

    Returns:
      Label maps of the shape and dtype of `labels`.

    Raises:
      InputError: If an argument is of a wrong type or out of range.
    """
    del key
    height, width = labels.shape[-2:]
    tall, wide = min(factor, height), min(factor, width)
    rows, cols = -(-height // tall), -(-width // wide)
    spare = (rows * tall - height, cols * wide - width)
    around = [(0, 0)] * (labels.ndim - 2) + [(0, extra) for extra in spare]
    padded = jnp.pad(labels, around, constant_values=VOID)
    blocks = padded.reshape(*labels.shape[:-2], rows, tall, cols, wide)
    counts = [
        jnp.sum(blocks == class_id, axis=(-3, -1), dtype=jnp.int32)
        for class_id in range(num_classes)
    ]
    most = jnp.argmax(jnp.stack(counts), axis=0).astype(labels.dtype)
    coarse = jnp.repeat(jnp.repeat(most, tall, axis=-2), wide, axis=-1)
    return jnp.where(is_void(labels), labels, coarse[..., :height, :width])


def _foreground(labels: AnyArray) -> jax.Array:
    """Replaces void by background."""
    return jnp.where(is_void(labels), jnp.zeros_like(labels), labels)
