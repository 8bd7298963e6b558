"""The built-in network of thin strands without labels: iGTT as in its source.

    python experiments/igtt.py --config=configs/network_igtt.py

The first labels are black, later ones a few points along the skeleton of each mask. 4
to 5 minutes of training on two CPU cores; test IoU 0.58 to 0.66 over three seeds. This
is a study of how structure emerges from black labels, not a way to segment strands.
"""

from ml_collections import ConfigDict

from metaseg.runs import defaults


def get_config() -> ConfigDict:
    """Returns the config."""
    config = defaults.get_igtt_config()
    config.data.name = "network"
    config.igtt.start = "black"
    config.igtt.target = "ems"
    config.igtt.criterion = "dmi"
    config.igtt.rounds = 26
    return config
