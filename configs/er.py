r"""What the er configs share: fluorescence images of endoplasmic reticulum, no noise.

    python experiments/prepare.py --source=organelle --config=er \
        --path=DIR --data_dir=DATA

with DIR/er/{train,val,test}/{images,labels}/NAME.tif, the source's tree, then
--config.data.dir=DATA. `:paper` after the config file gives the source's settings.
These images are not ours to measure on: no numbers are given.
"""

from ml_collections import ConfigDict

from configs import default, protocol


def get_config(variant: str = "small") -> ConfigDict:
    """Images of endoplasmic reticulum; `variant` is "small" or "paper"."""
    protocol.check(variant)
    config = default.get_config()
    config.data.name = "prepared"
    config.data.dataset = "organelle/er"
    if variant == "paper":
        return protocol.paper(config)
    config.augment.crop = 96
    config.training.batch_size = 8
    config.training.steps = 1_200
    config.training.eval_every = 200
    return config
