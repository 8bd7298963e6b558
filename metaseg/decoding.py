"""From scores to masks: the four readings of a network trained on noisy labels.

- argmax: the likeliest class, as if the labels had been clean.
- analytic: the class that the labels' noise transition matrix points to (noise-aware);
  no threshold is tuned. Where no matrix describes the noise it equals argmax.
- validation: the cut with the best IoU on the validation split's clean labels.
- oracle: the cut with the best IoU on the test labels themselves; the source's
  protocol, and an upper bound rather than a result.

The last two are cuts of one foreground score and exist for two classes only. May
import `ntm` and `metrics`.
"""

from collections.abc import Mapping
from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np

from metaseg import metrics, ntm

__all__ = [
    "Statistics",
    "Threshold",
    "analytic_threshold",
    "argmax_threshold",
    "measure",
    "predict",
    "probabilities",
    "statistics",
    "table",
]

NUM_BINS = 4096  # of the score histogram: cuts are multiples of 1/4096


class Threshold(NamedTuple):
    """A reading of one foreground score: `score > threshold`, or `<` if inverted."""

    threshold: float
    inverted: bool


class Statistics(NamedTuple):
    """All that readings are computed from, per image; sums over images are exact.

    Attributes:
      argmax: int `[N, K, K]` confusion matrices of the argmax reading.
      analytic: int `[N, K, K]` of the noise-aware reading.
      histogram: int `[N, 2, NUM_BINS]` of the foreground score; `[N, 2, 0]` if K > 2.
    """

    argmax: chex.Array
    analytic: chex.Array
    histogram: chex.Array


def probabilities(logits: jax.Array) -> jax.Array:
    """Class probabilities `[..., K]` of logits `[..., 1]` (binary) or `[..., K]`."""
    logits = logits.astype(jnp.float32)
    if logits.shape[-1] > 1:
        return jax.nn.softmax(logits, axis=-1)
    return jax.nn.sigmoid(jnp.concatenate([-logits, logits], axis=-1))


def argmax_threshold() -> Threshold:
    """One half: the likelier of two classes."""
    return Threshold(0.5, False)


def analytic_threshold(matrix: chex.Array | None) -> Threshold:
    """The noise-aware cut of two classes under the noise transition matrix, if any."""
    if matrix is None:
        return argmax_threshold()
    threshold, inverted = ntm.threshold(jnp.asarray(matrix))
    return Threshold(float(threshold), bool(inverted))


def predict(probability: jax.Array, matrix: chex.Array | None = None) -> jax.Array:
    """Class ids read from class probabilities.

    Args:
      probability: float `[..., K]` under the noisy labels.
      matrix: `[K, K]` noise transition matrix for the noise-aware reading, may be
        traced; None for the argmax.

    Returns:
      uint8 `[...]` class ids.
    """
    if probability.shape[-1] == 2:
        score = probability[..., 1]
        if matrix is None:
            return (score > argmax_threshold().threshold).astype(jnp.uint8)
        threshold, inverted = ntm.threshold(jnp.asarray(matrix))
        above = jnp.where(inverted, score < threshold, score > threshold)
        return above.astype(jnp.uint8)
    if matrix is not None:
        probability = ntm.decode(probability, jnp.asarray(matrix))
    return jnp.argmax(probability, axis=-1).astype(jnp.uint8)


def statistics(
    logits: jax.Array, labels: jax.Array, matrix: chex.Array | None
) -> Statistics:
    """What every reading needs to know of a batch, computed on device.

    Args:
      logits: float `[N, H, W, 1]` or `[N, H, W, K]`.
      labels: integer `[N, H, W]`, clean; void does not count.
      matrix: `[K, K]` noise transition matrix of the training labels, or None.

    Returns:
      Per-image statistics.
    """
    probability = probabilities(logits)
    num_classes = probability.shape[-1]
    if num_classes == 2:
        histogram = metrics.score_histogram(probability[..., 1], labels, NUM_BINS)
    else:
        histogram = jnp.zeros((labels.shape[0], 2, 0), jnp.int32)
    argmax, analytic = (
        metrics.confusion_matrix(predict(probability, m), labels, num_classes)
        for m in (None, matrix)
    )
    return Statistics(argmax, analytic, histogram)


