"""Noise on whole objects: missed, added, merged, boxes, points and scribbles.

An object is an 8-connected component of one foreground class. Every function is `(key,
labels, *, ...) -> labels` on integer maps `[..., H, W]`. It keeps shape and dtype, and
void stays void. `points` and `scribbles` turn other pixels into void. Objects are found
on the device, and their number is not limited.
"""

import math
from collections.abc import Callable
from functools import partial, reduce
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Integer

from metaseg import morphology
from metaseg.labels import VOID, is_void
from metaseg.morphology.footprint import SHAPES
from metaseg.noise import draw
from metaseg.noise.parameters import checked
from metaseg.typing import AnyArray, Labels, Numbers, PRNGKey

__all__ = ["add", "boxes", "merge", "omit", "points", "scribbles"]

_UNROLLED = 64  # slices that are compiled one by one; more become a loop


@checked
def omit(
    key: PRNGKey, labels: Labels, *, rate: Numbers, fill: int = 0
) -> Integer[jax.Array, "*batch H W"]:
    """Misses each object with some probability: all of its pixels become `fill`.

    Args:
      key: PRNG key.
      labels: Integer class ids `[..., H, W]`; 255 is void.
      rate: Probability in [0, 1], one number or one per class `[K]`; may be traced.
      fill: Label of missed objects: a class id, or 255; static.

    Returns:
      Label maps of the shape and dtype of `labels`.

    Raises:
      InputError: If an argument is of a wrong type or out of range.
    """

    def one(classes: jax.Array, bits: jax.Array) -> jax.Array:
        owner = _owners(classes)
        coin = bits.ravel()[owner]
        missed = (owner >= 0) & (coin < draw.by_class(classes, draw.to_threshold(rate)))
        return jnp.where(missed, jnp.asarray(fill, classes.dtype), classes)

    return _over_maps(one, labels, draw.bits(key, labels.shape))


@checked
def add(
    key: PRNGKey, labels: Labels, *, rate: Numbers
) -> Integer[jax.Array, "*batch H W"]:
    """Adds objects: copies each object, with some probability, to another place.

    The place is uniform among those where the copy fits into the image. Copies cover
    only background. Where copies overlap, the highest class id remains.

    Args:
      key: PRNG key.
      labels: Integer class ids `[..., H, W]`; 255 is void.
      rate: Probability in [0, 1], one number or one per class `[K]`; may be traced.

    Returns:
      Label maps of the shape and dtype of `labels`.

    Raises:
      InputError: If an argument is of a wrong type or out of range.
    """
    height, width = labels.shape[-2:]

    def one(
        classes: jax.Array, coin: jax.Array, down: jax.Array, right: jax.Array
    ) -> jax.Array:
        owner = _owners(classes)
        box = _bounding_boxes(owner)
        rows = draw.integers(down.ravel(), height - (box.bottom - box.top)) - box.top
        cols = draw.integers(right.ravel(), width - (box.right - box.left)) - box.left
        threshold = draw.by_class(classes, draw.to_threshold(rate))
        copied = (owner >= 0) & (coin.ravel()[owner] < threshold)
        place = jnp.arange(classes.size).reshape(classes.shape)
        target = place + (rows * width + cols)[owner]
        target = jnp.where(copied, target, classes.size)
        canvas = jnp.zeros_like(classes).ravel()
        copies = canvas.at[target].max(classes, mode="drop").reshape(classes.shape)
        return jnp.where(classes == 0, copies, classes)

    return _over_maps(one, labels, *draw.bits(key, (3, *labels.shape)))


@checked
def merge(
    key: PRNGKey, labels: Labels, *, radius: int, rate: Numbers = 1.0
) -> Integer[jax.Array, "*batch H W"]:
    """Merges close objects of one class: the gap between them is filled.

    Background whose distances to its two nearest objects add up to at most `2 radius +
    1` becomes their class if both are of one class. In a straight gap of `2 radius`
    pixels all distances add up to that. Each pair of neighbours is merged with
    probability `rate`.

    Args:
      key: PRNG key.
      labels: Integer class ids `[..., H, W]`; 255 is void.
      radius: Half of the width of the widest gap that is filled, in pixels, static.
      rate: Probability in [0, 1], one number or one per class `[K]`; may be traced.

    Returns:
      Label maps of the shape and dtype of `labels`.

    Raises:
      InputError: If an argument is of a wrong type or out of range.
    """
    bits = draw.bits(key, labels.shape)
    return _merge(labels, bits, draw.to_threshold(rate), 2 * radius)


