"""Test images with labels and predictions, and their error maps."""

import dataclasses
import math
from collections.abc import Sequence

import numpy as np

__all__ = ["VOID", "Panel", "check_panel", "error_map", "worst_first"]

VOID = 255

# Entries of the error map of two classes, and of more classes.
TRUE_NEGATIVE, TRUE_POSITIVE, FALSE_POSITIVE, FALSE_NEGATIVE = 0, 1, 2, 3
RIGHT, WRONG = 0, 1


@dataclasses.dataclass(frozen=True)
class Panel:
    """One test image with its labels and prediction.

    Attributes:
      name: Name of the image, unique within the page.
      image: Numbers of any range, `[H, W]` or `[H, W, C]`.
      clean: Clean label, uint8 class ids `[H, W]`; 255 is void.
      noisy: Noisy label of this image, as the network would be trained on it, uint8
        class ids `[H, W]`; 255 is void.
      score: Float `[H, W]` in [0, 1]: the foreground score, or, for more than two
        classes, the probability of the predicted class.
      prediction: Class ids by the noise-aware decision rule, uint8 `[H, W]`.
      iou: IoU of the prediction, or, for more than two classes, its mean IoU; nan where
        it is not defined.
    """

    name: str
    image: np.ndarray
    clean: np.ndarray
    noisy: np.ndarray
    score: np.ndarray
    prediction: np.ndarray
    iou: float


def check_panel(panel: Panel, num_classes: int) -> None:
    """Checks shapes and class ids of the arrays of a panel.

    Args:
      panel: Panel to check.
      num_classes: Number of classes K.

    Raises:
      ValueError: If height and width of an array differ from those of the clean label,
        or a label map contains an id that is neither a class nor 255.
    """
    shape = panel.clean.shape
    for field in ("image", "clean", "noisy", "score", "prediction"):
        got = getattr(panel, field).shape
        dimensions = (2, 3) if field == "image" else (2,)
        if got[:2] != shape or len(got) not in dimensions:
            raise ValueError(
                f"panel {panel.name!r}: {field} has shape {got}, expected the height "
                f"and width of the clean label, {shape}"
            )
    for field in ("clean", "noisy", "prediction"):
        ids = np.unique(getattr(panel, field))
        unknown = ids[(ids < 0) | (ids >= num_classes) & (ids != VOID)]
        if unknown.size:
            raise ValueError(
                f"panel {panel.name!r}: {field} holds class ids {unknown.tolist()}, "
                f"expected 0 to {num_classes - 1}, or {VOID} for no label"
            )


def error_map(
    clean: np.ndarray, prediction: np.ndarray, num_classes: int
) -> np.ndarray:
    """Compares a prediction with the clean label, pixel by pixel.

    Args:
      clean: Class ids `[H, W]`; 255 is void.
      prediction: Class ids `[H, W]`.
      num_classes: Number of classes K.

    Returns:
      uint8 `[H, W]`. For two classes, 0 is a true negative, 1 a true positive, 2 a
      false positive and 3 a false negative. For more classes, 0 is right and 1 is
      wrong. 255 where `clean` is void.
    """
    if num_classes == 2:
        positive, predicted = clean == 1, prediction == 1
        errors = np.select(
            [positive & predicted, ~positive & predicted, positive & ~predicted],
            [TRUE_POSITIVE, FALSE_POSITIVE, FALSE_NEGATIVE],
            TRUE_NEGATIVE,
        )
    else:
        errors = np.where(clean == prediction, RIGHT, WRONG)
    return np.where(clean == VOID, VOID, errors).astype(np.uint8)


def worst_first(panels: Sequence[Panel]) -> list[Panel]:
    """Sorts panels by IoU in ascending order, then by name; undefined IoU comes last.

    Args:
      panels: Panels in any order.

    Returns:
      The sorted panels.
    """
    return sorted(
        panels,
        key=lambda panel: (
            not math.isfinite(panel.iou),
            panel.iou if math.isfinite(panel.iou) else 0.0,
            panel.name,
        ),
    )
