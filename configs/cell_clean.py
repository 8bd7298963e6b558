"""Clean labels of the built-in cells: the ceiling of the other cell configs.

    python experiments/main.py --config=configs/cell_clean.py

@cell_clean@
"""

from ml_collections import ConfigDict

from configs import default


def get_config() -> ConfigDict:
    """The run."""
    return default.get_config()
