"""Divides wrong pixels by kind of error, and names the family of the errors.

Computes on the host with the counts of a `Comparison`. The constants were chosen on
built-in cells and training nuclei that `docs/audit.md` does not report on. May import
`comparison` and `errors`.
"""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from metaseg.auditing.comparison import DEPTHS, LATTICE, Comparison
from metaseg.errors import InputError

__all__ = ["FAMILIES", "ErrorKinds", "Verdict", "error_kinds", "evidence", "verdict"]

FAMILIES = ("clean", "randomised", "perturbed", "objects", "random", "sparse")

_TAIL = 0.15  # share of a class that counts as its deepest pixels
_CLUMPED = 0.25  # neighbour correlation above which all errors count as clumped
_ALL_OR_NONE = 0.15  # correlation of errors within objects if whole objects are missed
_PARTLY = 0.3  # share of partly covered objects that explains all missed objects
_ENOUGH, _NO_HITS = 100, 0.002  # pixels, and share right, if all objects are missed
_STRAIGHT = 0.4  # corners per edge, relative to the reference, below which: boxes
_ON_GRID = 0.95  # share of edges on one phase that indicates a coarser grid
_UNSURE = 4.0  # standard deviations below which an association may be chance
_TRACE = 1e-4  # largest disagreement of clean labels, or share right of a lost class
_BLURRED = 0.7  # step contrast below which boundaries are displaced
_MATERIAL = 0.08  # smallest material share of the disagreement
_ALWAYS = 0.98  # share of a class that one other class gets if it always does


class ErrorKinds(NamedTuple):
    """Wrong pixels by kind of error; the three kinds add up to all wrong pixels.

    Attributes:
      independent: Errors whose probability depends on the class alone, and neither on
        the position nor on the neighbours, as in randomised labels (RCL).
      boundary: Errors at displaced or blurred boundaries, as in perturbed labels (PCL).
      objects: Errors of whole objects: missed, invented, merged or replaced by boxes.
    """

    independent: float
    boundary: float
    objects: float

    @property
    def total(self) -> float:
        """Number of all wrong pixels."""
        return self.independent + self.boundary + self.objects

    @property
    def shares(self) -> "ErrorKinds":
        """Shares of the wrong pixels; all 0 if no pixel is wrong."""
        return ErrorKinds(*(part / max(self.total, 1e-9) for part in self))


class Verdict(NamedTuple):
    """The family of label errors, with the reasons.

    Attributes:
      family: One of `FAMILIES`.
      kinds: Shares of the wrong pixels by kind of error.
      evidence: The numbers behind the family, by name; see `evidence`.
      sentences: The verdict in sentences: what is wrong, which errors training
        averages out, and which errors it learns.
    """

    family: str
    kinds: ErrorKinds
    evidence: Mapping[str, float]
    sentences: tuple[str, ...]


class _Lost(NamedTuple):
    """A class whose pixels hardly ever have its label."""

    class_id: int
    called: int  # the class that most of its pixels are labelled with
    share: float  # of these among its pixels
    used: bool  # whether pixels of other classes have its label


class _Zones(NamedTuple):
    """Numbers per class without missed objects, float64 `[K]`."""

    pixels: np.ndarray
    wrong: np.ndarray
    tail_start: np.ndarray  # depth
    base: np.ndarray  # error rate of the deepest pixels
    clumping: np.ndarray  # correlation of neighbours' errors there


def error_kinds(pair: Comparison) -> ErrorKinds:
    """Divides the wrong pixels of one or more maps by kind of error.

    All errors in a class that is never labelled are object errors. Of the other
    classes:

    1. Objects. Pixels of missed objects are object errors if most objects are labelled
       either completely or not at all. They are not if all objects are equally sparse.
       The more of the other objects are partly covered, the more pixels of missed
       objects count as boundary errors: these objects are displaced, not missed.
    2. Base rate. For all other pixels, the error rate of the deepest 15 % of a class is
       taken as the rate of the whole class. These errors are independent, except for
       the share in which neighbouring pixels are wrong together. In the background this
       share counts as object errors if it lies farther from objects than displaced
       boundaries reach. Otherwise it counts as boundary errors.
    3. Excess. Errors beyond the base rate are boundary errors, with two exceptions.
       Errors in gaps between two objects, beyond the rate of the other background at
       the same depth, are object errors (merged objects) if other boundaries are in
       place. All of the excess is object errors if the objects are boxes.

    Args:
      pair: Counts of `compare`, or a sum of them.

    Returns:
      Number of wrong pixels of each kind.
    """
    rest = _without(pair, _lost(pair))
    lost = float(_wrong(pair) - _wrong(rest))
    kinds = _kinds(rest)
    return kinds._replace(objects=kinds.objects + lost)


