"""Evaluation of every member of a run, and the choice of the best validation."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import jax
import numpy as np

from metaseg import decoding, training
from metaseg.data.pipeline import InOrder
from metaseg.runs.training.steps import Programs

__all__ = ["best_of", "evaluate", "measure_of", "validate"]


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


def best_of(history: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Returns step and measure of the best validation, the first of equals.

    Args:
      history: Rows of metrics.
    """
    rows = [row for row in history if row["split"] == "val"]
    row = max(rows, key=lambda row: row[measure_of(row)] or 0.0)
    return {"step": row["step"], measure_of(row): row[measure_of(row)]}
