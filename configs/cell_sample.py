"""10 % of the foreground pixels kept, the rest background, built-in cells (RCL).

    python experiments/main.py --config=configs/cell_sample.py

@cell_sample@
"""

from ml_collections import ConfigDict

from configs import default


def get_config() -> ConfigDict:
    """The run."""
    config = default.get_config()
    config.noise.name = "sample"
    config.noise.fraction = 0.1
    return config
