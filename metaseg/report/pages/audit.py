"""audit.html of a label audit: verdict, numbers and pictures of label maps.

`metaseg.auditing` defines the numbers. This module formats and explains them.
May import `files` and the rest of `report`.
"""

import dataclasses
import os
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from metaseg import files
from metaseg.report import figures, pictures, template, wording

__all__ = ["MOST_NAMES", "MOST_ROWS", "Thumbnail", "write_audit"]

TEMPLATE = "audit.html.jinja"
MOST_ROWS = 200  # rows of a table
MOST_NAMES = 20  # names in a list
UNKNOWN = 0.999  # width of an interval without information

FAMILIES = {
    "clean": "Clean: the labels agree with the reference",
    "randomised": "Randomised: errors are independent of position",
    "perturbed": "Perturbed: boundaries are displaced",
    "objects": "Object-level: whole objects are wrong",
    "random": "Random: the labels do not depend on the reference",
    "sparse": "Sparse: the labels are right, and most pixels are void",
}
PARTS = {
    "independent": (
        "Independent of position",
        "Errors without spatial structure. They average out.",
    ),
    "boundary": (
        "At displaced boundaries",
        "Displaced or blurred boundaries. Networks learn them.",
    ),
    "objects": (
        "Whole objects",
        "Objects missed, invented, merged or replaced by boxes.",
    ),
}
# Name, unit and meaning of each number.
EVIDENCE = {
    "labelled": (
        "Labelled",
        "share",
        "of the pixels of the reference are labelled",
    ),
    "disagreement": ("Disagreement", "share", "of the labelled pixels are wrong"),
    "association": (
        "Association",
        "standard deviations",
        "by which labels depend on the reference beyond chance",
    ),
    "information": (
        "Information",
        "nats per pixel",
        "of information about the reference in a label, within its map",
    ),
    "neighbour_correlation": (
        "Neighbour correlation",
        "number",
        "of errors far from boundaries: 0 for independent errors, 1 for clumps",
    ),
    "step_contrast": (
        "Step at boundaries",
        "number",
        "relative to the step far from boundaries: 1 for independent errors, less for "
        "displaced boundaries",
    ),
    "step_error": (
        "Standard error of the step",
        "number",
        "if pixels were independent",
    ),
    "displacement": (
        "Displacement",
        "pixels",
        "inside objects are wrong, per pixel of their boundary",
    ),
    "outer_errors": (
        "Outer errors",
        "share",
        "of the pixels just outside objects are wrong",
    ),
    "all_or_none": (
        "All or none",
        "number",
        "correlation of errors within objects: 1 if each object is either right or "
        "wrong as a whole",
    ),
    "missed_objects": (
        "Missed objects",
        "share",
        "of the objects of the reference are missed",
    ),
    "part_objects": (
        "Partly covered objects",
        "share",
        "of the objects of the reference are covered by less than half",
    ),
    "split_objects": (
        "Split objects",
        "share",
        "of the objects of the reference are drawn as several objects",
    ),
    "invented_objects": (
        "Invented objects",
        "share",
        "of the objects drawn touch no object of the reference",
    ),
    "joined_objects": (
        "Joined objects",
        "share",
        "of the objects drawn touch several objects of the reference",
    ),
    "corner_ratio": (
        "Corners",
        "number",
        "per edge of the outlines, relative to the reference: far below 1 for boxes",
    ),
    "grid": (
        "Grid",
        "pixels",
        "is the spacing of the grid that outlines lie on: 1 without a grid",
    ),
}
TELLING = {
    "clean": ("disagreement", "association", "information"),
    "randomised": (
        "disagreement",
        "neighbour_correlation",
        "step_contrast",
        "displacement",
        "association",
    ),
    "perturbed": (
        "disagreement",
        "step_contrast",
        "displacement",
        "outer_errors",
        "neighbour_correlation",
    ),
    "objects": (
        "disagreement",
        "missed_objects",
        "invented_objects",
        "joined_objects",
        "all_or_none",
        "corner_ratio",
    ),
    "random": ("disagreement", "association", "information", "neighbour_correlation"),
    "sparse": ("labelled", "disagreement", "association"),
}


