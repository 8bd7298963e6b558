"""Instance maps: objects of class maps, borders, and scores of found objects.

An instance map holds an id for each pixel, integer `[H, W]`: 0 is background, each id
above 0 is one object, and a negative id (`VOID`) is a pixel that does not count. 255 is
an id like any other. Ids need not be consecutive.

    predicted = instances.label_objects(class_ids)
    instances.average_precision(true, predicted)      # at IoU 0.5, 0.55, ..., 0.95
    instances.panoptic_quality(true, predicted).pq

Two objects match if their intersection over union (IoU) is *greater* than a threshold;
each object has at most one partner. With TP matches, FP predicted objects without a
partner and FN true objects without one:

    average precision AP = TP / (TP + FP + FN)
    segmentation quality SQ = mean IoU of the matches
    recognition quality  RQ = TP / (TP + FP / 2 + FN / 2)
    panoptic quality     PQ = SQ RQ = (sum of IoU) / (TP + FP / 2 + FN / 2)

AP is that of the Data Science Bowl 2018 (Caicedo et al., Nature Methods 16, 2019). It
is no area under a precision-recall curve. StarDist and Cellpose report it too; they
also count an IoU that equals the threshold. PQ, SQ and RQ, and how void is treated, are
those of Kirillov et al., "Panoptic Segmentation", CVPR 2019, for one class.

Host-side NumPy and scipy; imports no jax, and `errors` only.
"""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import scipy  # its parts are imported when they are first used
from jaxtyping import Bool, Float64, Int32, Integer

from metaseg.errors import InputError
from metaseg.text import count_of

__all__ = [
    "THRESHOLDS",
    "VOID",
    "Matches",
    "ObjectCounts",
    "Overlaps",
    "PanopticQuality",
    "average_precision",
    "borders",
    "count",
    "join_borders",
    "label_objects",
    "match",
    "measure",
    "overlaps",
    "panoptic_quality",
]

THRESHOLDS = (0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95)
VOID = -1
_TOUCHING = np.ones((3, 3), bool)  # corners connect
_SLAB = 1 << 22  # pixels that are counted at a time
Map = Integer[np.ndarray, "H W"]
Maps = Map | Sequence[Map] | Integer[np.ndarray, "N H W"]


class Overlaps(NamedTuple):
    """Which objects of two instance maps share pixels.

    Pixels that are void in the true map belong to no object.

    Attributes:
      true_ids: int64 `[N]`, ids of the true objects in ascending order.
      true_areas: int64 `[N]`, their pixels.
      predicted_ids: int64 `[M]`, ids of the predicted objects in ascending order.
      predicted_areas: int64 `[M]`, their pixels that are not void; may be 0.
      void_areas: int64 `[M]`, their pixels that are void.
      pairs: int64 `[P, 2]`, indices of a true and a predicted object that overlap.
      shared: int64 `[P]`, pixels of both.
    """

    true_ids: np.ndarray
    true_areas: np.ndarray
    predicted_ids: np.ndarray
    predicted_areas: np.ndarray
    void_areas: np.ndarray
    pairs: np.ndarray
    shared: np.ndarray

    @property
    def iou(self) -> Float64[np.ndarray, "P"]:
        """Intersection over union of each pair, float64 `[P]`."""
        both = (
            self.true_areas[self.pairs[:, 0]] + self.predicted_areas[self.pairs[:, 1]]
        )
        return self.shared / (both - self.shared)


class Matches(NamedTuple):
    """Pairs of a true and a predicted object.

    Attributes:
      true_ids: int64 `[P]`, ids of true objects in ascending order, each at most once.
      predicted_ids: int64 `[P]`, ids of their partners, each at most once.
      iou: float64 `[P]`, intersection over union of each pair.
    """

    true_ids: np.ndarray
    predicted_ids: np.ndarray
    iou: np.ndarray


