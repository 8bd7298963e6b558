"""What the camvid configs share: street scenes of 11 classes, no noise.

    python experiments/prepare.py --source=camvid --path=DIR --data_dir=DATA

with DIR in SegNet's layout (train/, trainannot/, ...), then --config.data.dir=DATA. The
numbers in the configs are for frames of 240 x 180. `:paper` after the config file gives
the source's settings, for frames of at least 256 x 256.
"""

from ml_collections import ConfigDict

from configs import default, protocol


def get_config(variant: str = "small") -> ConfigDict:
    """Street scenes; `variant` is "small" or "paper"."""
    protocol.check(variant)
    config = default.get_config()
    config.data.name = "prepared"
    config.data.dataset = "camvid/full"
    config.data.num_classes = 11
    config.augment.rot90 = False
    config.augment.horizontal_flip_only = True
    if variant == "paper":
        return protocol.paper(config)
    config.augment.crop = 96
    config.model.width = 16
    config.model.depth = 4
    config.optimizer.learning_rate = 0.003
    config.training.batch_size = 8
    config.training.steps = 1_000
    config.training.eval_every = 250
    return config
