"""Curves, histograms and boundary profiles -> SVG figures as data URIs."""

import base64
import dataclasses
import io
import math
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib import colors
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from metaseg.report import wording
from metaseg.text import count_of

__all__ = [
    "Chart",
    "Line",
    "boundary_profile",
    "learning_curves",
    "member_charts",
    "precision_curve",
    "round_curves",
    "score_histogram",
]

# The SVG keeps text as text, in the font of the page. matplotlib computes the layout
# with DejaVu Sans, which is wider.
STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "metaseg",
    "font.family": "DejaVu Sans",
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#8a9199",
    "axes.labelcolor": "#3d444d",
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e6e9ec",
    "grid.linewidth": 0.8,
    "xtick.color": "#8a9199",
    "ytick.color": "#8a9199",
    "xtick.labelcolor": "#3d444d",
    "ytick.labelcolor": "#3d444d",
    "legend.frameon": False,
    "legend.labelcolor": "#1f2328",
    "lines.linewidth": 1.8,
}
PAGE_FONT = (
    "system-ui, -apple-system, 'Segoe UI', Roboto, 'Liberation Sans', sans-serif"
)

TRAIN, VALIDATION = "#7b8794", "#0072b2"
MEMBER = "#a9b2bb"  # one of many curves with the same look
LOST = "#d55e00"
MOST_ENTRIES = 16  # in a legend
BACKGROUND, FOREGROUND = "#56b4e9", "#d55e00"
RULE_LINES = {
    "argmax": ("#c3c9cf", "-", 5),  # wide and pale, since another line often covers it
    "analytic": ("#20242a", "-", 1.5),
    "validation": ("#009e73", "--", 1.5),
    "oracle": ("#a8437a", ":", 1.8),
}
# Colour, and lengths of dashes and gaps in line widths (empty: solid).
PROFILE_LINES: list[tuple[str, tuple[float, ...]]] = [
    ("#0072b2", ()),
    ("#d55e00", (4, 1.5)),
    ("#009e73", (1, 1.2)),
    ("#a8437a", (5, 1.5, 1, 1.5)),
    ("#20242a", (2.2, 1.2)),
]
SIZE = (5.6, 3.3)  # inches


@dataclasses.dataclass(frozen=True)
class Chart:
    """A figure of a page.

    Attributes:
      title: Heading of the figure.
      uri: `data:` URI of the SVG.
      alt: Alternative text that describes the figure.
      note: Sentence below the figure; may be empty.
    """

    title: str
    uri: str
    alt: str
    note: str = ""


@dataclasses.dataclass(frozen=True)
class Line:
    """The look of one curve, for a legend outside the figure.

    Attributes:
      name: Name of the curve.
      colour: Colour of the line, as "#rrggbb".
      dashes: Lengths of dashes and gaps in line widths; empty for a solid line.
    """

    name: str
    colour: str
    dashes: tuple[float, ...]


def boundary_profile(
    distance: Sequence[float], classes: Mapping[str, Sequence[Any]]
) -> list[tuple[Chart, list[Line]]]:
    """Draws the share of pixels labelled as a class against the boundary distance.

    Args:
      distance: Signed distances to the boundary of the class in pixels, negative
        inside.
      classes: By class name, the share in [0, 1] of pixels at each distance that are
        labelled as the class; None where unknown.

    Returns:
      Charts of up to five classes each, with equal axes, and the looks of their curves.
    """
    known = [
        (name, np.array([v if wording.is_number(v) else math.nan for v in values]))
        for name, values in classes.items()
        if len(values) == len(distance) and any(map(wording.is_number, values))
    ]
    step = len(PROFILE_LINES)
    return [
        _profile_chart(np.asarray(distance, float), known[start : start + step])
        for start in range(0, len(known), step)
    ]


def learning_curves(history: Sequence[Mapping[str, Any]]) -> list[Chart]:
    """Draws the training and validation loss and the validation IoU by step.

    Args:
      history: Rows of metrics.jsonl, each with "step" and "split".

    Returns:
      Up to two charts. Metrics that the history lacks have no chart.
    """
    charts = []
    losses = {split: _series(history, split, "loss") for split in ("train", "val")}
    if any(len(steps) for steps, _ in losses.values()):
        charts.append(_loss_chart(losses))
    for key, name in (("iou", "IoU"), ("miou", "mean IoU")):
        steps, values = _series(history, "val", key)
        if len(steps):
            charts.append(_overlap_chart(name, steps, values))
    return charts


