"""Draws docs/front.png from finished runs on the built-in cells.

    python docs/front_picture.py runs/RUN [runs/RUN ...]

Each row is one run. It shows an image of the test split, a label with the noise of the
run, the score of the network, and the prediction of the noise-aware decision rule.
"""

import json
import sys
from functools import partial
from pathlib import Path

import jax
import numpy as np
from matplotlib.figure import Figure
from ml_collections import ConfigDict

from metaseg import checkpoint, decoding, noise, training
from metaseg.runs import sources
from metaseg.runs.training import results as results_lib
from metaseg.runs.training import steps

OUTPUT = Path(__file__).with_name("front.png")
EXAMPLE = 1  # index in the test split
TITLES = {
    "none": "clean labels",
    "flip": "{rate:.0%} of the pixels flipped",
    "sample": "{fraction:.0%} of the cell pixels kept",
    "random": "random labels",
}


def row(workdir: Path) -> tuple[str, list[np.ndarray]]:
    """Returns title and pictures of one run."""
    config = ConfigDict(json.loads((workdir / "config.json").read_text()))
    results = json.loads((workdir / "results.json").read_text())
    parts = steps.build(config)
    config.data.train_size = config.data.val_size = 1
    data = sources.load(config)
    state = training.create_state(
        jax.random.key(0),
        parts.model,
        parts.optimizer,
        (*sources.window(config, data), data.channels),
        ema=parts.ema_decay > 0,
    )
    checkpoints = checkpoint.Checkpoints(workdir / "checkpoints", read_only=True)
    state = checkpoints.restore(config.training.steps, state).state
    test = data.test.take([EXAMPLE])
    logits = jax.jit(partial(parts.model.apply, train=False))(
        state.variables(), test.images
    )
    probability = decoding.probabilities(logits)
    matrix = noise.build_matrix(config.noise, 2)
    noisy = results_lib.noisy_labels(config, test)[0]
    prediction = decoding.predict(probability, matrix)[0]
    name = TITLES[config.noise.name].format(**config.noise.to_dict())
    title = f"{name}\ntest IoU {results['test']['iou']['analytic']:.2f}"
    return title, [
        test.images[0, ..., 0],
        noisy,
        np.asarray(probability[0, ..., 1]),
        np.asarray(prediction),
    ]


def main() -> None:
    """Writes docs/front.png, with one row for each run."""
    rows = [row(Path(name)) for name in sys.argv[1:]]
    if not rows:
        sys.exit(__doc__)
    figure = Figure(figsize=(8.2, 1.56 * len(rows) + 0.25), layout="constrained")
    axes = figure.subplots(len(rows), 4, squeeze=False)
    heads = ("image", "label", "score (stretched)", "prediction")
    for i, (title, pictures) in enumerate(rows):
        for j, (axis, picture) in enumerate(zip(axes[i], pictures, strict=True)):
            low, high = np.percentile(picture, [0.5, 99.5]) if j in (0, 2) else (0, 1)
            colours = "viridis" if j == 2 else "gray"
            axis.imshow(
                picture, cmap=colours, vmin=low, vmax=high, interpolation="nearest"
            )
            axis.set_xticks([])
            axis.set_yticks([])
            for spine in axis.spines.values():
                spine.set_visible(False)
            if i == 0:
                axis.set_title(heads[j], fontsize=10)
        axes[i][0].set_ylabel(
            title, rotation=0, ha="right", va="center", fontsize=10, labelpad=8
        )
    figure.savefig(OUTPUT, dpi=110)
    print(OUTPUT)


if __name__ == "__main__":
    main()
