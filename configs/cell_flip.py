"""40 % of the pixels of each class flipped, built-in cells (RCL).

    python experiments/main.py --config=configs/cell_flip.py
    python experiments/main.py --config=configs/cell_flip.py --config.noise.rate=0.9

@cell_flip@
"""

from ml_collections import ConfigDict

from configs import default


def get_config() -> ConfigDict:
    """The run."""
    config = default.get_config()
    config.noise.name = "flip"
    config.noise.rate = 0.4
    return config
