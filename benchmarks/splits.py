"""The test split that a config names, for benchmarks that train nothing."""

import sys

from ml_collections import ConfigDict

from metaseg.data import folder, synthetic
from metaseg.data.dataset import Split
from metaseg.errors import InputError

__all__ = ["test_split"]


def test_split(config: ConfigDict) -> Split:
    """Loads the test split into memory; exits with one line if that fails."""
    data = config.data
    load = folder.load if data.name == "folder" else synthetic.load
    try:
        split = load(data).test
    except InputError as error:
        sys.exit(f"error: {error}")
    return split.take(range(len(split)))
