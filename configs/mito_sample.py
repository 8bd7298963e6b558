"""10 % of the foreground pixels kept, the rest background, mitochondria (RCL).

    python experiments/main.py --config=configs/mito_sample.py --config.data.dir=DATA

configs/mito.py says what DATA is.
"""

from ml_collections import ConfigDict

from configs import mito


def get_config(variant: str = "small") -> ConfigDict:
    """The run."""
    config = mito.get_config(variant)
    config.noise.name = "sample"
    config.noise.fraction = 0.1
    return config
