"""Randomised clean labels: pixels drawn independently of place.

Every function is `(key, labels, *, ...) -> labels` on integer maps `[..., H, W]`, keeps
shape and dtype, and leaves void alone. Rates and matrices may be traced, so that one
compiled program serves a whole noise curve; an invalid one that is not traced raises an
`InputError`, which is a ValueError, that names it. Source: Luo et al., "Deep Neural
Networks Learn Meta-Structures from Noisy Labels in Semantic Segmentation", AAAI 2022.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from metaseg.labels import is_void
from metaseg.noise import draw
from metaseg.noise.parameters import checked

__all__ = ["flip", "sample", "transition"]


@checked
def sample(
    key: jax.Array,
    labels: jax.Array,
    *,
    fraction: ArrayLike,
    classes: Sequence[int] | None = None,
    fill: int = 0,
    exact: bool = False,
) -> jax.Array:
    """Keep a random fraction of the pixels of some classes; the rest become `fill`.

    Args:
      key: PRNG key.
      labels: class ids, integer `[..., H, W]`.
      fraction: share kept, in [0, 1]: scalar, or one per class of `classes`.
      classes: which classes are sampled, static. By default all but 0: as many as there
        are fractions, or every one if `fraction` is a scalar.
      fill: what pixels not kept become: a class id, or `VOID` for "not labelled".
      exact: keep exactly `ceil(n * fraction)` of the n pixels of each class in each
        map, as the source does, in place of an independent coin per pixel.

    Returns:
      Label maps of the shape and dtype of `labels`.
    """
    fraction = jnp.asarray(fraction)
    if classes is None and fraction.ndim == 1:
        classes = range(1, fraction.shape[0] + 1)
    if classes is None:
        sampled = (labels != 0) & ~is_void(labels)
    else:
        sampled = _is_any(labels, classes)
    if exact:
        kept = draw.exact_counts(key, labels, fraction, classes)
    else:
        cut = draw.by_class(labels, draw.to_cut(fraction), classes)
        kept = draw.words(key, labels.shape) < cut
    return jnp.where(sampled & ~kept, jnp.asarray(fill, labels.dtype), labels)


@checked
def flip(
    key: jax.Array,
    labels: jax.Array,
    *,
    rate: ArrayLike,
    num_classes: int = 2,
    exact: bool = False,
) -> jax.Array:
    """Turn a random share of the pixels of each class into other classes.

    A flipped pixel becomes any of the other classes with the same probability.

    Args:
      key: PRNG key.
      labels: class ids, integer `[..., H, W]`; ids not below `num_classes` stay.
      rate: share flipped, in [0, 1]: scalar, or one per class `[K]` (for binary labels
        background first).
      num_classes: K, static, at least 2.
      exact: flip exactly `ceil(n * rate)` of the n pixels of each class in each map, as
        the source does, in place of an independent coin per pixel.

    Returns:
      Label maps of the shape and dtype of `labels`.
    """
    drawn = draw.words(key, labels.shape)
    if exact:
        flipped = draw.exact_counts(jax.random.fold_in(key, 1), labels, rate)
        cut = draw.to_cut(1)
    else:
        cut = draw.by_class(labels, draw.to_cut(rate))
        flipped = drawn < cut
    if num_classes == 2:
        other = 1 - labels
    else:
        # The word of a flipped pixel is uniform below the cut: it names the target too.
        step = 1 + drawn * (num_classes - 1) // jnp.maximum(cut, 1)
        other = ((labels + step) % num_classes).astype(labels.dtype)
    return jnp.where(flipped & (labels < num_classes), other, labels)


@checked
def transition(key: jax.Array, labels: jax.Array, *, matrix: ArrayLike) -> jax.Array:
    """Draw each pixel's label from its class's row of a noise transition matrix.

    Args:
      key: PRNG key.
      labels: class ids, integer `[..., H, W]`; ids not below K stay.
      matrix: `[K, K]`, `matrix[i, j] = P(noisy = j | clean = i)`, rows sum to 1.

    Returns:
      Label maps of the shape and dtype of `labels`.
    """
    matrix = jnp.asarray(matrix, jnp.float32)
    num_classes = matrix.shape[0]
    rows = jnp.minimum(labels, num_classes - 1).astype(jnp.int32)
    noisy = draw.categorical(key, rows, matrix).astype(labels.dtype)
    return jnp.where(labels < num_classes, noisy, labels)


def _is_any(labels: jax.Array, classes: Sequence[int]) -> jax.Array:
    hits = jnp.zeros(labels.shape, bool)
    for class_id in classes:
        hits |= labels == class_id
    return hits
