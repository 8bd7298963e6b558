"""Random labels: drawn with no reference to the clean label, but for its void.

Every function is `(key, labels, *, ...) -> labels` on integer maps `[..., H, W]`, and
keeps shape and dtype. Source: Luo et al., AAAI 2022.
"""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from metaseg.labels import is_void
from metaseg.noise import draw

__all__ = ["random"]


def random(key: jax.Array, labels: jax.Array, *, prior: ArrayLike) -> jax.Array:
    """Draw every pixel's class independently from one distribution; void stays void.

    Args:
      key: PRNG key.
      labels: class ids, integer `[..., H, W]`; read for their shape, dtype and void.
      prior: class probabilities `[K]`, or the foreground's alone for K = 2; may be
        traced.
    """
    prior = jnp.asarray(prior, jnp.float32)
    if prior.ndim == 0:
        prior = jnp.stack([1 - prior, prior])
    rows = jnp.zeros(labels.shape, jnp.int32)
    drawn = draw.categorical(key, rows, prior[None]).astype(labels.dtype)
    return jnp.where(is_void(labels), labels, drawn)
