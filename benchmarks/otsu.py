"""IoU of a per-image Otsu threshold on the test split: what needs no training.

    python benchmarks/otsu.py --config=configs/cell_clean.py
    python benchmarks/otsu.py --config=configs/nuclei.py --config.data.dir=DIR

Printed over pooled pixels and as the mean over images.
"""

from collections.abc import Sequence

import numpy as np
from absl import app
from ml_collections import config_flags
from splits import test_split

from metaseg import unsupervised

_CONFIG = config_flags.DEFINE_config_file("config", None, "Whose data to threshold.")


def main(argv: Sequence[str]) -> None:
    """Prints the IoU over pooled pixels and its mean over images."""
    del argv
    test = test_split(_CONFIG.value)
    masks = np.stack(
        [unsupervised.segment(x, "otsu", polarity="brighter") for x in test.images]
    )
    masks &= test.labels != 255
    truth = test.labels == 1
    both, either = (
        f(masks, truth).sum((1, 2)) for f in (np.logical_and, np.logical_or)
    )
    print(
        f"Otsu on {len(test)} test images: IoU {both.sum() / either.sum():.3f} pooled, "
        f"{np.mean(both / np.maximum(either, 1)):.3f} mean over images"
    )


if __name__ == "__main__":
    app.run(main)
