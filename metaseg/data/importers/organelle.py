"""Organelles in fluorescence images: endoplasmic reticulum, mitochondria, nuclei."""

import functools
import re
import unicodedata
from collections.abc import Sequence
from pathlib import Path

from metaseg.data.importers import pairs
from metaseg.data.importers.builder import Builder, Config
from metaseg.data.importers.pairs import (
    SPLITS,
    Found,
    ImportItem,
    ImportOptions,
    Matched,
)
from metaseg.errors import InputError
from metaseg.text import count_of

__all__ = ["Organelle"]

CLASSES = {
    "er": "endoplasmic reticulum",
    "mito": "mitochondrion",
    "nuclei": "nucleus",
}
# Masks are stored with whatever is white in the file's depth.
TABLE = {0: 0, 1: 1, 255: 1, 65_535: 1}
_SEPARATOR = re.compile(r"\s*[,\t]\s*")  # with it, file names may have spaces


class Organelle(Builder):
    """Binary masks of one organelle; its folder is found whatever its case."""

    name = "organelle"
    TREE = (
        "NAME/{train,val,test}/{images,labels}/*.tif, or lists of pairs"
        " NAME/{train,val,test}.txt, NAME one of er, mito, nuclei"
    )
    BUILDER_CONFIGS = tuple(Config(name=n, description=c) for n, c in CLASSES.items())
    TAKES = ("channels", "page", "apply_orientation")

    @classmethod
    def find(cls, root: Path, config: str, options: ImportOptions) -> Found:
        """See `Builder.find`."""
        home = cls._home(pairs.folder(root, cls.TREE), config)
        found = pairs.join(cls._split(home, root, split) for split in SPLITS)
        return Found(
            found.items,
            functools.partial(pairs.read_pair, options=options.files),
            [*found.problems, *_in_two_splits(found.items)],
            found.notes,
            **pairs.told(TABLE, ("background", CLASSES[config])),
            options=options.files,
        )

    @classmethod
    def _home(cls, root: Path, config: str) -> Path:
        named = [p for p in root.iterdir() if p.name.lower() == config and p.is_dir()]
        if named:
            return min(named)
        if root.name.lower() == config:
            return root
        return pairs.folder(root / config, cls.TREE)

    @classmethod
    def _split(cls, home: Path, root: Path, split: str) -> Matched:
        listed = home / f"{split}.txt"
        if listed.is_file():
            return read_list(listed, root, split)
        folder = home / split
        return pairs.match(
            pairs.folder(folder / "images", cls.TREE),
            pairs.folder(folder / "labels", cls.TREE),
            split,
        )


def read_list(path: Path, root: Path, split: str) -> Matched:
    """Reads a list of pairs: image and label on a line, with a comma or space between.

    Args:
      path: the list; empty lines and those that start with # do not count.
      root: what the paths may be relative to, beside the list's own folder.
      split: that the items get.

    Raises:
      InputError: if the list cannot be read or has a line that is no pair.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: {error}; expected a list of pairs") from None
    items: dict[str, ImportItem] = {}
    problems = []
    for number, line in enumerate(lines, 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        parts = (
            _SEPARATOR.split(line.strip()) if _SEPARATOR.search(line) else line.split()
        )
        if len(parts) != 2:
            raise InputError(
                f"{path}: line {number} has {count_of(len(parts), 'part')}; expected "
                "two paths, image and label"
            )
        files = tuple(_listed(part, path.parent, root) for part in parts)
        missing = [str(file) for file in files if not file.is_file()]
        name = unicodedata.normalize("NFC", files[0].stem)
        if missing:
            problems.append(f"{path}: line {number}: no file '{missing[0]}'")
        elif name in items:
            problems.append(
                f"{path}: line {number}: '{name}' is also {items[name].files[0]};"
                " expected one image per name"
            )
        else:
            items[name] = ImportItem(name, split, files)
    return Matched(list(items.values()), problems)


def _listed(part: str, *folders: Path) -> Path:
    """The file that a list names, below the first folder that has it."""
    paths = [folder / part.lstrip("/") for folder in folders]
    return next((path for path in paths if path.is_file()), paths[0])


def _in_two_splits(items: Sequence[ImportItem]) -> list[str]:
    """A line for each image that is in two splits, where lists put it."""
    split_of: dict[Path, str] = {}
    problems = []
    for item in items:
        first = split_of.setdefault(item.files[0], item.split)
        if first != item.split:
            problems.append(
                f"{item.files[0]}: in {first} and in {item.split}; expected it in one"
            )
    return problems
