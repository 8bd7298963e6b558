"""Noise transition matrices: build, compose, inspect, estimate, decode scores.

A matrix is float32 `[K, K]`: row = clean class, column = noisy class,
`T[i, j] = P(noisy = j | clean = i)`, so rows sum to 1; where noise turns pixels into
void the void column is dropped and rows sum to less. Builders take rates that may be
traced. Imports `metaseg.labels` and `metaseg.errors` only.

Source of the noises: Luo et al., "Deep Neural Networks Learn Meta-Structures from Noisy
Labels in Semantic Segmentation", AAAI 2022; that one matrix describes them, and how
scores are read with it, is our formulation.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from metaseg.errors import InputError
from metaseg.labels import VOID

__all__ = [
    "binary",
    "compose",
    "decode",
    "estimate",
    "joint_counts",
    "pair",
    "rank",
    "sampling",
    "symmetric",
    "threshold",
    "uniform",
    "validate",
]


def symmetric(num_classes: int, rate: ArrayLike) -> jax.Array:
    """Matrix of flipping each pixel with probability `rate` to any other class alike.

    Args:
      num_classes: K, at least 2.
      rate: flip probability, scalar or one per clean class `[K]`; may be traced.
    """
    flipped = jnp.broadcast_to(jnp.asarray(rate, jnp.float32), (num_classes,))[:, None]
    stays = jnp.eye(num_classes, dtype=bool)
    return jnp.where(stays, 1 - flipped, flipped / (num_classes - 1))


def pair(num_classes: int, rate: ArrayLike) -> jax.Array:
    """Matrix of flipping each class i with probability `rate` to class i + 1 (mod K).

    Args:
      num_classes: K, at least 2.
      rate: flip probability, scalar or one per clean class `[K]`; may be traced.
    """
    flipped = jnp.broadcast_to(jnp.asarray(rate, jnp.float32), (num_classes,))[:, None]
    stays = jnp.eye(num_classes, dtype=jnp.float32)
    return (1 - flipped) * stays + flipped * jnp.roll(stays, 1, axis=1)


def binary(foreground: ArrayLike, background: ArrayLike) -> jax.Array:
    """2 x 2 matrix from the flip probabilities of foreground and background."""
    return symmetric(2, jnp.stack([jnp.asarray(background), jnp.asarray(foreground)]))


def sampling(
    num_classes: int,
    fraction: ArrayLike,
    classes: Sequence[int] | None = None,
    fill: int = 0,
) -> jax.Array:
    """Matrix of keeping a fraction of some classes, the rest turned into `fill`.

    Args:
      num_classes: K.
      fraction: share kept, scalar or one per class of `classes`; may be traced.
      classes: which classes are sampled; by default all but 0.
      fill: the class that pixels not kept become, or `VOID`: then the matrix is
        diagonal and sub-stochastic, its rows being what is left of each class.
    """
    chosen = tuple(range(1, num_classes)) if classes is None else tuple(classes)
    share = jnp.asarray(fraction, jnp.float32)
    kept = jnp.ones(num_classes, jnp.float32).at[np.asarray(chosen, int)].set(share)
    matrix = jnp.diag(kept)
    return matrix if fill == VOID else matrix.at[:, fill].add(1 - kept)


def uniform(num_classes: int, prior: ArrayLike | None = None) -> jax.Array:
    """Rank-one matrix of labels drawn with no reference to the clean ones.

    Args:
      num_classes: K.
      prior: class probabilities `[K]`, or for K = 2 the foreground's alone; by default
        all classes alike. May be traced.
    """
    row = jnp.asarray(1 / num_classes if prior is None else prior, jnp.float32)
    if row.ndim == 0 and prior is not None:
        row = jnp.stack([1 - row, row])
    return jnp.broadcast_to(row, (num_classes, num_classes))


def compose(first: ArrayLike, second: ArrayLike) -> jax.Array:
    """Matrix `first @ second` of one noise applied after another, independently."""
    return jnp.matmul(first, second, precision="highest")


def decode(probabilities: ArrayLike, matrix: ArrayLike) -> jax.Array:
    """Class scores under the clean labels, `p~ @ pinv(T)`.

    A network trained with cross-entropy on labels corrupted by T predicts
    `p~ = p @ T`, rescaled where T is sub-stochastic; the argmax of this is the clean
    class. Scores may lie outside [0, 1]. Where T is singular they are the least-squares
    ones, and classes that T does not tell apart score alike.

    Args:
      probabilities: predicted class probabilities, float `[..., K]`.
      matrix: T, `[K, K]`.
    """
    inverse = jnp.linalg.pinv(jnp.asarray(matrix, jnp.float32))
    return jnp.matmul(probabilities, inverse, precision="highest")


def threshold(matrix: ArrayLike) -> tuple[jax.Array, jax.Array]:
    """Where to cut a binary network's noisy foreground score to read the clean class.

    With clean foreground probability p the score is
    `s(p) = ((1-p) T01 + p T11) / ((1-p) (T00+T01) + p (T10+T11))`, the denominator
    being 1 unless T is sub-stochastic. It is monotone in p, with the sign of det T, so
    the cut at p = 1/2 is at `(T01 + T11) / sum(T)`, inverted where det T < 0.

    Args:
      matrix: T, `[2, 2]`.

    Returns:
      The threshold t in [0, 1], float32, and whether scores are inverted, bool:
      foreground is `s > t`, or `s < t` if inverted. A singular T, whose scores say
      nothing, counts as not inverted.
    """
    (t00, t01), (t10, t11) = jnp.asarray(matrix, jnp.float32)
    return (t01 + t11) / (t00 + t01 + t10 + t11), t11 * t00 < t01 * t10


def rank(matrix: ArrayLike, tol: float = 1e-6) -> jax.Array:
    """Number of singular values above `tol`, int32; below K the noise loses classes."""
    values = jnp.linalg.svd(jnp.asarray(matrix, jnp.float32), compute_uv=False)
    return jnp.sum(values > tol, dtype=jnp.int32)


def joint_counts(clean: jax.Array, noisy: jax.Array, num_classes: int) -> jax.Array:
    """Pixels of each (clean, noisy) class pair, int32 `[K, K]`.

    Args:
      clean: class ids, integer, any shape; pixels void here or in `noisy` are left out.
      noisy: class ids, integer, the shape of `clean`.
      num_classes: K.
    """
    clean, noisy = clean.astype(jnp.int32).ravel(), noisy.astype(jnp.int32).ravel()
    labelled = (clean < num_classes) & (noisy < num_classes)
    left_out = num_classes**2
    cell = jnp.where(labelled, clean * num_classes + noisy, left_out)
    counts = jnp.bincount(cell, length=left_out + 1)[:left_out]
    return counts.astype(jnp.int32).reshape(num_classes, num_classes)


def estimate(clean: jax.Array, noisy: jax.Array, num_classes: int) -> jax.Array:
    """Matrix estimated from pixels whose clean and noisy labels are both known.

    The row of a class without such a pixel is the identity's: nothing is claimed to
    happen to it. `joint_counts` tells how many pixels stand behind each row.

    Args:
      clean: class ids, integer, any shape; pixels void here or in `noisy` are left out.
      noisy: class ids, integer, the shape of `clean`.
      num_classes: K.
    """
    counts = joint_counts(clean, noisy, num_classes)
    total = counts.sum(axis=1, keepdims=True)
    return jnp.where(total > 0, counts / jnp.maximum(total, 1), jnp.eye(num_classes))


def validate(
    matrix: ArrayLike, num_classes: int, where: str = "config.noise.matrix"
) -> None:
    """Check on the host that `matrix` is a noise transition matrix.

    Args:
      matrix: what should be `[K, K]`.
      num_classes: K.
      where: the field that the message names.

    Raises:
      InputError: wrong shape, not numbers, a negative entry, or a row whose sum is not
        within 1e-5 of 1; names the row.
    """
    expected = f"expected {num_classes} x {num_classes} numbers"
    try:
        values = np.asarray(matrix, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise InputError(f"{where}: got {matrix!r}, {expected}") from error
    if values.shape != (num_classes, num_classes):
        raise InputError(f"{where}: shape {values.shape}, {expected}")
    for index, row in enumerate(values):
        if not (row >= 0).all():
            raise InputError(
                f"{where}: row {index} holds {row.min():g}, "
                "expected probabilities of at least 0"
            )
        if abs(row.sum() - 1) > 1e-5:
            raise InputError(
                f"{where}: row {index} sums to {row.sum():g}, expected rows to sum to 1"
            )
