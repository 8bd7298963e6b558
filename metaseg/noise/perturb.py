"""Perturbed clean labels: the shape itself is changed.

Every function is `(key, labels, *, ...) -> labels` on integer maps `[..., H, W]`, keeps
shape and dtype, and leaves void alone; those that draw nothing ignore the key. Class 0
is background, every other class is foreground. Source: Luo et al., AAAI 2022.
"""

import jax
import jax.numpy as jnp

from metaseg import morphology
from metaseg.labels import is_void

__all__ = ["dilate", "erode", "skeletonize"]


def dilate(key: jax.Array, labels: jax.Array, *, radius: int) -> jax.Array:
    """Grow the foreground into the background, to Euclidean distance `radius`.

    Foreground never grows into other foreground; background that several classes reach
    goes to the highest class id.

    Args:
      key: ignored.
      labels: class ids, integer `[..., H, W]`.
      radius: pixels, a static integer >= 0.
    """
    del key
    foreground = jnp.where(is_void(labels), jnp.zeros_like(labels), labels)
    grown = morphology.disk_maximum(foreground, radius)
    return jnp.where(labels == 0, grown, labels)


def erode(key: jax.Array, labels: jax.Array, *, radius: int) -> jax.Array:
    """Turn foreground within Euclidean distance `radius` of background into background.

    Background grows alike into every class; a border between two foreground classes,
    with void or with the outside of the image does not erode.

    Args:
      key: ignored.
      labels: class ids, integer `[..., H, W]`.
      radius: pixels, a static integer >= 0.
    """
    del key
    eaten = morphology.dilate(labels == 0, radius) & ~is_void(labels)
    return jnp.where(eaten, jnp.zeros_like(labels), labels)


def skeletonize(key: jax.Array, labels: jax.Array) -> jax.Array:
    """Leave of each foreground class its skeleton; the rest becomes background.

    Each class is thinned by itself, as `morphology.skeletonize` does.

    Args:
      key: ignored.
      labels: class ids, integer `[..., H, W]`.
    """
    del key
    void = is_void(labels)
    classes = jnp.where(void, jnp.zeros_like(labels), labels)
    kept = morphology.skeletonize_classes(classes) | void
    return jnp.where(kept, labels, jnp.zeros_like(labels))
