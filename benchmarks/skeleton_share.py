"""How much of the foreground lies along its skeleton: what EMS can keep of it.

    python benchmarks/skeleton_share.py --config=configs/network_igtt.py
    python benchmarks/skeleton_share.py --config=configs/nuclei_igtt.py \
        --config.data.dir=DIR

Printed for the true masks of the test split: the share of the foreground that points
moved by up to `config.igtt.radius` pixels from the skeleton can land on.
"""

from collections.abc import Sequence

import numpy as np
from absl import app
from ml_collections import config_flags
from splits import test_split

from metaseg import morphology

_CONFIG = config_flags.DEFINE_config_file("config", None, "Whose data to look at.")


def main(argv: Sequence[str]) -> None:
    """Prints the share."""
    del argv
    config = _CONFIG.value
    truth = test_split(config).labels == 1
    skeleton = morphology.skeletonize(truth)
    near = morphology.dilate(skeleton, config.igtt.radius, shape="square")
    share = (np.asarray(near) & truth).sum() / truth.sum()
    print(f"{config.data.name}: {share:.3f} of the foreground")


if __name__ == "__main__":
    app.run(main)