def _wrong(pair: Comparison) -> int:
    """Counts the wrong pixels."""
    return pair.labelled - int(np.trace(pair.joint))


def _kinds(pair: Comparison) -> ErrorKinds:
    """Divides the wrong pixels of classes that are labelled."""
    if _wrong(pair) == 0:
        return ErrorKinds(0.0, 0.0, 0.0)
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
    return ErrorKinds(independent, max(structured - objects, 0.0), objects)


def _lost(pair: Comparison) -> list[_Lost]:
    """Finds the classes whose pixels hardly ever have their own label."""
    lost = []
    for class_id, row in enumerate(pair.joint):
        pixels, own = row.sum(), row[class_id]
        if pixels < _ENOUGH or own > _TRACE * pixels:
            continue
        called = int(row.argmax())
        share = float(row[called] / pixels)
        used = bool(pair.joint[:, class_id].sum() - own > _TRACE * pixels)
        if not used or share >= _ALWAYS:
            lost.append(_Lost(class_id, called, share, used))
    return lost


def _without(pair: Comparison, lost: Sequence[_Lost]) -> Comparison:
    """Leaves out the pixels of the classes that are never labelled."""
    ids = [one.class_id for one in lost if not one.used]
    if not ids:
        return pair

    def zeroed(values: np.ndarray, axis: int) -> np.ndarray:
        rest = np.moveaxis(values.copy(), axis, 0)
        rest[ids] = 0
        return np.moveaxis(rest, 0, axis)

    return pair._replace(
        joint=zeroed(pair.joint, 0),
        profile=zeroed(pair.profile, 1),
        pairs=zeroed(pair.pairs, 1),
        gaps=pair.gaps * (0 not in ids),
        objects=zeroed(pair.objects, 0),
        spread=zeroed(pair.spread, 0),
    )


def evidence(pair: Comparison) -> dict[str, float]:
    """Computes the numbers behind a verdict.

    Numbers about boundaries, and about errors within objects, leave out classes that
    are never labelled.

    Args:
      pair: Counts of `compare`, or a sum of them.

    Returns:
      A dictionary with these keys:

      - `labelled`: share of the pixels of the reference that are labelled;
      - `disagreement`: share of these pixels that are wrong;
      - `association`: standard deviations by which the dependence of labels on the
        reference within maps exceeds chance;
      - `information`: information of a label about the reference within maps, in nats
        per pixel;
      - `neighbour_correlation`: correlation of the errors of neighbouring pixels in the
        deepest 15 % of each class, averaged over classes with their errors as weights;
        0 for independent noise;
      - `step_contrast`: step of the boundary profile at the boundary, divided by its
        step between far inside and far outside; 1 for independent noise, less for
        displaced boundaries, NaN if far inside and far outside are labelled alike;
      - `step_error`: standard error of `step_contrast` if pixels were independent;
      - `displacement`: wrong pixels of objects that are not missed, beyond the base
        rate of `error_kinds`, per boundary pixel;
      - `outer_errors`: share of the background pixels at boundaries that are wrong;
      - `all_or_none`: correlation of errors within objects; 1 if each object is either
        right or wrong as a whole;
      - `missed_objects`, `part_objects`, `split_objects`: shares of the reference
        objects that are missed, partly covered, and split;
      - `invented_objects`, `joined_objects`: shares of the solid label objects that
        touch no reference object, and several;
      - `corner_ratio`: corners per edge of the labels, divided by those of the
        reference;
      - `grid`: spacing in pixels of the coarsest grid that holds 95 % of the edges, at
        most 16.
    """
    rest = _without(pair, _lost(pair))
    gate = _objects_missed(rest)
    zones = _zones(rest, gate)
    step, step_error = _step_contrast(rest)
    weights = zones.wrong / max(zones.wrong.sum(), 1)
    judged, missed, part, parted, _ = pair.objects[1:].sum(axis=0)
    solid, joined, invented = pair.found[1:].sum(axis=0)
    outer = rest.profile[0, 0, 0]
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
        "displacement": _displacement(rest, gate),
        "outer_errors": float(1 - outer[0] / max(outer.sum(), 1)),
        "all_or_none": _within_objects(rest),
        "missed_objects": missed / max(judged, 1),
        "part_objects": part / max(judged, 1),
        "split_objects": parted / max(judged, 1),
        "invented_objects": invented / max(solid, 1),
        "joined_objects": joined / max(solid, 1),
        "corner_ratio": float(corners[0] / max(corners[1], 1e-9)),
        "grid": float(_grid(pair)),
    }


