"""Results -> rows of the page's tables. Text only; the template lays it out."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from metaseg.report import wording

__all__ = [
    "ClassTable",
    "MatrixTable",
    "Readings",
    "class_table",
    "flatten",
    "matrix_table",
    "readings_table",
    "time_rows",
]

METRICS = {
    "iou": "IoU",
    "miou": "Mean IoU",
    "dice": "Dice",
    "accuracy": "Accuracy",
    "precision": "Precision",
    "recall": "Recall",
    "mean_image_iou": "Mean per-image IoU",
}
TIMES = {
    "setup_seconds": "Set-up",
    "compile_seconds": "Compilation",
    "train_seconds": "Training",
    "evaluate_seconds": "Evaluation",
    "total_seconds": "Total",
}


@dataclasses.dataclass(frozen=True)
class Readings:
    """The readings of one split side by side.

    Attributes:
      columns: Keys of the readings.
      rows: Name of each metric and its value per reading.
      auc: Area under the ROC curve; empty if not known.
      thresholds: Per reading its threshold and whether it is inverted; may be empty.
    """

    columns: list[str]
    rows: list[tuple[str, list[str]]]
    auc: str
    thresholds: list[tuple[str, bool]]


@dataclasses.dataclass(frozen=True)
class ClassTable:
    """IoU of each class.

    Attributes:
      columns: Keys of the readings.
      rows: By class id: name, and IoU per reading as text and as share in [0, 1].
    """

    columns: list[str]
    rows: list[tuple[str, list[tuple[str, float]]]]


@dataclasses.dataclass(frozen=True)
class MatrixTable:
    """A noise transition matrix: class names and, per row, text and share per cell."""

    names: list[str]
    rows: list[list[tuple[str, float]]]
    remark: str


def readings_table(
    metrics: Mapping[str, Any], thresholds: Mapping[str, Any]
) -> Readings | None:
    """Lays out the metrics of each reading.

    Args:
      metrics: "test" or "validation" of results.json.
      thresholds: "thresholds" of results.json; may be empty.

    Returns:
      The table, or None if there is no metric by reading.
    """
    found = {k: metrics[k] for k in METRICS if isinstance(metrics.get(k), Mapping)}
    columns = [r for r in wording.READINGS if any(r in v for v in found.values())]
    if not columns:
        return None
    rows = [
        (METRICS[key], [wording.number(values.get(r)) for r in columns])
        for key, values in found.items()
    ]
    inverted = thresholds.get("inverted")
    inverted = inverted if isinstance(inverted, Mapping) else {}
    cuts = [(wording.number(thresholds.get(r)), bool(inverted.get(r))) for r in columns]
    known = any(wording.is_number(thresholds.get(r)) for r in columns)
    auc = wording.number(metrics["auc"]) if "auc" in metrics else ""
    return Readings(columns, rows, auc, cuts if known else [])


def class_table(class_iou: Any, names: Sequence[str]) -> ClassTable | None:
    """Lays out the IoU of each class.

    Args:
      class_iou: List of K numbers per reading.
      names: K class names.

    Returns:
      The table, of the readings that have K entries; None if there are none.
    """
    if not isinstance(class_iou, Mapping):
        return None
    columns = [
        reading
        for reading in wording.READINGS
        if len(class_iou.get(reading) or ()) == len(names)
    ]
    rows = [
        (name, [_cell(class_iou[reading][index]) for reading in columns])
        for index, name in enumerate(names)
    ]
    return ClassTable(columns, rows) if columns else None


def matrix_table(matrix: Any, names: Sequence[str]) -> MatrixTable | None:
    """Lays out a noise transition matrix; None unless it is K x K numbers."""
    if matrix is None:
        return None
    try:
        values = np.asarray(matrix, float)
    except (TypeError, ValueError):
        return None
    if values.shape != (len(names), len(names)) or not np.isfinite(values).all():
        return None
    rows = [[(f"{cell:.2f}", float(cell)) for cell in row] for row in values]
    return MatrixTable(list(names), rows, wording.matrix_remark(values))


def time_rows(time: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Lists the phases of a run and how long each took."""
    return [(TIMES[k], wording.duration(time[k])) for k in TIMES if k in time]


def flatten(tree: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """Lists a nested dictionary as `a.b.c` and value, in the dictionary's order."""
    rows: list[tuple[str, str]] = []
    for key, value in tree.items():
        path = f"{prefix}{key}"
        if isinstance(value, Mapping) and value:
            rows += flatten(value, f"{path}.")
        else:
            rows.append((path, str(value)))
    return rows


def _cell(value: Any) -> tuple[str, float]:
    share = float(value) if wording.is_number(value) else 0.0
    return wording.number(value), min(max(share, 0.0), 1.0)
