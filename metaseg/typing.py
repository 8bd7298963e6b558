"""Types of arrays in annotations: what it is, its kind of numbers and its axes.

An alias here is for an *argument* and takes arrays of JAX (traced ones too) and of
NumPy. Axes are names in a string: `*batch` is any number of axes, and within one
function a name stands for one length wherever it occurs, in the result too. Results are
written out, as in `Integer[jax.Array, "*batch H W"]`. The tests check the annotations
of every call; nothing is checked outside of the tests. Imports jax and NumPy only.
"""

from collections.abc import Sequence
from typing import TypeAlias

import jax
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Bool, Float, Integer, Key, Real

__all__ = [
    "AnyArray",
    "Images",
    "Labels",
    "Masks",
    "Matrix",
    "Number",
    "Numbers",
    "PRNGKey",
    "Probabilities",
]

AnyArray: TypeAlias = jax.Array | np.ndarray
"""An array of either library, for annotations such as `Float[AnyArray, "N K"]`."""

PRNGKey: TypeAlias = Key[jax.Array, ""]
"""One key of `jax.random.key`."""

Labels: TypeAlias = Integer[AnyArray, "*batch H W"]
"""Class ids of pixels; 255 is void."""

Masks: TypeAlias = Bool[AnyArray, "*batch H W"]
"""Sets of pixels."""

Images: TypeAlias = Float[AnyArray, "*batch H W C"]
"""Images, channels last."""

Probabilities: TypeAlias = Float[AnyArray, "*batch H W K"]
"""Probabilities, scores or densities of K classes at each pixel."""

Number: TypeAlias = Real[ArrayLike, ""]
"""One number, which may be traced."""

Matrix: TypeAlias = Real[AnyArray, "K K"] | Sequence[Sequence[Number]]
"""A noise transition matrix: row = clean class, column = noisy class."""

Numbers: TypeAlias = Number | Real[AnyArray, "_"] | Sequence[Number]
"""One number, or a sequence of them, such as one for each class."""
