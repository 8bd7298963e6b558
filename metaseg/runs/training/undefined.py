"""Why a number of `results.json` is null, in a sentence beside it.

`results["why_null"]` has a reason for each null by its path, such as `"test.auc"` or
`"test.class_iou.analytic.3"`.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from metaseg.runs.labelled import SplitLabels

__all__ = ["measure_reason", "reasons"]

SPLITS = {"test": "test", "validation": "val"}
TUNED = {
    "validation": "val",
    "oracle": "test",
}  # rules and the split of their threshold


def reasons(
    results: Mapping[str, Any], labels: Mapping[str, SplitLabels], undecided: str
) -> dict[str, str]:
    """Returns a reason for each null among the measures of a run.

    Args:
      results: Content of `results.json`, in plain values.
      labels: Labels of the splits by name.
      undecided: Why the validations choose no step, if they choose none.

    Returns:
      Reasons by path; empty if no measure is null.
    """
    found = {}
    for section, split in SPLITS.items():
        for path in _nulls(results[section]):
            reason = measure_reason(labels[split], *path)
            if (rule := path[1] if len(path) > 1 else "") in TUNED:
                lack = labels[TUNED[rule]].lack()
                reason = lack if lack and labels[split].labelled else reason
            found[".".join((section, *path))] = reason
    for rule, value in results.get("thresholds", {}).items():
        if value is None:
            found[f"thresholds.{rule}"] = labels[TUNED[rule]].lack()
    best = results["best"]
    for name in ("step", "iou", "miou"):
        if name in best and best[name] is None:
            found[f"best.{name}"] = undecided
    return found


def _nulls(value: Any, path: Sequence[str] = ()) -> Iterator[tuple[str, ...]]:
    if value is None:
        yield tuple(path)
    elif isinstance(value, Mapping):
        for name, each in value.items():
            yield from _nulls(each, (*path, name))
    elif isinstance(value, list):
        for i, each in enumerate(value):
            yield from _nulls(each, (*path, str(i)))


def measure_reason(
    labels: SplitLabels, name: str, rule: str = "", index: str = ""
) -> str:
    """Says why a measure of a split is undefined.

    Args:
      labels: Labels of the split.
      name: Name of the measure.
      rule: Decision rule, if the measure has one.
      index: Class, of a measure of each class.

    Returns:
      The reason.
    """
    del rule
    binary = len(labels.pixels) == 2
    if not labels.labelled or name == "auc":
        return labels.lack() or "a class has no pixel"
    if index:
        return f"class {index} is in no {labels.split} label and not predicted"
    if name == "recall" and binary:
        return labels.lack() or "no label is foreground"
    if name == "precision" and binary:
        return "no pixel is predicted as foreground"
    if binary:
        return f"no pixel is foreground, in the {labels.split} labels or predicted"
    return f"no class has a pixel in the {labels.split} labels"
