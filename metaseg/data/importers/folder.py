"""Any folder of images and labels, with or without splits."""

import functools
from pathlib import Path

from metaseg.data.importers import pairs
from metaseg.data.importers.builder import Builder
from metaseg.data.importers.pairs import SPLITS, Found, ImportOptions

__all__ = ["Folder"]


class Folder(Builder):
    """Pairs of the same name; the config is named by the user or by the folder."""

    name = "folder"
    TREE = "{train,val,test}/{images,labels}/NAME.* or {images,labels}/NAME.*"
    TAKES = (
        "name",
        "shares",
        "seed",
        "page",
        "channel",
        "num_classes",
        "class_names",
        "values",
    )

    @classmethod
    def find(cls, root: Path, config: str, options: ImportOptions) -> Found:
        """See `Builder.find`."""
        split = any((root / split).is_dir() for split in SPLITS)
        items, problems = pairs.join(
            pairs.match(
                pairs.folder(root / part / "images", cls.TREE),
                pairs.folder(root / part / "labels", cls.TREE),
                part,
            )
            for part in (SPLITS if split else ("",))
        )
        return Found(
            items,
            functools.partial(pairs.read_pair, channel=options.channel),
            problems,
            **pairs.classes(options),
            page=options.page,
        )
