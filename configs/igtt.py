"""Every field of iGTT at its default: the built-in cells, segmented without labels.

    python experiments/igtt.py --config=configs/igtt.py

`get_igtt_config` in metaseg/runs/defaults.py says what each field means.
"""

from ml_collections import ConfigDict

from metaseg.runs import defaults


def get_config() -> ConfigDict:
    """Returns the config."""
    return defaults.get_igtt_config()
