"""Random labels with the cells' own foreground share (RL): nothing to learn.

    python experiments/main.py --config=configs/cell_random.py

About 2 minutes on two CPU cores. Test IoU 0.12 under the noise-aware decision
rule, 0.31 at the best threshold on the test labels.
"""

from ml_collections import ConfigDict

from metaseg.runs import defaults


def get_config() -> ConfigDict:
    """Returns the config."""
    config = defaults.get_config()
    config.noise.name = "random"
    config.noise.prior = 0.2
    return config
