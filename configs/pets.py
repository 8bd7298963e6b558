r"""What the pets configs share: photographs of cats and dogs, pet against background.

    tfds build oxford_iiit_pet --file_format=array_record --data_dir=TFDS
    python experiments/prepare.py --source=tfds:oxford_iiit_pet --path=TFDS \
        --data_dir=DATA

then --config.data.dir=DATA. The first command is TFDS's own and needs TensorFlow, once;
the outline class of the masks is void. `:paper` after the config file gives the
source's settings. The download was out of reach where this was written: there are no
numbers.
"""

from ml_collections import ConfigDict

from configs import default, protocol


def get_config(variant: str = "small") -> ConfigDict:
    """Photographs of pets; `variant` is "small" or "paper"."""
    protocol.check(variant)
    config = default.get_config()
    config.data.name = "prepared"
    config.data.dataset = "tfds/oxford_iiit_pet"
    config.data.num_classes = 2
    config.augment.rot90 = False
    config.augment.horizontal_flip_only = True
    if variant == "paper":
        config = protocol.paper(config)
        config.augment.crop = 96  # the shortest side of any image is 108
        return config
    config.augment.crop = 96
    config.model.width = 16
    config.model.depth = 4
    config.optimizer.learning_rate = 0.01
    config.training.batch_size = 8
    config.training.steps = 600
    config.training.eval_batch_size = 2
    config.training.eval_every = 300
    return config