@partial(jax.jit, static_argnums=3)  # so that eager calls compile the loop only once
def _merge(
    labels: jax.Array, bits: jax.Array, threshold: jax.Array, widest: int
) -> jax.Array:
    """Fills gaps of up to `widest` pixels; see `merge`."""
    reach = min(widest, max(labels.shape[-2:]))
    # A table, because square roots may differ between devices.
    root = jnp.asarray(np.sqrt(np.arange(2 * reach**2 + 2)), jnp.float32)

    def one(classes: jax.Array, bits: jax.Array) -> jax.Array:
        near, other = _two_nearest(_owners(classes), reach)
        flat, bits = classes.ravel(), bits.ravel()
        kind = flat[near.owner]
        narrow = root[near.squared] + root[other.squared] <= float(widest + 1)
        gap = (classes == 0) & (other.owner >= 0) & narrow
        # The sum of the two objects' bits is uniform, and the same for all pixels.
        coin = (bits[near.owner] + bits[other.owner]) % draw.ONE
        joined = coin < draw.by_class(kind, threshold)
        return jnp.where(gap & (kind == flat[other.owner]) & joined, kind, classes)

    return _over_maps(one, labels, bits)


@checked
def boxes(key: jax.Array, labels: jax.Array, *, num_classes: int = 2) -> jax.Array:
    """Replaces each object by its bounding box.

    Where boxes overlap, the highest class id remains.

    Args:
      key: Not used.
      labels: Integer class ids `[..., H, W]`; 255 is void.
      num_classes: K, static.

    Returns:
      Label maps of the shape and dtype of `labels`.

    Raises:
      InputError: If an argument is of a wrong type or out of range.
    """
    del key

    def one(classes: jax.Array) -> jax.Array:
        height, width = classes.shape
        owner = _owners(classes)
        box = _bounding_boxes(owner)
        is_root = owner.ravel() == jnp.arange(classes.size)
        boxed = jnp.zeros_like(classes)
        for class_id in range(1, num_classes):
            # Cumulative sums of +1 and -1 at the corners count the boxes at a pixel.
            weight = (is_root & (classes.ravel() == class_id)).astype(jnp.int32)
            corners = jnp.zeros((height + 1, width + 1), jnp.int32)
            for rows, sign in ((box.top, 1), (box.bottom + 1, -1)):
                corners = corners.at[rows, box.left].add(sign * weight, mode="drop")
                corners = corners.at[rows, box.right + 1].add(
                    -sign * weight, mode="drop"
                )
            covering = jnp.cumsum(jnp.cumsum(corners, axis=0), axis=1)
            covered = covering[:height, :width] > 0
            boxed = jnp.where(covered, class_id, boxed).astype(classes.dtype)
        return jnp.where(is_void(classes), classes, boxed)

    return _over_maps(one, labels)


@checked
def points(
    key: PRNGKey,
    labels: Labels,
    *,
    count: int = 1,
    background: int = 10,
    radius: int = 0,
) -> Integer[jax.Array, "*batch H W"]:
    """Keeps random points of each object and of the background; the rest is void.

    Source of the idea: Bearman et al., "What's the point: semantic segmentation with
    point supervision", ECCV 2016.

    Args:
      key: PRNG key.
      labels: Integer class ids `[..., H, W]`; 255 is void.
      count: Number of pixels of each object, static. An object with fewer pixels is
        kept whole.
      background: Number of pixels of the background of each map, static.
      radius: Radius of the disk that each point becomes, within its object, in
        pixels; static.

    Returns:
      Label maps of the shape and dtype of `labels`.

    Raises:
      InputError: If an argument is of a wrong type or out of range.
    """
    bits = draw.bits(key, labels.shape)
    limit = _as_limit(4 * radius**2)
    return _points(labels, bits, limit, (count, background))


@partial(jax.jit, static_argnums=3)  # so that eager calls compile the loop only once
def _points(
    labels: jax.Array, bits: jax.Array, limit: jax.Array, counts: tuple[int, int]
) -> jax.Array:
    """Keeps the pixels near drawn ones; see `points`, and `_marks` for arguments."""

    def one(classes: jax.Array, bits: jax.Array) -> jax.Array:
        among, owner = ~is_void(classes), _owners(classes)
        everywhere = jnp.ones_like(among)
        return _only(_marks(among, everywhere, owner, bits, counts, limit), classes)

    return _over_maps(one, labels, bits)


