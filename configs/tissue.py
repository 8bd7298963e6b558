"""Built-in histology-like images of 4 classes in colour, with clean or noisy labels.

    python experiments/main.py --config=configs/tissue.py
    python experiments/main.py --config=configs/tissue.py:noise=flip,rate=0.4

The classes are stroma, epithelium, lymphoid tissue and thin membranes; the package
renders the images. About 80 s of processor time. Test mIoU 0.922 with clean labels,
0.911 with 40 % of the pixels of each class turned into another class (RCL).
"""

from ml_collections import ConfigDict

from metaseg.runs import defaults


def get_config(arg: str = "") -> ConfigDict:
    """Returns the config; `arg` may name a noise."""
    arguments = defaults.parse_arg(arg)
    config = defaults.get_config()
    config.data.name = "tissue"
    config.data.num_classes = 4
    return defaults.set_noise(config, arguments)
