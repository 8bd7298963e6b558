"""What a set of label maps says as a whole: host side, from what each map left.

May import `single`, `ntm`, `information`, `checks` and `errors`.
"""

from collections import defaultdict
from collections.abc import Sequence
from statistics import NormalDist
from typing import NamedTuple

import numpy as np

from metaseg import checks, information, ntm
from metaseg.audit.single import LabelMap
from metaseg.errors import InputError

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
_ALIKE_BITS = 6  # of 64 hash bits that near-duplicates may differ in
_ALIKE = 0.05  # relative difference of the 8 x 8 densities of near-duplicates


class Interval(NamedTuple):
    """Ends of confidence intervals of each entry of a matrix, float64 `[K, K]`."""

    low: np.ndarray
    high: np.ndarray


def bootstrap(
    joints: np.ndarray, *, seed: int = 0, draws: int = 1000, confidence: float = 0.95
) -> Interval:
    """Bootstrap intervals over images of a noise transition matrix.

    Images are drawn with replacement and their counts summed, so that neighbours that
    err together, and images labelled by different people, widen the interval as they
    should; Wilson's in `ntm.from_counts` takes pixels as independent. Percentiles,
    expanded for few images as in Hesterberg, "What Teachers Should Know about the
    Bootstrap", The American Statistician, 2015. Memory is a few MB beyond `joints`.

    Args:
      joints: pixels of each (reference, label) pair in each image, `[N, K, K]`.
      seed: of the draws; the same gives the same ends.
      draws: bootstrap samples.
      confidence: probability, in (0, 1), that an interval holds its entry.

    Returns:
      Ends in [0, 1]; 0 and 1 in rows without pixels and where N < 2.

    Raises:
      InputError: wrong joints, number of draws or confidence.
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
        # Flat draws counted: as a multinomial, but by vectorised integers.
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
    """A noise transition matrix of a set, and what it leaves.

    Attributes:
      estimate: matrix, counts, and Wilson intervals that take pixels as independent.
      interval: bootstrap intervals over images; the ones to report.
      prior: class shares of the reference, float64 `[K]`.
      rank: classes that can still be told apart.
      singular_values: float64 `[K]`, largest first.
      condition_number: infinite where the rank is below K.
      semantic_information: of a label about the reference, nats a pixel.
      prior_entropy: the most that could be, nats a pixel.
      labelled: pixels that both label.
      effective: pixels labelled right that would be worth as much, were errors
        independent of place: `labelled` times `information.effective_labels`, mean.
      effective_worst: the same for the classes that are hardest to tell apart.
      words: what is left of the classes, one sentence.
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
    words: str


def transition(
    joints: np.ndarray,
    *,
    class_names: Sequence[str] | None = None,
    seed: int = 0,
    draws: int = 1000,
    confidence: float = 0.95,
) -> Transition:
    """Estimate the noise transition matrix of a set and judge it.

    Args:
      joints: pixels of each (reference, label) pair in each image, `[N, K, K]`: of
        `Pair.joint`.
      class_names: K names for the words.
      seed: of the bootstrap.
      draws: bootstrap samples.
      confidence: of both kinds of interval.

    Raises:
      InputError: wrong joints, or as `bootstrap` does.
    """
    counts = _joints(joints)
    interval = bootstrap(counts, seed=seed, draws=draws, confidence=confidence)
    total = counts.sum(axis=0, dtype=np.int64)
    labelled = int(total.sum())
    # `from_counts` counts in 31 bits.
    scale = -(-int(total.max(initial=1)) // (2**31 - 1))
    estimate = ntm.from_counts(total // max(scale, 1), confidence=confidence)
    matrix = np.asarray(estimate.matrix, np.float64)
    prior = total.sum(axis=1) / max(labelled, 1)
    seen = np.flatnonzero(prior > 0)
    mean = worst = 0.0
    if len(seen) > 1:  # with one class there is nothing to tell apart
        worth = information.effective_labels(
            matrix[np.ix_(seen, seen)], prior[seen] / prior[seen].sum()
        )
        mean, worst = float(worth.mean), float(worth.worst)
    return Transition(
        estimate=estimate,
        interval=interval,
        prior=prior,
        rank=int(ntm.rank(matrix, 1e-3)),
        singular_values=np.asarray(ntm.singular_values(matrix), np.float64),
        condition_number=float(ntm.condition_number(matrix, 1e-3)),
        semantic_information=float(information.semantic_information(matrix, prior)),
        prior_entropy=float(information.entropy(prior)),
        labelled=labelled,
        effective=labelled * mean,
        effective_worst=labelled * worst,
        words=information.describe(matrix, class_names),
    )


class Overview(NamedTuple):
    """A set of label maps without a reference.

    Attributes:
      maps: how many.
      counts: pixels of each class, int64 `[K]`.
      void_share: share of all pixels without a label.
      information: mean spatial information of a map less its bias, nats.
      roughness: median over maps with a boundary.
      objects: objects of each class, int64 `[K]`.
      empty: indices of maps without a label.
      one_class: indices of maps all of one class.
      wrong_ids: what is no class id, to the number of maps that hold it.
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
    """Add up a set of label maps.

    Args:
      maps: of `examine`, at least one.

    Raises:
      InputError: no map.
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
    """How far each map is from the others.

    Attributes:
      names: of the features, `[F]`.
      scores: robust z-scores, float64 `[N, F]`.
      indices: maps with a score beyond the threshold, farthest first.
      reasons: for each of those, the feature and its score.
    """

    names: tuple[str, ...]
    scores: np.ndarray
    indices: tuple[int, ...]
    reasons: tuple[tuple[str, float], ...]


def outliers(maps: Sequence[LabelMap], *, threshold: float = 5.0) -> Outliers:
    """Maps whose densities or information do not fit the set.

    Features: share of each class and of void (arcsine of the root, which evens out
    their spread), spatial information over its most, roughness, logarithm of objects.
    Score: distance to the median over 1.4826 times the median absolute deviation, which
    is a standard deviation where features are normal; where more than half of the maps
    are alike, over 1.2533 times the mean absolute deviation.

    Args:
      maps: of `examine`, at least one.
      threshold: of the score.

    Raises:
      InputError: no map.
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
    """Groups of indices of maps that are the same, or nearly.

    Attributes:
      exact: maps of equal size and pixels.
      near: maps of nearly the same density on 8 x 8 cells, whatever their size, one
        index for each exact group among them.
    """

    exact: tuple[tuple[int, ...], ...]
    near: tuple[tuple[int, ...], ...]


def duplicates(maps: Sequence[LabelMap]) -> Duplicates:
    """Find label maps that were labelled, or stored, twice.

    Maps without a boundary are alike for no reason, and left out. Near: at most 6 of 64
    hash bits differ, and the 8 x 8 densities by at most 5 %. Time grows with the square
    of the number: 20 000 maps take seconds; memory is a few tens of MB.

    Args:
      maps: of `examine`.
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
    """Tail probability whose normal quantile is t's, times sqrt(n / (n - 1))."""
    normal, free = NormalDist(), images - 1
    z = normal.inv_cdf((1 + confidence) / 2)
    # Cornish and Fisher's expansion: Abramowitz and Stegun, 26.7.5.
    t = z + (z**3 + z) / (4 * free) + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * free**2)
    return normal.cdf(-t * float(np.sqrt(images / free)))


def _joints(joints: np.ndarray) -> np.ndarray:
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