def member_charts(
    histories: Sequence[Sequence[Mapping[str, Any]]],
    scores: Sequence[Any],
    *,
    diverged: Sequence[bool],
    varied: tuple[str, Sequence[float]] | None,
    overlap: str,
    rule: str,
) -> list[Chart]:
    """Draws one line or point for each member of an ensemble.

    Args:
      histories: Rows of metrics.jsonl of each member.
      scores: Test IoU of each member. Values that are not finite are not drawn.
      diverged: Whether the loss of each member became infinite or nan.
      varied: Name of the only number in which members differ, and its value in each
        member. None if there is no such number; all curves then look the same.
      overlap: "IoU" or "mean IoU".
      rule: Name of the decision rule of the scores.

    Returns:
      A chart of the validation IoU by step and, if a number is varied, a chart of the
      test IoU by this number. Unknown metrics have no chart.
    """
    key = {"IoU": "iou", "mean IoU": "miou"}[overlap]
    series = [_series(history, "val", key) for history in histories]
    charts = []
    if any(np.isfinite(values).any() for _, values in series):
        charts.append(_members_chart(overlap, series, diverged, varied))
    if varied:
        field, values = varied
        points = [
            (value, float(score))
            for value, score, lost in zip(values, scores, diverged, strict=True)
            if wording.is_number(score) and not lost
        ]
        title = f"Test {overlap} by {field}"
        if len({value for value, _ in points}) > 1:
            charts.append(_scores_chart(title, field, overlap, rule, points))
    return charts


def round_curves(history: Sequence[Mapping[str, Any]]) -> list[Chart]:
    """Draws stability, IoU and foreground share of the masks of iGTT by round.

    Args:
      history: Rows of metrics.jsonl, each with "round".

    Returns:
      Two charts. Metrics that no row has are left out.
    """
    agreement = {
        "stability": ("stability", TRAIN, "-"),
        "val_iou": ("IoU, all pixels", VALIDATION, "-"),
        # Dotted, so that it does not hide the curve above, which is often equal.
        "val_mean_image_iou": ("IoU, mean per image", FOREGROUND, ":"),
    }
    share = {"mask_share": ("share of foreground", TRAIN, "-")}
    return [
        _rounds_chart("Agreement of masks", history, agreement, top=1.0),
        _rounds_chart("Share of foreground in the masks", history, share, top=None),
    ]


def _rounds_chart(
    title: str,
    history: Sequence[Mapping[str, Any]],
    looks: Mapping[str, tuple[str, str, str]],
    top: float | None,
) -> Chart:
    rows = [{**row, "step": row["round"]} for row in history]
    alts = []
    with matplotlib.rc_context(STYLE):
        figure, axes = _figure()
        for key, (name, colour, line) in looks.items():
            steps, values = _series(rows, "round", key)
            if len(steps):
                _curve(axes, steps, values, colour, name, linestyle=line)
                alts.append(f"{name} {_course(values)}")
        axes.set(xlabel="round")
        axes.set_ylim(0, top)
        _legend_above(figure, axes, None, ncols=3)
        uri = _encode(figure)
    return Chart(title, uri, f"{title} against round: {'; '.join(alts)}.")


def precision_curve(curve: Mapping[str, Any]) -> Chart:
    """Draws the average precision of objects against the threshold of the IoU.

    Args:
      curve: Average precision by threshold, as of `instances.measure`; values that are
        not finite are not drawn.

    Returns:
      The chart.
    """
    at = np.array([float(threshold) for threshold in curve])
    values = np.array(
        [float(v) if wording.is_number(v) else math.nan for v in curve.values()]
    )
    with matplotlib.rc_context(STYLE):
        figure, axes = _figure()
        axes.plot(at, values, color=VALIDATION, marker="o", ms=4, clip_on=False)
        axes.set(xlabel="IoU threshold", ylabel="average precision")
        axes.set(ylim=(0, 1.0), xticks=at[::2])
        uri = _encode(figure)
    alt = f"Average precision against the threshold of the IoU: {_course(values)}."
    return Chart("Average precision by IoU threshold", uri, alt)


