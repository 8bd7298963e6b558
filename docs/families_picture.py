"""Draws docs/families.png: examples of the built-in image families, with their labels.

python docs/families_picture.py
"""

from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from metaseg.data import synthetic
from metaseg.report import pictures

SHOWN = 3  # number of examples of each family
OUTPUT = Path(__file__).with_name("families.png")


def main() -> None:
    """Writes docs/families.png."""
    families = list(synthetic.FAMILIES)
    figure = Figure(figsize=(2.0 * len(families), 0.2 + 1.0 * SHOWN), dpi=130)
    axes = figure.subplots(SHOWN, 2 * len(families))
    for column, family in enumerate(families):
        images, labels = synthetic.examples(
            np.uint32(0), np.arange(SHOWN, dtype=np.uint32), family=family
        )
        colours = np.array(pictures.class_colours(synthetic.num_classes(family)))
        for row in range(SHOWN):
            low, high = np.percentile(images[row], (0.5, 99.8))
            shown = np.clip((np.asarray(images[row]) - low) / (high - low), 0, 1)
            left, right = axes[row, 2 * column : 2 * column + 2]
            left.imshow(shown, cmap="gray")
            right.imshow(colours[np.asarray(labels[row])])
        axes[0, 2 * column].set_title(family, loc="left", fontsize=9)
    for axis in axes.ravel():
        axis.set_axis_off()
    figure.subplots_adjust(0.005, 0.005, 0.995, 0.93, 0.03, 0.03)
    figure.savefig(OUTPUT)
    print(OUTPUT)


if __name__ == "__main__":
    main()
