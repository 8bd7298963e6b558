"""40 % of the pixels of each class flipped, built-in cells (RCL).

    python experiments/main.py --config=configs/cell_flip.py
    python experiments/main.py --config=configs/cell_flip.py --config.noise.rate=0.9

2 to 3 minutes on two CPU cores. Test IoU 0.932, 0.925 and 0.919 under the noise-aware
decision rule for `--config.noise.seed` 0, 1 and 2 (clean labels: 0.948; 90 % flipped:
0.957).
"""

from ml_collections import ConfigDict

from metaseg.runs import defaults


def get_config() -> ConfigDict:
    """Returns the config."""
    config = defaults.get_config()
    config.noise.name = "flip"
    config.noise.rate = 0.4
    # Pixels that are learned then add little noise to the gradient.
    config.model.noise_layer = True
    return config
