"""Whole objects missed, invented, merged, boxed, clicked or scribbled.

An object is an 8-connected component of one foreground class. Every function is `(key,
labels, *, ...) -> labels` on integer maps `[..., H, W]`, keeps shape and dtype, and
leaves void alone; `points` and `scribbles` make void. Objects are found on device,
however many there are. An invalid parameter raises an `InputError`, which is a
ValueError, that names it.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from metaseg import morphology
from metaseg.labels import VOID, is_void
from metaseg.morphology.footprint import SHAPES
from metaseg.noise import draw
from metaseg.noise.parameters import checked

__all__ = ["add", "boxes", "merge", "omit", "points", "scribbles"]


@checked
def omit(
    key: jax.Array, labels: jax.Array, *, rate: ArrayLike, fill: int = 0
) -> jax.Array:
    """Miss each object with probability `rate`: all of its pixels become `fill`.

    Args:
      key: PRNG key.
      labels: class ids, integer `[..., H, W]`.
      rate: probability in [0, 1], scalar or one per class `[K]`; may be traced.
      fill: what missed objects become: a class id, or `VOID`; static.

    Returns:
      Label maps of the shape and dtype of `labels`.
    """

    def one(classes: jax.Array, words: jax.Array) -> jax.Array:
        owner = _owners(classes)
        coin = words.ravel()[owner]
        missed = (owner >= 0) & (coin < draw.by_class(classes, draw.to_cut(rate)))
        return jnp.where(missed, jnp.asarray(fill, classes.dtype), classes)

    return _over_maps(one, labels, draw.words(key, labels.shape))


@checked
def add(key: jax.Array, labels: jax.Array, *, rate: ArrayLike) -> jax.Array:
    """Invent objects: copy each object, with probability `rate`, to another place.

    The place is uniform among those where the copy fits into the image. Copies cover
    background alone; where they overlap, the highest class id is seen.

    Args:
      key: PRNG key.
      labels: class ids, integer `[..., H, W]`.
      rate: probability in [0, 1], scalar or one per class `[K]`; may be traced.

    Returns:
      Label maps of the shape and dtype of `labels`.
    """
    height, width = labels.shape[-2:]

    def one(
        classes: jax.Array, coin: jax.Array, down: jax.Array, right: jax.Array
    ) -> jax.Array:
        owner = _owners(classes)
        box = _bounding_boxes(owner)
        rows = draw.integers(down.ravel(), height - (box.bottom - box.top)) - box.top
        cols = draw.integers(right.ravel(), width - (box.right - box.left)) - box.left
        cut = draw.by_class(classes, draw.to_cut(rate))
        copied = (owner >= 0) & (coin.ravel()[owner] < cut)
        place = jnp.arange(classes.size).reshape(classes.shape)
        target = place + (rows * width + cols)[owner]
        target = jnp.where(copied, target, classes.size)
        canvas = jnp.zeros_like(classes).ravel()
        copies = canvas.at[target].max(classes, mode="drop").reshape(classes.shape)
        return jnp.where(classes == 0, copies, classes)

    return _over_maps(one, labels, *draw.words(key, (3, *labels.shape)))


@checked
def merge(
    key: jax.Array, labels: jax.Array, *, radius: int, rate: ArrayLike = 1.0
) -> jax.Array:
    """Join objects of one class that lie close: the gap between them is filled.

    Background whose distances to the two nearest objects add up to `2 radius + 1` or
    less, as they do all over a straight gap of `2 radius` pixels, becomes their class
    if that is the same. Each pair of neighbours is joined with probability `rate`.

    Args:
      key: PRNG key.
      labels: class ids, integer `[..., H, W]`.
      radius: pixels, a static integer >= 0; gaps up to twice as wide are filled.
      rate: probability in [0, 1], scalar or one per class `[K]`; may be traced.

    Returns:
      Label maps of the shape and dtype of `labels`.
    """
    reach = 2 * radius
    # A table, as square roots may differ between devices.
    root = jnp.asarray(np.sqrt(np.arange(2 * reach**2 + 2)), jnp.float32)

    def one(classes: jax.Array, words: jax.Array) -> jax.Array:
        near, other = _two_nearest(_owners(classes), reach)
        flat, words = classes.ravel(), words.ravel()
        kind = flat[near.owner]
        narrow = root[near.squared] + root[other.squared] <= reach + 1
        gap = (classes == 0) & (other.owner >= 0) & narrow
        # The sum of the two objects' words is a fresh word, the same for all pixels.
        coin = (words[near.owner] + words[other.owner]) % draw.ONE
        joined = coin < draw.by_class(kind, draw.to_cut(rate))
        return jnp.where(gap & (kind == flat[other.owner]) & joined, kind, classes)

    return _over_maps(one, labels, draw.words(key, labels.shape))


@checked
def boxes(key: jax.Array, labels: jax.Array, *, num_classes: int = 2) -> jax.Array:
    """Replace each object by its bounding box; of overlapping ones the highest class.

    Args:
      key: ignored.
      labels: class ids, integer `[..., H, W]`.
      num_classes: K, static.

    Returns:
      Label maps of the shape and dtype of `labels`.
    """
    del key

    def one(classes: jax.Array) -> jax.Array:
        height, width = classes.shape
        owner = _owners(classes)
        box = _bounding_boxes(owner)
        is_root = owner.ravel() == jnp.arange(classes.size)
        boxed = jnp.zeros_like(classes)
        for class_id in range(1, num_classes):
            # +1 and -1 at the corners sum up to how many boxes cover a pixel.
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
    key: jax.Array,
    labels: jax.Array,
    *,
    count: int = 1,
    background: int = 10,
    radius: int = 0,
) -> jax.Array:
    """Keep a few random pixels of each object and of the background; the rest is void.

    Source of the idea: Bearman et al., "What's the point: semantic segmentation with
    point supervision", ECCV 2016.

    Args:
      key: PRNG key.
      labels: class ids, integer `[..., H, W]`.
      count: pixels of each object (all of it, if it has fewer), static.
      background: pixels of the background of each map, static.
      radius: each becomes a disk of this many pixels, cut off at the object's border;
        static.

    Returns:
      Label maps of the shape and dtype of `labels`.
    """

    def one(classes: jax.Array, words: jax.Array) -> jax.Array:
        owner = _owners(classes)
        marks = _marks(~is_void(classes), owner, words, (count, background), 0)
        return _only(_thicken(marks, owner, radius), classes)

    return _over_maps(one, labels, draw.words(key, labels.shape))


@checked
def scribbles(
    key: jax.Array,
    labels: jax.Array,
    *,
    length: float = 40.0,
    background: int = 3,
    radius: int = 1,
) -> jax.Array:
    """Keep a stroke in each object and some in the background; the rest is void.

    A stroke is the skeleton (of the object, or of the background) within half of
    `length` from one of its pixels, drawn at random, and widened. Source of the idea:
    Lin et al., "ScribbleSup: scribble-supervised convolutional networks for semantic
    segmentation", CVPR 2016.

    Args:
      key: PRNG key.
      labels: class ids, integer `[..., H, W]`.
      length: of a stroke from end to end, in pixels, static.
      background: strokes in the background of each map, static.
      radius: half of a stroke's width, in pixels, static; 0 is one pixel wide.

    Returns:
      Label maps of the shape and dtype of `labels`.
    """

    def one(classes: jax.Array, words: jax.Array) -> jax.Array:
        owner = _owners(classes)
        kinds = jnp.where(is_void(classes), 0, classes.astype(jnp.int32) + 1)
        lines = morphology.skeletonize_classes(kinds)
        marks = _marks(lines, owner, words, (1, background), length)
        return _only(_thicken(marks, owner, radius), classes)

    return _over_maps(one, labels, draw.words(key, labels.shape))


class _Boxes(NamedTuple):
    """Bounding boxes, int32 `[H * W]`, at the index of each object's root."""

    top: jax.Array
    bottom: jax.Array
    left: jax.Array
    right: jax.Array


