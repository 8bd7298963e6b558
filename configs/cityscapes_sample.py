r"""10 % of the pixels labelled, the rest void, street scenes (RCL).

    python experiments/main.py --config=configs/cityscapes_sample.py \
        --config.data.dir=DATA

configs/cityscapes.py says what DATA is.
"""

from ml_collections import ConfigDict

from configs import cityscapes


def get_config(variant: str = "small") -> ConfigDict:
    """The run."""
    config = cityscapes.get_config(variant)
    config.noise.name = "sample"
    config.noise.fraction = 0.1
    config.noise.classes = tuple(range(config.data.num_classes))
    config.noise.fill = 255
    return config
