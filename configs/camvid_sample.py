"""10 % of the pixels labelled, the rest void, street scenes (RCL).

    python experiments/main.py --config=configs/camvid_sample.py --config.data.dir=DATA

7 to 10 minutes on two CPU cores. Test mIoU 0.351.
configs/camvid.py says what DATA is.
"""

from ml_collections import ConfigDict

from configs import camvid


def get_config(variant: str = "small") -> ConfigDict:
    """The run."""
    config = camvid.get_config(variant)
    config.noise.name = "sample"
    config.noise.fraction = 0.1
    config.noise.classes = tuple(range(config.data.num_classes))
    config.noise.fill = 255
    return config
