"""From scores to classes: the decision rules of a network trained on noisy labels.

- "argmax" takes the most probable class, as if the labels were clean.
- "analytic" (noise-aware) corrects the scores by the noise transition matrix of the
  labels; it tunes no threshold. Without a matrix it equals "argmax".
- "validation" uses the threshold with the best IoU on the clean labels of the
  validation split.
- "oracle" uses the threshold with the best IoU on the test labels themselves. Luo et
  al., AAAI 2022, report this rule; it is an upper bound and not a result.

The last two rules threshold the foreground score, so they exist for two classes only. A
pixel is foreground where `score >= threshold`, or `score < threshold` if the scores are
inverted. May import `ntm`, `metrics` and `typing`.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple, TypeVar, cast

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Bool, Float, Float32, Integer, Real, UInt8

from metaseg import metrics, ntm
from metaseg.typing import AnyArray, Matrix

__all__ = [
    "DECISION_RULES",
    "NUM_BINS",
    "Statistics",
    "Threshold",
    "analytic_threshold",
    "argmax_threshold",
    "is_foreground",
    "measure",
    "predict",
    "probabilities",
    "statistics",
    "table",
]

DECISION_RULES = ("argmax", "analytic", "validation", "oracle")
Array = TypeVar("Array", bound=AnyArray)
NUM_BINS = 4096  # of the score histogram: tuned thresholds are multiples of 1/4096


class Threshold(NamedTuple):
    """A decision rule for two classes: a threshold of the foreground score.

    Attributes:
      value: Threshold in [0, 1]; a pixel is foreground where `score >= value`.
      inverted: Whether a pixel is foreground where `score < value` instead.
    """

    value: float
    inverted: bool


class Statistics(NamedTuple):
    """Counts per image, from which the measures under every decision rule follow.

    Attributes:
      argmax: int32 `[N, K, K]`, confusion matrices under the rule "argmax".
      analytic: int32 `[N, K, K]`, confusion matrices under the rule "analytic".
      histogram: int32 `[N, 2, NUM_BINS]`, histogram of the foreground score per class;
        `[N, 2, 0]` if K > 2.
    """

    argmax: Any
    analytic: Any
    histogram: Any


def probabilities(
    logits: Float[AnyArray, "*batch C"],
) -> Float32[jax.Array, "*batch K"]:
    """Converts logits to class probabilities.

    Args:
      logits: Float `[..., 1]` (two classes) or `[..., K]`.

    Returns:
      float32 `[..., K]`, the sigmoid or the softmax.
    """
    logits = jnp.asarray(logits, jnp.float32)
    if logits.shape[-1] > 1:
        return jax.nn.softmax(logits, axis=-1)
    return jax.nn.sigmoid(jnp.concatenate([-logits, logits], axis=-1))


def argmax_threshold() -> Threshold:
    """Returns the threshold that selects the more probable of two classes, 1/2."""
    return Threshold(0.5, False)


def analytic_threshold(matrix: Matrix | None) -> Threshold:
    """Returns the noise-aware threshold for two classes, see `ntm.threshold`.

    Args:
      matrix: `[2, 2]` noise transition matrix of the training labels, or None.

    Returns:
      The threshold; that of "argmax" without a matrix.

    Raises:
      InputError: If `matrix` is not a noise transition matrix of two classes.
    """
    if matrix is None:
        return argmax_threshold()
    threshold, inverted = ntm.threshold(matrix)
    return Threshold(float(threshold), bool(inverted))


def is_foreground(
    scores: Float[Array, "*batch"],
    value: Real[ArrayLike, ""],
    inverted: Bool[ArrayLike, ""] = False,
) -> Bool[Array, "*batch"]:
    """Applies a threshold, by the one definition that the package has.

    Args:
      scores: Float `[...]`, foreground scores; NumPy or JAX.
      value: Threshold, a number; may be traced.
      inverted: Whether low scores are foreground; may be traced.

    Returns:
      Boolean `[...]`: `(scores >= value) != inverted`.

    Example:
      >>> is_foreground(np.array([0.25, 0.5, 0.75]), 0.5)
      array([False,  True,  True])
      >>> is_foreground(np.array([0.25, 0.5, 0.75]), 0.5, inverted=True)
      array([ True, False, False])
    """
    return cast(Array, (scores >= value) != inverted)


def predict(
    probability: Float[AnyArray, "*batch K"], matrix: Matrix | None = None
) -> UInt8[jax.Array, "*batch"]:
    """Decides on a class for each pixel, by the rule "analytic" or "argmax".

    Args:
      probability: Float `[..., K]`, class probabilities under the noisy labels.
      matrix: `[K, K]` noise transition matrix for "analytic", which may be traced; None
        for "argmax".

    Returns:
      uint8 `[...]` class ids.

    Raises:
      InputError: If `matrix` is not a noise transition matrix of K classes.
    """
    if probability.shape[-1] == 2:
        threshold: tuple[Any, Any] = argmax_threshold()
        if matrix is not None:
            threshold = ntm.threshold(matrix)
        score = jnp.asarray(probability[..., 1])
        return is_foreground(score, *threshold).astype(jnp.uint8)
    if matrix is not None:
        probability = ntm.decode(probability, matrix)
    return jnp.argmax(probability, axis=-1).astype(jnp.uint8)


def statistics(
    logits: Float[AnyArray, "N H W C"],
    labels: Integer[AnyArray, "N H W"],
    matrix: Matrix | None,
) -> Statistics:
    """Counts on device what the decision rules need to know of a batch.

    Args:
      logits: Float `[N, H, W, 1]` or `[N, H, W, K]`.
      labels: Integer `[N, H, W]`, clean class ids; void pixels do not count.
      matrix: `[K, K]` noise transition matrix of the training labels, or None.

    Returns:
      Statistics of each image.

    Raises:
      InputError: If the shapes differ, labels are no class of the logits, or `matrix`
        is not a noise transition matrix.
    """
    probability = probabilities(logits)
    num_classes = probability.shape[-1]
    if num_classes == 2:
        histogram = metrics.score_histogram(
            probability[..., 1], labels, num_bins=NUM_BINS
        )
    else:
        histogram = jnp.zeros((labels.shape[0], 2, 0), jnp.int32)
    argmax, analytic = (
        metrics.confusion_matrix(predict(probability, m), labels, num_classes)
        for m in (None, matrix)
    )
    return Statistics(argmax, analytic, histogram)


def measure(matrices: Integer[AnyArray, "N K K"]) -> dict[str, float | list[float]]:
    """Computes pooled and per-image measures from confusion matrices.

    Args:
      matrices: Integer `[N, K, K]`, one confusion matrix per image.

    Returns:
      For K = 2 `iou`, `dice`, `precision` and `recall` of the foreground and `accuracy`
      over the pooled pixels, and `mean_image_iou` and `mean_image_dice` over the images
      that have foreground in label or prediction. For K > 2 `miou`, `dice`,
      `precision` and `recall` averaged over the classes, `accuracy`, and the list
      `class_iou`. A measure without a pixel to count is NaN.
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
    """Returns the mean of the values that are not NaN; NaN if there are none."""
    kept = values[~np.isnan(values)]
    return float(kept.mean()) if len(kept) else float("nan")


