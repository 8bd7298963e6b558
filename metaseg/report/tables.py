"""Results -> rows of tables, as text. The templates define the layout."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from metaseg.report import wording

__all__ = [
    "ClassTable",
    "MatrixTable",
    "RuleTable",
    "class_table",
    "flatten",
    "matrix_table",
    "rule_table",
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
class RuleTable:
    """Metrics of the decision rules on one split.

    Attributes:
      columns: Keys of the decision rules.
      rows: Name of each metric, and its value for each decision rule.
      auc: Area under the ROC curve; empty if unknown.
      thresholds: Threshold of each decision rule and whether it is inverted; may be
        empty.
    """

    columns: list[str]
    rows: list[tuple[str, list[str]]]
    auc: str
    thresholds: list[tuple[str, bool]]


@dataclasses.dataclass(frozen=True)
class ClassTable:
    """IoU of each class.

    Attributes:
      columns: Keys of the decision rules.
      rows: For each class its name, and its IoU for each decision rule as text and as a
        number in [0, 1].
    """

    columns: list[str]
    rows: list[tuple[str, list[tuple[str, float]]]]


@dataclasses.dataclass(frozen=True)
class MatrixTable:
    """A noise transition matrix.

    Attributes:
      names: K class names.
      rows: K rows of K entries, each as text and as a number in [0, 1].
      remark: Sentence about the rank.
    """

    names: list[str]
    rows: list[list[tuple[str, float]]]
    remark: str


def rule_table(
    metrics: Mapping[str, Any], thresholds: Mapping[str, Any]
) -> RuleTable | None:
    """Makes the table of the metrics of each decision rule.

    Args:
      metrics: "test" or "validation" of results.json.
      thresholds: "thresholds" of results.json; may be empty.

    Returns:
      The table, or None if there are no such metrics.
    """
    found = {k: metrics[k] for k in METRICS if isinstance(metrics.get(k), Mapping)}
    columns = [r for r in wording.DECISION_RULES if any(r in v for v in found.values())]
    if not columns:
        return None
    rows = [
        (METRICS[key], [wording.number(values.get(r)) for r in columns])
        for key, values in found.items()
    ]
    inverted = thresholds.get("inverted")
    inverted = inverted if isinstance(inverted, Mapping) else {}
    listed = [
        (wording.number(thresholds.get(r)), bool(inverted.get(r))) for r in columns
    ]
    known = any(wording.is_number(thresholds.get(r)) for r in columns)
    auc = wording.number(metrics["auc"]) if "auc" in metrics else ""
    return RuleTable(columns, rows, auc, listed if known else [])


def class_table(class_iou: Any, names: Sequence[str]) -> ClassTable | None:
    """Makes the table of the IoU of each class.

    Args:
      class_iou: K numbers for each decision rule.
      names: K class names.

    Returns:
      The table of the decision rules with K numbers, or None if there is none.
    """
    if not isinstance(class_iou, Mapping):
        return None
    columns = [
        rule
        for rule in wording.DECISION_RULES
        if len(class_iou.get(rule) or ()) == len(names)
    ]
    rows = [
        (name, [_cell(class_iou[rule][index]) for rule in columns])
        for index, name in enumerate(names)
    ]
    return ClassTable(columns, rows) if columns else None


def matrix_table(matrix: Any, names: Sequence[str]) -> MatrixTable | None:
    """Makes the table of a noise transition matrix.

    Args:
      matrix: `[K, K]`, rows clean and columns noisy classes; or None.
      names: K class names.

    Returns:
      The table, or None if the matrix is not K x K finite numbers.
    """
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
    """Lists the phases of a run with their durations.

    Args:
      time: "time" of results.json.

    Returns:
      Pairs of name and duration.
    """
    return [(TIMES[k], wording.duration(time[k])) for k in TIMES if k in time]


def flatten(tree: Mapping[str, Any], *, prefix: str = "") -> list[tuple[str, str]]:
    """Flattens a nested dictionary.

    Args:
      tree: Nested dictionary.
      prefix: Prefix of all keys.

    Returns:
      Pairs of key and value, in the order of the dictionary.

    Example:
      >>> flatten({"noise": {"name": "flip", "rate": 0.4}, "seed": 0})
      [('noise.name', 'flip'), ('noise.rate', '0.4'), ('seed', '0')]
    """
    rows: list[tuple[str, str]] = []
    for key, value in tree.items():
        path = f"{prefix}{key}"
        if isinstance(value, Mapping) and value:
            rows += flatten(value, prefix=f"{path}.")
        else:
            rows.append((path, str(value)))
    return rows


def _cell(value: Any) -> tuple[str, float]:
    share = float(value) if wording.is_number(value) else 0.0
    return wording.number(value), min(max(share, 0.0), 1.0)
