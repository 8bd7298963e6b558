"""What kind of wrong: the split of a disagreement, and a verdict in plain words.

Host side, on sums of `audit.pair`. Thresholds were chosen on built-in cells and
training nuclei that `docs/audit.md` does not report on. Imports `metaseg.audit.pair`.
"""

import math
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from metaseg.audit.pair import DEPTHS, LATTICE, Pair

__all__ = ["FAMILIES", "Split", "Verdict", "evidence", "split", "verdict"]

FAMILIES = ("clean", "randomised", "perturbed", "objects", "random", "sparse")

_TAIL = 0.15  # share of a class that its deepest pixels are
_CLUMPED = 0.25  # neighbour correlation from which errors count as clumped entirely
_ALL_OR_NONE = 0.15  # correlation of errors within objects that shows whole ones missed
_PARTLY = 0.3  # share of seen objects covered in part that explains all missed ones
_ENOUGH, _NO_HITS = 100, 0.002  # pixels, and share right, of objects all missed
_STRAIGHT = 0.4  # corners per edge, relative to the reference's, of boxes
_ON_GRID = 0.95  # share of edges on one phase that shows a coarser grid
_UNSURE = 4.0  # standard deviations below which an association is chance
_TRACE = 1e-4  # disagreement that is none
_BLURRED = 0.7  # step contrast below which boundaries were moved
_MATERIAL = 0.08  # share of the disagreement that a part needs to be named


class Split(NamedTuple):
    """Wrong pixels by kind; the three add up to all of them.

    Attributes:
      independent: by a chance of each class that depends on neither place nor
        neighbours: RCL-like.
      boundary: where boundaries were displaced or smeared: PCL-like.
      objects: whole objects missed, invented, merged or replaced by boxes.
    """

    independent: float
    boundary: float
    objects: float

    @property
    def total(self) -> float:
        """All wrong pixels."""
        return self.independent + self.boundary + self.objects

    @property
    def shares(self) -> "Split":
        """Shares of the disagreement; all 0 where there is none."""
        return Split(*(part / max(self.total, 1e-9) for part in self))


class Verdict(NamedTuple):
    """The family of what is wrong with labels, and why.

    Attributes:
      family: one of `FAMILIES`.
      parts: shares of the disagreement by kind.
      evidence: the numbers that the family rests on, by name: `evidence`.
      words: sentences for a report: what is wrong, what training sees through, and
        what it does not.
    """

    family: str
    parts: Split
    evidence: Mapping[str, float]
    words: tuple[str, ...]


class _Zones(NamedTuple):
    """Per class, leaving missed objects out, float64 `[K]`."""

    pixels: np.ndarray
    wrong: np.ndarray
    tail_start: np.ndarray  # depth
    base: np.ndarray  # error rate of the deepest pixels
    clumping: np.ndarray  # correlation of neighbours' errors there


def split(pair: Pair) -> Split:
    """Divide the wrong pixels of one or more maps by kind.

    1. Missed objects (cover near what the class gets elsewhere) are object-level, if
       errors are all or none within objects: not where all of them are sparse alike.
       The more of the others are covered in part, the more of the missed ones count as
       boundary: they lie beside their place.
    2. Of the rest, the error rate of the deepest 15 % of each class holds for all of
       the class: the base. It is place-independent, but for the share of it in which
       neighbours err together; this is object-level in the background, if it is
       beyond the reach of displaced boundaries, and boundary in other classes.
    3. What exceeds the base is boundary, but for what gaps between two objects have
       more than the rest of the background at the same depth: object-level, if other
       boundaries are kept; and all of it if objects became boxes.

    Args:
      pair: of `compare`, or a sum of them.
    """
    wrong = pair.labelled - np.trace(pair.joint)
    if wrong == 0:
        return Split(0.0, 0.0, 0.0)
    gate = _objects_missed(pair)
    missed = float(_errors(pair.profile)[1].sum()) if gate > 0 else 0.0
    zones = _zones(pair, gate)
    alone = np.clip(1 - zones.clumping / _CLUMPED, 0, 1)
    base = np.minimum(zones.base * zones.pixels, zones.wrong)
    independent = float((alone * base).sum())
    clumped = (1 - alone) * base
    excess = zones.wrong - base
    objects = gate * missed
    displacement = _displacement(pair, gate)
    if zones.tail_start[0] > 5 * displacement + 2:
        objects += clumped[0]
    objects += _in_gaps(pair, displacement, float(excess[0]))
    structured = missed + float(clumped.sum() + excess.sum())
    if _boxes(pair):
        objects = structured
    return Split(independent, max(structured - objects, 0.0), objects)