class ObjectCounts(NamedTuple):
    """Counts from which the scores of one image, or of several, follow.

    Attributes:
      true: Number of true objects.
      predicted: Number of predicted objects that are not mostly void.
      thresholds: T thresholds of the IoU.
      matched: int64 `[T]`, TP at each threshold.
      unmatched: int64 `[T]`, FP at each threshold.
      iou_sum: float64 `[T]`, sum of the IoU of the matches at each threshold.
    """

    true: int
    predicted: int
    thresholds: tuple[float, ...]
    matched: np.ndarray
    unmatched: np.ndarray
    iou_sum: np.ndarray


class PanopticQuality(NamedTuple):
    """Panoptic quality and its two factors.

    Attributes:
      pq: Panoptic quality; NaN if there is no object at all.
      sq: Segmentation quality, the mean IoU of the matches; NaN without a match.
      rq: Recognition quality, the F1 score; NaN if there is no object at all.
    """

    pq: float
    sq: float
    rq: float


def label_objects(
    labels: Integer[np.ndarray, "H W"], *, class_id: int = 1
) -> Int32[np.ndarray, "H W"]:
    """Numbers the connected components of a class.

    Equal to `scipy.ndimage.label` with 8 neighbours: pixels that share a corner belong
    to one object.

    Args:
      labels: Class ids.
      class_id: The class whose components are objects.

    Returns:
      Ids 1, 2, ... in the order of the first pixels of the objects in raster order; 0
      elsewhere.

    Raises:
      InputError: If `labels` is not an integer array `[H, W]`.

    Example:
      >>> label_objects(np.array([[1, 0, 1], [0, 1, 0], [2, 0, 0]]))
      array([[1, 0, 1],
             [0, 1, 0],
             [0, 0, 0]], dtype=int32)
    """
    _check("labels", labels)
    found, _ = scipy.ndimage.label(labels == class_id, _TOUCHING, output=np.int32)
    return found


def join_borders(
    labels: Integer[np.ndarray, "H W"], *, class_id: int = 1, border: int = 2
) -> Int32[np.ndarray, "H W"]:
    """Numbers the objects of a class map that has a class for borders.

    The components of `class_id` are the objects, as in `label_objects`. Each pixel of
    the class `border` joins the nearest object (Euclidean distance between centres of
    pixels) that lies in the same connected piece of both classes. Pieces of border
    alone are background.

    Args:
      labels: Class ids.
      class_id: The class inside objects.
      border: The class between objects.

    Returns:
      Ids as of `label_objects`.

    Raises:
      InputError: If `labels` is not an integer array `[H, W]`.

    Example:
      >>> join_borders(np.array([[1, 1, 2, 1, 0, 2]]))
      array([[1, 1, 1, 2, 0, 0]], dtype=int32)
    """
    ids = label_objects(labels, class_id=class_id)
    between = labels == border
    pieces, _ = scipy.ndimage.label((ids > 0) | between, _TOUCHING, output=np.int32)
    for number, box in enumerate(scipy.ndimage.find_objects(pieces), start=1):
        inside = pieces[box] == number
        open_ = inside & between[box]
        seeds = inside & (ids[box] > 0)
        if open_.any() and seeds.any():
            row, column = scipy.ndimage.distance_transform_edt(
                ~seeds, return_distances=False, return_indices=True
            )
            ids[box][open_] = ids[box][row[open_], column[open_]]
    return ids


