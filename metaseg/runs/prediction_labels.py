"""Predicted against true label maps: what a map says is true, and measures."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Int64, UInt8

from metaseg import decoding, files, instances
from metaseg.data import file_options, label_files
from metaseg.data.collect import Item
from metaseg.data.file_options import LABEL_FIELDS, FileOptions
from metaseg.data.label_files import StoredLabels
from metaseg.errors import InputError
from metaseg.prediction import Predictor

__all__ = ["compared", "confusion", "measures", "of_run", "recognise", "why_null"]

_SLAB = 1 << 22  # pixels that are compared with labels at a time
_LISTED = 6  # values that a message lists
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


def of_run(options: FileOptions, predictor: Predictor) -> FileOptions:
    """Returns options that read label maps as those of a run were read.

    Args:
      options: What the user gave.
      predictor: The run.

    Returns:
      The options of the run where the user has not said what label values mean.
    """
    if file_options.changed(options).keys() & {*LABEL_FIELDS}:
        return options
    return options._replace(**{f: getattr(predictor.files, f) for f in LABEL_FIELDS})


def recognise(
    items: Sequence[Item],
    given: FileOptions,
    of_run: FileOptions,
    *,
    num_classes: int,
) -> StoredLabels:
    """Finds how true label maps are stored: like those of the run, or as they look.

    Args:
      items: The label maps.
      given: What the user gave.
      of_run: The same, with the options of the run where the user gave none.
      num_classes: Number of classes of the run.

    Returns:
      How the maps are stored.

    Raises:
      InputError: If it is not clear what values mean: also if the options of the run
        give other class ids than what the maps look like.
    """

    def read_as(options: FileOptions) -> StoredLabels:
        return label_files.recognise(
            items, options=options, num_classes=num_classes, fixed_classes=True
        )

    if given == of_run:
        return read_as(given)
    try:
        known = read_as(of_run)
    except InputError:
        return read_as(given)
    try:
        plain = read_as(given)
    except InputError:
        return known
    _check_same(items, known, plain, file_options.changed(of_run))
    return known


def _check_same(
    items: Iterable[Item],
    known: StoredLabels,
    plain: StoredLabels,
    fields: Mapping[str, Any],
) -> None:
    """Refuses label maps to which the options of the run give other class ids."""
    where, ids = "", dict[float, int]()
    for item in items:
        try:
            (first, _), (second, _) = (
                label_files.read(item, x) for x in (known, plain)
            )
            values = label_files.read_values(item, options=plain.options)
        except InputError:  # reported where the map is measured
            continue
        if not where and not np.array_equal(first, second):
            where = item.where
        found, places = np.unique(values, return_index=True)
        ids |= zip(found.tolist(), second.reshape(-1)[places].tolist(), strict=True)
    if not where:
        return
    texts = [(f, fields[f]) for f in LABEL_FIELDS if f in fields]
    cure = " with ".join(
        f"`{field}='{value}'`" if isinstance(value, str) else f"`{field}={value}`"
        for field, value in texts
    )
    listed = ",".join(f"{value:g}={i}" for value, i in sorted(ids.items()))
    shown = "" if len(ids) > _LISTED else f", or `label_values='{listed}'`, as it looks"
    raise InputError(
        f"{where}: the options for label maps of the run give other class ids than"
        f" none; expected {cure}, as in training{shown}"
    )


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
