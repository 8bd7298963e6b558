r"""What the er configs share: fluorescence images of endoplasmic reticulum, no noise.

    python experiments/prepare.py --source=organelle --config=er \
        --path=DIR --data_dir=DATA

with DIR/er/{train,val,test}/{images,labels}/NAME.tif, the source's tree, then
--config.data.dir=DATA. `:paper` after the config file gives the source's settings.
These images are not ours to measure on: no numbers are given.
"""

from ml_collections import ConfigDict

from configs import nuclei


def get_config(variant: str = "small") -> ConfigDict:
    """Images of endoplasmic reticulum; `variant` is "small" or "paper"."""
    config = nuclei.get_config(variant)
    config.data.name = "prepared"
    config.data.dataset = "organelle/er"
    return config