def evidence(pair: Pair) -> dict[str, float]:
    """The numbers that `verdict` rests on.

    Args:
      pair: of `compare`, or a sum of them.

    Returns:
      `labelled`: share of the reference's pixels that are labelled;
      `disagreement`: share of those that are wrong;
      `association`: standard deviations by which labels depend on the reference more
        than by chance, within maps;
      `information`: of a label about the reference within maps, nats a pixel;
      `neighbour_correlation`: of errors of neighbours in the deepest 15 % of a class,
        mean over classes by errors; 0 for independent noise;
      `step_contrast`: step of the boundary profile at the boundary over that between
        far inside and outside; 1 for independent noise, less where boundaries moved,
        NaN where far inside and outside are labelled alike; `step_error`: its standard
        error, were pixels independent;
      `displacement`: wrong pixels of objects that are not missed, a boundary pixel;
      `outer_errors`: share of the background's boundary pixels that are wrong;
      `all_or_none`: correlation of errors within objects: 1 if each is right or wrong
        as a whole;
      `missed_objects`, `part_objects`, `split_objects`: shares of the objects;
      `invented_objects`, `joined_objects`: shares of the solid label objects that touch
        no reference object, or several;
      `corner_ratio`: corners per edge of the labels over those of the reference;
      `grid`: pixels of the coarsest grid that 95 % of edges lie on, at most 16.
    """
    gate = _objects_missed(pair)
    zones = _zones(pair, gate)
    step, step_error = _step_contrast(pair)
    weights = zones.wrong / max(zones.wrong.sum(), 1)
    judged, missed, part, parted, _ = pair.objects[1:].sum(axis=0)
    solid, joined, invented = pair.found[1:].sum(axis=0)
    outer = pair.profile[0, 0, 0]
    scale = math.sqrt(2 * max(pair.freedom, 1))
    corners = pair.corners[:, 0] / np.maximum(pair.corners[:, 1], 1)
    return {
        "labelled": pair.labelled / max(pair.reference, 1),
        "disagreement": pair.disagreement,
        "association": (pair.likelihood - pair.freedom) / scale,
        "information": (pair.likelihood - pair.freedom) / (2 * max(pair.labelled, 1)),
        "neighbour_correlation": float((weights * zones.clumping).sum()),
        "step_contrast": step,
        "step_error": step_error,
        "displacement": _displacement(pair, gate),
        "outer_errors": float(1 - outer[0] / max(outer.sum(), 1)),
        "all_or_none": _within_objects(pair),
        "missed_objects": missed / max(judged, 1),
        "part_objects": part / max(judged, 1),
        "split_objects": parted / max(judged, 1),
        "invented_objects": invented / max(solid, 1),
        "joined_objects": joined / max(solid, 1),
        "corner_ratio": float(corners[0] / max(corners[1], 1e-9)),
        "grid": float(_grid(pair)),
    }


def verdict(pair: Pair) -> Verdict:
    """Name the family of what is wrong with labels.

    In this order: no label, one class alone, or neither association with the reference
    nor structure is "random"; mostly void but right is "sparse"; (almost) no wrong
    pixel is "clean". Boundary and objects are material from 8 % of the disagreement on,
    or, as heavy flips may outnumber them, where the step of the boundary profile is
    surely below 0.7 of what it is farther off, or objects are surely missed as a whole.
    Where neither is, labels are "randomised", else the larger of the two names them.

    Args:
      pair: of `compare`, or a sum of them: the more maps, the surer.
    """
    numbers, parts = evidence(pair), split(pair).shares
    one_for_all = (pair.joint.sum(axis=0) > 0).sum() <= 1
    one_for_all &= (pair.joint.sum(axis=1) > 0).sum() > 1
    alone = numbers["neighbour_correlation"] < _CLUMPED / 2
    chance = numbers["association"] < _UNSURE and alone
    material = _material(pair, parts, numbers)
    if pair.labelled == 0 or one_for_all or (chance and pair.disagreement > _TRACE):
        family = "random"
    elif numbers["labelled"] < 0.5 and pair.disagreement < 0.05:
        family = "sparse"
    elif pair.disagreement < _TRACE:
        family = "clean"
    elif not material:
        family = "randomised"
    elif len(material) == 1:
        family = material[0]
    else:
        family = "objects" if parts.objects >= parts.boundary else "perturbed"
    return Verdict(family, parts, numbers, _words(family, parts, numbers, material))


def _material(
    pair: Pair, parts: Split, numbers: Mapping[str, float]
) -> tuple[str, ...]:
    """Which of "perturbed" and "objects" are a part of the disagreement that counts."""
    surely = numbers["step_contrast"] + _UNSURE * numbers["step_error"]
    found = []
    if parts.boundary >= _MATERIAL or surely < _BLURRED:
        found.append("perturbed")
    if parts.objects >= _MATERIAL or _objects_missed(pair) > 0.5:
        found.append("objects")
    return tuple(found)