def _over_maps(one: Callable[..., jax.Array], *arrays: jax.Array) -> jax.Array:
    """Apply a function of single maps `[H, W]` over leading axes."""
    shape = arrays[0].shape
    maps = (array.reshape(-1, *shape[-2:]) for array in arrays)
    return jax.vmap(one)(*maps).reshape(shape)


def _owners(classes: jax.Array) -> jax.Array:
    """The root of each pixel's object, int32; -1 in background and void."""
    foreground = jnp.where(is_void(classes), jnp.zeros_like(classes), classes)
    return morphology.roots(foreground)


class _Nearest(NamedTuple):
    """An object and the squared distance to it, int32 `[H, W]`; -1 where none is."""

    owner: jax.Array
    squared: jax.Array


def _two_nearest(owner: jax.Array, reach: int) -> tuple[_Nearest, _Nearest]:
    """The nearest object of each pixel and the nearest other one, within `reach`.

    Along columns, then along rows: the two nearest of a pixel are among those of the
    pixels in its row. Objects in reach along both axes, but farther off, may be there.
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
    """The two nearest of what the pixels of the same line have found."""
    size = near.owner.shape[axis]
    around = [(reach, reach) if axis == d else (0, 0) for d in (0, 1)]
    lines = [
        (
            jnp.pad(owner, around, constant_values=-1),
            jnp.pad(squared, around, constant_values=beyond),
        )
        for owner, squared in (near, other)
    ]

    def ask(
        index: jax.Array, found: tuple[_Nearest, _Nearest]
    ) -> tuple[_Nearest, _Nearest]:
        for line in lines:
            owner, squared = (
                jax.lax.dynamic_slice_in_dim(part, index, size, axis) for part in line
            )
            squared = jnp.minimum(squared + (index - reach) ** 2, beyond)
            found = _insert(_Nearest(owner, squared), *found)
        return found

    return jax.lax.fori_loop(0, 2 * reach + 1, ask, (near, other))


def _insert(
    new: _Nearest, near: _Nearest, other: _Nearest
) -> tuple[_Nearest, _Nearest]:
    """The two nearest of three, of which `near` and `other` are two objects in order.

    The new one may be one of them.
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


