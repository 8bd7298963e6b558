"""report.html of a training run: metrics, learning curves, label noise, test images."""

import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from metaseg import files
from metaseg.report import figures, pictures, tables, template, wording
from metaseg.report.panels import VOID, Panel, check_panel, worst_first

__all__ = ["write_run"]

TEMPLATE = "run.html.jinja"


def write_run(
    path: str | os.PathLike[str],
    *,
    title: str,
    config: Mapping[str, Any],
    environment: Mapping[str, Any],
    history: Sequence[Mapping[str, Any]],
    results: Mapping[str, Any],
    panels: Sequence[Panel],
    num_classes: int,
) -> None:
    """Writes the page of a training run as one self-contained HTML file.

    The write is atomic: if it fails, an older file at `path` is kept.

    Args:
      path: File to write. Its folder is created if it does not exist.
      title: Heading of the page.
      config: Resolved configuration: nested dictionaries of plain values.
      environment: Versions, devices and so on: nested dictionaries of plain values.
      history: Rows of metrics.jsonl: "step", "split" ("train" or "val") and metrics.
      results: Contents of results.json. Missing fields are left out; None and nan
        become a dash.
      panels: Test images, in any order.
      num_classes: Number of classes K.

    Raises:
      ValueError: If the shapes of the arrays of a panel differ, or a label map contains
        an id that is no class.
    """
    for panel in panels:
        check_panel(panel, num_classes)
    text = template.render(
        TEMPLATE,
        title=title,
        summary=wording.summary(results),
        facts=wording.facts(results),
        warnings=results.get("warnings") or [],
        rule_names=wording.DECISION_RULES,
        rule_notes=wording.RULE_NOTES,
        colours=_legend(num_classes),
        curves=figures.learning_curves(history),
        config=tables.flatten(config),
        environment=tables.flatten(environment),
        panels=_panels(panels, num_classes),
        labelled=_labelled(panels),
        spread=_spread(panels),
        num_classes=num_classes,
        overlap="IoU" if num_classes == 2 else "mIoU",
        **_results(results, num_classes),
    )
    files.write_text(path, text)


def _results(results: Mapping[str, Any], num_classes: int) -> dict[str, Any]:
    """Prepares the parts of the page that depend on results.json alone."""
    parts = {
        key: value if isinstance(value := results.get(key), Mapping) else {}
        for key in ("noise", "data", "thresholds", "validation", "test", "time")
    }
    names = _class_names(parts["data"].get("class_names"), num_classes)
    test = tables.rule_table(parts["test"], parts["thresholds"])
    histogram = results.get("score_histogram")
    noise = parts["noise"]
    return {
        "class_names": names,
        "test": test,
        "validation": tables.rule_table(parts["validation"], {}),
        "class_iou": tables.class_table(parts["test"].get("class_iou"), names),
        "histogram": figures.score_histogram(histogram, parts["thresholds"])
        if isinstance(histogram, Mapping)
        else None,
        "noise": wording.noise_phrase({**noise, "changed_pixels": None})
        if noise
        else "",
        "changed": wording.percent(noise["changed_pixels"])
        if wording.is_number(noise.get("changed_pixels"))
        else "",
        "matrix": tables.matrix_table(noise.get("matrix"), names),
        "command": results.get("command") or "",
        "times": tables.time_rows(parts["time"]),
    }


def _class_names(names: Any, num_classes: int) -> list[str]:
    if isinstance(names, Sequence) and len(names) == num_classes:
        return [str(name) for name in names]
    if num_classes == 2:
        return ["background", "foreground"]
    return [f"class {index}" for index in range(num_classes)]


def _legend(num_classes: int) -> dict[str, Any]:
    errors = pictures.ERROR_COLOURS[num_classes == 2]
    if num_classes == 2:
        names = [
            "true negative",
            "true positive",
            "false positive: predicted, but not present",
            "false negative: present, but not predicted",
        ]
    else:
        names = ["right", "wrong"]
    return {
        "classes": pictures.class_colours(num_classes),
        "errors": list(zip(names, errors, strict=True)),
        "void": pictures.VOID_COLOUR,
        "score": pictures.score_colours()[:: pictures.SCORE_LEVELS // 10],
    }


def _labelled(panels: Sequence[Panel]) -> bool:
    """Returns whether a test image has a labelled pixel."""
    return any((panel.clean != VOID).any() for panel in panels)


def _panels(panels: Sequence[Panel], num_classes: int) -> list[dict[str, Any]]:
    """Prepares the pictures of the test images, those of labels where there are any."""
    labelled = _labelled(panels)
    return [_panel(panel, num_classes, labelled) for panel in worst_first(panels)]


def _panel(panel: Panel, num_classes: int, labelled: bool) -> dict[str, Any]:
    """Prepares the pictures of one test image."""
    drawn = [("Image", pictures.image_picture(panel.image))]
    if labelled:
        drawn += [
            ("Clean label", pictures.label_picture(panel.clean, num_classes)),
            ("Noisy label", pictures.label_picture(panel.noisy, num_classes)),
        ]
    drawn += [
        ("Score", pictures.score_picture(panel.score)),
        ("Prediction", pictures.label_picture(panel.prediction, num_classes)),
    ]
    if labelled:
        errors = pictures.error_picture(panel.clean, panel.prediction, num_classes)
        drawn.append(("Errors", errors))
    return {"name": panel.name, "iou": wording.number(panel.iou), "pictures": drawn}


def _spread(panels: Sequence[Panel]) -> str:
    """Describes the range of the IoU over the images."""
    ious = np.array([panel.iou for panel in panels], float)
    finite = ious[np.isfinite(ious)]
    if len(finite) < 2:
        return ""
    low, middle, high = np.quantile(finite, [0, 0.5, 1])
    return f"ranges from {low:.2f} to {high:.2f} with median {middle:.2f}"
