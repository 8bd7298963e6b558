"""Clean labels of a folder of nuclei: the ceiling of the other nuclei configs.

    python experiments/main.py --config=configs/nuclei_clean.py --config.data.dir=DIR

@nuclei_clean@
"""

from ml_collections import ConfigDict

from configs import nuclei


def get_config() -> ConfigDict:
    """The run."""
    return nuclei.get_config()