def score_histogram(
    histogram: Mapping[str, Any], thresholds: Mapping[str, Any]
) -> Chart | None:
    """Draws the histograms of the scores of background and foreground pixels.

    Args:
      histogram: "edges" `[B + 1]`, and counts "background" and "foreground" `[B]`.
      thresholds: Threshold of each decision rule, drawn as a line; may be empty.

    Returns:
      The chart, or None if the histogram is incomplete or empty.
    """
    if any(histogram.get(k) is None for k in ("edges", "background", "foreground")):
        return None
    edges, *counted = (
        np.atleast_1d(np.asarray(histogram[key], float))
        for key in ("edges", "background", "foreground")
    )
    fits = all(len(count) == len(edges) - 1 for count in counted)
    if not fits or not np.isfinite(np.sum(counted)) or np.sum(counted) <= 0:
        return None
    counts = dict(zip(("background", "foreground"), counted, strict=True))
    with matplotlib.rc_context(STYLE):
        figure, axes = _figure()
        colours = {"background": BACKGROUND, "foreground": FOREGROUND}
        for name, count in counts.items():
            share = 100 * count / max(count.sum(), 1)
            colour = colours[name]
            axes.stairs(share, edges, fill=True, color=colour, alpha=0.3)
            axes.stairs(share, edges, color=colour, linewidth=1.4, label=name)
        for rule, (colour, dash, width) in RULE_LINES.items():
            threshold = thresholds.get(rule)
            if wording.is_number(threshold):
                label = f"{wording.DECISION_RULES[rule].lower()}  {threshold:.3f}"
                axes.axvline(threshold, color=colour, ls=dash, lw=width, label=label)
        axes.set(xlim=(edges[0], edges[-1]), xlabel="foreground score")
        axes.set(ylabel="share of the class's pixels (%)")
        axes.set_ylim(bottom=0)
        figure.legend(loc="outside upper left", ncols=2, fontsize=9, handlelength=2.4)
        uri = _encode(figure)
    medians = [
        f"{name} {_median(edges, count):.2f}"
        for name, count in counts.items()
        if count.sum() > 0
    ]
    alt = f"Histogram of test scores by true class; medians: {', '.join(medians)}."
    return Chart("Scores of the test pixels", uri, alt)


def _profile_chart(
    distance: np.ndarray, classes: Sequence[tuple[str, np.ndarray]]
) -> tuple[Chart, list[Line]]:
    lines, alts = [], []
    order = np.argsort(distance)
    at = distance[order]
    with matplotlib.rc_context(STYLE):
        figure, axes = _figure()
        right = np.where(at < 0, 100.0, 0.0)
        axes.step(at, right, where="mid", color="#c3c9cf", lw=4, solid_capstyle="butt")
        axes.axvline(0, color="#8a9199", lw=1)
        looks = zip(classes, PROFILE_LINES, strict=False)
        for (name, values), (colour, dashes) in looks:
            style: Any = (0, dashes) if dashes else "-"
            shares = 100 * values[order]
            axes.plot(at, shares, color=colour, ls=style, lw=2, marker="o", ms=3)
            lines.append(Line(name, colour, dashes))
            alts.append(f"{name} {_ends(shares)}")
        axes.set(ylabel="labelled as the class (%)", ylim=(-3, 103))
        gap = 3 * wording.SPACE
        axes.set_xlabel(f"← inside{gap}distance to the boundary (pixels){gap}outside →")
        uri = _encode(figure)
    names = [name for name, _ in classes]
    title = names[0] if len(names) == 1 else f"{names[0]} to {names[-1]}"
    alt = f"Share of pixels labelled as the class: {'; '.join(alts)}."
    return Chart(title, uri, alt), lines


def _ends(shares: np.ndarray) -> str:
    known = shares[np.isfinite(shares)]
    return f"from {known[0]:.1f} % far inside to {known[-1]:.1f} % far outside"


def _loss_chart(losses: Mapping[str, tuple[np.ndarray, np.ndarray]]) -> Chart:
    looks = {"train": ("training", TRAIN), "val": ("validation", VALIDATION)}
    alts, left_out = [], 0
    with matplotlib.rc_context(STYLE):
        figure, axes = _figure()
        for split, (steps, values) in losses.items():
            name, colour = looks[split]
            left_out += int(np.sum(~np.isfinite(values)))
            if len(steps):
                _curve(axes, steps, values, colour, name)
                alts.append(f"{name} {_course(values)}")
        axes.set(xlabel="step", ylabel="loss")
        figure.legend(loc="outside upper left", ncols=2)
        uri = _encode(figure)
    note = f"{left_out} values that are not finite are left out." if left_out else ""
    return Chart("Loss", uri, f"Loss against step: {'; '.join(alts)}.", note)


