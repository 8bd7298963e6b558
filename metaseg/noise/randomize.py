"""Randomised clean labels: noise that treats all pixels of a class alike.

Every function is `(key, labels, *, ...) -> labels` on integer maps `[..., H, W]`. It
keeps shape and dtype, and void stays void. Rates and matrices may be traced, so that
one compiled program serves a whole noise curve. Source: Luo et al., "Deep Neural
Networks Learn Meta-Structures from Noisy Labels in Semantic Segmentation", AAAI 2022.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Integer

from metaseg import ntm
from metaseg.labels import VOID, is_void
from metaseg.noise import draw
from metaseg.noise.parameters import checked
from metaseg.typing import AnyArray, Labels, Matrix, Numbers, PRNGKey

__all__ = ["flip", "sample", "transition"]


@checked
def sample(
    key: PRNGKey,
    labels: Labels,
    *,
    fraction: Numbers,
    classes: Sequence[int] | None = None,
    fill: int = 0,
    exact: bool = False,
) -> Integer[jax.Array, "*batch H W"]:
    """Keeps a random fraction of the pixels of some classes and fills the rest.

    Args:
      key: PRNG key.
      labels: Integer class ids `[..., H, W]`; 255 is void.
      fraction: Share that is kept, in [0, 1]; one number, or one per class of
        `classes`. May be traced.
      classes: Classes that are sampled, static. By default all but 0: as many as
        there are fractions, or every class if `fraction` is one number.
      fill: What other pixels of these classes become: a class id, or 255 for "not
        labelled".
      exact: Whether to keep exactly `ceil(n * fraction)` of the n pixels of each
        class in each map, as the source does, rather than each pixel independently.

    Returns:
      Label maps of the shape and dtype of `labels`.

    Raises:
      InputError: If an argument is of a wrong type or out of range.
    """
    share = jnp.asarray(fraction)
    if classes is None and share.ndim == 1:
        classes = range(1, share.shape[0] + 1)
    if classes is None:
        sampled = (labels != 0) & ~is_void(labels)
    else:
        sampled = _is_any(labels, classes)
    if exact:
        among = range(1, VOID) if classes is None else classes
        kept = draw.exact_counts(key, labels, share, classes=among)
    else:
        threshold = draw.by_class(labels, draw.to_threshold(share), classes=classes)
        kept = draw.bits(key, labels.shape) < threshold
    return jnp.where(sampled & ~kept, jnp.asarray(fill, labels.dtype), labels)


@checked
def flip(
    key: PRNGKey,
    labels: Labels,
    *,
    rate: Numbers,
    num_classes: int = 2,
    exact: bool = False,
) -> Integer[jax.Array, "*batch H W"]:
    """Flips a random share of the pixels of each class to other classes.

    A flipped pixel becomes each of the other classes with the same probability.

    Args:
      key: PRNG key.
      labels: Integer class ids `[..., H, W]`; 255 is void.
      rate: Share that is flipped, in [0, 1]; one number, or one per class `[K]`,
        background first. May be traced.
      num_classes: K, static, at least 2.
      exact: Whether to flip exactly `ceil(n * rate)` of the n pixels of each class
        in each map, as the source does, rather than each pixel independently.

    Returns:
      Label maps of the shape and dtype of `labels`.

    Raises:
      InputError: If an argument is of a wrong type or out of range.

    Example:
      >>> labels = jnp.zeros((3, 4), jnp.uint8)
      >>> flip(jax.random.key(0), labels, rate=0.25, exact=True).sum()
      Array(3, dtype=uint32)
    """
    drawn = draw.bits(key, labels.shape)
    if exact:
        flipped = draw.exact_counts(jax.random.fold_in(key, 1), labels, rate)
        threshold = draw.to_threshold(1)
    else:
        threshold = draw.by_class(labels, draw.to_threshold(rate))
        flipped = drawn < threshold
    if num_classes == 2:
        other: AnyArray = 1 - labels
    else:
        # The bits of a flipped pixel are uniform below the threshold, so they can
        # choose the other class too.
        step = 1 + drawn * (num_classes - 1) // jnp.maximum(threshold, 1)
        other = ((labels + step) % num_classes).astype(labels.dtype)
    return jnp.where(flipped & (labels < num_classes), other, labels)


@checked
def transition(
    key: PRNGKey, labels: Labels, *, matrix: Matrix
) -> Integer[jax.Array, "*batch H W"]:
    """Draws the label of each pixel from its class's row of a noise transition matrix.

    Args:
      key: PRNG key.
      labels: Integer class ids `[..., H, W]`; 255 is void.
      matrix: `[K, K]`, `matrix[i, j] = P(noisy = j | clean = i)`; rows sum to 1.
        May be traced.

    Returns:
      Label maps of the shape and dtype of `labels`.

    Raises:
      InputError: If an argument is of a wrong type or out of range.
    """
    probabilities = ntm.as_matrix(matrix, void=False)
    num_classes = probabilities.shape[0]
    rows = jnp.minimum(labels, num_classes - 1).astype(jnp.int32)
    noisy = draw.categorical(key, rows, probabilities).astype(labels.dtype)
    return jnp.where(labels < num_classes, noisy, labels)


def _is_any(labels: AnyArray, classes: Sequence[int]) -> jax.Array:
    hits = jnp.zeros(labels.shape, bool)
    for class_id in classes:
        hits |= jnp.asarray(labels == class_id)
    return hits
