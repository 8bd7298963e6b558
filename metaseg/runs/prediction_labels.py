"""Predicted against true label maps: what a map says is true, and measures."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Int64, UInt8

from metaseg import decoding
from metaseg.data import image_files, label_files
from metaseg.data.collect import Item
from metaseg.data.dataset import VOID
from metaseg.errors import InputError

__all__ = ["compared", "confusion", "measures"]

_SLAB = 1 << 22  # pixels that are compared with labels at a time


def compared(
    labels: np.ndarray,
    truth: Item,
    num_classes: int,
    values: Mapping[int, int] | None,
) -> dict[str, Any]:
    """Compares a prediction with its true label map.

    Args:
      labels: Predicted class ids, uint8 `[H, W]`.
      truth: The true label map.
      num_classes: Number of classes K.
      values: Class ids by stored value, or None.

    Returns:
      "confusion", int `[K, K]` as lists, or "label_error": what is wrong with the map.
    """
    try:
        true = _true_labels(truth, num_classes, values)
    except InputError as error:
        return {"label_error": str(error)}
    if true.shape != labels.shape:
        (height, width), expected = true.shape, labels.shape
        return {
            "label_error": f"{truth.where}: {height} x {width}, expected"
            f" {expected[0]} x {expected[1]} as its image"
        }
    return {"confusion": confusion(labels, true, num_classes).tolist()}


def _true_labels(
    truth: Item, num_classes: int, values: Mapping[int, int] | None
) -> np.ndarray:
    """Returns uint8 `[H, W]` class ids, 255 for void, of stored values."""
    stored = label_files.read_values(truth)
    if values is None:
        found = image_files.class_ids(stored, num_classes, where=truth.where)
        # Two classes may be stored as 0 and 255.
        return (found > 0).astype(np.uint8) if num_classes == 2 else found
    found = np.full(stored.shape, VOID, np.uint8)
    known = np.zeros(stored.shape, bool)
    ids = {i: i for i in range(num_classes)} | {VOID: VOID} | dict(values)
    for value, class_id in ids.items():
        same = stored == value
        found[same] = class_id
        known |= same
    if not known.all():
        wrong = ", ".join(map(str, np.unique(stored[~known])[:5]))
        raise InputError(
            f"{truth.where}: stored value {wrong} in {np.count_nonzero(~known)}"
            f" pixels; expected 0 to {num_classes - 1}, 255, or those of label_values"
        )
    return found


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
      As `decoding.measure`.
    """
    return decoding.measure(np.array([row["confusion"] for row in rows]))
