r"""Photographs of cats and dogs, pet against background, with clean or noisy labels.

    tfds build oxford_iiit_pet --file_format=array_record --data_dir=TFDS
    python experiments/prepare.py --source=tfds:oxford_iiit_pet --path=TFDS \
        --data_dir=DATA
    python experiments/main.py --config=configs/pets.py --config.data.dir=DATA
    python experiments/main.py --config=configs/pets.py:noise=flip,rate=0.4 \
        --config.data.dir=DATA
    python experiments/main.py --config=configs/pets.py:noise=sample,fraction=0.1 ...
    python experiments/main.py --config=configs/pets.py:paper ...

The first command belongs to TFDS and needs TensorFlow, once. The outline class of the
masks is void. `paper` gives the settings of the source. There are no results: the
download could not be reached when this was written.
"""

from ml_collections import ConfigDict

from metaseg.runs import defaults


def get_config(arg: str = "") -> ConfigDict:
    """Returns the config; `arg` may name a noise and say `paper`."""
    arguments = defaults.parse_arg(arg, paper=False)
    config = defaults.get_config()
    config.data.name = "prepared"
    config.data.dataset = "tfds/oxford_iiit_pet"
    config.data.num_classes = 2
    config.augment.rot90 = False
    config.augment.horizontal_flip_only = True
    if arguments.paper:
        config = defaults.paper(config)
        config.augment.crop = 96  # the shortest side of any image is 108
    else:
        config.augment.crop = 96
        config.model.width = 16
        config.model.depth = 4
        config.optimizer.name = "adam"
        config.optimizer.learning_rate = 0.01
        config.training.batch_size = 8
        config.training.steps = 600
        config.training.eval_batch_size = 2
        config.training.eval_every = 300
    return defaults.set_noise(config, arguments)