def _at_threshold(histogram: np.ndarray, threshold: Threshold) -> np.ndarray:
    """Confusion matrices `[N, 2, 2]` of per-image histograms at the edge of a bin."""
    counts = metrics.counts_above(histogram)
    if threshold.inverted:
        counts = counts.inverted()
    return counts.matrix()[:, round(threshold.value * histogram.shape[-1])]


def table(
    test: Statistics, validation: Statistics, matrix: Matrix | None
) -> tuple[dict[str, object], dict[str, Threshold], dict[str, np.ndarray]]:
    """Measures the test split under every decision rule.

    Args:
      test: Statistics of the test split.
      validation: Statistics of the validation split.
      matrix: `[K, K]` noise transition matrix of the training labels, or None.

    Returns:
      `(measures, thresholds, image_iou)`. `measures[name][rule]` is a measure of
      `measure` and, for two classes, `measures["auc"]` the area under the ROC curve, of
      inverted scores where "analytic" inverts them. `thresholds[rule]` is empty for
      K > 2. A rule whose threshold would be tuned on labels of one class, or on none,
      is missing there, and its measures are NaN. `image_iou[rule]` is the IoU `[N]` of
      each image, averaged over the classes if K > 2.
    """
    matrices: dict[str, np.ndarray] = {
        "argmax": np.asarray(test.argmax),
        "analytic": np.asarray(test.analytic),
    }
    thresholds: dict[str, Threshold] = {}
    binary = test.histogram.shape[-1] > 0
    if binary:
        histogram = np.asarray(test.histogram)
        pooled = histogram.sum(axis=0)
        thresholds = {
            "argmax": argmax_threshold(),
            "analytic": analytic_threshold(matrix),
        }
        tuned = np.asarray(validation.histogram).sum(axis=0)
        for name, counts in (("validation", tuned), ("oracle", pooled)):
            if counts.any(axis=-1).all():  # pixels of both classes
                thresholds[name] = Threshold(*metrics.best_threshold(counts))
                matrices[name] = _at_threshold(histogram, thresholds[name])
            else:
                matrices[name] = np.zeros_like(matrices["argmax"])
    columns = {rule: measure(m) for rule, m in matrices.items()}
    measures: dict[str, object] = _transpose(columns)
    if binary:
        area = metrics.auc(pooled)
        measures["auc"] = 1 - area if thresholds["analytic"].inverted else area
    image_iou = {rule: _image_iou(m) for rule, m in matrices.items()}
    return measures, thresholds, image_iou


def _image_iou(matrices: np.ndarray) -> np.ndarray:
    iou = metrics.from_confusion(matrices)["iou"]
    if matrices.shape[-1] == 2:
        return iou[:, 1]
    return np.array([_mean(row) for row in iou])


def _transpose(columns: Mapping[str, Mapping[str, object]]) -> dict[str, object]:
    names = next(iter(columns.values()))
    return {n: {rule: c[n] for rule, c in columns.items()} for n in names}
