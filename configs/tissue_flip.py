"""40 % of the pixels of each class turned into another class, built-in tissue (RCL).

    python experiments/main.py --config=configs/tissue_flip.py

2 to 3 minutes on two CPU cores. Test mIoU 0.889 (clean labels: 0.897).
"""

from ml_collections import ConfigDict

from configs import tissue


def get_config() -> ConfigDict:
    """The run."""
    config = tissue.get_config()
    config.noise.name = "flip"
    config.noise.rate = 0.4
    return config
