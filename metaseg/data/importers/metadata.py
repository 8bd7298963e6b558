"""What a prepared data set says of itself: its metadata.json."""

import json
from pathlib import Path
from typing import Any

from metaseg.errors import InputError

__all__ = ["FORMAT", "read_metadata"]

FORMAT = 1  # of the prepared data sets; under the key "metaseg"


def read_metadata(path: Path) -> dict[str, Any]:
    """Reads the facts of a prepared data set.

    Args:
      path: its folder, `<data_dir>/<source>/<config>/<version>`.

    Returns:
      `source`, `config`, `num_classes` (K), `class_names` (or None), `channels`,
      `dtype`, `fingerprint`, and `splits`: for each of train, val and test `names`,
      `sizes` (height and width) and `class_pixels` (K + 1 counts, void last).

    Raises:
      InputError: if the folder is no finished data set of ours.
    """
    expected = "a data set that experiments/prepare.py finished"
    try:
        facts = json.loads((path / "metadata.json").read_text(encoding="utf-8"))
        # Written last by TFDS: without it the shards need not be whole.
        finished = (path / "dataset_info.json").is_file()
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}; expected {expected}") from None
    except ValueError as error:
        raise InputError(
            f"{path}: metadata.json is no JSON ({error}); expected {expected}"
        ) from None
    found = facts.get("metaseg") if isinstance(facts, dict) else None
    if found != FORMAT or not finished:
        got = "unfinished" if found == FORMAT else f"of format {found!r}, not {FORMAT}"
        raise InputError(f"{path}: {got}; expected {expected}")
    return facts
