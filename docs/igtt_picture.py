"""Draws docs/igtt.png from finished runs of iGTT on built-in images.

    python docs/igtt_picture.py runs/CELLS runs/NETWORK

Each row is one training image of a run. It shows the outlines of the mask at the start
and after some rounds, and those of the true mask, which the run did not use.
"""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from ml_collections import ConfigDict
from PIL import Image

from metaseg.runs import sources
from metaseg.runs.igtt.rounds import evolution_file

OUTPUT = Path(__file__).with_name("igtt.png")
EXAMPLES = (0, 2)  # indices in the training split
TITLES = {"ems": "points along\nthe skeleton", "mask": "whole masks"}


def rows(workdir: Path) -> list[tuple[str, np.ndarray, list[tuple[str, np.ndarray]]]]:
    """Returns title, image, and masks with their titles, for each example."""
    config = ConfigDict(json.loads((workdir / "config.json").read_text()))
    done = json.loads((workdir / "results.json").read_text())["igtt"]["rounds"]
    data = sources.load(config)
    split: Any = data.train
    title = f"{data.name},\n{TITLES[config.igtt.target]}\nas labels"
    found = []
    for i in EXAMPLES:
        masks = []
        for round_ in (0, 1, done // 2, done):
            with Image.open(evolution_file(workdir, i, round_)) as file:
                name = f"round {round_}" if round_ else "start"
                masks.append((name, np.asarray(file) > 0))
        masks.append(("truth, unseen", split.labels[i] == 1))
        found.append((title, split.images[i, ..., 0], masks))
    return found


def main() -> None:
    """Writes docs/igtt.png, with two rows for each run."""
    runs = [rows(Path(name)) for name in sys.argv[1:]]
    if not runs:
        sys.exit(__doc__)
    every = [row for run in runs for row in run]
    figure = Figure(figsize=(9.4, 1.5 * len(every) + 0.3), layout="constrained")
    axes = figure.subplots(len(every), 6, squeeze=False)
    for i, (title, image, masks) in enumerate(every):
        shade = np.clip(image, *np.percentile(image, [0.5, 99.5]))
        for j, (name, mask) in enumerate([("image", None), *masks]):
            axis = axes[i][j]
            axis.imshow(shade, cmap="gray", interpolation="nearest")
            if mask is not None and mask.any() and not mask.all():
                axis.contour(mask, [0.5], colors="#ffb000", linewidths=0.9)
            axis.set(xticks=[], yticks=[])
            for spine in axis.spines.values():
                spine.set_visible(False)
            if i % len(EXAMPLES) == 0:
                axis.set_title(name, fontsize=9)
        axes[i][0].set_ylabel(
            title, rotation=0, ha="right", va="center", fontsize=9, labelpad=6
        )
    figure.savefig(OUTPUT, dpi=110)
    print(OUTPUT)


if __name__ == "__main__":
    main()
