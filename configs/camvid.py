r"""CamVid: street scenes of 11 classes, with clean or noisy labels.

    python experiments/prepare.py --source=camvid --path=DIR --data_dir=DATA
    CONFIG=configs/camvid.py
    python experiments/main.py --config=$CONFIG --config.data.dir=DATA
    python experiments/main.py --config=$CONFIG:noise=flip,rate=0.4 \
        --config.data.dir=DATA
    python experiments/main.py --config=$CONFIG:noise=symmetric,rate=0.8 ...
    python experiments/main.py \
        --config=$CONFIG:noise=sample,fraction=0.1,classes=all,fill=255 ...
    python experiments/main.py --config=$CONFIG:paper ...

DIR is in SegNet's layout (train/, trainannot/, ...). 7 to 10 minutes on two CPU cores.
Test mIoU on frames of 240 x 180:

- clean labels: 0.343;
- 40 % of the pixels of each class turned into another class, all equally likely (RCL):
  0.357;
- 80 % of them, given as a noise transition matrix (RCL): 0.264;
- 10 % of the pixels labelled, the rest void (RCL): 0.351.

`paper` gives the settings of the source, for frames of at least 256 x 256.
"""

from ml_collections import ConfigDict

from metaseg.runs import defaults


def get_config(arg: str = "") -> ConfigDict:
    """Returns the config; `arg` may name a noise and say `paper`."""
    arguments = defaults.parse_arg(arg, paper=False)
    config = defaults.get_config()
    config.data.name = "prepared"
    config.data.dataset = "camvid/full"
    config.data.num_classes = 11
    config.augment.rot90 = False
    config.augment.horizontal_flip_only = True
    if arguments.paper:
        config = defaults.paper(config)
    else:
        config.augment.crop = 96
        config.model.width = 16
        config.model.depth = 4
        config.optimizer.name = "adam"
        config.optimizer.learning_rate = 0.003
        config.training.batch_size = 8
        config.training.steps = 1_000
        config.training.eval_every = 250
    return defaults.set_noise(config, arguments)
