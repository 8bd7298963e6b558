"""Counts on device, and the measures that follow from counts.

Two sufficient statistics stand for a whole evaluation, so that no score map has to
leave the device: the confusion matrix of a prediction, and for two classes the
histogram of the foreground score per class, from which the counts at every threshold
follow. May import `labels` only.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from metaseg import labels as labels_lib

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
    prediction: jax.Array, labels: jax.Array, num_classes: int
) -> jax.Array:
    """Counts pixels by true and predicted class.

    Args:
      prediction: integer `[..., H, W]`, class ids.
      labels: integer `[..., H, W]`; void pixels do not count.
      num_classes: K.

    Returns:
      int32 `[..., K, K]`; row = label, column = prediction.
    """
    shape = labels.shape[:-2]
    label = labels.reshape(-1, labels.shape[-2] * labels.shape[-1])
    guess = prediction.reshape(label.shape).astype(jnp.int32)
    cell = label.astype(jnp.int32) * num_classes + guess
    cell = jnp.where(labels_lib.is_void(label), num_classes**2, cell)
    count = jax.vmap(lambda c: jnp.bincount(c, length=num_classes**2 + 1))(cell)
    return count[:, :-1].reshape(*shape, num_classes, num_classes).astype(jnp.int32)


def score_histogram(scores: jax.Array, labels: jax.Array, num_bins: int) -> jax.Array:
    """Histogram of the foreground score, for each of the two classes.

    Args:
      scores: float `[..., H, W]` in [0, 1].
      labels: integer `[..., H, W]` of 0 and 1; void pixels do not count.
      num_bins: number of equal bins on [0, 1]; bin i holds `[i, i + 1) / num_bins`.

    Returns:
      int32 `[..., 2, num_bins]`.
    """
    shape = labels.shape[:-2]
    label = labels.reshape(-1, labels.shape[-2] * labels.shape[-1]).astype(jnp.int32)
    score = scores.reshape(label.shape)
    cell = jnp.clip((score * num_bins).astype(jnp.int32), 0, num_bins - 1)
    cell = jnp.where(labels_lib.is_void(label), 2 * num_bins, label * num_bins + cell)
    count = jax.vmap(lambda c: jnp.bincount(c, length=2 * num_bins + 1))(cell)
    return count[:, :-1].reshape(*shape, 2, num_bins).astype(jnp.int32)


class Counts(NamedTuple):
    """Pixels by outcome, each an array of one shape."""

    tp: np.ndarray
    fp: np.ndarray
    fn: np.ndarray
    tn: np.ndarray

    def inverted(self) -> "Counts":
        """The counts when every prediction is turned round."""
        return Counts(tp=self.fn, fp=self.tn, fn=self.tp, tn=self.fp)

    def matrix(self) -> np.ndarray:
        """The same as confusion matrices `[..., 2, 2]`."""
        rows = ((self.tn, self.fp), (self.fn, self.tp))
        return np.stack([np.stack(row, axis=-1) for row in rows], axis=-2)


def counts_above(histogram: np.ndarray) -> Counts:
    """Outcomes when the foreground is `score >= i / num_bins`, for every i.

    Args:
      histogram: `[..., 2, num_bins]` of `score_histogram`.

    Returns:
      int64 counts `[..., num_bins + 1]`; the first cut takes all, the last none.
    """
    histogram = np.asarray(histogram, np.int64)
    zero = np.zeros((*histogram.shape[:-1], 1), np.int64)
    below = np.concatenate([zero, np.cumsum(histogram, axis=-1)], axis=-1)
    above = below[..., -1:] - below
    return Counts(
        tp=above[..., 1, :],
        fp=above[..., 0, :],
        fn=below[..., 1, :],
        tn=below[..., 0, :],
    )


def _ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """`part / whole`, NaN where there is nothing to divide by."""
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(whole > 0, part / np.maximum(whole, 1), np.nan)


def best_threshold(histogram: np.ndarray) -> tuple[float, bool]:
    """The cut with the highest IoU over the pooled pixels, scores also turned round.

    Args:
      histogram: `[2, num_bins]`, pooled.

    Returns:
      `(threshold, inverted)`: foreground is `score >= threshold`, or, inverted,
      `score < threshold`. Where several cuts are equally good, the middle one.
    """
    counts = counts_above(histogram)
    num_bins = histogram.shape[-1]

    def iou(c: Counts) -> np.ndarray:
        return np.nan_to_num(_ratio(c.tp, c.tp + c.fp + c.fn))

    upright, turned = iou(counts), iou(counts.inverted())
    inverted = bool(turned.max() > upright.max())
    chosen = turned if inverted else upright
    best = np.flatnonzero(chosen == chosen.max())
    return float(best[len(best) // 2]) / num_bins, inverted


def auc(histogram: np.ndarray) -> float:
    """Area under the ROC curve, scores within one bin counted as ties.

    Equal to the probability that a foreground pixel scores above a background one.

    Args:
      histogram: `[2, num_bins]`, pooled.

    Returns:
      The area, NaN if one of the classes is absent.
    """
    background, foreground = np.asarray(histogram, np.float64)
    pairs = background.sum() * foreground.sum()
    if pairs == 0:
        return float("nan")
    below = np.cumsum(background) - background
    return float(np.sum(foreground * (below + 0.5 * background)) / pairs)


def from_confusion(matrix: np.ndarray) -> dict[str, np.ndarray]:
    """Per-class and overall measures of confusion matrices.

    Args:
      matrix: counts `[..., K, K]`; row = label, column = prediction.

    Returns:
      `iou`, `dice`, `precision`, `recall`, each `[..., K]` (NaN for a class that is in
      neither label nor prediction, so that a mean over classes leaves it out), and
      `accuracy` `[...]`.
    """
    matrix = np.asarray(matrix, np.float64)
    hit = np.diagonal(matrix, axis1=-2, axis2=-1)
    labelled, predicted = matrix.sum(axis=-1), matrix.sum(axis=-2)
    return {
        "iou": _ratio(hit, labelled + predicted - hit),
        "dice": _ratio(2 * hit, labelled + predicted),
        "precision": _ratio(hit, predicted),
        "recall": _ratio(hit, labelled),
        "accuracy": _ratio(hit.sum(axis=-1), matrix.sum(axis=(-2, -1))),
    }
