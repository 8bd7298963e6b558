"""One test image with its labels and prediction, and what is wrong with it."""

import dataclasses
import math
from collections.abc import Sequence

import numpy as np

__all__ = ["VOID", "Panel", "check_panel", "error_map", "worst_first"]

VOID = 255

# Entries of the binary error map; with K > 2 classes 0 is right and 1 wrong.
TRUE_NEGATIVE, TRUE_POSITIVE, FALSE_POSITIVE, FALSE_NEGATIVE = 0, 1, 2, 3
RIGHT, WRONG = 0, 1


@dataclasses.dataclass(frozen=True)
class Panel:
    """One test image as the report shows it.

    Attributes:
      name: Name of the image, unique within the report.
      image: `[H, W]` or `[H, W, C]` numbers of any range.
      clean: `[H, W]` uint8 class ids, 255 where there is no label.
      noisy: `[H, W]` uint8, what a label of this image looks like to the network.
      score: `[H, W]` float in [0, 1]: the foreground score, or for more than two
        classes the probability of the predicted class.
      prediction: `[H, W]` uint8 class ids, the noise-aware reading of the scores.
      iou: IoU (more than two classes: mean IoU) of the prediction on this image;
        nan where it is not defined.
    """

    name: str
    image: np.ndarray
    clean: np.ndarray
    noisy: np.ndarray
    score: np.ndarray
    prediction: np.ndarray
    iou: float


def check_panel(panel: Panel, num_classes: int) -> None:
    """Checks that a panel's arrays fit each other and the number of classes.

    Args:
      panel: The panel.
      num_classes: Number of classes K.

    Raises:
      ValueError: If an array has another height and width than the clean label, or a
        label map holds a class id that is neither below K nor 255.
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
    """Says of each pixel how the prediction compares with the clean label.

    Args:
      clean: `[H, W]` class ids, 255 where there is no label.
      prediction: `[H, W]` class ids.
      num_classes: Number of classes K.

    Returns:
      `[H, W]` uint8. K = 2: 0 true negative, 1 true positive, 2 false positive,
      3 false negative. K > 2: 0 right, 1 wrong. 255 where there is no label.
    """
    if num_classes == 2:
        is_, said = clean == 1, prediction == 1
        errors = np.select(
            [is_ & said, ~is_ & said, is_ & ~said],
            [TRUE_POSITIVE, FALSE_POSITIVE, FALSE_NEGATIVE],
            TRUE_NEGATIVE,
        )
    else:
        errors = np.where(clean == prediction, RIGHT, WRONG)
    return np.where(clean == VOID, VOID, errors).astype(np.uint8)


def worst_first(panels: Sequence[Panel]) -> list[Panel]:
    """Sorts panels by IoU, lowest first, then by name; undefined IoU comes last."""
    return sorted(
        panels,
        key=lambda panel: (
            not math.isfinite(panel.iou),
            panel.iou if math.isfinite(panel.iou) else 0.0,
            panel.name,
        ),
    )
