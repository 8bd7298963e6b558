"""Any folder of images and labels, with or without splits."""

import functools
from pathlib import Path

from metaseg.data.file_options import FileOptions
from metaseg.data.image_files import finding
from metaseg.data.importers import pairs
from metaseg.data.importers.builder import Builder
from metaseg.data.importers.pairs import SPLITS, Found, ImportOptions

__all__ = ["Folder"]


class Folder(Builder):
    """Pairs of the same name; the config is named by the user or by the folder."""

    name = "folder"
    TREE = (
        "{train,val,test}/{images,labels}/NAME.* or {images,labels}/NAME.*, or images"
        " and label maps in one folder, which a suffix such as _mask tells apart"
    )
    TAKES = (
        "name",
        "shares",
        "seed",
        "num_classes",
        "class_names",
        *FileOptions._fields,
    )

    @classmethod
    def find(cls, root: Path, config: str, options: ImportOptions) -> Found:
        """See `Builder.find`."""
        parts = [split for split in SPLITS if (root / split).is_dir()]
        matched = []
        for part in parts or [""]:
            images, labels = finding.split_folders(pairs.folder(root / part, cls.TREE))
            if part in ("", "train"):
                labels = (
                    pairs.folder(root / part / "labels", cls.TREE)
                    if labels is None
                    else labels
                )
            images = pairs.folder(images, cls.TREE)
            matched.append(pairs.match(images, labels, part, options.files))
        found = pairs.join(matched)
        return Found(
            found.items,
            functools.partial(pairs.read_pair, options=options.files),
            found.problems,
            found.notes,
            **pairs.classes(options),
        )
