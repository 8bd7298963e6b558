"""40 % of the pixels of each class turned into another class, street scenes (RCL).

    python experiments/main.py --config=configs/camvid_flip.py --config.data.dir=DATA

All other classes are equally likely: the symmetric noise transition matrix.

7 to 10 minutes on two CPU cores. Test mIoU 0.357.
configs/camvid.py says what DATA is.
"""

from ml_collections import ConfigDict

from configs import camvid


def get_config(variant: str = "small") -> ConfigDict:
    """The run."""
    config = camvid.get_config(variant)
    config.noise.name = "flip"
    config.noise.rate = 0.4
    return config
