"""Predicted against true label maps: what a map says is true, and measures."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Int64, UInt8

from metaseg import decoding, files, instances
from metaseg.data import label_files
from metaseg.data.collect import Item
from metaseg.data.label_files import StoredLabels
from metaseg.errors import InputError

__all__ = ["compared", "confusion", "measures", "why_null"]

_SLAB = 1 << 22  # pixels that are compared with labels at a time
_NO_OBJECT = "there is no object, true or predicted"
_NO_MATCH = "no predicted object matches a true one"
_NO_PIXEL = "there is no labelled pixel"
_NO_FOREGROUND = "no pixel is foreground, labelled or predicted"
_PIXEL_REASONS = {
    "iou": _NO_FOREGROUND,
    "dice": _NO_FOREGROUND,
    "mean_image_iou": _NO_FOREGROUND,
    "mean_image_dice": _NO_FOREGROUND,
    "precision": "no pixel is predicted as foreground",
    "recall": "no pixel is labelled as foreground",
}


def compared(
    labels: np.ndarray,
    truth: Item,
    num_classes: int,
    stored: StoredLabels,
    objects: Callable[[], np.ndarray] | None = None,
) -> dict[str, Any]:
    """Compares a prediction with its true label map.

    Args:
      labels: Predicted class ids, uint8 `[H, W]`.
      truth: The true label map.
      num_classes: Number of classes K.
      stored: How true label maps are stored.
      objects: Returns the predicted instance map; None if the run has none.

    Returns:
      "confusion", int `[K, K]` as lists, and, if the true map has ids of objects,
      "object_counts", the fields of `instances.ObjectCounts`; or "label_error": what is
      wrong with the map.
    """
    try:
        true, ids = label_files.read(truth, stored)
    except InputError as error:
        return {"label_error": str(error)}
    if true.shape != labels.shape:
        (height, width), expected = true.shape, labels.shape
        return {
            "label_error": f"{truth.where}: {height} x {width}, expected"
            f" {expected[0]} x {expected[1]} as its image"
        }
    row = {"confusion": confusion(labels, true, num_classes).tolist()}
    if ids is not None and objects is not None:
        row["object_counts"] = files.plain(instances.count(ids, objects())._asdict())
    return row


def confusion(
    labels: UInt8[np.ndarray, "H W"], true: UInt8[np.ndarray, "H W"], num_classes: int
) -> Int64[np.ndarray, "K K"]:
    """Computes `metrics.confusion_matrix` on the host, a few rows at a time.

    Args:
      labels: Predicted class ids, uint8 `[H, W]`.
      true: True class ids, uint8 `[H, W]`; ids of K and more are not counted.
      num_classes: Number of classes K.

    Returns:
      int64 `[K, K]`.
    """
    cells = np.zeros(num_classes**2, np.int64)
    rows = max(1, _SLAB // labels.shape[1])
    for start in range(0, len(labels), rows):
        guess, truth = labels[start : start + rows], true[start : start + rows]
        known = truth < num_classes
        cell = truth[known].astype(np.int64) * num_classes + guess[known]
        cells += np.bincount(cell, minlength=len(cells))
    return cells.reshape(num_classes, num_classes)


def measures(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Measures images together.

    Args:
      rows: Rows of the journal that have a "confusion".

    Returns:
      As `decoding.measure`, and "objects" as `instances.measure` if rows have counts of
      objects.
    """
    found: dict[str, Any] = decoding.measure(
        np.array([row["confusion"] for row in rows])
    )
    counts = [_counts(row["object_counts"]) for row in rows if "object_counts" in row]
    return found | ({"objects": instances.measure(counts)} if counts else {})


def _counts(row: Mapping[str, Any]) -> instances.ObjectCounts:
    """Returns counts of objects from a row of the journal."""
    arrays = {name: np.array(row[name]) for name in ("matched", "unmatched", "iou_sum")}
    thresholds = tuple(row["thresholds"])
    return instances.ObjectCounts(**{**row, **arrays, "thresholds": thresholds})


def why_null(measures: Mapping[str, Any]) -> dict[str, str]:
    """Says why measures are undefined.

    Args:
      measures: Result of `measures`.

    Returns:
      A reason for each measure that is NaN, by its name; "objects.sq" is "sq" in
      "objects". Empty if there is none.
    """
    found = {}
    for name, value in measures.items():
        if name == "class_iou":
            for index, iou in enumerate(value):
                if math.isnan(iou):
                    found[f"class_iou.{index}"] = (
                        f"class {index} is in no label and not predicted"
                    )
        elif name != "objects" and math.isnan(value):
            found[name] = _PIXEL_REASONS.get(name, _NO_PIXEL)
    objects = measures.get("objects", {})
    for name in ("ap", "ap50", "ap75", "pq", "rq", "sq", "mean_image_ap"):
        if name in objects and math.isnan(objects[name]):
            some = objects["true_objects"] or objects["predicted_objects"]
            found[f"objects.{name}"] = _NO_MATCH if some else _NO_OBJECT
    if "objects.ap" in found:
        found["objects.curve"] = _NO_OBJECT
    return found
