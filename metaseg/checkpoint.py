"""Trained weights on disk, through Orbax."""

from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp

__all__ = ["restore", "save"]


def save(path: Path, tree: Any) -> None:
    """Writes a tree of arrays to a new folder, whole or not at all.

    Args:
      path: folder to make; must not exist.
      tree: any tree of arrays, a `TrainState` for one.
    """
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(path.absolute(), tree)


def restore(path: Path, like: Any) -> Any:
    """Reads what `save` wrote.

    Args:
      path: folder that `save` made.
      like: a tree of the same structure, of arrays or `jax.ShapeDtypeStruct`.

    Returns:
      The tree, with the values on disk.
    """
    target = jax.tree.map(ocp.utils.to_shape_dtype_struct, like)
    with ocp.StandardCheckpointer() as checkpointer:
        return checkpointer.restore(path.absolute(), target)