def _errors(profile: np.ndarray) -> np.ndarray:
    """Wrong pixels `[2, K, DEPTHS]` of `Pair.profile`."""
    right = np.diagonal(profile, axis1=1, axis2=3)  # [2, DEPTHS, K]
    return profile.sum(axis=-1) - np.moveaxis(right, -1, 1)


def _objects_missed(pair: Pair) -> float:
    """How far objects with next to no cover are missed, in [0, 1].

    0 where errors are not all or none within objects: there all are sparse alike. Less
    than 1 where many others are covered in part, so that displacement explains some.
    """
    judged, missed, part, *_ = pair.objects[1:].sum(axis=0)
    if missed == 0:
        return 0.0
    _, area, _, hits, _ = pair.spread[1:].sum(axis=0)
    none_hit = area >= _ENOUGH and hits <= _NO_HITS * area
    if not none_hit and _within_objects(pair) < _ALL_OR_NONE:
        return 0.0
    seen = judged - missed
    return float(1 - min(part / (_PARTLY * seen), 1)) if seen else 1.0


def _within_objects(pair: Pair) -> float:
    """Intraclass correlation of errors within objects, by analysis of variance.

    Source: Fleiss, "Statistical Methods for Rates and Proportions", 1981. Mean over
    classes, by pixels; 0 where it is not defined.
    """
    value, weight = 0.0, 0.0
    for count, area, squares, hits, hit_squares in pair.spread[1:]:
        if count < 2 or hits <= 0 or hits >= area:
            continue
        between = (hit_squares - hits**2 / area) / (count - 1)
        within = (hits - hit_squares) / max(area - count, 1)
        size = (area - squares / area) / (count - 1)
        value += area * (between - within) / max(between + (size - 1) * within, 1e-9)
        weight += area
    return float(np.clip(value / weight, 0, 1)) if weight else 0.0


def _zones(pair: Pair, gate: float) -> _Zones:
    keep = slice(0, 1) if gate > 0 else slice(0, 2)  # without, or with missed objects
    population = pair.profile[keep].sum(axis=(0, -1)).astype(np.float64)
    wrong = _errors(pair.profile)[keep].sum(axis=0).astype(np.float64)
    couples = pair.pairs[keep].sum(axis=0).astype(np.float64)
    start = np.array([_tail_start(row) for row in population])
    tail = np.arange(DEPTHS) >= start[:, None]
    base = (wrong * tail).sum(axis=1) / np.maximum((population * tail).sum(axis=1), 1)
    number, either, both = (couples * tail[..., None]).sum(axis=1).T
    mean = either / np.maximum(2 * number, 1)
    spread = mean * (1 - mean)
    covariance = both / np.maximum(number, 1) - mean**2
    # Errors without variance: all wrong together, or none.
    clumping = np.where(
        spread > 1e-9, covariance / np.maximum(spread, 1e-9), mean > 0.5
    )
    return _Zones(population.sum(axis=1), wrong.sum(axis=1), start, base, clumping)


def _displacement(pair: Pair, gate: float) -> float:
    """Wrong pixels of objects not missed, beyond their base, a boundary pixel."""
    zones = _zones(pair, gate)
    alone = np.clip(1 - zones.clumping / _CLUMPED, 0, 1)
    base = np.minimum(alone * zones.base * zones.pixels, zones.wrong)
    rim = pair.profile[: 1 if gate > 0 else 2, 1:, 0].sum()
    return float((zones.wrong - base)[1:].sum() / max(rim, 1))


def _in_gaps(pair: Pair, displacement: float, most: float) -> float:
    """Wrong background between objects beyond that elsewhere at the same depth."""
    (single, single_wrong), (gap, gap_wrong) = np.moveaxis(pair.gaps, -1, 1)
    rate = single_wrong / np.maximum(single, 1)
    excess = np.maximum(gap_wrong - rate * gap, 0)
    beside = single_wrong[:2].sum() / max(single[:2].sum(), 1)
    between = gap_wrong[:2].sum() / max(gap[:2].sum(), 1)
    kept = displacement < 0.05 and beside < 0.5 * between
    return float(min(excess.sum(), most)) if kept else 0.0