@dataclasses.dataclass(frozen=True)
class Thumbnail:
    """One label map with its image and reference.

    Attributes:
      name: Name of the label map.
      labels: Class ids `[H, W]`; ids that are no class are void.
      image: Numbers of any range, `[H, W]` or `[H, W, C]`, or None.
      reference: Class ids `[H, W]`, or None.
      caption: Text below the name; may be empty.
    """

    name: str
    labels: np.ndarray
    image: np.ndarray | None = None
    reference: np.ndarray | None = None
    caption: str = ""


def write_audit(
    path: str | os.PathLike[str],
    *,
    summary: Mapping[str, Any],
    rows: Sequence[Mapping[str, Any]],
    thumbnails: Sequence[Thumbnail],
) -> None:
    """Writes the page of a label audit as one self-contained HTML file.

    The write is atomic: if it fails, an older file at `path` is kept.

    Args:
      path: File to write. Its folder is created if it does not exist.
      summary: Contents of audit.json. Missing fields are left out.
      rows: Rows of audit.csv, worst first. The page shows the first `MOST_ROWS`.
      thumbnails: Label maps to draw, in this order.

    Raises:
      ValueError: If the shapes of the arrays of a thumbnail differ.
    """
    for thumbnail in thumbnails:
        _check(thumbnail)
    names = [str(name) for name in summary["class_names"]]
    comparison = summary.get("comparison")
    text = template.render(
        TEMPLATE,
        source=str(summary.get("labels") or ""),
        facts=_facts(summary),
        class_names=names,
        colours=pictures.class_colours(len(names)),
        void=pictures.VOID_COLOUR,
        ramp=pictures.score_colours()[:: pictures.SCORE_LEVELS // 10],
        outline=pictures.OUTLINE_COLOUR,
        dashes=pictures.REFERENCE_COLOUR,
        compared=_comparison(comparison, names) if comparison else None,
        partly=_partly(summary),
        position=_position(summary.get("position"), names),
        overview=_overview(summary.get("overview") or {}, names),
        warnings=_warnings(summary, names),
        ranking=_ranking(rows, names),
        thumbnails=[_thumbnail(each, len(names)) for each in thumbnails],
        has_reference=any(each.reference is not None for each in thumbnails),
        bad=_cut(summary.get("bad") or [], MOST_ROWS),
    )
    files.write_text(path, text)


def _check(thumbnail: Thumbnail) -> None:
    shape = thumbnail.labels.shape
    for field in ("labels", "image", "reference"):
        array = getattr(thumbnail, field)
        if array is None:
            continue
        dimensions = (2, 3) if field == "image" else (2,)
        if array.shape[:2] != shape or array.ndim not in dimensions:
            raise ValueError(
                f"thumbnail {thumbnail.name!r}: {field} has shape {array.shape}, "
                f"expected the height and width of the labels, {shape}"
            )


def _facts(summary: Mapping[str, Any]) -> list[tuple[str, str]]:
    comparison = summary.get("comparison") or {}
    listed = {
        "Label maps": wording.count(summary.get("maps")),
        "Classes": wording.count(summary.get("num_classes")),
        "Bad files": wording.count(len(summary.get("bad") or ())),
        "Compared maps": wording.count(comparison.get("maps")),
        "Compared pixels": wording.about(comparison.get("labelled")),
        "Disagreement": _share(comparison.get("disagreement")),
    }
    facts = [(name, text) for name, text in listed.items() if text != wording.DASH]
    folders = (("Reference", "reference"), ("Images", "images"))
    return facts + [(name, str(summary[k])) for name, k in folders if summary.get(k)]


def _partly(summary: Mapping[str, Any]) -> str:
    """Says how many maps have a reference, unless all have one."""
    maps, compared = summary.get("maps"), (summary.get("comparison") or {}).get("maps")
    if not wording.is_number(maps) or not wording.is_number(compared):
        return ""
    if compared >= maps:
        return ""
    said = f"{wording.count(compared)} of the {wording.count(maps)} label maps have a"
    return f"{said} reference. All comparisons are based on these."


def _comparison(comparison: Mapping[str, Any], names: Sequence[str]) -> dict[str, Any]:
    verdict = comparison.get("verdict") or {}
    family = str(verdict.get("family") or "")
    profile = comparison.get("profile") or {}
    return {
        "family": family,
        "heading": FAMILIES.get(family, family.capitalize()) or "Verdict",
        "sentences": [str(text) for text in verdict.get("sentences") or ()],
        "evidence": _evidence(verdict.get("evidence") or {}, family),
        "worth": _worth(comparison),
        "split": _split(comparison),
        "matrix": _matrix(comparison, names),
        "profile": figures.boundary_profile(
            profile.get("distance") or (), profile.get("classes") or {}
        ),
    }


def _evidence(
    numbers: Mapping[str, Any], family: str
) -> dict[str, list[tuple[str, str, str]]]:
    """Returns name, number and meaning of the relevant and of all other numbers."""
    telling = [name for name in TELLING.get(family, ()) if name in numbers]
    known = [name for name in EVIDENCE if name in numbers]
    order = dict.fromkeys((*telling, *known, *numbers))
    rows = {name: _evidence_row(name, numbers[name]) for name in order}
    first = telling or known[:6]
    return {
        "telling": [rows[name] for name in first],
        "others": [row for name, row in rows.items() if name not in first],
    }


def _evidence_row(name: str, value: Any) -> tuple[str, str, str]:
    plain = name.replace("_", " ").capitalize()
    title, unit, meaning = EVIDENCE.get(name, (plain, "number", ""))
    if not wording.is_number(value):
        return title, wording.DASH, "not defined for these labels"
    if unit == "share":
        return title, _share(value), meaning
    if unit == "standard deviations":
        text = wording.about(value) if value >= 10 else f"{value:.1f}"
        return title, text, f"standard deviations {meaning}"
    if unit == "pixels":
        return title, f"{value:.2f}".removesuffix(".00"), f"pixels {meaning}"
    if unit == "nats per pixel":
        return title, f"{value:.3f}", f"nats per pixel {meaning}"
    return title, f"{value:.2f}".replace("-0.00", "0.00"), meaning


def _worth(comparison: Mapping[str, Any]) -> dict[str, Any] | None:
    """Returns the worth of the labels in clean labels, and measures of the matrix."""
    labelled, effective = comparison.get("labelled"), comparison.get("effective")
    if not wording.is_number(labelled) or not wording.is_number(effective):
        return None
    structured = sum(
        part
        for kind, part in (comparison.get("split") or {}).items()
        if kind != "independent" and wording.is_number(part)
    )
    share = effective / max(labelled, 1)
    told, entropy = (
        comparison.get(key) for key in ("semantic_information", "prior_entropy")
    )
    information = ""
    if wording.is_number(told) and wording.is_number(entropy) and entropy > 0:
        information = f"{told:.3f} of {entropy:.3f} nats per pixel"
        information += f" ({_share(told / entropy)})"
    singular = comparison.get("singular_values") or ()
    condition = comparison.get("condition_number")
    listed = {
        "Distinguishable classes": f"{comparison.get('rank', wording.DASH)} of "
        f"{len(comparison.get('matrix') or ())}",
        "Worth for the most similar classes": wording.about(
            comparison.get("effective_worst")
        ),
        "Semantic information": information,
        "Condition number": f"{condition:.3g}"
        if wording.is_number(condition)
        else "infinite",
        "Singular values": ", ".join(f"{value:.2f}" for value in singular),
    }
    return {
        "labelled": wording.about(labelled),
        "effective": wording.about(effective) if effective >= 0.5 else "",
        "whole": share > 0.995,
        "share": _share(share),
        "structured": _share(structured) if structured >= 0.08 else "",
        "sentence": _sentence(comparison.get("sentence")),
        "facts": [(name, text) for name, text in listed.items() if text],
    }


def _sentence(text: Any) -> str:
    text = str(text or "").strip().removesuffix(".")
    return f"{text[:1].upper()}{text[1:]}." if text else ""


def _split(comparison: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Returns the kinds of error; none if no pixel is wrong."""
    shares = comparison.get("split") or {}
    numbers = {k: float(v) for k, v in shares.items() if wording.is_number(v)}
    if sum(numbers.values()) <= 0:
        return []
    wrong = comparison.get("disagreement")
    return [
        {
            "kind": kind,
            "name": name,
            "meaning": meaning,
            "width": 100 * numbers.get(kind, 0.0),
            "share": _share(numbers.get(kind, 0.0)),
            "of_all": _share(numbers.get(kind, 0.0) * wrong)
            if wording.is_number(wrong)
            else "",
        }
        for kind, (name, meaning) in PARTS.items()
    ]


def _matrix(
    comparison: Mapping[str, Any], names: Sequence[str]
) -> dict[str, Any] | None:
    """Returns rows of cells: percentage, its interval (may be empty), and share."""
    parts = [
        _square(comparison.get(key), len(names)) for key in ("matrix", "low", "high")
    ]
    values, low, high = parts
    if values is None or not np.isfinite(values).all():
        return None
    if low is None or high is None:
        low, high = np.zeros_like(values), np.ones_like(values)
    known = ~(high - low >= UNKNOWN).all(axis=1)
    values = np.where((values.sum(axis=1) > 0)[:, None], values, np.nan)
    rows = [
        [
            (
                _cell(values[i, j]),
                f"{_cell(low[i, j])}{wording.DASH}{_cell(high[i, j])}"
                if known[i]
                else "",
                float(np.clip(np.nan_to_num(values[i, j]), 0, 1)),
            )
            for j in range(len(names))
        ]
        for i in range(len(names))
    ]
    return {"rows": rows, "known": bool(known.any()), "all_known": bool(known.all())}


def _square(values: Any, size: int) -> np.ndarray | None:
    try:
        square = np.asarray(values, float)
    except (TypeError, ValueError):
        return None
    return square if square.shape == (size, size) else None


def _position(position: Any, names: Sequence[str]) -> list[dict[str, Any]]:
    """Returns density maps, each on a scale from 0 to its maximum."""
    if position is None:
        return []
    planes = np.asarray(position, float)
    if planes.ndim != 3 or planes.shape[2] != len(names) or not planes.size:
        return []
    maps = []
    for name, plane in zip(names, np.moveaxis(planes, -1, 0), strict=True):
        seen = plane[np.isfinite(plane)]
        peak = float(seen.max(initial=0))
        picture = pictures.score_picture(plane / peak if peak > 0 else plane)
        low, top = (_share(v) if seen.size else "" for v in (seen.min(initial=1), peak))
        maps.append({"name": name, "picture": picture, "low": low, "peak": top})
    return maps


def _overview(overview: Mapping[str, Any], names: Sequence[str]) -> dict[str, Any]:
    shares, objects = overview.get("class_shares"), overview.get("objects")
    shares = shares if shares and len(shares) == len(names) else [None] * len(names)
    objects = objects if objects and len(objects) == len(names) else [None] * len(names)
    rows = []
    for index, (name, share) in enumerate(zip(names, shares, strict=True)):
        width = float(np.clip(share, 0, 1)) if wording.is_number(share) else 0.0
        number = wording.count(objects[index]) if index else ""  # none in class 0
        rows.append((name, _share(share), width, number))
    numbers = {
        "Void": (
            _share(overview.get("void_share")),
            "of all pixels have no label.",
        ),
        "Spatial information": (
            f"{wording.number(overview.get('information'))} nats",
            "is the mutual information of position and label, averaged over maps, "
            "minus its value by chance: 0 if labels do not depend on position.",
        ),
        "Roughness": (
            _share(overview.get("roughness")),
            "of the boundaries of a typical map vanish when the map is smoothed: about "
            "10 % for smooth outlines, nearly all for isolated pixels and thin lines.",
        ),
    }
    notes = [(name, *said) for name, said in numbers.items()]
    return {"classes": rows, "notes": notes}


def _warnings(summary: Mapping[str, Any], names: Sequence[str]) -> dict[str, Any]:
    overview = summary.get("overview") or {}
    twins = summary.get("duplicates") or {}
    groups = [
        (title, meaning, _cut(overview.get(key) or [], MOST_NAMES))
        for key, title, meaning in (
            ("empty", "Empty", "no pixel has a label"),
            ("one_class", "One class", "all labels have the same class"),
        )
    ]
    wrong = [
        (str(class_id), _maps(maps))
        for class_id, maps in (overview.get("wrong_ids") or {}).items()
    ]
    alike = [
        (title, meaning, _cut([_cut(g, MOST_NAMES) for g in twins.get(key) or []], 10))
        for key, title, meaning in (
            ("exact", "Duplicates", "equal in every pixel"),
            ("near", "Near-duplicates", "nearly equal at low resolution"),
        )
    ]
    outliers = [
        (each["name"], _feature(each.get("feature"), names), _signed(each.get("score")))
        for each in summary.get("outliers") or []
    ]
    found = {
        "lists": [group for group in groups if group[2]["shown"]],
        "wrong_ids": wrong,
        "alike": [group for group in alike if group[2]["shown"]],
        "outliers": _cut(outliers, MOST_NAMES),
    }
    some = found["lists"] or wrong or found["alike"] or outliers
    return {**found, "none": not some}


def _feature(feature: Any, names: Sequence[str]) -> str:
    """Returns the name of a feature of an outlier, with the name of the class."""
    match = re.fullmatch(r"share of class (\d+)", str(feature))
    if match and int(match[1]) < len(names):
        return f"share of {names[int(match[1])]}"
    return str(feature)


def _ranking(rows: Sequence[Mapping[str, Any]], names: Sequence[str]) -> dict[str, Any]:
    shown = rows[:MOST_ROWS]
    compared = any(wording.is_number(row.get("disagreement")) for row in shown)
    return {
        "rows": [_ranked(row, names) for row in shown],
        "total": len(rows),
        "left": len(rows) - len(shown),
        "all": wording.count(len(rows)),
        "compared": compared,
    }


def _ranked(row: Mapping[str, Any], names: Sequence[str]) -> dict[str, Any]:
    shares = [
        float(s) if wording.is_number(s) else 0.0 for s in row.get("shares") or ()
    ]
    kinds = zip(PARTS, ("independent", "boundary", "objects_share"), strict=True)
    return {
        "name": str(row.get("name", "")),
        "size": f"{row.get('height', wording.DASH)} {wording.TIMES} "
        f"{row.get('width', wording.DASH)}",
        "shares": [
            (index, name, share)
            for index, (name, share) in enumerate(zip(names, shares, strict=False))
            if share >= 0.005
        ],
        "disagreement": _share(row.get("disagreement")),
        "parts": [
            (kind, PARTS[kind][0], float(row[key]))
            for kind, key in kinds
            if wording.is_number(row.get(key)) and row[key] >= 0.005
        ],
        "labelled": wording.about(row.get("labelled")),
        "void": _share(row.get("void_share")),
        "information": wording.number(row.get("information")),
        "roughness": _share(row.get("roughness")),
        "objects": wording.count(row.get("objects")),
        "score": wording.number(row.get("score"), digits=1),
        "flags": [str(flag) for flag in row.get("flags") or ()],
    }


def _thumbnail(thumbnail: Thumbnail, num_classes: int) -> dict[str, Any]:
    picture, over_image = pictures.outline_picture(
        thumbnail.labels,
        num_classes,
        image=thumbnail.image,
        reference=thumbnail.reference,
    )
    return {
        "name": thumbnail.name,
        "caption": thumbnail.caption,
        "picture": picture,
        "over_image": over_image,
        "ragged": thumbnail.image is not None and not over_image,
    }


def _cut(items: Sequence[Any], most: int) -> dict[str, Any]:
    """Returns the first items of a list, and how many there are and are left out."""
    left = max(len(items) - most, 0)
    return {
        "shown": list(items[:most]),
        "left": wording.count(left) if left else "",
        "all": wording.count(len(items)),
    }


def _maps(number: Any) -> str:
    return f"{wording.count(number)} label map{'' if number == 1 else 's'}"


def _signed(score: Any) -> str:
    """Formats a robust z-score with its sign in words."""
    if not wording.is_number(score):
        return wording.DASH
    side = "above" if score > 0 else "below"
    return f"{wording.about(abs(score))} deviations {side} the median"


def _cell(share: float) -> str:
    """Formats a share as a percentage without the sign; never rounds to 0 or 100."""
    if not np.isfinite(share):
        return wording.DASH
    if 0 < share < 0.0005:
        return "<0.1"
    if 0.9995 <= share < 1:
        return ">99.9"
    return f"{100 * share:.1f}".removesuffix(".0")


def _share(value: Any) -> str:
    """Formats a share in [0, 1] as a percentage, with more digits if it is small."""
    if not wording.is_number(value):
        return wording.DASH
    if 0 < value < 0.00005:
        return f"<0.01{wording.SPACE}%"
    if 0 < value < 0.001:
        return f"{100 * value:.2f}{wording.SPACE}%"
    if 0.9995 <= value < 1:
        return f">99.9{wording.SPACE}%"
    return wording.percent(value)
