"""Cityscapes: street scenes of 27 cities, the 19 training classes."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from metaseg.data.file_options import FileOptions
from metaseg.data.importers import pairs
from metaseg.data.importers.builder import Builder, Config
from metaseg.data.importers.pairs import VOID, Found, ImportItem, ImportOptions
from metaseg.errors import InputError
from metaseg.text import count_of

__all__ = ["Cityscapes"]

# In the order of the training ids, by the value in *_gtFine_labelIds.png.
CLASSES = {
    7: "road",
    8: "sidewalk",
    11: "building",
    12: "wall",
    13: "fence",
    17: "pole",
    19: "traffic light",
    20: "traffic sign",
    21: "vegetation",
    22: "terrain",
    23: "sky",
    24: "person",
    25: "rider",
    26: "car",
    27: "truck",
    28: "bus",
    31: "train",
    32: "motorcycle",
    33: "bicycle",
}
# Ids 0 to 33 without a class, and the licence plate's -1 in eight bits.
TABLE = dict.fromkeys((*range(34), VOID), VOID) | {
    value: index for index, value in enumerate(CLASSES)
}
TENTH = 0.1


class Cityscapes(Builder):
    """Frames with fine annotations.

    The labels of the published test split are secret. So its validation split is our
    test split, and whole cities, about a tenth of the training frames, are our
    validation split.
    """

    name = "cityscapes"
    TREE = (
        "leftImg8bit/{train,val}/CITY/*_leftImg8bit.png and"
        " gtFine/{train,val}/CITY/*_gtFine_labelIds.png"
    )
    BUILDER_CONFIGS = (Config(name="fine", description="Fine annotations."),)
    TAKES = ("seed",)

    @classmethod
    def find(cls, root: Path, config: str, options: ImportOptions) -> Found:
        """See `Builder.find`."""
        train, test = (cls._match(root, split) for split in ("train", "val"))
        cities = _validation_cities(train.items, options.seed or 0)
        items = [
            item._replace(split="val" if _city(item) in cities else "train")
            for item in train.items
        ]
        items += [item._replace(split="test") for item in test.items]
        return Found(
            items,
            pairs.read_pair,
            [*train.problems, *test.problems],
            {**train.notes, **test.notes},
            **pairs.told(TABLE, tuple(CLASSES.values())),
        )

    @classmethod
    def _match(cls, root: Path, split: str) -> pairs.Matched:
        return pairs.match(
            pairs.folder(root / "leftImg8bit" / split, cls.TREE),
            pairs.folder(root / "gtFine" / split, cls.TREE),
            split,
            FileOptions(image_suffix="_leftImg8bit", label_suffix="_gtFine_labelIds"),
        )


def _city(item: ImportItem) -> str:
    return item.name.split("/")[0]


def _validation_cities(items: Sequence[ImportItem], seed: int) -> set[str]:
    """Cities in a drawn order, as long as the next brings us closer to a tenth."""
    cities, counts = np.unique([_city(item) for item in items], return_counts=True)
    if len(cities) < 2:
        raise InputError(
            f"path: {count_of(len(cities), 'city')} in leftImg8bit/train; expected at "
            "least 2, of which one becomes the validation split"
        )
    order = np.random.default_rng(seed).permutation(len(cities))
    sums = np.cumsum(counts[order])[:-1]
    enough = 1 + int(np.argmin(np.abs(sums - TENTH * len(items))))
    return set(cities[order[:enough]].tolist())
