"""CamVid in SegNet's layout: road scenes, 11 classes."""

from pathlib import Path

from metaseg.data.importers import pairs
from metaseg.data.importers.builder import Builder, Config
from metaseg.data.importers.pairs import SPLITS, VOID, Found, ImportOptions

__all__ = ["Camvid"]

CLASSES = (
    "sky",
    "building",
    "pole",
    "road",
    "pavement",
    "tree",
    "sign",
    "fence",
    "car",
    "pedestrian",
    "cyclist",
)


class Camvid(Builder):
    """Frames of the Cambridge-driving Labeled Video Database."""

    name = "camvid"
    TREE = "train/, trainannot/, val/, valannot/, test/ and testannot/"
    BUILDER_CONFIGS = (Config(name="full", description="All frames."),)

    @classmethod
    def find(cls, root: Path, config: str, options: ImportOptions) -> Found:
        """See `Builder.find`."""
        found = pairs.join(
            pairs.match(
                pairs.folder(root / split, cls.TREE),
                pairs.folder(root / f"{split}annot", cls.TREE),
                split,
            )
            for split in SPLITS
        )
        values = {**{i: i for i in range(len(CLASSES))}, len(CLASSES): VOID}
        return Found(
            found.items,
            pairs.read_pair,
            found.problems,
            found.notes,
            **pairs.told(values, CLASSES),
        )
