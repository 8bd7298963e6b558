"""Counts of pixels on device, and the measures that follow from counts.

Two statistics are sufficient for a whole evaluation, so that no score map has to leave
the device: the confusion matrix of a prediction and, for two classes, the histogram of
the foreground score per class. The counts at every threshold follow from the histogram.
May import `labels`, `checks`, `errors` and `typing`.
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Float64, Int32, Integer, Real

from metaseg import checks
from metaseg import labels as labels_lib
from metaseg.errors import InputError
from metaseg.typing import AnyArray, Labels, Masks

__all__ = [
    "Counts",
    "auc",
    "best_threshold",
    "confusion_matrix",
    "counts_above",
    "from_confusion",
    "score_histogram",
]


def confusion_matrix(
    prediction: Labels | Masks, labels: Labels, num_classes: int
) -> Int32[jax.Array, "*batch K K"]:
    """Counts pixels by true and predicted class.

    Args:
      prediction: Integer or bool `[..., H, W]`, class ids; void pixels do not count.
      labels: Integer `[..., H, W]`; void (255 or negative) pixels do not count.
      num_classes: Number of classes K.

    Returns:
      int32 `[..., K, K]`; row = label, column = prediction.

    Raises:
      InputError: If shapes differ, or an array is no label map of K classes.
    """
    checks.num_classes("num_classes", num_classes)
    if prediction.dtype != bool:
        labels_lib.validate(prediction, num_classes, where="prediction")
    labels_lib.validate(labels, num_classes)
    checks.same_shape("prediction", prediction, labels.shape, "labels")
    label, guess = _flat(jnp.asarray(labels)), _flat(jnp.asarray(prediction))
    void = labels_lib.is_void(label, num_classes)
    void |= labels_lib.is_void(guess, num_classes)
    cell = label.astype(jnp.int32) * num_classes + guess.astype(jnp.int32)
    count = _histogram(jnp.where(void, num_classes**2, cell), num_classes**2)
    return count.reshape(*labels.shape[:-2], num_classes, num_classes)


def _flat(maps: jax.Array) -> jax.Array:
    """Reshapes `[..., H, W]` to `[N, H * W]`, where N may be 0."""
    return maps.reshape(math.prod(maps.shape[:-2]), math.prod(maps.shape[-2:]))


def _histogram(cell: jax.Array, size: int) -> jax.Array:
    """Counts cells `[N, pixels]`, int32 `[N, size]`; cell `size` is void."""
    count = jax.vmap(lambda c: jnp.bincount(c, length=size + 1))(cell)
    return count[:, :-1].astype(jnp.int32)


def score_histogram(
    scores: Float[AnyArray, "*batch H W"], labels: Labels, *, num_bins: int
) -> Int32[jax.Array, "*batch 2 bins"]:
    """Computes the histogram of the foreground score for each of the two classes.

    Args:
      scores: Float `[..., H, W]` in [0, 1].
      labels: Integer `[..., H, W]` of 0 and 1; void (255 or negative) pixels do not
        count.
      num_bins: Number of equal bins on [0, 1]; bin i holds `[i, i + 1) / num_bins`, and
        the last one holds 1 too.

    Returns:
      int32 `[..., 2, num_bins]`.

    Raises:
      InputError: If shapes differ, or `labels` is no label map of two classes.
    """
    labels_lib.validate(labels, 2)
    checks.same_shape("scores", scores, labels.shape, "labels")
    checks.integer("num_bins", num_bins, 1)
    label, score = _flat(jnp.asarray(labels)), _flat(jnp.asarray(scores))
    cell = jnp.clip((score * num_bins).astype(jnp.int32), 0, num_bins - 1)
    cell += label.astype(jnp.int32) * num_bins
    cell = jnp.where(labels_lib.is_void(label, 2), 2 * num_bins, cell)
    count = _histogram(cell, 2 * num_bins)
    return count.reshape(*labels.shape[:-2], 2, num_bins)


class Counts(NamedTuple):
    """Numbers of pixels by outcome, arrays of one shape.

    Attributes:
      tp: Foreground pixels predicted as foreground.
      fp: Background pixels predicted as foreground.
      fn: Foreground pixels predicted as background.
      tn: Background pixels predicted as background.
    """

    tp: np.ndarray
    fp: np.ndarray
    fn: np.ndarray
    tn: np.ndarray

    def inverted(self) -> "Counts":
        """Returns the counts for the opposite of every prediction."""
        return Counts(tp=self.fn, fp=self.tn, fn=self.tp, tn=self.fp)

    def matrix(self) -> np.ndarray:
        """Returns the counts as confusion matrices `[..., 2, 2]`."""
        rows = ((self.tn, self.fp), (self.fn, self.tp))
        return np.stack([np.stack(row, axis=-1) for row in rows], axis=-2)


def counts_above(histogram: Integer[AnyArray, "*batch 2 bins"]) -> Counts:
    """Counts outcomes where the foreground is `score >= i / num_bins`, for every i.

    Args:
      histogram: Integer `[..., 2, num_bins]`, of `score_histogram`.

    Returns:
      int64 counts `[..., num_bins + 1]`. At the first threshold all pixels are
      foreground, at the last one none; a score of 1 lies in the last bin.

    Raises:
      InputError: If `histogram` is not `[..., 2, num_bins]`.
    """
    histogram = _two_rows(histogram).astype(np.int64)
    zero = np.zeros((*histogram.shape[:-1], 1), np.int64)
    below = np.concatenate([zero, np.cumsum(histogram, axis=-1)], axis=-1)
    above = below[..., -1:] - below
    return Counts(
        tp=above[..., 1, :],
        fp=above[..., 0, :],
        fn=below[..., 1, :],
        tn=below[..., 0, :],
    )


def _two_rows(histogram: AnyArray, *, batched: bool = True) -> np.ndarray:
    """Checks a histogram `[2, num_bins]`, or `[..., 2, num_bins]`."""
    rows = np.asarray(histogram)
    if rows.shape[-2:-1] != (2,) or not (batched or rows.ndim == 2):
        axes = "..., 2, num_bins" if batched else "2, num_bins"
        raise InputError(f"histogram: got shape {rows.shape}, expected [{axes}]")
    return rows


def _ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """Returns `part / whole`, NaN where `whole` is 0."""
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(whole > 0, part / np.maximum(whole, 1), np.nan)


def best_threshold(histogram: Integer[AnyArray, "2 bins"]) -> tuple[float, bool]:
    """Finds the threshold with the highest IoU over the pooled pixels.

    Args:
      histogram: Integer `[2, num_bins]`, of `score_histogram`, summed over the images.

    Returns:
      `(threshold, inverted)`: the foreground is `score >= threshold`, or
      `score < threshold` if inverted scores reach a higher IoU. Of several best
      thresholds, the middle one. It is below 1, where no score lies above.

    Raises:
      InputError: If `histogram` is not `[2, num_bins]`.
    """
    num_bins = _two_rows(histogram, batched=False).shape[-1]
    counts = counts_above(histogram)

    def iou(c: Counts) -> np.ndarray:
        return np.nan_to_num(_ratio(c.tp, c.tp + c.fp + c.fn))

    above, below = iou(counts), iou(counts.inverted())
    inverted = bool(below.max() > above.max())
    chosen = below if inverted else above
    best = np.flatnonzero(chosen == chosen.max())
    return float(best[len(best) // 2]) / num_bins, inverted


def auc(histogram: Integer[AnyArray, "2 bins"]) -> float:
    """Computes the area under the ROC curve; scores within one bin count as ties.

    The area is the probability that the score of a foreground pixel is higher than that
    of a background pixel.

    Args:
      histogram: Integer `[2, num_bins]`, of `score_histogram`, summed over the images.

    Returns:
      The area; NaN if one of the classes is absent.

    Raises:
      InputError: If `histogram` is not `[2, num_bins]`.
    """
    rows = _two_rows(histogram, batched=False)
    background, foreground = rows.astype(np.float64)
    pairs = background.sum() * foreground.sum()
    if pairs == 0:
        return float("nan")
    below = np.cumsum(background) - background
    return float(np.sum(foreground * (below + 0.5 * background)) / pairs)


def from_confusion(
    matrix: Real[AnyArray, "*batch K K"],
) -> dict[str, Float64[np.ndarray, "..."]]:
    """Computes per-class and overall measures from confusion matrices.

    Args:
      matrix: Counts `[..., K, K]`; row = label, column = prediction.

    Returns:
      float64 `iou`, `dice`, `precision` and `recall`, each `[..., K]`, and `accuracy`
      `[...]`. A class that is in neither label nor prediction is NaN, so that a mean
      over the classes can leave it out.

    Raises:
      InputError: If `matrix` is not `[..., K, K]`.

    Example:
      >>> from_confusion(np.array([[6, 2], [0, 2]]))["iou"]
      array([0.75, 0.5 ])
    """
    matrix = np.asarray(matrix, np.float64)
    if matrix.ndim < 2 or matrix.shape[-1] != matrix.shape[-2]:
        raise InputError(f"matrix: got shape {matrix.shape}, expected [..., K, K]")
    hit = np.diagonal(matrix, axis1=-2, axis2=-1)
    labelled, predicted = matrix.sum(axis=-1), matrix.sum(axis=-2)
    return {
        "iou": _ratio(hit, labelled + predicted - hit),
        "dice": _ratio(2 * hit, labelled + predicted),
        "precision": _ratio(hit, predicted),
        "recall": _ratio(hit, labelled),
        "accuracy": _ratio(hit.sum(axis=-1), matrix.sum(axis=(-2, -1))),
    }
