r"""What the mito configs share: fluorescence images of mitochondria, no noise.

    python experiments/prepare.py --source=organelle --config=mito \
        --path=DIR --data_dir=DATA

with DIR/mito/{train,val,test}/{images,labels}/NAME.tif, the source's tree, then
--config.data.dir=DATA. `:paper` after the config file gives the source's settings.
These images are not ours to measure on: no numbers are given.
"""

from ml_collections import ConfigDict

from configs import er


def get_config(variant: str = "small") -> ConfigDict:
    """Images of mitochondria; `variant` is "small" or "paper"."""
    config = er.get_config(variant)
    config.data.dataset = "organelle/mito"
    return config
