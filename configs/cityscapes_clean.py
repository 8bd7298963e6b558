r"""Clean labels, street scenes.

    python experiments/main.py --config=configs/cityscapes_clean.py \
        --config.data.dir=DATA

configs/cityscapes.py says what DATA is.
"""

from ml_collections import ConfigDict

from configs import cityscapes


def get_config(variant: str = "small") -> ConfigDict:
    """The run."""
    return cityscapes.get_config(variant)
