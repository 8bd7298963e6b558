"""40 % of the pixels of each class flipped, photographs of pets (RCL).

    python experiments/main.py --config=configs/pets_flip.py --config.data.dir=DATA

configs/pets.py says what DATA is.
"""

from ml_collections import ConfigDict

from configs import pets


def get_config(variant: str = "small") -> ConfigDict:
    """The run."""
    config = pets.get_config(variant)
    config.noise.name = "flip"
    config.noise.rate = 0.4
    return config
