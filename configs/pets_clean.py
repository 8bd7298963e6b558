"""Clean labels, photographs of pets.

    python experiments/main.py --config=configs/pets_clean.py --config.data.dir=DATA

configs/pets.py says what DATA is.
"""

from ml_collections import ConfigDict

from configs import pets


def get_config(variant: str = "small") -> ConfigDict:
    """The run."""
    return pets.get_config(variant)