def _overlap_chart(name: str, steps: np.ndarray, values: np.ndarray) -> Chart:
    with matplotlib.rc_context(STYLE):
        figure, axes = _figure()
        _curve(axes, steps, values, VALIDATION, "validation")
        axes.set(xlabel="step", ylabel=name, ylim=(0, 1.0))
        figure.legend(loc="outside upper left")
        uri = _encode(figure)
    alt = f"Validation {name} against step: {_course(values)}."
    return Chart(f"Validation {name}", uri, alt)


def _members_chart(
    name: str,
    series: Sequence[tuple[np.ndarray, np.ndarray]],
    diverged: Sequence[bool],
    varied: tuple[str, Sequence[float]] | None,
) -> Chart:
    kept = [each for each, lost in zip(series, diverged, strict=True) if not lost]
    looks = _by_value(varied[1]) if varied else [(MEMBER, "a run")] * len(series)
    named: set[str] = set()
    with matplotlib.rc_context(STYLE):
        figure, axes = _figure()
        for (steps, values), (colour, label) in zip(series, looks, strict=True):
            fresh = "" if label in named or not len(steps) else label
            named.add(fresh)
            # Markers on many curves would hide the curves; a single point needs one.
            marker = "o" if np.isfinite(values).sum() == 1 else None
            _curve(axes, steps, values, colour, fresh, lw=1.4, marker=marker)
        if not varied and len(kept) > 2:
            label = f"median of {len(kept)}"
            _curve(axes, *_median_curve(kept), VALIDATION, label, lw=2.4, marker=None)
        lost = [each for each, gone in zip(series, diverged, strict=True) if gone]
        if ends := [end for each in lost if (end := _end(*each))]:
            look: Any = {"ls": "", "marker": "x", "ms": 7, "mew": 2, "zorder": 3}
            axes.plot(*zip(*ends, strict=True), color=LOST, label="diverged", **look)
        axes.set(xlabel="step", ylabel=name, ylim=(0, 1.0))
        title = varied[0] if varied else None
        _legend_above(figure, axes, title, ncols=6)
        uri = _encode(figure)
    last = [end[1] for each in kept if (end := _end(*each))]
    alt = f"Validation {name} against step, {count_of(len(series), 'curve')}"
    if last:
        alt += f"; runs that did not diverge end between {min(last):.3f} and "
        alt += f"{max(last):.3f}"
    note = "A cross marks the last validation before a run diverged." if ends else ""
    return Chart(f"Validation {name}", uri, f"{alt}.", note)