def verdict(pair: Comparison, *, class_names: Sequence[str] | None = None) -> Verdict:
    """Names the family of the label errors.

    The first of these conditions decides:

    1. "random": there are no labels, or labels of one class only, or labels with
       neither association with the reference nor spatial structure.
    2. "sparse": less than half of the reference is labelled, and less than 5 % of the
       labels are wrong.
    3. "clean": less than 1 in 10 000 labels is wrong.
    4. "randomised": neither boundary errors nor object errors are material.
    5. "perturbed" or "objects": the larger of the material kinds.

    A kind of error is material if it is 8 % of the wrong pixels or more. Since many
    random flips can outnumber them, boundary errors are also material if the step
    contrast is below 0.7 by 4 standard errors, and object errors if whole objects are
    clearly missed. Labels that lack a class of the reference altogether, of 100 pixels
    or more, are neither sparse, clean nor randomised.

    Args:
      pair: Counts of `compare`, or a sum of them. The verdict is more certain the more
        maps there are.
      class_names: K names for the sentences; by default "class 0" and so on.

    Returns:
      The family, the kinds of error, the evidence and the sentences.

    Raises:
      InputError: If there are not K names.

    Example:
      >>> import numpy as np
      >>> from metaseg.auditing import compare
      >>> labels = np.zeros((64, 64), int)
      >>> labels[10:30, 10:30] = 1
      >>> verdict(compare(labels, labels, 2)).sentences
      ('The labels agree with the reference.',)
    """
    names = list(class_names or (f"class {i}" for i in range(len(pair.joint))))
    if len(names) != len(pair.joint):
        raise InputError(f"class_names: got {len(names)}, expected {len(pair.joint)}")
    numbers, kinds = evidence(pair), error_kinds(pair).shares
    lost = _lost(pair)
    missing = any(not one.used for one in lost)
    one_for_all = (pair.joint.sum(axis=0) > 0).sum() <= 1
    one_for_all &= (pair.joint.sum(axis=1) > 0).sum() > 1
    alone = numbers["neighbour_correlation"] < _CLUMPED / 2
    chance = numbers["association"] < _UNSURE and alone
    material = _material(pair, lost, numbers)
    if pair.labelled == 0 or one_for_all or (chance and pair.disagreement > _TRACE):
        family = "random"
    elif not missing and numbers["labelled"] < 0.5 and pair.disagreement < 0.05:
        family = "sparse"
    elif not missing and pair.disagreement < _TRACE:
        family = "clean"
    elif missing or len(material) > 1:
        larger = kinds.objects >= kinds.boundary or "perturbed" not in material
        family = "objects" if larger else "perturbed"
    else:
        family = material[0] if material else "randomised"
    said = _sentences(family, kinds, numbers, material)
    if family != "random":
        said = (said[0], *_lost_sentences(lost, pair, names), *said[1:])
    return Verdict(family, kinds, numbers, said)


def _material(
    pair: Comparison, lost: Sequence[_Lost], numbers: Mapping[str, float]
) -> tuple[str, ...]:
    """Returns which of "perturbed" and "objects" are material beside lost classes."""
    rest = _without(pair, lost)
    kinds, wrong = _kinds(rest), max(_wrong(pair), 1e-9)
    surely = numbers["step_contrast"] + _UNSURE * numbers["step_error"]
    found = []
    if kinds.boundary / wrong >= _MATERIAL or surely < _BLURRED:
        found.append("perturbed")
    if kinds.objects / wrong >= _MATERIAL or _objects_missed(rest) > 0.5:
        found.append("objects")
    return tuple(found)


def _errors(profile: np.ndarray) -> np.ndarray:
    """Counts the wrong pixels of `Comparison.profile`, `[2, K, DEPTHS]`."""
    right = np.diagonal(profile, axis1=1, axis2=3)  # [2, DEPTHS, K]
    return profile.sum(axis=-1) - np.moveaxis(right, -1, 1)