def borders(ids: Integer[np.ndarray, "H W"]) -> Bool[np.ndarray, "H W"]:
    """Marks where objects touch, as a line one pixel wide.

    Of two objects that touch at an edge or a corner of a pixel, the larger one yields:
    its pixels with a pixel of the smaller one among their 8 neighbours are marked. Of
    two objects of equal area, the one whose first pixel comes first in raster order
    yields. So no two objects touch any more once the marked pixels are taken away, and
    the numbers in `ids` do not matter. The boundary to background or void is not
    marked.

    Args:
      ids: Instance map.

    Returns:
      Boolean mask of pixels of objects.

    Raises:
      InputError: If `ids` is not an integer array `[H, W]`.

    Example:
      >>> borders(np.array([[7, 7, 7, 5, 5, 0]])).astype(int)
      array([[0, 0, 1, 0, 0, 0]])
    """
    _check("ids", ids)
    rank = _rank(ids)
    top = np.iinfo(rank.dtype).max
    lowest = np.where(rank > 0, rank, top)
    # Void and background never count as the smaller neighbour.
    for axis in (0, 1):
        lowest = scipy.ndimage.minimum_filter1d(
            lowest, 3, axis=axis, mode="constant", cval=top
        )
    return (rank > 0) & (lowest < rank)


def _rank(ids: np.ndarray) -> np.ndarray:
    """Ranks objects from 1 by area, then from the last first pixel; 0 outside."""
    flat = np.maximum(ids.ravel(), 0)
    if flat.max(initial=0) < max(256, 4 * flat.size):  # a table is faster than sorting
        areas = np.bincount(flat)
        first = np.zeros(len(areas), np.int64)
        first[flat[::-1]] = np.arange(flat.size)[::-1]  # the last assignment counts
        known, index = np.arange(len(areas)), flat
    else:
        known, first, index, areas = np.unique(
            flat, return_index=True, return_inverse=True, return_counts=True
        )
    areas[known == 0] = 0
    order = np.lexsort((-first, areas))
    ranks = np.empty(len(known), np.int32)
    ranks[order] = np.arange(1, len(known) + 1)
    ranks[known == 0] = 0
    return ranks[index].reshape(ids.shape)


