r"""Cityscapes: street scenes of 19 classes, with clean or noisy labels.

    python experiments/prepare.py --source=cityscapes --path=DIR --data_dir=DATA
    CONFIG=configs/cityscapes.py
    python experiments/main.py --config=$CONFIG --config.data.dir=DATA
    python experiments/main.py --config=$CONFIG:noise=flip,rate=0.4 \
        --config.data.dir=DATA
    python experiments/main.py --config=$CONFIG:noise=symmetric,rate=0.8 ...
    python experiments/main.py \
        --config=$CONFIG:noise=sample,fraction=0.1,classes=all,fill=255 ...
    python experiments/main.py --config=$CONFIG:paper ...

DIR holds leftImg8bit/ and gtFine/ as downloaded. `paper` gives the settings of the
source. There are no results: the data need a licence of their own.
"""

from ml_collections import ConfigDict

from metaseg.runs import defaults


def get_config(arg: str = "") -> ConfigDict:
    """Returns the config; `arg` may name a noise and say `paper`."""
    arguments = defaults.parse_arg(arg, paper=False)
    config = defaults.get_config()
    config.data.name = "prepared"
    config.data.dataset = "cityscapes/fine"
    config.data.num_classes = 19
    config.data.workers = 2
    config.augment.rot90 = False
    config.augment.horizontal_flip_only = True
    config.report.images = 20
    if arguments.paper:
        config = defaults.paper(config)
    else:
        config.augment.crop = 256
        config.model.width = 16
        config.model.depth = 4
        config.optimizer.name = "adam"
        config.optimizer.learning_rate = 0.01
        config.training.batch_size = 4
        config.training.eval_batch_size = 1
        config.training.steps = 600
        config.training.eval_every = 300
    return defaults.set_noise(config, arguments)
