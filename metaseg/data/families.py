"""The families of built-in images by name, and their classes.

`synthetic` renders them. Imports no jax, so that a config is checked without it.
"""

from metaseg.errors import InputError

__all__ = ["CLASS_NAMES", "num_classes"]

CLASS_NAMES = {
    "cells": ("background", "cell"),
    "network": ("background", "network"),
    "tissue": ("stroma", "epithelium", "lymphoid", "membrane"),
    "tubes": ("background", "tube"),
}


def num_classes(name: str) -> int:
    """Returns the number of classes of a family.

    Args:
      name: Name of the family.

    Returns:
      Number of classes K.

    Raises:
      InputError: for an unknown family.
    """
    if name not in CLASS_NAMES:
        known = ", ".join(sorted(CLASS_NAMES))
        raise InputError(f"name: got '{name}', expected one of {known}")
    return len(CLASS_NAMES[name])