def measure(matrices: chex.Array) -> dict[str, float | list[float]]:
    """Pooled and per-image measures of one reading.

    Args:
      matrices: `[N, K, K]` confusion matrices, one per image.

    Returns:
      For K = 2 `iou`, `dice`, `precision`, `recall` of the foreground, `accuracy`
      (over pooled pixels), `mean_image_iou` and `mean_image_dice` (over images that
      have foreground in label or prediction). For K > 2 `miou`, `dice`, `precision`,
      `recall` averaged over classes, `accuracy`, and `class_iou`, a list.
    """
    matrices = np.asarray(matrices)
    pooled = metrics.from_confusion(matrices.sum(axis=0))
    if matrices.shape[-1] > 2:
        return {
            "miou": _mean(pooled["iou"]),
            "class_iou": [float(x) for x in pooled["iou"]],
            **{name: _mean(pooled[name]) for name in ("dice", "precision", "recall")},
            "accuracy": float(pooled["accuracy"]),
        }
    each = metrics.from_confusion(matrices)
    return {
        **{n: float(pooled[n][1]) for n in ("iou", "dice", "precision", "recall")},
        "accuracy": float(pooled["accuracy"]),
        "mean_image_iou": _mean(each["iou"][:, 1]),
        "mean_image_dice": _mean(each["dice"][:, 1]),
    }


def _mean(values: np.ndarray) -> float:
    """Mean without NaN; NaN if nothing is left."""
    kept = values[~np.isnan(values)]
    return float(kept.mean()) if len(kept) else float("nan")


def _at_cut(histogram: np.ndarray, cut: Threshold) -> np.ndarray:
    """Confusion matrices `[N, 2, 2]` of per-image histograms at a bin's edge."""
    counts = metrics.counts_above(histogram)
    if cut.inverted:
        counts = counts.inverted()
    return counts.matrix()[:, round(cut.threshold * histogram.shape[-1])]


def table(
    test: Statistics, validation: Statistics, matrix: chex.Array | None
) -> tuple[dict[str, object], dict[str, Threshold], dict[str, np.ndarray]]:
    """All readings of the test split side by side.

    Args:
      test: statistics of the test split.
      validation: statistics of the validation split.
      matrix: noise transition matrix of the training labels, or None.

    Returns:
      `(measures, cuts, image_iou)`: `measures[name][reading]` and, for two classes,
      `measures["auc"]`, of the scores turned as the noise-aware reading turns them; the
      cut of each reading (two classes only); and per reading
      the IoU `[N]` of each image (mean over classes if K > 2).
    """
    matrices: dict[str, np.ndarray] = {
        "argmax": np.asarray(test.argmax),
        "analytic": np.asarray(test.analytic),
    }
    cuts: dict[str, Threshold] = {}
    binary = test.histogram.shape[-1] > 0
    if binary:
        histogram = np.asarray(test.histogram)
        pooled = histogram.sum(axis=0)
        cuts = {
            "argmax": argmax_threshold(),
            "analytic": analytic_threshold(matrix),
            "validation": Threshold(
                *metrics.best_threshold(np.asarray(validation.histogram).sum(axis=0))
            ),
            "oracle": Threshold(*metrics.best_threshold(pooled)),
        }
        for name in ("validation", "oracle"):
            matrices[name] = _at_cut(histogram, cuts[name])
    columns = {reading: measure(m) for reading, m in matrices.items()}
    measures: dict[str, object] = _transpose(columns)
    if binary:
        area = metrics.auc(pooled)
        measures["auc"] = 1 - area if cuts["analytic"].inverted else area
    return measures, cuts, {r: _image_iou(m) for r, m in matrices.items()}


def _image_iou(matrices: np.ndarray) -> np.ndarray:
    iou = metrics.from_confusion(matrices)["iou"]
    if matrices.shape[-1] == 2:
        return iou[:, 1]
    return np.array([_mean(row) for row in iou])


def _transpose(columns: Mapping[str, Mapping[str, object]]) -> dict[str, object]:
    names = next(iter(columns.values()))
    return {n: {reading: c[n] for reading, c in columns.items()} for n in names}
