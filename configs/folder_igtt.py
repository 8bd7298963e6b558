"""Segments a folder of images without any label.

    python experiments/igtt.py --config=configs/folder_igtt.py --config.data.dir=DIR

DIR holds PNG, JPEG, TIFF, .npy or .npz files of any size, in sub-folders or not. Set
`igtt.sigma_coarse` to more than an object's radius in pixels, and `igtt.polarity` to
"darker" if objects are dark and fill half of an image or more.
"""

from ml_collections import ConfigDict, config_dict

from metaseg.runs import defaults


def get_config() -> ConfigDict:
    """Returns the config."""
    config = defaults.get_igtt_config()
    config.data.name = "images"
    config.augment.crop = config_dict.placeholder(int)  # the data decide
    config.igtt.labels = "none"
    config.igtt.boundary_sigma = 3.0
    return config
