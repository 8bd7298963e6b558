"""The version of the installed distribution."""

import importlib.metadata

__all__ = ["__version__"]

try:
    __version__ = importlib.metadata.version("metaseg-jax")
except importlib.metadata.PackageNotFoundError:  # used from a source tree
    __version__ = "unknown"
