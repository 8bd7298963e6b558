"""40 % of the pixels of each class flipped, endoplasmic reticulum (RCL).

    python experiments/main.py --config=configs/er_flip.py --config.data.dir=DATA

configs/er.py says what DATA is.
"""

from ml_collections import ConfigDict

from configs import er


def get_config(variant: str = "small") -> ConfigDict:
    """The run."""
    config = er.get_config(variant)
    config.noise.name = "flip"
    config.noise.rate = 0.4
    return config
