r"""Fluorescence images of endoplasmic reticulum, with clean or noisy labels.

    python experiments/prepare.py --source=organelle --config=er \
        --path=DIR --data_dir=DATA
    python experiments/main.py --config=configs/er.py --config.data.dir=DATA
    python experiments/main.py --config=configs/er.py:noise=flip,rate=0.4 \
        --config.data.dir=DATA
    python experiments/main.py --config=configs/er.py:noise=sample,fraction=0.1 ...
    python experiments/main.py --config=configs/er.py:paper ...

DIR holds er/{train,val,test}/{images,labels}/NAME.tif. `paper` gives
the settings of the source. There are no results: the images are not free to use.
"""

from ml_collections import ConfigDict

from metaseg.runs import defaults


def get_config(arg: str = "") -> ConfigDict:
    """Returns the config; `arg` may name a noise and say `paper`."""
    arguments = defaults.parse_arg(arg, paper=False)
    config = defaults.get_config()
    config.data.name = "prepared"
    config.data.dataset = "organelle/er"
    if arguments.paper:
        config = defaults.paper(config)
    else:
        config.augment.crop = 96
        config.optimizer.name = "adam"
        config.training.batch_size = 8
        config.training.steps = 1_200
        config.training.eval_every = 200
    return defaults.set_noise(config, arguments)
