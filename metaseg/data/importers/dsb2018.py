"""2018 Data Science Bowl, stage 1: nuclei in microscope images of several kinds."""

from pathlib import Path

import numpy as np

from metaseg.data import image_files
from metaseg.data.importers import pairs
from metaseg.data.importers.builder import Builder, Config
from metaseg.data.importers.pairs import Found, ImportExample, ImportItem, ImportOptions
from metaseg.errors import InputError

__all__ = ["Dsb2018", "modality"]

COLOURFUL = 8  # mean difference of the largest and the smallest channel, of 255
BRIGHT = 128  # median grey: what the background is, as nuclei cover less than half


class Dsb2018(Builder):
    """Images with one mask per nucleus, joined to one label map."""

    name = "dsb2018"
    TREE = "stage1_train/ID/images/ID.png and stage1_train/ID/masks/*.png"
    BUILDER_CONFIGS = (
        Config(name="all", description="Every image."),
        Config(name="fluorescence", description="Grey, on a dark background."),
        Config(name="histology", description="Stained tissue, in colour."),
        Config(name="brightfield", description="Grey, on a bright background."),
    )
    TAKES = ("shares", "seed")

    @classmethod
    def find(cls, root: Path, config: str, options: ImportOptions) -> Found:
        """See `Builder.find`."""
        home = pairs.folder(root / "stage1_train", cls.TREE)
        items, problems = [], []
        for folder in sorted(home.iterdir()):
            if folder.name.startswith(".") or not folder.is_dir():
                continue
            image = folder / "images" / f"{folder.name}.png"
            masks = sorted((folder / "masks").glob("[!.]*.png"))
            if not image.is_file():
                problems.append(f"{folder}: no image; expected '{image}'")
            elif not masks:
                problems.append(f"{folder}: no mask; expected '{folder}/masks/*.png'")
            else:
                items.append(ImportItem(folder.name, "", (image, *masks)))
        return Found(
            items,
            read_masks,
            problems,
            **pairs.told({0: 0, 1: 1}, ("background", "nucleus")),
            keep="" if config == "all" else config,
        )


def read_masks(item: ImportItem) -> ImportExample:
    """Reads an image and the union of its masks.

    Raises:
      InputError: if a file cannot be read, or a mask has another size.
    """
    image_file, *mask_files = item.files
    image = image_files.read_image(image_file)
    covered = np.zeros(image.shape[:2], np.int32)
    for path in mask_files:
        stored = image_files.read_label_values(path)
        mask = image_files.integers(stored, where=str(path))
        if mask.shape != covered.shape:
            got, expected = (f"{a.shape[0]} x {a.shape[1]}" for a in (mask, covered))
            raise InputError(
                f"{path}: {got} (height x width); expected {expected}, the size of"
                f" {image_file.name}"
            )
        covered += mask > 0
    return ImportExample(
        image,
        (covered > 0).astype(np.uint8),
        image_file,
        kind=modality(image),
        overlap=int(np.count_nonzero(covered > 1)),
    )


def modality(image: np.ndarray) -> str:
    """Tells how an image was taken.

    Args:
      image: uint8 `[H, W, 1]` or `[H, W, 3]`.

    Returns:
      "histology" if it is colourful, else "brightfield" or "fluorescence", as its
      background is bright or dark.
    """
    spread = image.max(axis=-1).astype(np.int32) - image.min(axis=-1)
    if spread.mean() > COLOURFUL:
        return "histology"
    return "brightfield" if np.median(image) >= BRIGHT else "fluorescence"
