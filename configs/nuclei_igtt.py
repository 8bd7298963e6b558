"""A folder of nuclei without its training labels: iGTT from local contrast.

    python experiments/igtt.py --config=configs/nuclei_igtt.py --config.data.dir=DIR

DIR is that of configs/nuclei.py; masks of validation and test images are read to
measure the result. 2 minutes of training on two CPU cores. Test IoU 0.777 to 0.782 over
three seeds, no better than the masks that training starts from: see docs/igtt.md.
"""

from ml_collections import ConfigDict

from metaseg.runs import defaults


def get_config() -> ConfigDict:
    """Returns the config."""
    config = defaults.get_igtt_config()
    config.data.name = "folder"
    config.data.dataset = "folder/nuclei"
    config.augment.crop = 96
    config.training.batch_size = 8
    config.igtt.sigma_coarse = 24.0
    config.igtt.rounds = 6
    config.igtt.steps_per_round = 60
    config.igtt.min_radius = 2
    config.igtt.boundary_sigma = 3.0
    return config