def _objects_missed(pair: Comparison) -> float:
    """Returns the share of objects with a low cover that are missed, in [0, 1].

    0 if errors are not all or none within objects, so that all objects are equally
    sparse. Less than 1 if many other objects are partly covered: then displacement
    explains some of the objects with a low cover.
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


def _within_objects(pair: Comparison) -> float:
    """Computes the intraclass correlation of errors within objects.

    The estimate is that of the analysis of variance. It is averaged over classes with
    their pixels as weights, and 0 where it is not defined. Source: Fleiss, "Statistical
    Methods for Rates and Proportions", 1981.
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


def _zones(pair: Comparison, gate: float) -> _Zones:
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
    # Without variance either all pixels are wrong, or none.
    clumping = np.where(
        spread > 1e-9, covariance / np.maximum(spread, 1e-9), mean > 0.5
    )
    return _Zones(population.sum(axis=1), wrong.sum(axis=1), start, base, clumping)


def _displacement(pair: Comparison, gate: float) -> float:
    """Computes `displacement`, without errors of the base rate: see `evidence`."""
    zones = _zones(pair, gate)
    alone = np.clip(1 - zones.clumping / _CLUMPED, 0, 1)
    base = np.minimum(alone * zones.base * zones.pixels, zones.wrong)
    rim = pair.profile[: 1 if gate > 0 else 2, 1:, 0].sum()
    return float((zones.wrong - base)[1:].sum() / max(rim, 1))


def _in_gaps(pair: Comparison, displacement: float, most: float) -> float:
    """Counts wrong pixels of gaps in excess of other background of equal depth."""
    (single, single_wrong), (gap, gap_wrong) = np.moveaxis(pair.gaps, -1, 1)
    rate = single_wrong / np.maximum(single, 1)
    excess = np.maximum(gap_wrong - rate * gap, 0)
    beside = single_wrong[:2].sum() / max(single[:2].sum(), 1)
    between = gap_wrong[:2].sum() / max(gap[:2].sum(), 1)
    kept = displacement < 0.05 and beside < 0.5 * between
    return float(min(excess.sum(), most)) if kept else 0.0


