r"""40 % of the pixels of each class turned into another class, street scenes (RCL).

    python experiments/main.py --config=configs/cityscapes_flip.py \
        --config.data.dir=DATA

All other classes are equally likely: the symmetric noise transition matrix.

configs/cityscapes.py says what DATA is.
"""

from ml_collections import ConfigDict

from configs import cityscapes


def get_config(variant: str = "small") -> ConfigDict:
    """The run."""
    config = cityscapes.get_config(variant)
    config.noise.name = "flip"
    config.noise.rate = 0.4
    return config
