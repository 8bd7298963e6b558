"""Files of a finished run of iGTT: masks, overlays, `results.json`, `report.html`."""

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from metaseg import files, report
from metaseg.data.dataset import Dataset
from metaseg.runs.igtt.rounds import SHOWN, evolution_file
from metaseg.runs.run import Run

__all__ = ["write"]

PICTURES = 6  # of the evolution of one image


def write(run: Run, data: Dataset, ious: np.ndarray) -> None:
    """Writes masks, overlays, results and report into the run's folder.

    Args:
      run: A finished run with a folder and masks.
      data: Its data set.
      ious: IoU `[N]` of each test image; NaN without labels.

    Raises:
      OSError: If a file cannot be written.
    """
    assert run.folder is not None
    assert run.masks is not None
    split: Any = data.test
    for i, (name, mask) in enumerate(run.masks.items()):
        height, width = mask.shape
        files.write_png(run.folder / "masks" / f"{name}.png", 255 * mask)
        over = report.overlay(split.images[i, :height, :width], mask, 2)
        files.write_png(run.folder / "overlays" / f"{name}.png", over)
    report.write_igtt(
        run.folder / "report.html",
        results=run.results,
        history=run.history,
        evolution=_evolution(run.folder, data, len(run.history)),
        shown=_shown(run, data, ious),
        config=run.config.to_dict(),
        environment=run.environment,
    )
    files.write_json(run.folder / "results.json", run.results)


# The types of the page are quoted: the report imports matplotlib when it is used.
def _evolution(folder: Path, data: Dataset, last: int) -> "list[report.Evolution]":
    """Returns masks of the first training images after some of the rounds."""
    split: Any = data.train
    wanted = sorted({round(x) for x in np.linspace(0, last, PICTURES)})
    found = []
    for i in range(min(SHOWN, len(split))):
        height, width = split.valid_size[i]
        masks = []
        for round_ in wanted:
            with Image.open(evolution_file(folder, i, round_)) as file:
                masks.append((round_, np.asarray(file) > 0))
        image = split.images[i, :height, :width]
        found.append(report.Evolution(split.names[i], image, masks))
    return found


def _shown(run: Run, data: Dataset, ious: np.ndarray) -> "list[report.Shown]":
    """Returns the first test images with their masks."""
    split: Any = data.test
    found = []
    for i, (name, mask) in enumerate((run.masks or {}).items()):
        if i >= run.config.report.images:
            break
        height, width = mask.shape
        image = split.images[i, :height, :width]
        found.append(report.Shown(name, image, mask > 0, float(ious[i])))
    return found
