"""10 % of the foreground pixels kept, the rest background, endoplasmic reticulum (RCL).

    python experiments/main.py --config=configs/er_sample.py --config.data.dir=DATA

configs/er.py says what DATA is.
"""

from ml_collections import ConfigDict

from configs import er


def get_config(variant: str = "small") -> ConfigDict:
    """The run."""
    config = er.get_config(variant)
    config.noise.name = "sample"
    config.noise.fraction = 0.1
    return config