@checked
def scribbles(
    key: PRNGKey,
    labels: Labels,
    *,
    length: float = 40.0,
    background: int = 3,
    radius: int = 1,
) -> Integer[jax.Array, "*batch H W"]:
    """Keeps strokes in each object and in the background; the rest is void.

    Each object keeps one stroke. A stroke is the part of the skeleton (of the object,
    or of the background) within half of `length` of one of its pixels, drawn at random.
    It is then widened. Source of the idea: Lin et al., "ScribbleSup:
    scribble-supervised convolutional networks for semantic segmentation", CVPR 2016.

    Args:
      key: PRNG key.
      labels: Integer class ids `[..., H, W]`; 255 is void.
      length: Length of a stroke from end to end, in pixels, static.
      background: Number of strokes in the background of each map, static.
      radius: Half of the width of a stroke in pixels, static; 0 for a width of one
        pixel.

    Returns:
      Label maps of the shape and dtype of `labels`.

    Raises:
      InputError: If an argument is of a wrong type or out of range.
    """
    bits = draw.bits(key, labels.shape)
    limit = _as_limit(length**2)
    return _scribbles(labels, bits, limit, background, radius)


@partial(jax.jit, static_argnums=(3, 4))  # so that eager calls compile only once
def _scribbles(
    labels: jax.Array, bits: jax.Array, limit: jax.Array, background: int, radius: int
) -> jax.Array:
    """Keeps strokes; see `scribbles`, and `_marks` for `limit`."""

    def one(classes: jax.Array, bits: jax.Array) -> jax.Array:
        owner = _owners(classes)
        ids = classes.astype(jnp.int32)
        kinds = jnp.where(is_void(ids), 0, jnp.where(ids == 0, draw.IDS, ids))
        lines = morphology.skeletonize_classes(kinds)
        marks = _marks(lines, lines, owner, bits, (1, background), limit)
        return _only(_thicken(marks, owner, radius), classes)

    return _over_maps(one, labels, bits)


class _Boxes(NamedTuple):
    """Bounding boxes, int32 `[H * W]`, at the index of each object's root."""

    top: jax.Array
    bottom: jax.Array
    left: jax.Array
    right: jax.Array


def _over_maps(one: Callable[..., jax.Array], *arrays: AnyArray) -> jax.Array:
    """Applies a function of single maps `[H, W]` over leading axes."""
    shape = arrays[0].shape
    maps = (array.reshape(math.prod(shape[:-2]), *shape[-2:]) for array in arrays)
    return jax.vmap(one)(*maps).reshape(shape)


def _owners(classes: jax.Array) -> jax.Array:
    """Finds the root of each pixel's object, int32; -1 in background and void."""
    foreground = jnp.where(is_void(classes), jnp.zeros_like(classes), classes)
    return morphology.roots(foreground)


class _Nearest(NamedTuple):
    """An object and the squared distance to it, int32 `[H, W]`; -1 for no object."""

    owner: jax.Array
    squared: jax.Array


def _two_nearest(owner: jax.Array, reach: int) -> tuple[_Nearest, _Nearest]:
    """Finds the two nearest objects of each pixel.

    Along columns first, then along rows: the two nearest objects of a pixel are among
    the two nearest within the columns of the pixels of its row. Finds all objects
    within `reach`, and some that are farther but within `reach` along both axes.
    """
    beyond = 2 * reach**2 + 1
    nobody = _Nearest(jnp.full_like(owner, -1), jnp.full_like(owner, beyond))
    found = _Nearest(owner, jnp.where(owner >= 0, 0, beyond)), nobody
    for axis in (0, 1):
        found = _two_nearest_along(axis, *found, reach, beyond)
    return found


def _two_nearest_along(
    axis: int, near: _Nearest, other: _Nearest, reach: int, beyond: int
) -> tuple[_Nearest, _Nearest]:
    """Finds the two nearest among the objects that pixels of the same line found."""
    size = near.owner.shape[axis]
    around = [(reach, reach) if axis == d else (0, 0) for d in (0, 1)]
    lines = [
        (
            jnp.pad(owner, around, constant_values=-1),
            jnp.pad(squared, around, constant_values=beyond),
        )
        for owner, squared in (near, other)
    ]

    def compare(
        index: jax.Array, found: tuple[_Nearest, _Nearest]
    ) -> tuple[_Nearest, _Nearest]:
        for line in lines:
            owner, squared = (
                jax.lax.dynamic_slice_in_dim(part, index, size, axis) for part in line
            )
            away = (index - reach).astype(jnp.int32)
            squared = jnp.minimum(squared + away**2, beyond)
            found = _insert(_Nearest(owner, squared), *found)
        return found

    return jax.lax.fori_loop(0, 2 * reach + 1, compare, (near, other))