def _marks(
    candidates: jax.Array,
    owner: jax.Array,
    words: jax.Array,
    counts: tuple[int, int],
    length: float,
) -> jax.Array:
    """Candidates near pixels drawn at random from the candidates of each owner.

    Args:
      candidates: boolean `[H, W]`.
      owner: int32 `[H, W]`, roots; -1 is the background, one owner.
      words: random words, uint32 `[H, W]`.
      counts: how many pixels are drawn of each object, and of the background.
      length: a candidate is near within half of it.

    Returns:
      Boolean `[H, W]`.
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
        turn: jax.Array, state: tuple[jax.Array, jax.Array]
    ) -> tuple[jax.Array, jax.Array]:
        taken, marked = state
        left = candidates & ~taken & (turn < quota)
        first = left & (words == lowest(words, left, unused)[slot])
        spot = lowest(place, first, size)[slot]  # of equal words, the first in place
        away = (rows - spot // owner.shape[1]) ** 2 + (
            cols - spot % owner.shape[1]
        ) ** 2
        near = candidates & (spot < size) & (4 * away <= int(length**2))
        return taken | (place == spot), marked | near

    nothing = jnp.zeros(owner.shape, bool)
    return jax.lax.fori_loop(0, max(counts), draw_one, (nothing, nothing))[1]


def _thicken(marks: jax.Array, owner: jax.Array, radius: int) -> jax.Array:
    """Every pixel within `radius` of a mark of its own owner."""
    height, width = owner.shape
    nobody = -2
    padded = jnp.pad(jnp.where(marks, owner, nobody), radius, constant_values=nobody)
    thick = marks
    for dy in range(-radius, radius + 1):
        half = SHAPES["disk"](radius, abs(dy))
        for dx in range(-half, half + 1):
            beside = padded[radius + dy :, radius + dx :][:height, :width]
            thick |= beside == owner
    return thick


def _only(marks: jax.Array, classes: jax.Array) -> jax.Array:
    return jnp.where(marks, classes, jnp.full_like(classes, VOID))
