"""Compares a label map with its reference: sums that can be added over maps.

`compare` counts everything that `error_kinds` and `verdict` need. One program per
bucket size is compiled. May import `frame`, `single`, `morphology`, `labels`, `errors`
and `typing`.
"""

import operator
from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Integer

from metaseg import morphology
from metaseg.auditing.frame import framed
from metaseg.auditing.single import edges
from metaseg.errors import InputError
from metaseg.labels import is_void
from metaseg.typing import AnyArray

__all__ = ["DEPTHS", "LATTICE", "Comparison", "add", "compare"]

DEPTHS = 17  # depth 0, 1, ..., 15, and 16 or more pixels
LATTICE = 16  # pixels; coarser grids are not detected
_GAP = 12  # a gap has two objects within this many rows and columns
_SMALL = 9  # objects with fewer pixels are not judged individually
_SIZEABLE = 25  # objects with fewer pixels do not define the best cover of a class


class Comparison(NamedTuple):
    """Counts over one or more label maps and their references; `add` adds them up.

    The depth of a pixel is its distance, rounded down, to the nearest pixel beside a
    boundary of the reference. It is 0 on both sides of every boundary. An object is an
    8-connected component of a class of the reference other than 0. The cover of an
    object is the share of its pixels that are labelled with its class.

    Attributes:
      joint: Number of pixels of each (reference, label) pair of classes, int64
        `[K, K]`.
      reference: Number of pixels that the reference labels.
      profile: Number of pixels by (in a missed object, reference class, depth, label),
        int64 `[2, K, DEPTHS, K]`. For two classes this is the boundary profile.
      pairs: Pairs of neighbouring pixels of the same reference class, by (in a missed
        object, class, smaller depth): number of pairs, of wrong pixels in them, and of
        pairs with two wrong pixels; int64 `[2, K, DEPTHS, 3]`.
      gaps: Pixels of class 0, by (two objects within 12 pixels, depth): number of
        pixels, and of wrong pixels; int64 `[2, DEPTHS, 2]`.
      objects: Per class, int64 `[K, 5]`: number of objects with at least 9 pixels; of
        these, objects that are missed (their cover is about as high as the rate of the
        class elsewhere), partly covered (less than half), and split into several solid
        label objects; and number of reference objects of any size.
      spread: Per class, float64 `[K, 5]`: sums over objects with n pixels and cover h
        of 1, n, n^2, n h and n h^2.
      found: Per class, int64 `[K, 3]`: number of solid label objects, which contain a
        block of 3 x 3 pixels; of these, objects that touch several reference objects,
        and objects that touch none (invented).
      invented: Number of wrong pixels in invented label objects.
      corners: Corners and edges of the outlines of labels, then reference, int64
        `[2, 2]`.
      lattice: Edges of labels, then reference, across rows and across columns, by
        position modulo 16; int64 `[2, 2, 16]`.
      likelihood: Likelihood-ratio statistic G of the independence of label and
        reference within each map, summed over maps.
      freedom: Degrees of freedom of G, summed over maps.
      maps: Number of maps.
    """

    joint: np.ndarray
    reference: int
    profile: np.ndarray
    pairs: np.ndarray
    gaps: np.ndarray
    objects: np.ndarray
    spread: np.ndarray
    found: np.ndarray
    invented: int
    corners: np.ndarray
    lattice: np.ndarray
    likelihood: float
    freedom: int
    maps: int = 1

    @property
    def labelled(self) -> int:
        """Number of pixels that both labels and reference label."""
        return int(self.joint.sum())

    @property
    def disagreement(self) -> float:
        """Share of these pixels on which the two differ; 0 without such pixels."""
        differ = self.labelled - int(np.trace(self.joint))
        return differ / max(self.labelled, 1)


def add(first: Comparison, second: Comparison) -> Comparison:
    """Adds the counts of two disjoint sets of maps.

    Args:
      first: Counts of `compare`, or a sum of them.
      second: Counts of other maps.

    Returns:
      The counts over the maps of both.
    """
    return Comparison(*map(operator.add, first, second))