def _insert(
    new: _Nearest, near: _Nearest, other: _Nearest
) -> tuple[_Nearest, _Nearest]:
    """Returns the two nearest of three objects, of which `near` and `other` are sorted.

    The new object may be equal to one of them.
    """

    def pick(condition: jax.Array, a: _Nearest, b: _Nearest) -> _Nearest:
        return _Nearest(
            *(jnp.where(condition, x, y) for x, y in zip(a, b, strict=True))
        )

    closest = new.squared < near.squared
    loser = pick(closest, near, new)
    second = (new.owner != near.owner) & (new.squared < other.squared)
    return pick(closest, new, near), pick(second, loser, other)


def _bounding_boxes(owner: jax.Array) -> _Boxes:
    rows, cols = (jax.lax.broadcasted_iota(jnp.int32, owner.shape, d) for d in (0, 1))
    slot = jnp.where(owner >= 0, owner, owner.size)
    lowest = jnp.full(owner.size, max(owner.shape), jnp.int32)
    highest = jnp.full(owner.size, -1, jnp.int32)
    return _Boxes(
        top=lowest.at[slot].min(rows, mode="drop"),
        bottom=highest.at[slot].max(rows, mode="drop"),
        left=lowest.at[slot].min(cols, mode="drop"),
        right=highest.at[slot].max(cols, mode="drop"),
    )


def _as_limit(doubled_square: float) -> jax.Array:
    return jnp.asarray(min(int(doubled_square), 2**31 - 1), jnp.int32)


def _marks(
    candidates: jax.Array,
    markable: jax.Array,
    owner: jax.Array,
    bits: jax.Array,
    counts: tuple[int, int],
    limit: jax.Array,
) -> jax.Array:
    """Draws pixels of each object at random and marks the object's pixels near them.

    Args:
      candidates: Pixels that are drawn from, boolean `[H, W]`.
      markable: Pixels that may be marked, boolean `[H, W]`.
      owner: Root of each pixel's object, int32 `[H, W]`; -1 for the background, which
        counts as one object.
      bits: Random bits, uint32 `[H, W]`.
      counts: Number of pixels drawn of each object, and of the background.
      limit: Pixels whose distance to a drawn pixel, doubled and squared, is at most
        this are marked, int32.

    Returns:
      Marked pixels, boolean `[H, W]`.
    """
    size = owner.size
    place = jnp.arange(size, dtype=jnp.int32).reshape(owner.shape)
    rows, cols = place // owner.shape[1], place % owner.shape[1]
    slot = jnp.where(owner >= 0, owner, size)
    quota = jnp.where(owner >= 0, *counts)
    unused = draw.ONE

    def lowest(values: jax.Array, among: jax.Array, none: int) -> jax.Array:
        start = jnp.full(size + 1, none, values.dtype)
        return start.at[slot].min(jnp.where(among, values, none))

    def draw_one(
        step: jax.Array, state: tuple[jax.Array, jax.Array]
    ) -> tuple[jax.Array, jax.Array]:
        taken, marked = state
        left = candidates & ~taken & (step < quota)
        first = left & (bits == lowest(bits, left, unused)[slot])
        spot = lowest(place, first, size)[slot]  # of equal bits, the first pixel
        away = (rows - spot // owner.shape[1]) ** 2 + (
            cols - spot % owner.shape[1]
        ) ** 2
        near = markable & (spot < size) & (4 * away <= limit)
        return taken | (place == spot), marked | near

    nothing = jnp.zeros(owner.shape, bool)
    return jax.lax.fori_loop(0, max(counts), draw_one, (nothing, nothing))[1]


def _thicken(marks: jax.Array, owner: jax.Array, radius: int) -> jax.Array:
    """Sets every pixel within `radius` of a mark of its own object."""
    height, width = owner.shape
    rows, cols = min(radius, height - 1), min(radius, width - 1)
    nobody = -2
    marked = jnp.where(marks, owner, nobody)
    padded = jnp.pad(marked, ((rows, rows), (cols, cols)), constant_values=nobody)
    offsets = []
    for dy in range(-rows, rows + 1):
        half = min(SHAPES["disk"](radius, abs(dy)), cols)
        offsets += [(rows + dy, cols + dx) for dx in range(-half, half + 1)]

    def add(thick: jax.Array, offset: Any) -> jax.Array:
        beside = jax.lax.dynamic_slice(padded, (offset[0], offset[1]), owner.shape)
        return thick | (beside == owner)

    if len(offsets) <= _UNROLLED:
        return reduce(add, offsets, marks)
    table = jnp.asarray(offsets, jnp.int32)
    return jax.lax.fori_loop(0, len(offsets), lambda i, t: add(t, table[i]), marks)


def _only(marks: jax.Array, classes: jax.Array) -> jax.Array:
    return jnp.where(marks, classes, jnp.full_like(classes, VOID))