def _grid(pair: Pair) -> int:
    """Largest power of two that nearly all edges of labels are multiples of."""
    edges = pair.lattice[0].astype(np.float64)
    for step in (16, 8, 4, 2):
        by_phase = edges.reshape(2, LATTICE // step, step).sum(axis=1)
        if by_phase[:, 0].sum() >= _ON_GRID * max(edges.sum(), 1):
            return step
    return 1


def _boxes(pair: Pair) -> bool:
    """Whether outlines run straight, on no coarser grid, as the reference's do not."""
    (corners, edges), (their_corners, their_edges) = pair.corners
    ours, theirs = corners / max(edges, 1), their_corners / max(their_edges, 1)
    return bool(0 < ours < _STRAIGHT * theirs and _grid(pair) < 2)


def _step_contrast(pair: Pair) -> tuple[float, float]:
    """Mean over classes 1.. of the step at depth 0 over that of the deepest pixels.

    And its standard error, were pixels independent; NaN where there is no step.
    """
    profile = pair.profile.sum(axis=0).astype(np.float64)
    steps, errors, weights = [], [], []
    for class_id in range(1, len(profile)):
        inside, outside = profile[class_id], np.delete(profile, class_id, 0).sum(axis=0)
        (near_in, far_in, error_in), (near_out, far_out, error_out) = (
            _ends(part, class_id) for part in (inside, outside)
        )
        step = far_in - far_out
        if abs(step) > 1e-3 and inside[0].sum() > 0:
            steps.append((near_in - near_out) / step)
            errors.append(math.hypot(error_in, error_out) / abs(step))
            weights.append(inside[0].sum())
    if not steps:
        return math.nan, math.nan
    return (
        float(np.average(steps, weights=weights)),
        float(np.average(errors, weights=weights)),
    )


def _ends(counts: np.ndarray, class_id: int) -> tuple[float, float, float]:
    """Share of a class `[DEPTHS, K]` at depth 0 and deepest, and the error of both."""
    total, own = counts.sum(axis=1), counts[:, class_id]
    deep = np.arange(DEPTHS) >= _tail_start(total)
    near, far = own[0] / max(total[0], 1), own[deep].sum() / max(total[deep].sum(), 1)
    # Half a pixel each way, so that shares of 0 and 1 have an error too.
    variance = sum(
        (p * (1 - p) + 0.25 / n) / n
        for p, n in ((near, max(total[0], 1)), (far, max(total[deep].sum(), 1)))
    )
    return float(near), float(far), math.sqrt(variance)


def _tail_start(population: np.ndarray) -> int:
    """Depth from which on 15 % of the pixels `[DEPTHS]` lie."""
    from_below = np.cumsum(population[::-1])[::-1]
    enough = from_below >= _TAIL * max(from_below[0], 1)
    return int(np.flatnonzero(enough).max(initial=0))


def _words(
    family: str, parts: Split, numbers: Mapping[str, float], material: tuple[str, ...]
) -> tuple[str, ...]:
    """What is wrong, what training sees through, and what it does not."""
    wrong = f"{numbers['disagreement']:.1%} of the labelled pixels are wrong"
    if family == "clean":
        return ("The labels agree with the reference.",)
    if family == "sparse":
        return (
            f"The labels are right where there are any, on {numbers['labelled']:.1%} "
            "of the pixels; the rest is void.",
            "Training sees through this: void costs labels, and misleads nobody.",
        )
    if family == "random":
        return (
            "The labels do not depend on the reference, or are of one class only.",
            "Training cannot see through this: they teach nothing of where things are.",
        )
    said = [f"{wrong}: {_shares(parts)}."]
    if parts.independent >= _MATERIAL:
        said.append(
            "What is independent of place, training sees through: it scales and shifts "
            "scores, at the price of effective labels."
        )
    if "perturbed" in material:
        moved = f"{numbers['displacement']:.1f} pixels inside objects and "
        moved += f"{numbers['outer_errors']:.0%} of the pixels just outside"
        said.append(
            f"Boundaries were moved or smeared ({moved}): training learns them where "
            "they are drawn, however many labels there are."
        )
        if numbers["grid"] >= 2:
            said.append(f"Outlines lie on a grid of {numbers['grid']:.0f} pixels.")
    if "objects" in material:
        said.append(
            f"Whole objects are wrong ({numbers['missed_objects']:.0%} of the objects "
            f"missed; of those drawn {numbers['invented_objects']:.0%} invented, "
            f"{numbers['joined_objects']:.0%} joining several): training sees through "
            "it where it strikes alike objects at random and rarely; objects that are "
            "missed or joined for their looks, it learns to miss or join."
        )
    return tuple(said)


def _shares(parts: Split) -> str:
    named = (
        ("independent of place", parts.independent),
        ("at displaced boundaries", parts.boundary),
        ("whole objects", parts.objects),
    )
    return ", ".join(f"{share:.0%} {name}" for name, share in named if share >= 0.005)
