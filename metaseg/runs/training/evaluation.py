"""Evaluation of every member of a run, and the choice of the weights that it ships."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import numpy as np

from metaseg import checkpoint, decoding, training
from metaseg.data.dataset import VOID, Examples, Split
from metaseg.data.pipeline import InOrder
from metaseg.runs.training.steps import Programs

__all__ = [
    "Choice",
    "best_of",
    "choose",
    "evaluate",
    "evaluate_as_predicted",
    "measure_of",
    "undecided",
    "validate",
    "validation_scores",
]


class Choice(NamedTuple):
    """The weights that a run measures, predicts with and exports.

    Attributes:
      rule: "last" or "best".
      step: Number of steps that they were trained for.
      note: Why "best" took the last weights; else empty.
    """

    rule: str
    step: int
    note: str = ""

    def plain(self) -> dict[str, Any]:
        """Returns the fields as `results.json` holds them, and a description."""
        best = self.rule == "best" and not self.note
        described = f"step {self.step}, {'the best validated' if best else 'the last'}"
        found = {"rule": self.rule, "step": self.step, "described": described}
        return found | ({"note": self.note} if self.note else {})


def evaluate(
    programs: Programs, state: Any, batches: InOrder, count: int, *, keep: int = 0
) -> list[tuple[training.Evaluation, np.ndarray | None]]:
    """Evaluates a split with each member.

    Args:
      programs: Compiled steps.
      state: Train state.
      batches: The split.
      count: Number of examples in the split.
      keep: Number of leading examples whose probabilities are kept.

    Returns:
      For each member the statistics of all examples, and class probabilities
      `[keep, H, W, K]` or None.
    """
    layout = programs.layout
    found, kept = training.evaluate(
        partial(programs.evaluate, programs.settings),
        state,
        batches,
        count,
        keep=keep,
        axis=0 if layout.members == 1 else 1,
        to_host=layout.to_host,
    )
    if layout.members == 1:
        return [(found, kept)]
    return [
        (
            jax.tree.map(lambda x, i=i: x[i], found),
            None if kept is None else kept[i],
        )
        for i in range(layout.members)
    ]


def evaluate_as_predicted(
    programs: Programs,
    state: Any,
    split: Examples,
    *,
    in_order: Callable[[Examples], InOrder],
    grain: int,
    compiled: dict[tuple[int, int], Any],
    keep: int = 0,
) -> list[tuple[training.Evaluation, np.ndarray | None]]:
    """Evaluates a split whose images are extended as prediction extends them.

    Prediction repeats the edge of each image up to multiples of `grain`. Images of one
    size are evaluated together, by a program for this size.

    Args:
      programs: Compiled steps.
      state: Train state.
      split: The split.
      in_order: Returns examples in batches.
      grain: Sides are extended to multiples of it, in pixels.
      compiled: Programs by size, which it adds to.
      keep: As for `evaluate`.

    Returns:
      As `evaluate`, in the order of the split.
    """
    sizes = -(-split.valid_size // grain) * grain
    groups = {(int(h), int(w)) for h, w in np.unique(sizes, axis=0)}
    common: Any = split.shape[:2]
    if groups <= {common}:
        return evaluate(programs, state, in_order(split), len(split), keep=keep)
    every, found = [], []
    for size in sorted(groups):
        rows = np.flatnonzero((sizes == size).all(axis=1))
        extended: Examples = _Extended(split, rows, size)
        if isinstance(split, Split):
            extended = extended.take(np.arange(len(rows)))
        batches = in_order(extended)
        if size not in compiled:
            compiled[size] = programs.compile_evaluate(state, next(iter(batches)))
        kept = int((rows < keep).sum())
        every.append(rows)
        found.append(
            evaluate(
                programs._replace(evaluate=compiled[size]),
                state,
                batches,
                len(rows),
                keep=kept,
            )
        )
    order = np.argsort(np.concatenate(every))
    joined = []
    for parts in zip(*found, strict=True):
        values = jax.tree.map(
            lambda *x: np.concatenate(x)[order], *(part for part, _ in parts)
        )
        kept_parts = [probability for _, probability in parts]
        joined.append((values, _in_frame(every, kept_parts, common, keep)))
    return joined


def _in_frame(
    every: Sequence[np.ndarray],
    parts: Sequence[np.ndarray | None],
    size: tuple[int, int],
    keep: int,
) -> np.ndarray | None:
    """Puts probabilities of images of several sizes into `[keep, H, W, K]`."""
    known = [part for part in parts if part is not None]
    if not known:
        return None
    joined = np.zeros((keep, *size, known[0].shape[-1]), known[0].dtype)
    for rows, part in zip(every, parts, strict=True):
        for row, image in zip(rows, () if part is None else part, strict=False):
            height, width = np.minimum(image.shape[:2], size)
            joined[row, :height, :width] = image[:height, :width]
    return joined


class _Extended:
    """Some examples, whose edges are repeated up to one size."""

    def __init__(
        self, split: Examples, rows: np.ndarray, size: tuple[int, int]
    ) -> None:
        self._split, self._rows = split, rows
        self.shape = (*size, split.shape[-1])
        self.ids, self.valid_size = split.ids[rows], split.valid_size[rows]
        self.names = tuple(split.names[row] for row in rows)

    def __len__(self) -> int:
        return len(self._rows)

    def take(self, rows: Sequence[int] | np.ndarray) -> Split:
        """Returns the examples of some rows."""
        taken = self._split.take(self._rows[np.asarray(rows)])
        images = np.zeros((len(taken), *self.shape), np.float32)
        labels = np.full(images.shape[:3], VOID, np.uint8)
        for i, (height, width) in enumerate(taken.valid_size):
            missing = [(0, self.shape[0] - height), (0, self.shape[1] - width), (0, 0)]
            image = taken.images[i, :height, :width]
            images[i] = np.pad(image, missing, mode="edge")
            labels[i, :height, :width] = taken.labels[i, :height, :width]
        return dataclasses.replace(taken, images=images, labels=labels)


def validate(
    programs: Programs, state: Any, batches: InOrder, count: int
) -> list[dict[str, float]]:
    """Measures each member on clean validation labels, by the noise-aware rule.

    Args:
      programs: Compiled steps.
      state: Train state.
      batches: The validation split.
      count: Number of examples in the split.

    Returns:
      For each member loss, IoU or mIoU, Dice and accuracy by name.
    """
    rows = []
    for found, _ in evaluate(programs, state, batches, count):
        values = decoding.measure(found.statistics.analytic)
        row = {"loss": float(np.mean(found.loss))}
        for name in ("iou", "miou", "dice", "accuracy"):
            if name in values:
                row[name] = float(values[name])  # type: ignore[arg-type]
        rows.append(row)
    return rows


def measure_of(values: Mapping[str, Any]) -> str:
    """Returns the name of the measure that runs are compared by.

    Args:
      values: Measures by name.
    """
    return "iou" if "iou" in values else "miou"


def validation_scores(
    histories: Sequence[Sequence[Mapping[str, Any]]], diverged: Sequence[int]
) -> dict[int, float]:
    """Returns the score of each validation by its step.

    Args:
      histories: Rows of metrics of each member.
      diverged: For each member the first step with a loss that is not finite, or 0;
        from there on its measures do not count.

    Returns:
      The mean measure of the members; NaN where it is undefined.
    """
    found: dict[int, list[float]] = {}
    for history, lost in zip(histories, diverged, strict=True):
        for row in history:
            if row["split"] != "val" or (lost and lost <= row["step"]):
                continue
            value = row[measure_of(row)]
            found.setdefault(row["step"], []).append(
                float("nan") if value is None else value
            )
    return {step: float(np.mean(values)) for step, values in found.items()}


def choose(
    rule: str, scores: Mapping[int, float], last: int, *, lack: str = ""
) -> Choice:
    """Chooses the weights of a run.

    Args:
      rule: One of `fields.WEIGHTS`.
      scores: Scores of the validations by their steps.
      last: Number of steps of the run.
      lack: What validation lacks to choose, of `SplitLabels.lack`; else empty.

    Returns:
      The choice. "best" takes the latest of equal scores, and the last weights if the
      scores choose nothing.
    """
    if rule == "last":
        return Choice(rule, last)
    best = None if lack else checkpoint.best_step(scores)
    if best is not None:
        return Choice(rule, best)
    reason = lack or undecided(scores)
    return Choice(rule, last, f"{reason}: the last weights are taken")


def undecided(scores: Mapping[int, float]) -> str:
    """Says why scores choose no step.

    Args:
      scores: Scores of the validations by their steps.

    Returns:
      The reason.
    """
    finite = {score for score in scores.values() if np.isfinite(score)}
    if not scores:
        return "there was no validation"
    if not finite:
        return "every validation score is undefined"
    return f"every validation score is {finite.pop():.4f}"


def best_of(history: Sequence[Mapping[str, Any]], *, lack: str = "") -> dict[str, Any]:
    """Returns step and measure of the best validation, the latest of equals.

    Args:
      history: Rows of metrics.
      lack: As for `choose`.

    Returns:
      "step" and the measure by its name; both None if the validations choose no step.
    """
    rows = {row["step"]: row for row in history if row["split"] == "val"}
    scores = validation_scores([history], [0])
    step = None if lack else checkpoint.best_step(scores)
    measure = measure_of(next(iter(rows.values()), {"iou": None}))
    if step is None:
        return {"step": None, measure: None}
    return {"step": step, measure: rows[step][measure]}
