"""What the cityscapes configs share: street scenes of 19 classes, no noise.

    python experiments/prepare.py --source=cityscapes --path=DIR --data_dir=DATA

with DIR/leftImg8bit and DIR/gtFine as downloaded, then --config.data.dir=DATA. `:paper`
after the config file gives the source's settings. The data need a licence of their own
and are not ours to measure on: no numbers are given.
"""

from ml_collections import ConfigDict

from configs import default, protocol


def get_config(variant: str = "small") -> ConfigDict:
    """Street scenes; `variant` is "small" or "paper"."""
    protocol.check(variant)
    config = default.get_config()
    config.data.name = "prepared"
    config.data.dataset = "cityscapes/fine"
    config.data.num_classes = 19
    config.data.workers = 2
    config.augment.rot90 = False
    config.augment.horizontal_flip_only = True
    config.report.images = 20
    if variant == "paper":
        return protocol.paper(config)
    config.augment.crop = 256
    config.model.width = 16
    config.model.depth = 4
    config.optimizer.learning_rate = 0.01
    config.training.batch_size = 4
    config.training.eval_batch_size = 1
    config.training.steps = 600
    config.training.eval_every = 300
    return config
