"""10 % of the foreground pixels kept, the rest background, built-in cells (RCL).

    python experiments/main.py --config=configs/cell_sample.py

About 2 minutes on two CPU cores. Test IoU 0.933 in the noise-aware reading, 0.000 at
one half (clean labels: 0.948).
"""

from ml_collections import ConfigDict

from configs import default


def get_config() -> ConfigDict:
    """The run."""
    config = default.get_config()
    config.noise.name = "sample"
    config.noise.fraction = 0.1
    return config
