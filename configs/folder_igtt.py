"""Segments a folder of images without any label.

    python experiments/igtt.py --config=configs/folder_igtt.py --config.data.dir=DIR

DIR holds PNG, JPEG, TIFF, .npy or .npz files of any size, in folders or not. Of what
it should know, `igtt.sigma_coarse` is to be above an object's radius in pixels, and
`igtt.polarity` "darker" where objects are dark and fill half of an image or more.
"""

from ml_collections import ConfigDict

from configs import igtt


def get_config() -> ConfigDict:
    """The run."""
    config = igtt.get_config()
    config.data.name = "images"
    config.igtt.labels = "none"
    config.igtt.boundary_sigma = 3.0
    return config