def _grid(pair: Comparison) -> int:
    """Returns the largest power of two that divides nearly all edge positions."""
    edges = pair.lattice[0].astype(np.float64)
    for step in (16, 8, 4, 2):
        by_phase = edges.reshape(2, LATTICE // step, step).sum(axis=1)
        if by_phase[:, 0].sum() >= _ON_GRID * max(edges.sum(), 1):
            return step
    return 1


def _boxes(pair: Comparison) -> bool:
    """Tells whether outlines are straighter than the reference's, and on no grid."""
    (corners, edges), (their_corners, their_edges) = pair.corners
    ours, theirs = corners / max(edges, 1), their_corners / max(their_edges, 1)
    return bool(0 < ours < _STRAIGHT * theirs and _grid(pair) < 2)


def _step_contrast(pair: Comparison) -> tuple[float, float]:
    """Computes `step_contrast` and `step_error`: see `evidence`."""
    profile = pair.profile.sum(axis=0).astype(np.float64)
    steps, errors, weights = [], [], []
    for class_id in range(1, len(profile)):
        inside, outside = profile[class_id], np.delete(profile, class_id, 0).sum(axis=0)
        (near_in, far_in, error_in), (near_out, far_out, error_out) = (
            _ends(part, class_id) for part in (inside, outside)
        )
        step = far_in - far_out
        if abs(step) > 1e-3 and inside[0].sum() > 0 and outside.sum() > 0:
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
    """Returns the share of a class at depth 0, in the deepest pixels, and its error.

    The counts are `[DEPTHS, K]`. The standard error is that of the difference.
    """
    total, own = counts.sum(axis=1), counts[:, class_id]
    deep = np.arange(DEPTHS) >= _tail_start(total)
    near, far = own[0] / max(total[0], 1), own[deep].sum() / max(total[deep].sum(), 1)
    # The term 0.25 / n gives shares of 0 and 1 an error, too.
    variance = sum(
        (p * (1 - p) + 0.25 / n) / n
        for p, n in ((near, max(total[0], 1)), (far, max(total[deep].sum(), 1)))
    )
    return float(near), float(far), math.sqrt(variance)


def _tail_start(population: np.ndarray) -> int:
    """Returns the depth at or beyond which the deepest 15 % of the pixels lie."""
    from_below = np.cumsum(population[::-1])[::-1]
    enough = from_below >= _TAIL * max(from_below[0], 1)
    return int(np.flatnonzero(enough).max(initial=0))


def _lost_sentences(
    lost: Sequence[_Lost], pair: Comparison, names: Sequence[str]
) -> list[str]:
    """Says which classes are never labelled, merged, or called another."""
    merged: dict[int, list[int]] = {}
    counts = pair.joint.sum(axis=0) + pair.joint.sum(axis=1)
    void = np.flatnonzero((pair.objects[:, 4] > 0) & (counts == 0))
    said = [
        f"{names[i]} is never labelled: its pixels are void." for i in void.tolist()
    ]
    for one in lost:
        name, other = names[one.class_id], names[one.called]
        own = pair.joint[one.called, one.called]
        kept = own > 0.5 * pair.joint[one.called].sum()
        if one.used:
            said.append(f"{name} is always labelled {other}.")
        elif one.share >= _ALWAYS and one.called > 0 and kept:
            merged.setdefault(one.called, [one.called]).append(one.class_id)
        else:
            said.append(
                f"{name} is never labelled: {_percent(one.share)} of its pixels are "
                f"labelled {other}."
            )
    for called, ids in merged.items():
        said.append(f"{_listed(sorted(ids), names)} are merged: all are labelled ")
        said[-1] += f"{names[called]}."
    if len(void) or any(not one.used for one in lost):
        said.append("Training cannot learn a class that the labels lack.")
    return [f"{text[:1].upper()}{text[1:]}" for text in said]


def _listed(ids: Sequence[int], names: Sequence[str]) -> str:
    """Lists classes: "classes 1 and 2", or "nucleus and cell" if they have names."""
    shown = [names[class_id] for class_id in ids]
    plain = all(names[class_id] == f"class {class_id}" for class_id in ids)
    if plain:
        shown = [str(class_id) for class_id in ids]
    text = f"{', '.join(shown[:-1])} and {shown[-1]}"
    return f"classes {text}" if plain else text


def _percent(share: float, digits: int = 0) -> str:
    return f"{100 * share:.{digits}f} %"


def _sentences(
    family: str,
    kinds: ErrorKinds,
    numbers: Mapping[str, float],
    material: tuple[str, ...],
) -> tuple[str, ...]:
    """Says what is wrong, which errors training averages out, and which it learns."""
    if family == "clean":
        return ("The labels agree with the reference.",)
    if family == "sparse":
        return (
            f"{_percent(numbers['labelled'], 1)} of the pixels are labelled, and these "
            "labels are right. All other pixels are void.",
            "Training tolerates this: void pixels reduce the number of labels, but do "
            "not mislead.",
        )
    if family == "random":
        return (
            "The labels do not depend on the reference, or they have one class only.",
            "Training cannot correct this: the labels carry no information about where "
            "the classes are.",
        )
    wrong = f"{_percent(numbers['disagreement'], 1)} of the labelled pixels are wrong"
    said = [f"{wrong}: {_shares(kinds)}."]
    if kinds.independent >= _MATERIAL:
        said.append(
            "Training averages out the errors that are independent of position: they "
            "scale and shift the scores, and reduce the number of effective labels."
        )
    if "perturbed" in material:
        said.append(
            "Boundaries are displaced or blurred. Inside objects, "
            f"{numbers['displacement']:.1f} pixels per boundary pixel are wrong. Of "
            f"the pixels just outside, {_percent(numbers['outer_errors'])} are wrong. "
            "Training learns boundaries where they are drawn, whatever the number of "
            "labels."
        )
        if numbers["grid"] >= 2:
            said.append(f"The outlines lie on a grid of {numbers['grid']:.0f} pixels.")
    if "objects" in material:
        missed, invented, joined = (
            _percent(numbers[f"{name}_objects"])
            for name in ("missed", "invented", "joined")
        )
        said.append(
            f"Whole objects are wrong. {missed} of the objects are missed. Of those "
            f"drawn, {invented} are invented and {joined} join several objects. "
            "Training averages this out if it affects similar objects at random and "
            "rarely. If objects are missed or joined because of their appearance, "
            "training learns to miss or join them."
        )
    return tuple(said)


def _shares(kinds: ErrorKinds) -> str:
    named = (
        ("independent of position", kinds.independent),
        ("at displaced boundaries", kinds.boundary),
        ("in whole objects", kinds.objects),
    )
    return ", ".join(
        f"{_percent(share)} {name}" for name, share in named if share >= 0.005
    )
