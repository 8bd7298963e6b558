"""Random labels: drawn with no reference to the clean label, but for its void.

Every function is `(key, labels, *, ...) -> labels` on integer maps `[..., H, W]`, and
keeps shape and dtype. An invalid parameter raises an `InputError`, which is a
ValueError, that names it. Source: Luo et al., AAAI 2022.
"""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from metaseg.labels import is_void
from metaseg.noise import draw
from metaseg.noise.parameters import checked

__all__ = ["constant", "random", "shuffle"]


@checked
def random(key: jax.Array, labels: jax.Array, *, prior: ArrayLike) -> jax.Array:
    """Draw every pixel's class independently from one distribution; void stays void.

    Args:
      key: PRNG key.
      labels: class ids, integer `[..., H, W]`; read for their shape, dtype and void.
      prior: class probabilities `[K]`, or the foreground's alone for K = 2; may be
        traced.

    Returns:
      Label maps of the shape and dtype of `labels`.
    """
    prior = jnp.asarray(prior, jnp.float32)
    if prior.ndim == 0:
        prior = jnp.stack([1 - prior, prior])
    rows = jnp.zeros(labels.shape, jnp.int32)
    drawn = draw.categorical(key, rows, prior[None]).astype(labels.dtype)
    return jnp.where(is_void(labels), labels, drawn)


@checked
def shuffle(key: jax.Array, labels: jax.Array, *, num_classes: int = 2) -> jax.Array:
    """Deal the labels of each map out again, so that only their counts remain.

    All arrangements are alike probable; void keeps its places.

    Args:
      key: PRNG key.
      labels: class ids, integer `[..., H, W]`; ids not below K stay.
      num_classes: K, static.

    Returns:
      Label maps of the shape and dtype of `labels`.
    """
    maps = labels.reshape(-1, labels.shape[-2] * labels.shape[-1])
    words = draw.words(key, labels.shape).reshape(maps.shape)

    def deal(classes: jax.Array, drawn: jax.Array) -> jax.Array:
        """Class k goes to the pixels whose words rank after all lower classes'."""
        held = classes >= num_classes
        ids = held.astype(jnp.int32)
        dealt, taken = jnp.zeros_like(classes), jnp.int32(0)
        for class_id in range(num_classes - 1):
            taken += jnp.sum(classes == class_id, dtype=jnp.int32)
            quota = jnp.zeros(draw.IDS, jnp.int32).at[0].set(taken)
            dealt += ~draw.smallest(ids, drawn, quota)
        return jnp.where(held, classes, dealt)

    return jax.vmap(deal)(maps, words).reshape(labels.shape)


@checked
def constant(key: jax.Array, labels: jax.Array, *, fill: int = 0) -> jax.Array:
    """One class everywhere; void stays void.

    Args:
      key: ignored.
      labels: class ids, integer `[..., H, W]`.
      fill: the class id, static.

    Returns:
      Label maps of the shape and dtype of `labels`.
    """
    del key
    return jnp.where(is_void(labels), labels, jnp.full_like(labels, fill))
