"""What to compare iGTT with: methods that need no network, and rows of the table."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import jax
import numpy as np

from metaseg import unsupervised
from metaseg.runs.igtt import programs, rounds
from metaseg.runs.igtt.images import labels_of
from metaseg.runs.igtt.programs import Placed
from metaseg.runs.training.setup import Setup

__all__ = ["TITLES", "classical", "row"]

TITLES = {"otsu": "Otsu", "li": "Li", "kmeans": "k-means", "chan_vese": "Chan-Vese"}


def row(name: str, values: Mapping[str, Any]) -> dict[str, Any]:
    """Makes a row of the table of results.

    Args:
      name: Name of the method.
      values: Its measures.

    Returns:
      Name and measures.
    """
    return {"name": name, **{k: values[k] for k in ("iou", "mean_image_iou", "dice")}}


def classical(made: Setup, placed: Sequence[Placed]) -> list[dict[str, Any]]:
    """Measures all methods of `unsupervised`, and the masks that training starts from.

    Args:
      made: Parts of the run; its test images are measured on; its polarity is theirs.
      placed: the test images in batches.

    Returns:
      A row of the table of results for each method.
    """
    config = made.members[0]
    split: Any = made.data.test
    labels = labels_of(split)
    rows = []
    ways = {"local contrast": False}
    if config.igtt.min_radius or config.igtt.boundary_sigma:
        ways["local contrast, refined"] = True
    for name, refined in ways.items():
        start = partial(programs.first_masks, config, "contrast", refined=refined)
        found = [jax.jit(start)(batch.images) for batch in placed]
        masks = programs.joined(made.layout, found, len(split))
        rows.append(row(name, rounds.measure(masks, labels)[0]))
    for method in unsupervised.METHODS:
        stacked = np.zeros(split.images.shape[:3], bool)
        for i, (height, width) in enumerate(split.valid_size):
            image = split.images[i, :height, :width]
            stacked[i, :height, :width] = segment(image, method, config.igtt.polarity)
        values, _ = rounds.measure(stacked, labels)
        rows.append(row(TITLES.get(method, method), values))
    return rows


def segment(image: np.ndarray, method: str, polarity: str) -> np.ndarray:
    """One image by a method of `unsupervised`, for any polarity of iGTT."""
    if polarity == "darker":
        return unsupervised.segment(-image, method, polarity="brighter")
    # They find the brighter side, which "none" leaves as it is.
    side = "smaller" if polarity == "smaller" else "brighter"
    return unsupervised.segment(image, method, polarity=side)