def overlaps(
    true: Integer[np.ndarray, "H W"], predicted: Integer[np.ndarray, "H W"]
) -> Overlaps:
    """Counts the pixels that objects of two instance maps share.

    Args:
      true: Instance map; negative ids are void.
      predicted: Instance map without void.

    Returns:
      Areas of all objects, and the pairs that overlap.

    Raises:
      InputError: If a map is not an integer array `[H, W]`, the shapes differ, or a
        predicted id is negative.

    Example:
      >>> found = overlaps(np.array([[1, 1, 0, 2]]), np.array([[0, 3, 3, 3]]))
      >>> found.pairs.tolist(), found.shared.tolist(), found.iou.tolist()
      ([[0, 0], [1, 0]], [1, 1], [0.25, 0.3333333333333333])
    """
    _check("true", true)
    _check("predicted", predicted)
    if true.shape != predicted.shape:
        raise InputError(
            f"predicted: got shape {predicted.shape}, expected {true.shape} as true"
        )
    if predicted.size and predicted.min() < 0:
        raise InputError(f"predicted: got id {predicted.min()}, expected ids >= 0")
    rows = max(1, _SLAB // max(true.shape[1], 1))
    tables = [
        _tally(*_runs(true[start : start + rows], predicted[start : start + rows]))
        for start in range(0, len(true), rows)
    ]
    a, b, pixels = _tally(*(np.concatenate(x) for x in zip(*tables, strict=True)))
    true_ids, true_areas = _summed(a[a > 0], pixels[a > 0])
    predicted_ids, total = _summed(b[b > 0], pixels[b > 0])
    void = (a < 0) & (b > 0)
    on_void = np.zeros(len(predicted_ids), np.int64)
    np.add.at(on_void, np.searchsorted(predicted_ids, b[void]), pixels[void])
    both = (a > 0) & (b > 0)
    pairs = np.stack(
        [
            np.searchsorted(true_ids, a[both]),
            np.searchsorted(predicted_ids, b[both]),
        ],
        axis=1,
    )
    areas = total - on_void
    return Overlaps(
        true_ids, true_areas, predicted_ids, areas, on_void, pairs, pixels[both]
    )


def _runs(true: np.ndarray, predicted: np.ndarray) -> tuple[np.ndarray, ...]:
    """Returns the ids of both maps in runs of equal pixels, and lengths of the runs."""
    a, b = true.ravel(), predicted.ravel()
    changed = (a[1:] != a[:-1]) | (b[1:] != b[:-1])
    starts = np.append(0, np.flatnonzero(changed) + 1)[: a.size]
    lengths = np.diff(np.append(starts, a.size))
    return a[starts].astype(np.int64), b[starts].astype(np.int64), lengths


def _tally(
    a: np.ndarray, b: np.ndarray, pixels: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Sums the pixels of equal pairs of ids; returns the pairs in ascending order."""
    known_a, index_a = np.unique(a, return_inverse=True)
    known_b, index_b = np.unique(b, return_inverse=True)
    key, sums = _summed(index_a * len(known_b) + index_b, pixels)
    return known_a[key // len(known_b)], known_b[key % len(known_b)], sums


def _summed(keys: np.ndarray, pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns the distinct keys in ascending order, and the sum of pixels of each."""
    known, index = np.unique(keys, return_inverse=True)
    sums = np.zeros(len(known), np.int64)
    np.add.at(sums, index, pixels)
    return known, sums


def match(
    true: Integer[np.ndarray, "H W"],
    predicted: Integer[np.ndarray, "H W"],
    *,
    threshold: float = 0.5,
) -> Matches:
    """Pairs true with predicted objects one to one.

    From a threshold of 0.5 on, an object has at most one partner whose IoU is above the
    threshold. Below it, the pairs are those with the most matches and, among these, the
    largest sum of IoU.

    Args:
      true: Instance map; negative ids are void.
      predicted: Instance map without void.
      threshold: Number in [0, 1) that the IoU of a match exceeds.

    Returns:
      The matches.

    Raises:
      InputError: If a map or the threshold is wrong, see `overlaps`.

    Example:
      >>> match(np.array([[1, 1, 1, 2]]), np.array([[5, 5, 0, 6]])).true_ids
      array([1, 2])
    """
    _check_thresholds("threshold", (threshold,))
    found = overlaps(true, predicted)
    kept = _matched(found, threshold)
    pairs = found.pairs[kept]
    return Matches(
        found.true_ids[pairs[:, 0]], found.predicted_ids[pairs[:, 1]], found.iou[kept]
    )


def _matched(found: Overlaps, threshold: float) -> np.ndarray:
    """Returns the indices of the pairs that match, in ascending order."""
    iou = found.iou
    near = np.flatnonzero(iou > threshold)
    if threshold >= 0.5 or len(near) == 0:
        return near
    shape = (len(found.true_ids), len(found.predicted_ids))
    row, column = found.pairs[near].T
    size = sum(shape)
    graph = scipy.sparse.coo_matrix(
        (np.ones(len(near), np.int8), (row, shape[0] + column)), shape=(size, size)
    )
    group = scipy.sparse.csgraph.connected_components(graph, directed=False)[1][row]
    order = np.argsort(group, kind="stable")
    cuts = np.flatnonzero(np.diff(group[order])) + 1
    kept = [_assigned(found.pairs, iou, near[part]) for part in np.split(order, cuts)]
    return np.sort(np.concatenate(kept))


def _assigned(pairs: np.ndarray, iou: np.ndarray, among: np.ndarray) -> np.ndarray:
    """Returns the pairs of the best assignment among some that share objects."""
    if len(among) < 2:
        return among
    rows, row = np.unique(pairs[among, 0], return_inverse=True)
    columns, column = np.unique(pairs[among, 1], return_inverse=True)
    most = min(len(rows), len(columns))
    gain = np.zeros((len(rows), len(columns)))
    gain[row, column] = 1 + iou[among] / (2 * most)  # one match more outweighs all IoU
    index = np.full(gain.shape, -1, np.int64)
    index[row, column] = among
    chosen = index[scipy.optimize.linear_sum_assignment(gain, maximize=True)]
    return chosen[chosen >= 0]


def count(
    true: Integer[np.ndarray, "H W"],
    predicted: Integer[np.ndarray, "H W"],
    *,
    thresholds: Sequence[float] = THRESHOLDS,
) -> ObjectCounts:
    """Counts what the scores of one image follow from.

    Void pixels of the true map are taken out of the predicted objects before their IoU
    is computed. A predicted object without a partner is not counted if more than half
    of its pixels are void.

    Args:
      true: Instance map; negative ids are void.
      predicted: Instance map without void.
      thresholds: Numbers in [0, 1) that the IoU of a match exceeds.

    Returns:
      The counts.

    Raises:
      InputError: If a map or a threshold is wrong, see `overlaps`.
    """
    _check_thresholds("thresholds", thresholds)
    found = overlaps(true, predicted)
    iou = found.iou
    counted = found.void_areas <= found.predicted_areas
    matched, unmatched, sums = [], [], []
    for threshold in thresholds:
        kept = _matched(found, threshold)
        alone = counted.copy()
        alone[found.pairs[kept, 1]] = False
        matched.append(len(kept))
        unmatched.append(int(alone.sum()))
        sums.append(math.fsum(iou[kept]))
    return ObjectCounts(
        len(found.true_ids),
        int(counted.sum()),
        tuple(float(threshold) for threshold in thresholds),
        np.array(matched, np.int64),
        np.array(unmatched, np.int64),
        np.array(sums, np.float64),
    )


def average_precision(
    true: Maps, predicted: Maps, *, thresholds: Sequence[float] = THRESHOLDS
) -> Float64[np.ndarray, "T"]:
    """Computes TP / (TP + FP + FN) at thresholds of the IoU.

    Args:
      true: Instance map, or maps of several images, whose objects are pooled; negative
        ids are void, see `count`.
      predicted: Instance map without void, or maps of the same images.
      thresholds: T numbers in [0, 1) that the IoU of a match exceeds.

    Returns:
      float64 `[T]`; NaN if there is neither a true nor a predicted object.

    Raises:
      InputError: If a map or a threshold is wrong, see `overlaps`, or the numbers of
        maps differ.

    Example:
      >>> true = np.array([[1, 1, 1, 1, 0, 2]])
      >>> average_precision(true, np.array([[1, 1, 1, 0, 0, 0]]), thresholds=[0.5, 0.8])
      array([0.5, 0. ])
    """
    return _precision(_pooled(_counted(true, predicted, thresholds)))


def panoptic_quality(
    true: Maps, predicted: Maps, *, threshold: float = 0.5
) -> PanopticQuality:
    """Computes panoptic quality, segmentation quality and recognition quality.

    Args:
      true: Instance map, or maps of several images, whose objects are pooled; negative
        ids are void, see `count`.
      predicted: Instance map without void, or maps of the same images.
      threshold: Number in [0, 1) that the IoU of a match exceeds.

    Returns:
      The three numbers.

    Raises:
      InputError: If a map or the threshold is wrong, see `overlaps`, or the numbers of
        maps differ.

    Example:
      >>> true = np.array([[1, 1, 1, 1, 0, 2]])
      >>> panoptic_quality(true, np.array([[1, 1, 1, 0, 0, 0]]))
      PanopticQuality(pq=0.5, sq=0.75, rq=0.6666666666666666)
    """
    return _quality(_pooled(_counted(true, predicted, (threshold,))), 0)


def measure(counts: Sequence[ObjectCounts]) -> dict[str, Any]:
    """Computes the scores of images from their counts.

    Args:
      counts: Counts of each image at `THRESHOLDS`, at least one image.

    Returns:
      "true_objects" and "predicted_objects"; "ap", the mean of AP over `THRESHOLDS`,
      and "ap50" and "ap75"; "pq", "sq" and "rq" at 0.5; all of the pooled objects.
      "mean_image_ap" is the mean of "ap" over the images that have objects, which is
      the score of the Data Science Bowl 2018. "curve" has AP by threshold. A score
      without an object is NaN.

    Raises:
      InputError: If there are no counts, or they have other thresholds.
    """
    for one in counts:
        if one.thresholds != THRESHOLDS:
            raise InputError(
                f"counts: got thresholds {one.thresholds}, expected {THRESHOLDS}"
            )
    if not counts:
        raise InputError("counts: got none, expected those of one image or more")
    pooled = _pooled(counts)
    curve = _precision(pooled)
    quality = _quality(pooled, THRESHOLDS.index(0.5))
    each = [float(_precision(one).mean()) for one in counts]
    known = [value for value in each if not math.isnan(value)]
    return {
        "true_objects": pooled.true,
        "predicted_objects": pooled.predicted,
        "ap": float(curve.mean()),
        "ap50": float(curve[THRESHOLDS.index(0.5)]),
        "ap75": float(curve[THRESHOLDS.index(0.75)]),
        **quality._asdict(),
        "mean_image_ap": sum(known) / len(known) if known else math.nan,
        "curve": dict(zip(map(str, THRESHOLDS), curve.tolist(), strict=True)),
    }


def _counted(
    true: Maps, predicted: Maps, thresholds: Sequence[float]
) -> list[ObjectCounts]:
    """Counts each pair of maps."""
    if isinstance(true, np.ndarray) and true.ndim == 2:
        return [count(true, np.asarray(predicted), thresholds=thresholds)]
    if len(true) != len(predicted) or len(true) == 0:
        raise InputError(
            f"predicted: got {count_of(len(predicted), 'map')}, expected one for each "
            f"of {count_of(len(true), 'true map')}"
        )
    return [
        count(a, b, thresholds=thresholds) for a, b in zip(true, predicted, strict=True)
    ]


def _pooled(counts: Sequence[ObjectCounts]) -> ObjectCounts:
    return ObjectCounts(
        sum(one.true for one in counts),
        sum(one.predicted for one in counts),
        counts[0].thresholds,
        np.sum([one.matched for one in counts], axis=0),
        np.sum([one.unmatched for one in counts], axis=0),
        np.sum([one.iou_sum for one in counts], axis=0),
    )


def _precision(counts: ObjectCounts) -> np.ndarray:
    """AP at each threshold: TP + FN is the number of true objects."""
    whole = counts.true + counts.unmatched
    return np.divide(
        counts.matched, whole, out=np.full(len(whole), np.nan), where=whole > 0
    )


def _quality(counts: ObjectCounts, index: int) -> PanopticQuality:
    tp, fp = int(counts.matched[index]), int(counts.unmatched[index])
    total = float(counts.iou_sum[index])
    whole = (tp + fp + counts.true) / 2  # TP + FP / 2 + FN / 2
    return PanopticQuality(
        pq=total / whole if whole else math.nan,
        sq=total / tp if tp else math.nan,
        rq=tp / whole if whole else math.nan,
    )


def _check(name: str, ids: Any) -> None:
    """Refuses what is not an integer array `[H, W]`."""
    dtype, shape = getattr(ids, "dtype", None), getattr(ids, "shape", ())
    if not isinstance(ids, np.ndarray) or ids.dtype.kind not in "ui" or ids.ndim != 2:
        found = f"{dtype} of shape {shape}" if dtype is not None else type(ids).__name__
        raise InputError(
            f"{name}: got {found}, expected a NumPy array of integers [H, W]"
        )
    if ids.dtype == np.uint64 and ids.size and ids.max() > np.iinfo(np.int64).max:
        raise InputError(f"{name}: got id {ids.max()}, expected ids below 2 ** 63")


def _check_thresholds(name: str, thresholds: Sequence[float]) -> None:
    for value in thresholds:
        if not 0 <= value < 1:
            raise InputError(f"{name}: got {value}, expected numbers from 0 to below 1")
    if len(thresholds) == 0:
        raise InputError(f"{name}: got none, expected one or more")
