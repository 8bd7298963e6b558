"""What the nuclei configs share: a folder of fluorescence images, no noise.

Images and masks lie in DIR/{train,val,test}/{images,labels}/NAME.png; the numbers in
the configs are for the 334 images of 256 x 256 of the 2018 Data Science Bowl, stage 1
(BBBC038, CC0), split at random into 234, 34 and 66.
"""

from ml_collections import ConfigDict

from configs import default


def get_config() -> ConfigDict:
    """A folder of nuclei with clean labels."""
    config = default.get_config()
    config.data.name = "folder"
    config.augment.crop = 96
    config.training.batch_size = 8
    config.training.steps = 1_200
    config.training.eval_every = 200
    return config
