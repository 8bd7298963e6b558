"""The built-in network of thin strands without labels: iGTT as in its source.

    python experiments/igtt.py --config=configs/network_igtt.py

Black at first, then a few points along the skeleton of each mask. 4 to 5 minutes of
training on two CPU cores; test IoU 0.58 to 0.66 over three seeds: a study of how
structure comes out of nothing, not a way to segment strands.
"""

from ml_collections import ConfigDict

from configs import igtt


def get_config() -> ConfigDict:
    """The run."""
    config = igtt.get_config()
    config.data.name = "network"
    config.igtt.start = "black"
    config.igtt.target = "ems"
    config.igtt.criterion = "dmi"
    config.igtt.rounds = 26
    return config
