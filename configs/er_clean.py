"""Clean labels, endoplasmic reticulum.

    python experiments/main.py --config=configs/er_clean.py --config.data.dir=DATA

configs/er.py says what DATA is.
"""

from ml_collections import ConfigDict

from configs import er


def get_config(variant: str = "small") -> ConfigDict:
    """The run."""
    return er.get_config(variant)
