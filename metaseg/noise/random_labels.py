"""Random labels: noise that does not depend on where the clean classes are.

Every function is `(key, labels, *, ...) -> labels` on integer maps `[..., H, W]`. It
keeps shape and dtype, and void stays void. Source: Luo et al., "Deep Neural Networks
Learn Meta-Structures from Noisy Labels in Semantic Segmentation", AAAI 2022.
"""

import math

import jax
import jax.numpy as jnp
from jaxtyping import Integer

from metaseg import ntm
from metaseg.labels import is_void
from metaseg.noise import draw
from metaseg.noise.parameters import checked
from metaseg.typing import AnyArray, Labels, Numbers, PRNGKey

__all__ = ["constant", "random", "shuffle"]


@checked
def random(
    key: PRNGKey, labels: Labels, *, prior: Numbers
) -> Integer[jax.Array, "*batch H W"]:
    """Draws the class of every pixel independently from one distribution.

    Args:
      key: PRNG key.
      labels: Integer class ids `[..., H, W]`. Only their shape, dtype and void are
        used.
      prior: Class probabilities `[K]`, or the foreground probability for K = 2. May
        be traced.

    Returns:
      Label maps of the shape and dtype of `labels`.

    Raises:
      InputError: If an argument is of a wrong type or out of range.
    """
    row = ntm.as_prior(prior)
    rows = jnp.zeros(labels.shape, jnp.int32)
    drawn = draw.categorical(key, rows, row[None]).astype(labels.dtype)
    return jnp.where(is_void(labels), labels, drawn)


@checked
def shuffle(
    key: PRNGKey, labels: Labels, *, num_classes: int = 2
) -> Integer[jax.Array, "*batch H W"]:
    """Shuffles the labels of each map, so that only the number of each class remains.

    All arrangements have the same probability. Void keeps its places.

    Args:
      key: PRNG key.
      labels: Integer class ids `[..., H, W]`; 255 is void.
      num_classes: K, static.

    Returns:
      Label maps of the shape and dtype of `labels`.

    Raises:
      InputError: If an argument is of a wrong type or out of range.
    """
    maps = labels.reshape(math.prod(labels.shape[:-2]), math.prod(labels.shape[-2:]))
    bits = draw.bits(key, labels.shape).reshape(maps.shape)

    def deal(classes: AnyArray, drawn: jax.Array) -> jax.Array:
        """Gives class k to the pixels whose bits follow those of lower classes."""
        held = classes >= num_classes
        ids = held.astype(jnp.int32)
        dealt, taken = jnp.zeros_like(classes), jnp.int32(0)
        for class_id in range(num_classes - 1):
            taken += jnp.sum(classes == class_id, dtype=jnp.int32)
            quota = jnp.zeros(draw.IDS, jnp.int32).at[0].set(taken)
            dealt += ~draw.smallest(ids, drawn, quota)
        return jnp.where(held, classes, dealt)

    return jax.vmap(deal)(maps, bits).reshape(labels.shape)


@checked
def constant(
    key: PRNGKey, labels: Labels, *, fill: int = 0
) -> Integer[jax.Array, "*batch H W"]:
    """Gives every pixel the same class.

    Args:
      key: Not used.
      labels: Integer class ids `[..., H, W]`; 255 is void.
      fill: Class id that every pixel gets, static.

    Returns:
      Label maps of the shape and dtype of `labels`.

    Raises:
      InputError: If an argument is of a wrong type or out of range.
    """
    del key
    return jnp.where(is_void(labels), labels, jnp.full_like(labels, fill))
