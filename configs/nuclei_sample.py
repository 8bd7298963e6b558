"""10 % of the foreground pixels kept, a folder of nuclei (RCL).

    python experiments/main.py --config=configs/nuclei_sample.py --config.data.dir=DIR

@nuclei_sample@
"""

from ml_collections import ConfigDict

from configs import nuclei


def get_config() -> ConfigDict:
    """The run."""
    config = nuclei.get_config()
    config.noise.name = "sample"
    config.noise.fraction = 0.1
    return config