def _scores_chart(
    title: str,
    field: str,
    overlap: str,
    rule: str,
    points: Sequence[tuple[float, float]],
) -> Chart:
    by_value: dict[float, list[float]] = {}
    for value, score in sorted(points):
        by_value.setdefault(value, []).append(score)
    at, means = list(by_value), [float(np.mean(s)) for s in by_value.values()]
    repeated = len(points) > len(at)
    with matplotlib.rc_context(STYLE):
        figure, axes = _figure()
        names = ("mean", "a run") if repeated else ("", "")
        axes.plot(at, means, color=VALIDATION, lw=1.4, label=names[0])
        look: Any = {"ls": "", "marker": "o", "ms": 5, "alpha": 0.6}
        axes.plot(*zip(*points, strict=True), color="#20242a", label=names[1], **look)
        axes.set(xlabel=field, ylabel=f"test {overlap}", ylim=(0, 1.0))
        if _evenly_in_logarithm(at):
            axes.set_xscale("log")
            axes.set_xticks(at[:: -(-len(at) // 8)], minor=False)
            axes.set_xticks([], minor=True)
            axes.xaxis.set_major_formatter("{x:g}")
        _legend_above(figure, axes, None, ncols=2)
        uri = _encode(figure)
    courses = [f"{m:.3f} at {v:g}" for v, m in zip(at, means, strict=True)]
    alt = f"{title}, {rule} decision rule: {', '.join(courses)}."
    joined = " The line connects the means." if repeated else ""
    note = f"Decision rule: {rule}.{joined}"
    return Chart(title, uri, alt, note)


def _by_value(values: Sequence[float]) -> list[tuple[str, str]]:
    """Returns colour and name of each curve, from dark to light by rank of its value.

    The colours are those of viridis without its lightest part, which has too little
    contrast on white. Their lightness is monotonic.
    """
    ranks, shades = sorted(set(values)), matplotlib.colormaps["viridis"]
    step = -(-len(ranks) // MOST_ENTRIES)
    looks = {}
    for rank, value in enumerate(ranks):
        shade = shades(0.88 * rank / max(1, len(ranks) - 1))
        looks[value] = (colors.to_hex(shade), "" if rank % step else f"{value:g}")
    return [looks[value] for value in values]


def _end(steps: np.ndarray, values: np.ndarray) -> tuple[float, float] | None:
    """Returns the last finite point of a curve."""
    finite = np.flatnonzero(np.isfinite(values))
    return (steps[finite[-1]], values[finite[-1]]) if len(finite) else None


def _median_curve(
    series: Sequence[tuple[np.ndarray, np.ndarray]],
) -> tuple[np.ndarray, np.ndarray]:
    """Returns the median of several curves at the steps that all of them have."""
    known = [
        {step: value for step, value in zip(*each, strict=True) if np.isfinite(value)}
        for each in series
    ]
    steps = sorted(set.intersection(*map(set, known)))
    medians = [np.median([each[step] for each in known]) for step in steps]
    return np.array(steps), np.array(medians)


def _evenly_in_logarithm(values: Sequence[float]) -> bool:
    """Tells whether ascending values are spaced by factors, as learning rates are."""
    if len(values) < 3 or values[0] <= 0:
        return False
    plain, logarithms = np.diff(values), np.diff(np.log(values))
    return bool(np.std(logarithms) / logarithms.mean() < np.std(plain) / plain.mean())


def _legend_above(figure: Figure, axes: Axes, title: str | None, ncols: int) -> None:
    handles, labels = axes.get_legend_handles_labels()
    if labels:
        figure.legend(
            handles,
            labels,
            loc="outside upper left",
            title=title,
            title_fontsize=9,
            alignment="left",
            ncols=ncols,
            fontsize=9,
            handlelength=1.6,
        )


def _figure() -> tuple[Figure, Axes]:
    figure = Figure(figsize=SIZE, layout="constrained")
    return figure, figure.add_subplot()


def _curve(
    axes: Axes,
    steps: np.ndarray,
    values: np.ndarray,
    colour: str,
    label: str,
    **look: Any,
) -> None:
    """Draws one curve, with markers if it has few points."""
    marker = "o" if np.isfinite(values).sum() <= 25 else None
    look = {"color": colour, "marker": marker, "ms": 4, "clip_on": False, **look}
    axes.plot(steps, values, label=label, **look)
    axes.ticklabel_format(axis="x", style="plain", useOffset=False)
    axes.ticklabel_format(axis="y", useOffset=False)
    axes.locator_params(axis="x", integer=True)
    if len(steps) == 1:  # matplotlib would zoom into fractions of a step
        axes.set_xlim(0, 2 * max(int(steps[0]), 1))


def _series(
    history: Sequence[Mapping[str, Any]], split: str, key: str
) -> tuple[np.ndarray, np.ndarray]:
    """Returns steps and values of one metric; nan where a value is not finite."""
    rows = [
        (row["step"], row[key])
        for row in history
        if row.get("split") == split and key in row and "step" in row
    ]
    values = [float(v) if wording.is_number(v) else math.nan for _, v in rows]
    return np.array([step for step, _ in rows], float), np.array(values, float)


def _course(values: np.ndarray) -> str:
    """Describes the course of a curve."""
    finite = values[np.isfinite(values)]
    if not finite.size:
        return "no finite value"
    if finite.size == 1:
        return f"{finite[0]:.3f} at its only point"
    return f"from {finite[0]:.3f} to {finite[-1]:.3f} in {finite.size} points"


def _median(edges: np.ndarray, count: np.ndarray) -> float:
    middle = np.searchsorted(np.cumsum(count), count.sum() / 2)
    return float((edges[middle] + edges[middle + 1]) / 2)


def _encode(figure: Figure) -> str:
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None}, transparent=True)
    svg = buffer.getvalue().replace("'DejaVu Sans'", PAGE_FONT)
    code = base64.b64encode(svg.encode()).decode("ascii")
    return f"data:image/svg+xml;base64,{code}"