def compare(
    labels: Integer[AnyArray, "H W"],
    reference: Integer[AnyArray, "H W"],
    num_classes: int,
    *,
    where: str = "labels",
) -> Comparison:
    """Compares one label map with its reference.

    Args:
      labels: Integer class ids `[H, W]` of any size. 255, negative numbers and ids
        that are no class are void.
      reference: Integer class ids `[H, W]`, assumed to be right.
      num_classes: Number of classes K, at most 255.
      where: Name of the file in error messages.

    Returns:
      The counts of this map.

    Raises:
      InputError: If one of the maps is not an integer array of two axes or is empty, or
        if their shapes differ.

    Example:
      >>> import numpy as np
      >>> reference = np.zeros((40, 50), int)
      >>> reference[10:20, 10:30] = 1
      >>> compare(np.roll(reference, 1, axis=0), reference, 2).joint.tolist()
      [[1780, 20], [20, 180]]
    """
    ours = framed(labels, num_classes, where=where)
    theirs = framed(reference, num_classes, where=f"reference of {where}")
    if (ours.size != theirs.size).any():
        raise InputError(
            f"{where}: shape {tuple(ours.size.tolist())}, "
            f"expected {tuple(theirs.size.tolist())}, "
            "as its reference"
        )
    counted = jax.device_get(
        _count(ours.labels, theirs.labels, num_classes=num_classes)
    )
    whole = {
        name: value.astype(np.int64)
        for name, value in counted.items()
        if name != "spread"
    }
    whole["reference"] = int(whole["reference"])
    whole["invented"] = int(whole["invented"])
    likelihood, freedom = _association(whole["joint"])
    return Comparison(
        **whole,
        spread=counted["spread"].astype(np.float64),
        likelihood=likelihood,
        freedom=freedom,
    )


def _association(joint: np.ndarray) -> tuple[float, int]:
    """Computes G = 2 sum J log(J N / (row column)) and its degrees of freedom."""
    rows, columns = joint.sum(axis=1), joint.sum(axis=0)
    total = joint.sum()
    expected = np.outer(rows, columns) / max(total, 1)
    ratio = np.where(joint > 0, joint / np.where(expected > 0, expected, 1), 1)
    free = max(int((rows > 0).sum()) - 1, 0) * max(int((columns > 0).sum()) - 1, 0)
    return float(2 * (joint * np.log(ratio)).sum()), free


class _Objects(NamedTuple):
    """Properties of components, stored at the index of their root pixel; else 0."""

    area: jax.Array
    hits: jax.Array
    first: jax.Array  # lowest root among the components of the other map it overlaps
    last: jax.Array  # highest such root; -1 without an overlap
    solid: jax.Array  # bool
    begins: jax.Array  # bool, whether this pixel is a root


def _objects(
    root: jax.Array, valid: jax.Array, hit: jax.Array, other: jax.Array
) -> _Objects:
    count = root.size
    place = jnp.where(root < 0, count, root).ravel()  # index `count` is dropped
    met = hit & (other >= 0)

    def total(plane: jax.Array) -> jax.Array:
        zeros = jnp.zeros(count, jnp.int32)
        return zeros.at[place].add(plane.ravel().astype(jnp.int32), mode="drop")

    low = jnp.where(met, other, count).ravel()
    high = jnp.where(met, other, -1).ravel()
    around = ((1, 1), (1, 1))
    lowest, highest = (
        jax.lax.reduce_window(root, start, pick, (3, 3), (1, 1), around)
        for start, pick in (
            (jnp.int32(count), jax.lax.min),
            (jnp.int32(-1), jax.lax.max),
        )
    )
    core = (lowest == highest) & (root >= 0)
    return _Objects(
        area=total(valid),
        hits=total(hit),
        first=jnp.full(count, count, jnp.int32).at[place].min(low, mode="drop"),
        last=jnp.full(count, -1, jnp.int32).at[place].max(high, mode="drop"),
        solid=total(core) > 0,
        begins=root.ravel() == jnp.arange(count),
    )


