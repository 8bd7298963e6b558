"""Importers: data sets as they are published -> TFDS data sets of one form.

One module per source says where its pairs lie and which class a stored value means;
the rest is shared: `staging` reads and checks in worker processes, `builder` writes
through TFDS, `importing` makes a run of it. See docs/data.md.
"""

import importlib
from typing import Any

__all__ = ["SOURCES", "ImportOptions", "ImportRequest", "prepare", "read_metadata"]

_HOMES = {
    "SOURCES": "sources",
    "ImportOptions": "pairs",
    "ImportRequest": "importing",
    "prepare": "importing",
    "read_metadata": "metadata",
}


def __getattr__(name: str) -> Any:
    # Late: worker processes import this package too, and TFDS costs them a second.
    if name in _HOMES:
        home = importlib.import_module(f"metaseg.data.importers.{_HOMES[name]}")
        return getattr(home, name)
    raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
