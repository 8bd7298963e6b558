"""The built-in network of thin strands without labels: iGTT as in its source.

    python experiments/igtt.py --config=configs/network_igtt.py

Black at first, then a few points along the skeleton of each mask.
"""

from ml_collections import ConfigDict

from configs import igtt


def get_config() -> ConfigDict:
    """The run."""
    config = igtt.get_config()
    config.data.name = "network"
    config.igtt.start = "black"
    config.igtt.structure = "ems"
    config.igtt.criterion = "dmi"
    config.igtt.rounds = 26
    return config
