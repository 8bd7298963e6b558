"""Clean labels, mitochondria.

    python experiments/main.py --config=configs/mito_clean.py --config.data.dir=DATA

configs/mito.py says what DATA is.
"""

from ml_collections import ConfigDict

from configs import mito


def get_config(variant: str = "small") -> ConfigDict:
    """The run."""
    return mito.get_config(variant)
