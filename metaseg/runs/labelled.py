"""What the labels of a data set leave undefined, said before training.

A split may have no images, no labels, or labels of one class. Some measures are then
undefined, and validation cannot choose.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from metaseg.data.dataset import Dataset, Examples, Split
from metaseg.errors import InputError

__all__ = ["SplitLabels", "check_training", "count", "survey", "warnings"]

_AT_ONCE = 64  # examples that are counted together
_ENOUGH = 256  # examples on disk that are read, unless they hold fewer than two classes
NAMES = {"train": "training", "val": "validation", "test": "test"}


class SplitLabels(NamedTuple):
    """The labels of a split.

    Attributes:
      split: "training", "validation" or "test".
      images: Number of images.
      pixels: Number of pixels of each class, `[K]`; void pixels do not count. Of large
        splits on disk, those of the first images.
      complete: Whether all images were counted.
    """

    split: str
    images: int
    pixels: tuple[int, ...]
    complete: bool = True

    @property
    def labelled(self) -> bool:
        """Whether there is a pixel with a label."""
        return any(self.pixels)

    @property
    def absent(self) -> tuple[int, ...]:
        """The classes that no label holds, as far as all were counted."""
        if not self.complete:
            return ()
        return tuple(i for i, pixels in enumerate(self.pixels) if not pixels)

    @property
    def chooses(self) -> bool:
        """Whether measures on the split can choose: it holds two classes or more."""
        return sum(pixels > 0 for pixels in self.pixels) > 1

    def lack(self) -> str:
        """Says why the split cannot choose; empty if it can."""
        if not self.images:
            return f"there are no {self.split} images"
        if not self.labelled:
            return f"the {self.split} images have no labels"
        if not self.chooses:
            held = next(i for i, pixels in enumerate(self.pixels) if pixels)
            return f"the {self.split} labels hold {_class(held, self.pixels)} alone"
        return ""


def count(name: str, split: Examples, num_classes: int) -> SplitLabels:
    """Counts the pixels of each class.

    Args:
      name: "train", "val" or "test".
      split: The split. Of a split on disk, the images are read until there are enough
        of them and two classes are found.
      num_classes: Number of classes K.

    Returns:
      The counts.
    """
    pixels = np.zeros(256, np.int64)
    seen, images = 0, len(split)
    while seen < images:
        known = np.count_nonzero(pixels[:num_classes])
        if not isinstance(split, Split) and seen >= _ENOUGH and known > 1:
            break
        rows = np.arange(seen, min(seen + _AT_ONCE, images))
        some = (
            split.labels[rows] if isinstance(split, Split) else split.take(rows).labels
        )
        pixels += np.bincount(some.ravel(), minlength=256)[:256]
        seen += len(rows)
    kept = tuple(int(n) for n in pixels[:num_classes])
    return SplitLabels(NAMES[name], images, kept, seen == images)


def survey(data: Dataset, splits: Sequence[str]) -> dict[str, SplitLabels]:
    """Counts the labels of some splits.

    Args:
      data: Data set.
      splits: Names of the splits whose labels may be read.

    Returns:
      The labels of each split by its name.
    """
    return {
        name: count(name, split, data.num_classes)
        for name, split in data.splits()
        if name in splits
    }


def check_training(labels: SplitLabels, field: str) -> None:
    """Checks that something can be learned from the training labels.

    Args:
      labels: The training labels.
      field: Name of the data set, for the message.

    Raises:
      InputError: If there is no image, no label, or no pixel of a class but 0.
    """
    if not labels.images:
        raise InputError(f"{field}: got no training image, expected at least one")
    if not labels.labelled:
        raise InputError(
            f"{field}: got no labelled pixel in {_images(labels)} (all are void, 255), "
            "expected labels; iGTT (`metaseg igtt`) learns from images alone"
        )
    if not any(labels.pixels[1:]):
        raise InputError(
            f"{field}: got no foreground in {_images(labels)} (every labelled pixel is "
            "class 0), expected labels with foreground"
        )


def warnings(found: Mapping[str, SplitLabels], *, chooses: str = "") -> list[str]:
    """Says what will be undefined, and what cannot be learned.

    Args:
      found: Labels of the splits, of `survey`.
      chooses: Setting by which validation is to choose, such as
        "training.weights='best'"; "" if it chooses nothing but a threshold.

    Returns:
      A sentence for each fact; empty for ordinary data.
    """
    said = []
    if "train" in found:
        said += _of_training(found["train"])
    if "val" in found:
        said += _of_validation(found["val"], chooses)
    if "test" in found:
        said += _of_test(found["test"])
    return said


def _of_training(labels: SplitLabels) -> list[str]:
    said = []
    if not labels.chooses:
        said.append(f"{labels.lack()}: the network learns to find it everywhere")
    elif labels.absent:
        said.append(
            f"no training label holds {_classes(labels)}: it cannot be learned"
            if len(labels.absent) == 1
            else f"no training label holds {_classes(labels)}: they cannot be learned"
        )
    if labels.images == 1:
        said.append("there is one training image: every batch consists of its parts")
    return said


def _of_validation(labels: SplitLabels, chooses: str) -> list[str]:
    said, binary = [], len(labels.pixels) == 2
    if lack := labels.lack():
        if labels.labelled:
            what = "its IoU says nothing" + binary * " and tunes no threshold"
        else:
            what = "validation has no measures" + binary * " and no threshold"
        rest = f"; {chooses} takes the last weights" if chooses else ""
        said.append(f"{lack}: {what}{rest}")
    elif labels.absent and not binary:
        said.append(f"no validation label holds {_classes(labels)}")
    if labels.images == 1 and labels.labelled:
        said.append("there is one validation image: its measures say little")
    return said


def _of_test(labels: SplitLabels) -> list[str]:
    said = []
    lack, binary = labels.lack(), len(labels.pixels) == 2
    if not labels.images:
        said.append(f"{lack}: all test measures are null")
    elif not labels.labelled:
        said.append(
            f"{lack}: all test measures are null; the report and predictions/ show "
            "what the network finds"
        )
    elif lack and binary:
        null = "AUC, recall" if not labels.pixels[1] else "AUC"
        null += " and the oracle threshold are null"
        rest = ", and IoU is 0 or null" if not labels.pixels[1] else ""
        said.append(f"{lack}: {null}{rest}")
    elif labels.absent and not binary:
        said.append(
            f"no test label holds {_classes(labels)}: IoU is 0 where the network finds "
            "it, else null and left out of means"
        )
    if labels.images == 1 and labels.labelled:
        said.append("there is one test image: its measures say little about others")
    return said


def _images(labels: SplitLabels) -> str:
    plural = "s" * (labels.images != 1)
    return f"the {labels.images} {labels.split} image{plural}"


def _class(index: int, pixels: Sequence[int]) -> str:
    if len(pixels) == 2:
        return ("background", "foreground")[index]
    return f"class {index}"


def _classes(labels: SplitLabels) -> str:
    names = [str(i) for i in labels.absent]
    if len(names) == 1:
        return f"class {names[0]}"
    return f"the classes {', '.join(names[:-1])} and {names[-1]}"