@partial(jax.jit, static_argnames="num_classes")
def _count(
    labels: jax.Array, reference: jax.Array, *, num_classes: int
) -> dict[str, jax.Array]:
    K, D = num_classes, DEPTHS
    valid = ~is_void(labels) & ~is_void(reference)
    right = valid & (labels == reference)
    error = valid & ~right
    depth = _depth(reference)

    clean_root, label_root = (
        morphology.roots(jnp.where(is_void(ids), jnp.uint8(0), ids))
        for ids in (reference, labels)
    )
    clean = _objects(clean_root, valid, right, label_root)
    drawn = _objects(label_root, valid, right, clean_root)
    # Pixels far from boundaries, at which a class is given by chance alone.
    away = valid & (depth >= 3)
    chance = _chance(labels, reference, away, away & right, K)
    objects, spread, missed = _judge_reference(reference, clean, drawn, chance)
    found, lone = _judge_labels(labels, drawn, K)
    in_lone = (label_root >= 0) & lone[jnp.maximum(label_root, 0)]
    in_missed = (clean_root >= 0) & missed[jnp.maximum(clean_root, 0)]

    # 32 bits, since products of ids and depths overflow the dtype of the labels.
    kind = jnp.minimum(reference, K - 1).astype(jnp.int32)
    stratum = (in_missed * K + kind) * D + depth
    profile = _histogram(stratum * K + jnp.minimum(labels, K - 1), valid, (2, K, D, K))
    along = partial(_neighbours, stratum, reference, valid, error, num_classes=K)
    pairs = along(axis=0) + along(axis=1)
    two = _two_objects_near(clean_root)
    background = valid & (reference == 0)
    near = two.astype(jnp.int32) * D + depth
    gaps = [_histogram(near, background & mask, (2, D)) for mask in (valid, error)]
    return {
        "joint": profile.sum(axis=(0, 2)),
        "reference": (~is_void(reference)).sum(),
        "profile": profile,
        "pairs": pairs,
        "gaps": jnp.stack(gaps, axis=-1),
        "objects": objects,
        "spread": spread,
        "found": found,
        "invented": (error & in_lone).sum(),
        "corners": jnp.stack([_corners(labels), _corners(reference)]),
        "lattice": jnp.stack([_lattice(labels), _lattice(reference)]),
    }


def _chance(
    labels: jax.Array,
    reference: jax.Array,
    mask: jax.Array,
    right: jax.Array,
    num_classes: int,
) -> jax.Array:
    """Returns the rate at which pixels of other classes get each class, `[K]`."""
    given = _one_hot_sum(labels, mask, num_classes)
    given -= _one_hot_sum(labels, right, num_classes)
    elsewhere = mask.sum() - _one_hot_sum(reference, mask, num_classes)
    return given / jnp.maximum(elsewhere, 1)


