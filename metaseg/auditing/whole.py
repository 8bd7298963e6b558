"""Measures of a whole set of label maps, from the results of each map.

Computes on the host. May import `single`, `ntm`, `information`, `checks`, `errors` and
`typing`.
"""

from collections import defaultdict
from collections.abc import Sequence
from statistics import NormalDist
from typing import NamedTuple

import numpy as np
from jaxtyping import Integer

from metaseg import checks, information, ntm
from metaseg.auditing.single import LabelMap
from metaseg.errors import InputError
from metaseg.typing import AnyArray

__all__ = [
    "Duplicates",
    "Interval",
    "Outliers",
    "Overview",
    "Transition",
    "bootstrap",
    "duplicates",
    "outliers",
    "overview",
    "transition",
]

_BLOCK = 1 << 21  # numbers in a temporary array
_ALIKE_BITS = 6  # of 64 hash bits, in which near-duplicates may differ
_ALIKE = 0.05  # largest relative difference of the 8 x 8 densities of near-duplicates


class Interval(NamedTuple):
    """Confidence intervals of the entries of a matrix.

    Attributes:
      low: Lower ends, float64 `[K, K]`.
      high: Upper ends, float64 `[K, K]`.
    """

    low: np.ndarray
    high: np.ndarray


def bootstrap(
    joints: Integer[AnyArray, "N K K"],
    *,
    seed: int = 0,
    draws: int = 1000,
    confidence: float = 0.95,
) -> Interval:
    """Computes bootstrap intervals, over images, of a noise transition matrix.

    Each sample draws images with replacement and sums their counts. The intervals thus
    account for errors that neighbouring pixels share and for differences between
    annotators. The Wilson intervals of `ntm.from_counts` assume independent pixels. The
    intervals are percentiles, expanded for small numbers of images as in Hesterberg,
    "What Teachers Should Know about the Bootstrap", The American Statistician, 2015.
    The function needs a few MB of memory beyond `joints`.

    Args:
      joints: Integer `[N, K, K]`, N >= 1, K >= 2: number of pixels of each (reference,
        label) pair of classes in each image.
      seed: Seed of the random draws. Equal seeds give equal intervals.
      draws: Number of bootstrap samples, >= 1.
      confidence: Nominal coverage of the intervals, in (0, 1).

    Returns:
      Intervals within [0, 1]. They are [0, 1] in rows without pixels, and in all rows
      if N is 1.

    Raises:
      InputError: If `joints` has another shape or dtype, `draws` is below 1, or
        `confidence` is outside (0, 1).
    """
    counts = _joints(joints)
    checks.integer("draws", draws, 1)
    checks.number("confidence", confidence, 0, 1, open_ends=True)
    images, K, _ = counts.shape
    unknown = Interval(np.zeros((K, K)), np.ones((K, K)))
    if images < 2:
        return unknown
    flat = counts.reshape(images, K * K).astype(np.float64)
    rng = np.random.default_rng(seed)
    step = max(1, _BLOCK // images)
    ratios = np.empty((draws, K, K))
    for start in range(0, draws, step):
        number = min(step, draws - start)
        # Counts of flat draws: the same as multinomial draws, but faster.
        chosen = rng.integers(images, size=(number, images), dtype=np.int32)
        chosen += images * np.arange(number, dtype=np.int32)[:, None]
        weights = np.bincount(chosen.ravel(), minlength=number * images)
        sums = weights.reshape(number, images).astype(np.float64) @ flat
        sums = sums.reshape(number, K, K)
        total = sums.sum(axis=2, keepdims=True)
        ratio = np.where(total > 0, sums / np.maximum(total, 1), np.nan)
        ratios[start : start + number] = ratio
    tail = _expanded_tail(images, confidence)
    seen = counts.sum(axis=(0, 2)) > 0
    low, high = (np.nanquantile(ratios[:, seen], q, axis=0) for q in (tail, 1 - tail))
    unknown.low[seen], unknown.high[seen] = low, high
    return unknown


class Transition(NamedTuple):
    """The noise transition matrix of a set of label maps, and measures of it.

    Attributes:
      estimate: Matrix, counts, and Wilson intervals, which assume independent pixels.
      interval: Bootstrap intervals over images. Report these.
      prior: Class shares of the reference, float64 `[K]`.
      rank: Rank of the matrix: number of classes that can still be distinguished.
      singular_values: float64 `[K]`, largest first.
      condition_number: Infinite if the rank is below K.
      semantic_information: Information of a label about the reference, in nats per
        pixel.
      prior_entropy: Entropy of the prior, which is the largest possible semantic
        information, in nats per pixel.
      labelled: Number of pixels that both labels and reference label.
      effective: Number of clean labels that are worth as much as these labels, if
        errors were independent of position: `labelled` times the mean of
        `information.effective_labels`.
      effective_worst: The same for the two classes that are hardest to distinguish.
      sentence: Which classes can still be distinguished: `information.describe`.
    """

    estimate: ntm.Estimate
    interval: Interval
    prior: np.ndarray
    rank: int
    singular_values: np.ndarray
    condition_number: float
    semantic_information: float
    prior_entropy: float
    labelled: int
    effective: float
    effective_worst: float
    sentence: str


def transition(
    joints: Integer[AnyArray, "N K K"],
    *,
    class_names: Sequence[str] | None = None,
    seed: int = 0,
    draws: int = 1000,
    confidence: float = 0.95,
) -> Transition:
    """Estimates the noise transition matrix of a set of label maps.

    Args:
      joints: Integer `[N, K, K]`, N >= 1, K >= 2: `Comparison.joint` of each map.
      class_names: K names for the sentence; by default "class 0" and so on.
      seed: Seed of the bootstrap.
      draws: Number of bootstrap samples, >= 1.
      confidence: Nominal coverage of both kinds of intervals, in (0, 1).

    Returns:
      The matrix, its intervals, and measures of it.

    Raises:
      InputError: If `joints` has another shape or dtype, `class_names` has not K names,
        `draws` is below 1, or `confidence` is outside (0, 1).
    """
    counts = _joints(joints)
    interval = bootstrap(counts, seed=seed, draws=draws, confidence=confidence)
    total = counts.sum(axis=0, dtype=np.int64)
    labelled = int(total.sum())
    # `from_counts` takes counts of at most 31 bits.
    scale = -(-int(total.max(initial=1)) // (2**31 - 1))
    estimate = ntm.from_counts(total // max(scale, 1), confidence=confidence)
    matrix = np.asarray(estimate.matrix, np.float64)
    prior = total.sum(axis=1) / max(labelled, 1)
    mean = worst = information_of_label = 0.0
    if labelled:
        worth = information.effective_labels(matrix, prior)
        mean, worst = float(worth.mean), float(worth.worst)
        information_of_label = float(information.semantic_information(matrix, prior))
    return Transition(
        estimate=estimate,
        interval=interval,
        prior=prior,
        rank=int(ntm.rank(matrix, tol=1e-3)),
        singular_values=np.asarray(ntm.singular_values(matrix), np.float64),
        condition_number=float(ntm.condition_number(matrix, tol=1e-3)),
        semantic_information=information_of_label,
        prior_entropy=float(information.entropy(prior)),
        labelled=labelled,
        effective=labelled * mean,
        effective_worst=labelled * worst,
        sentence=information.describe(matrix, class_names=class_names),
    )


class Overview(NamedTuple):
    """Measures of a set of label maps without a reference.

    Attributes:
      maps: Number of maps.
      counts: Number of pixels of each class, int64 `[K]`.
      void_share: Share of all pixels that have no label.
      information: Mean over maps of the spatial information minus its bias, in nats.
      roughness: Median over the maps with a boundary; 0 without such maps.
      objects: Number of objects of each class, int64 `[K]`.
      empty: Indices of maps without a label.
      one_class: Indices of maps whose labels all have the same class.
      wrong_ids: Number of maps that contain each id which is neither a class nor void.
    """

    maps: int
    counts: np.ndarray
    void_share: float
    information: float
    roughness: float
    objects: np.ndarray
    empty: tuple[int, ...]
    one_class: tuple[int, ...]
    wrong_ids: dict[int, int]


def overview(maps: Sequence[LabelMap]) -> Overview:
    """Summarises a set of label maps.

    Args:
      maps: Results of `examine`, at least one.

    Returns:
      The summary.

    Raises:
      InputError: If there is no map.
    """
    _some(maps)
    pixels = sum(m.size[0] * m.size[1] for m in maps)
    wrong: dict[int, int] = defaultdict(int)
    for one in maps:
        for class_id in one.wrong_ids:
            wrong[class_id] += 1
    rough = [m.roughness for m in maps if m.perimeter]
    return Overview(
        maps=len(maps),
        counts=np.sum([m.counts for m in maps], axis=0),
        void_share=sum(m.void for m in maps) / pixels,
        information=float(np.mean([max(m.information - m.bias, 0) for m in maps])),
        roughness=float(np.median(rough)) if rough else 0.0,
        objects=np.sum([m.objects for m in maps], axis=0),
        empty=tuple(i for i, m in enumerate(maps) if m.empty),
        one_class=tuple(i for i, m in enumerate(maps) if m.one_class),
        wrong_ids=dict(sorted(wrong.items())),
    )


class Outliers(NamedTuple):
    """Deviations of each map from the other maps.

    Attributes:
      names: Names of the F features.
      scores: Robust z-scores, float64 `[N, F]`.
      indices: Indices of the maps with a score beyond the threshold, largest first.
      reasons: For each of these maps, the feature with the largest score, and the
        score.
    """

    names: tuple[str, ...]
    scores: np.ndarray
    indices: tuple[int, ...]
    reasons: tuple[tuple[str, float], ...]


def outliers(maps: Sequence[LabelMap], *, threshold: float = 5.0) -> Outliers:
    """Finds maps whose class shares or measures differ from the rest of the set.

    The features are the share of each class and of void (arcsine of the square root,
    which stabilises the variance), the spatial information divided by its upper bound,
    the roughness, and the logarithm of the number of objects. A score is the distance
    to the median, divided by 1.4826 times the median absolute deviation, which is the
    standard deviation of a normal feature. If more than half of the maps are equal, the
    divisor is 1.2533 times the mean absolute deviation.

    Args:
      maps: Results of `examine`, at least one.
      threshold: Absolute score beyond which a map is an outlier.

    Returns:
      The scores of all maps, and the outliers.

    Raises:
      InputError: If there is no map.
    """
    _some(maps)
    shares = np.array([m.counts / max(m.labelled, 1) for m in maps])
    most = -np.sum(shares * np.log(np.where(shares > 0, shares, 1)), axis=1)
    info = np.array([max(m.information - m.bias, 0) for m in maps])
    columns = {
        f"share of class {k}": np.arcsin(np.sqrt(shares[:, k]))
        for k in range(shares.shape[1])
    }
    columns["void share"] = np.arcsin(np.sqrt([m.void_share for m in maps]))
    columns["information"] = info / np.where(most > 1e-9, most, 1)
    columns["roughness"] = np.array([m.roughness for m in maps])
    columns["objects"] = np.log1p([float(m.objects[1:].sum()) for m in maps])
    scores = np.stack([_robust_z(np.asarray(c)) for c in columns.values()], axis=1)
    names = tuple(columns)
    feature = np.abs(scores).argmax(axis=1)
    score = scores[np.arange(len(maps)), feature]
    order = np.argsort(-np.abs(score), kind="stable")
    far = [int(i) for i in order if abs(score[i]) > threshold]
    reasons = tuple((names[feature[i]], float(score[i])) for i in far)
    return Outliers(names, scores, tuple(far), reasons)


class Duplicates(NamedTuple):
    """Groups of indices of equal or nearly equal maps.

    Attributes:
      exact: Maps of equal size and pixels.
      near: Maps of any size with nearly the same density on 8 x 8 cells. Of maps that
        are exact duplicates, the group holds the first.
    """

    exact: tuple[tuple[int, ...], ...]
    near: tuple[tuple[int, ...], ...]


def duplicates(maps: Sequence[LabelMap]) -> Duplicates:
    """Finds label maps that occur more than once.

    Two maps are near-duplicates if at most 6 of 64 hash bits differ and their densities
    on 8 x 8 cells differ by at most 5 %. Maps without a boundary are left out, since
    they are equal without being copies. Time grows with the square of the number of
    maps: 20 000 maps take seconds, and a few tens of MB of memory.

    Args:
      maps: Results of `examine`.

    Returns:
      Groups of two or more maps.
    """
    groups: dict[int, list[int]] = defaultdict(list)
    for index, one in enumerate(maps):
        if one.perimeter:
            groups[one.exact].append(index)
    first = np.array([group[0] for group in groups.values()], np.int64)
    hashes = np.array([maps[i].perceptual for i in first], np.uint64)
    leader = np.arange(len(first))

    def find(index: int) -> int:
        while leader[index] != index:
            leader[index] = leader[leader[index]]
            index = int(leader[index])
        return index

    step = max(1, _BLOCK // max(len(first), 1))
    for start in range(0, len(first), step):
        block = hashes[start : start + step, None] ^ hashes[None, start:]
        near_by = np.bitwise_count(block) <= _ALIKE_BITS
        for row, column in zip(*np.nonzero(near_by), strict=True):
            a, b = start + int(row), start + int(column)
            if a < b and _alike(maps[first[a]], maps[first[b]]):
                leader[find(b)] = find(a)
    near: dict[int, list[int]] = defaultdict(list)
    for index in range(len(first)):
        near[find(index)].append(int(first[index]))
    exact = (tuple(group) for group in groups.values() if len(group) > 1)
    return Duplicates(
        tuple(exact), tuple(tuple(g) for g in near.values() if len(g) > 1)
    )


def _alike(one: LabelMap, other: LabelMap) -> bool:
    ours, theirs = one.thumb.astype(int), other.thumb.astype(int)
    return bool(np.abs(ours - theirs).sum() <= _ALIKE * np.maximum(ours, theirs).sum())


def _robust_z(values: np.ndarray) -> np.ndarray:
    away = values - np.median(values)
    spread = 1.4826 * np.median(np.abs(away))
    if spread <= 1e-9:
        spread = 1.2533 * np.abs(away).mean()
    return away / spread if spread > 1e-9 else np.zeros_like(away)


def _expanded_tail(images: int, confidence: float) -> float:
    """Returns the tail probability of Hesterberg's expanded percentile interval.

    Its normal quantile is the quantile of Student's t, times sqrt(n / (n - 1)).
    """
    normal, free = NormalDist(), images - 1
    z = normal.inv_cdf((1 + confidence) / 2)
    # Cornish and Fisher's expansion: Abramowitz and Stegun, 26.7.5.
    t = z + (z**3 + z) / (4 * free) + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * free**2)
    return normal.cdf(-t * float(np.sqrt(images / free)))


def _joints(joints: AnyArray) -> np.ndarray:
    values = np.asarray(joints)
    square = values.ndim == 3 and values.shape[1] == values.shape[2] > 1
    if not square or not len(values) or values.dtype.kind not in "iu":
        raise InputError(
            f"joints: dtype {values.dtype}, shape {values.shape}, "
            "expected integers [N, K, K], N >= 1, K >= 2"
        )
    return values


def _some(maps: Sequence[LabelMap]) -> None:
    if not maps:
        raise InputError("maps: got none, expected at least one")
