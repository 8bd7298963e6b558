"""Every field at its default: clean labels of the built-in cells.

    python experiments/main.py --config=configs/default.py
    python experiments/main.py --config=configs/default.py:noise=dilate,radius=2

metaseg/runs/defaults.py says what each field means. Any field can be set on the command
line, such as `--config.model.width=16`.
"""

from ml_collections import ConfigDict

from metaseg.runs import defaults


def get_config(arg: str = "") -> ConfigDict:
    """Returns the config; `arg` may name a noise."""
    return defaults.set_noise(defaults.get_config(), defaults.parse_arg(arg))
