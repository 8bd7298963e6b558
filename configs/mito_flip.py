"""40 % of the pixels of each class flipped, mitochondria (RCL).

    python experiments/main.py --config=configs/mito_flip.py --config.data.dir=DATA

configs/mito.py says what DATA is.
"""

from ml_collections import ConfigDict

from configs import mito


def get_config(variant: str = "small") -> ConfigDict:
    """The run."""
    config = mito.get_config(variant)
    config.noise.name = "flip"
    config.noise.rate = 0.4
    return config
