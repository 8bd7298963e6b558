"""Clean labels, street scenes.

    python experiments/main.py --config=configs/camvid_clean.py --config.data.dir=DATA

7 to 10 minutes on two CPU cores. Test mIoU 0.343.
configs/camvid.py says what DATA is.
"""

from ml_collections import ConfigDict

from configs import camvid


def get_config(variant: str = "small") -> ConfigDict:
    """The run."""
    return camvid.get_config(variant)
