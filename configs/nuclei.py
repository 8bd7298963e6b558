r"""What the nuclei configs share: a folder of fluorescence images, no noise.

Images and masks lie in DIR/{train,val,test}/{images,labels}/NAME.png, or have been
prepared from there by

    python experiments/prepare.py --source=folder --path=DIR --name=nuclei \
        --data_dir=DATA

and are found with --config.data.dir=DATA. The numbers in the configs are for the 334
images of 256 x 256 of the 2018 Data Science Bowl, stage 1 (BBBC038, CC0), split at
random into 234, 34 and 66. `:paper` after the config file gives the source's settings.
"""

from ml_collections import ConfigDict

from configs import default, protocol


def get_config(variant: str = "small") -> ConfigDict:
    """A folder of nuclei with clean labels; `variant` is "small" or "paper"."""
    protocol.check(variant)
    config = default.get_config()
    config.data.name = "folder"
    config.data.dataset = "folder/nuclei"
    if variant == "paper":
        return protocol.paper(config)
    config.augment.crop = 96
    config.training.batch_size = 8
    config.training.steps = 1_200
    config.training.eval_every = 200
    return config