def _judge_reference(
    reference: jax.Array, clean: _Objects, drawn: _Objects, chance: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Returns `objects` and `spread` of `Comparison`, and which objects are missed."""
    num_classes = len(chance)
    ids = jnp.minimum(reference, num_classes - 1).ravel().astype(jnp.int32)
    cover = clean.hits / jnp.maximum(clean.area, 1)
    judged = clean.begins & (clean.area >= _SMALL)
    sizeable = judged & (clean.area >= _SIZEABLE)
    best = (
        jnp.zeros(num_classes, jnp.float32).at[ids].max(jnp.where(sizeable, cover, 0))
    )
    room = jnp.maximum(best, 0.5) - chance
    missed = judged & (cover <= (chance + 0.15 * room)[ids])
    part = judged & ~missed & (cover <= (chance + 0.5 * room)[ids])
    parted = judged & drawn.solid[jnp.maximum(clean.last, 0)]
    parted &= drawn.solid[jnp.minimum(clean.first, reference.size - 1)]
    parted &= (clean.last >= 0) & (clean.first != clean.last)
    flags = (judged, missed, part, parted, clean.begins)
    area = jnp.where(judged, clean.area, 0).astype(jnp.float32)
    sums = (area, area**2, area * cover, area * cover**2)
    return (
        _sum_by_class(ids, [flag.astype(jnp.int32) for flag in flags], num_classes),
        _sum_by_class(ids, [judged.astype(jnp.float32), *sums], num_classes),
        missed,
    )


def _judge_labels(
    labels: jax.Array, drawn: _Objects, num_classes: int
) -> tuple[jax.Array, jax.Array]:
    """Returns `Comparison.found`, and which label objects are invented."""
    ids = jnp.minimum(labels, num_classes - 1).ravel().astype(jnp.int32)
    solid = drawn.begins & drawn.solid
    lone = solid & (drawn.last < 0) & (drawn.area > 0)
    joined = solid & (drawn.last >= 0) & (drawn.first != drawn.last)
    flags = [flag.astype(jnp.int32) for flag in (solid, joined, lone)]
    return _sum_by_class(ids, flags, num_classes), lone


def _sum_by_class(
    ids: jax.Array, planes: Sequence[jax.Array], num_classes: int
) -> jax.Array:
    """Sums n values of each object over the objects of each class, `[K, n]`."""
    values = jnp.stack(planes, axis=-1)
    return jnp.zeros((num_classes, len(planes)), values.dtype).at[ids].add(values)


def _one_hot_sum(labels: jax.Array, mask: jax.Array, num_classes: int) -> jax.Array:
    return _histogram(jnp.minimum(labels, num_classes - 1), mask, (num_classes,))


def _histogram(cell: jax.Array, mask: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """Counts the pixels of the mask in each cell, int32 of `shape`."""
    size = int(np.prod(shape))
    index = jnp.where(mask, cell.astype(jnp.int32), size).ravel()
    return jnp.bincount(index, length=size + 1)[:size].reshape(shape)


def _depth(labels: jax.Array) -> jax.Array:
    """Returns depths: see `Comparison`; at most DEPTHS - 1."""
    down, right = edges(labels)
    edge = jnp.pad(down, ((1, 0), (0, 0))) | jnp.pad(down, ((0, 1), (0, 0)))
    edge |= jnp.pad(right, ((0, 0), (1, 0))) | jnp.pad(right, ((0, 0), (0, 1)))
    distance = jnp.minimum(morphology.distance(~edge), DEPTHS - 1)
    return jnp.floor(distance).astype(jnp.int32)


def _neighbours(
    stratum: jax.Array,
    reference: jax.Array,
    valid: jax.Array,
    error: jax.Array,
    axis: int,
    num_classes: int,
) -> jax.Array:
    """Computes `Comparison.pairs` along one axis."""

    def both(plane: jax.Array) -> tuple[jax.Array, jax.Array]:
        ahead = jax.lax.slice_in_dim(plane, 1, None, axis=axis)
        return jax.lax.slice_in_dim(plane, 0, -1, axis=axis), ahead

    (here, there), (a, b), (e, f) = both(stratum), both(valid), both(error)
    same_class = jnp.equal(*both(reference))
    # Strata of one class that are both in missed objects, or both not, differ by depth.
    same_object = here // DEPTHS == there // DEPTHS
    mask = a & b & same_class & same_object
    shape = (2, num_classes, DEPTHS)
    cell = jnp.minimum(here, there)
    wrong = _histogram(cell, mask & e, shape) + _histogram(cell, mask & f, shape)
    total, twice = (_histogram(cell, m, shape) for m in (mask, mask & e & f))
    return jnp.stack([total, wrong, twice], axis=-1)


def _two_objects_near(root: jax.Array) -> jax.Array:
    """Tells whether two components are within `_GAP` rows and columns."""
    nobody = jnp.int32(root.size)
    low, high = jnp.where(root < 0, nobody, root), root
    for window in ((2 * _GAP + 1, 1), (1, 2 * _GAP + 1)):
        low = jax.lax.reduce_window(low, nobody, jax.lax.min, window, (1, 1), "SAME")
        high = jax.lax.reduce_window(
            high, jnp.int32(-1), jax.lax.max, window, (1, 1), "SAME"
        )
    return (high >= 0) & (low != high)


def _corners(labels: jax.Array) -> jax.Array:
    """Counts corners, 2 x 2 blocks in which an edge turns, and edges."""
    down, right = edges(labels)
    across = down[:, :-1].astype(jnp.int32) + down[:, 1:]
    along = right[:-1].astype(jnp.int32) + right[1:]
    straight = (across == 2) & (along == 0) | (across == 0) & (along == 2)
    known = ~is_void(labels)
    whole = known[1:, 1:] & known[1:, :-1] & known[:-1, 1:] & known[:-1, :-1]
    corner = whole & (across + along > 0) & ~straight
    return jnp.stack([corner.sum(), down.sum() + right.sum()])


def _lattice(labels: jax.Array) -> jax.Array:
    """Counts edges across rows and across columns by position modulo `LATTICE`."""

    def by_phase(counts: jax.Array) -> jax.Array:
        phase = (jnp.arange(len(counts)) + 1) % LATTICE
        return jnp.zeros(LATTICE, jnp.int32).at[phase].add(counts)

    down, right = edges(labels)
    return jnp.stack([by_phase(down.sum(axis=1)), by_phase(right.sum(axis=0))])
