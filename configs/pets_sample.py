"""10 % of the foreground pixels kept, the rest background, photographs of pets (RCL).

    python experiments/main.py --config=configs/pets_sample.py --config.data.dir=DATA

configs/pets.py says what DATA is.
"""

from ml_collections import ConfigDict

from configs import pets


def get_config(variant: str = "small") -> ConfigDict:
    """The run."""
    config = pets.get_config(variant)
    config.noise.name = "sample"
    config.noise.fraction = 0.1
    return config
