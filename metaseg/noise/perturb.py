"""Perturbed clean labels: the shape itself is changed.

Every function is `(key, labels, *, ...) -> labels` on integer maps `[..., H, W]`, keeps
shape and dtype, and leaves void alone; those that draw nothing ignore the key. Class 0
is background, every other class is foreground. Where pixels go is decided in integers,
so the same key gives the same bits on every device. An invalid parameter raises an
`InputError`, which is a ValueError, that names it.

Sources: Luo et al., AAAI 2022 (dilate, erode, skeletonize, shift_pixels); Yao et al.,
"Learning to Segment from Noisy Annotations: A Spatial Correction Approach", ICLR 2023
(markov, random_boundary); Simard et al., "Best practices for convolutional neural
networks", ICDAR 2003 (elastic).
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from metaseg import morphology
from metaseg.labels import VOID, is_void
from metaseg.noise import draw, randomize
from metaseg.noise.parameters import checked

__all__ = [
    "coarsen",
    "dilate",
    "erode",
    "markov",
    "random_boundary",
    "shift_pixels",
    "skeletonize",
]

_REACH = 2  # pixels to either side that markov's blur looks at, as its source does
_TAP_UNITS = 1 << 12  # integer weights add up in any order to the same bits


@checked
def dilate(
    key: jax.Array, labels: jax.Array, *, radius: int, shape: str = "disk"
) -> jax.Array:
    """Grow the foreground into the background by `radius`.

    Foreground never grows into other foreground; background that several classes reach
    goes to the highest class id.

    Args:
      key: ignored.
      labels: class ids, integer `[..., H, W]`.
      radius: pixels, a static integer >= 0.
      shape: static: "disk" (Euclidean distance), "square" or "cross".

    Returns:
      Label maps of the shape and dtype of `labels`.
    """
    del key
    grown = morphology.maximum(_foreground(labels), radius, shape=shape)
    return jnp.where(labels == 0, grown, labels)


@checked
def erode(
    key: jax.Array, labels: jax.Array, *, radius: int, shape: str = "disk"
) -> jax.Array:
    """Turn foreground within `radius` of background into background.

    Background grows alike into every class; a border between two foreground classes,
    with void or with the outside of the image does not erode.

    Args:
      key: ignored.
      labels: class ids, integer `[..., H, W]`.
      radius: pixels, a static integer >= 0.
      shape: static: "disk" (Euclidean distance), "square" or "cross".

    Returns:
      Label maps of the shape and dtype of `labels`.
    """
    del key
    eaten = morphology.dilate(labels == 0, radius, shape=shape) & ~is_void(labels)
    return jnp.where(eaten, jnp.zeros_like(labels), labels)


@checked
def random_boundary(
    key: jax.Array, labels: jax.Array, *, radius: int, per: str = "image"
) -> jax.Array:
    """Dilate or erode by a radius drawn uniformly from the integers in [-r, r].

    Background that grown objects reach goes to the one in whose disk it lies deepest
    (lowest `distance^2 - drawn^2`; of equals, the highest class id); shrunk objects
    give way to background within their own drawn distance.

    Args:
      key: PRNG key.
      labels: class ids, integer `[..., H, W]`.
      radius: r in pixels, a static integer >= 0.
      per: static: one draw per "image", or per "object" (8-connected component).

    Returns:
      Label maps of the shape and dtype of `labels`.
    """
    if per == "image":
        drawn = draw.words(key, (*labels.shape[:-2], 1, 1))
    else:
        owner = morphology.roots(_foreground(labels))
        words = draw.words(key, labels.shape)
        flat = (*labels.shape[:-2], -1)
        drawn = jnp.take_along_axis(
            words.reshape(flat), jnp.maximum(owner.reshape(flat), 0), axis=-1
        ).reshape(labels.shape)
    change = draw.integers(drawn, 2 * radius + 1) - radius

    # One number orders what reaches a pixel: by depth, then by class.
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


def _lower_parabolas(
    heights: jax.Array, radius: int, slope: int, beyond: int
) -> jax.Array:
    """`min over u of heights(u) + slope |x - u|^2`, for |x - u| <= radius a side."""
    for axis in (-2, -1):
        size = heights.shape[axis]
        around = [(0, 0)] * heights.ndim
        around[axis] = (radius, radius)
        padded = jnp.pad(heights, around, constant_values=beyond)
        for step in range(-radius, radius + 1):
            start = radius + step
            moved = jax.lax.slice_in_dim(padded, start, start + size, axis=axis)
            heights = jnp.minimum(heights, moved + slope * step**2)
        heights = jax.lax.optimization_barrier(heights)
    return heights


@checked
def skeletonize(key: jax.Array, labels: jax.Array) -> jax.Array:
    """Leave of each foreground class its skeleton; the rest becomes background.

    Each class is thinned by itself, as `morphology.skeletonize` does.

    Args:
      key: ignored.
      labels: class ids, integer `[..., H, W]`.

    Returns:
      Label maps of the shape and dtype of `labels`.
    """
    del key
    kept = morphology.skeletonize_classes(_foreground(labels)) | is_void(labels)
    return jnp.where(kept, labels, jnp.zeros_like(labels))


@checked
def shift_pixels(key: jax.Array, labels: jax.Array, *, radius: int) -> jax.Array:
    """Move every foreground pixel by itself, uniformly in [-radius, radius] a side.

    Pixels are held back at the image's edge and may land on one another, where the
    highest class id stays; what lands on void is lost, where nothing lands is
    background.

    Args:
      key: PRNG key.
      labels: class ids, integer `[..., H, W]`.
      radius: pixels, a static integer >= 0.

    Returns:
      Label maps of the shape and dtype of `labels`.
    """
    height, width = labels.shape[-2:]
    words = draw.words(key, (2, *labels.shape))
    moves = draw.integers(words, 2 * radius + 1) - radius
    rows = jnp.clip(jnp.arange(height)[:, None] + moves[0], 0, height - 1)
    cols = jnp.clip(jnp.arange(width) + moves[1], 0, width - 1)

    def land(classes: jax.Array, place: jax.Array) -> jax.Array:
        return jnp.zeros_like(classes).at[place].max(classes)

    shape = (-1, height * width)
    landed = jax.vmap(land)(
        _foreground(labels).reshape(shape), (rows * width + cols).reshape(shape)
    )
    return jnp.where(is_void(labels), labels, landed.reshape(labels.shape))


@checked
def markov(
    key: jax.Array,
    labels: jax.Array,
    *,
    steps: int = 250,
    theta1: ArrayLike = 0.8,
    theta2: ArrayLike = 0.05,
    theta3: ArrayLike = 0.2,
    blur: float = 2.0,
    num_classes: int = 2,
) -> jax.Array:
    """Let the boundary walk at random, then flip pixels and smooth.

    At each step, with probability `theta1` the outer boundary (background beside
    foreground) flips, else the inner one (foreground beside background), each pixel
    with probability `theta2`; an outer pixel takes the highest class beside it. Then
    every pixel flips with probability `theta3`, to any other class alike. Last, each
    class is blurred by a Gaussian of 5 x 5 pixels, mirrored at the edge, and the pixel
    takes the class with most weight (of equals, the lowest). "Beside" shares an edge.

    The boundary moves out where `theta1` > 1/2, in where it is below.

    Args:
      key: PRNG key.
      labels: class ids, integer `[..., H, W]`, sides of at least 3.
      steps: T, static.
      theta1: probability of an outward step; may be traced, as the others.
      theta2: probability that a boundary pixel flips in a step.
      theta3: probability that any pixel flips in the end.
      blur: standard deviation in pixels, static; 0 for none.
      num_classes: K, static, at least 2.

    Returns:
      Label maps of the shape and dtype of `labels`.
    """
    which, ways, last = jax.random.split(key, 3)
    coins = draw.words(which, (steps, *labels.shape[:-2], 1, 1))
    outward, flips = coins < draw.to_cut(theta1), draw.to_cut(theta2)

    def step(index: jax.Array, classes: jax.Array) -> jax.Array:
        drawn = draw.words(jax.random.fold_in(ways, index), labels.shape) < flips
        beside = morphology.maximum(_foreground(classes), 1, shape="cross")
        inner = (classes > 0) & morphology.dilate(classes == 0, 1, shape="cross")
        grown = jnp.where(drawn & (classes == 0), beside, classes)
        shrunk = jnp.where(drawn & inner & ~is_void(classes), 0, classes)
        return jnp.where(outward[index], grown, shrunk).astype(labels.dtype)

    walked = jax.lax.fori_loop(0, steps, step, labels)
    flipped = randomize.flip(last, walked, rate=theta3, num_classes=num_classes)
    return _smooth(flipped, blur, num_classes) if blur else flipped


def _smooth(labels: jax.Array, blur: float, num_classes: int) -> jax.Array:
    """The class of most Gaussian weight in 5 x 5 pixels; void weighs nothing."""
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
    key: jax.Array, labels: jax.Array, *, factor: int, num_classes: int = 2
) -> jax.Array:
    """Labels drawn at a lower resolution: each block takes its most frequent class.

    Blocks start at the first row and column, the last ones may be cut off; void does
    not count; of equally frequent classes the lowest is taken.

    Args:
      key: ignored.
      labels: class ids, integer `[..., H, W]`.
      factor: sides of a block in pixels, a static integer >= 1.
      num_classes: K, static.

    Returns:
      Label maps of the shape and dtype of `labels`.
    """
    del key
    height, width = labels.shape[-2:]
    rows, cols = -(-height // factor), -(-width // factor)
    spare = (rows * factor - height, cols * factor - width)
    around = [(0, 0)] * (labels.ndim - 2) + [(0, extra) for extra in spare]
    padded = jnp.pad(labels, around, constant_values=VOID)
    blocks = padded.reshape(*labels.shape[:-2], rows, factor, cols, factor)
    counts = [
        jnp.sum(blocks == class_id, axis=(-3, -1), dtype=jnp.int32)
        for class_id in range(num_classes)
    ]
    most = jnp.argmax(jnp.stack(counts), axis=0).astype(labels.dtype)
    coarse = jnp.repeat(jnp.repeat(most, factor, axis=-2), factor, axis=-1)
    return jnp.where(is_void(labels), labels, coarse[..., :height, :width])


def _foreground(labels: jax.Array) -> jax.Array:
    """Classes with void as background."""
    return jnp.where(is_void(labels), jnp.zeros_like(labels), labels)
