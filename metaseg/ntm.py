"""Noise transition matrices: build, compose, inspect, estimate, decode scores.

A matrix is float32 `[K, K]`: row = clean class, column = noisy class,
`T[i, j] = P(noisy = j | clean = i)`, so rows sum to 1; where noise turns pixels into
void the void column is dropped and rows sum to less. Rates may be traced. A parameter
that is out of range or of the wrong shape is an `InputError` that names it; values are
looked at on the host, so those of traced ones are not. Imports `metaseg.labels`,
`metaseg.checks` and `metaseg.errors` only.

Source of the noises: Luo et al., "Deep Neural Networks Learn Meta-Structures from Noisy
Labels in Semantic Segmentation", AAAI 2022; that one matrix describes them, and how
scores are read with it, is our formulation.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from metaseg import checks
from metaseg.errors import InputError
from metaseg.labels import VOID, one_hot

__all__ = [
    "Estimate",
    "ScoreSums",
    "binary",
    "block",
    "compose",
    "condition_number",
    "decode",
    "estimate",
    "estimate_from_scores",
    "from_counts",
    "from_score_sums",
    "joint_counts",
    "pair",
    "rank",
    "sampling",
    "score_sums",
    "singular_values",
    "symmetric",
    "threshold",
    "uniform",
    "validate",
]


def symmetric(num_classes: int, rate: ArrayLike) -> jax.Array:
    """Builds the matrix of flips to all other classes with equal probability.

    Args:
      num_classes: K, at least 2.
      rate: flip probability, scalar or one per clean class `[K]`; may be traced.

    Returns:
      float32 `[K, K]`.

    Raises:
      InputError: If `num_classes` or `rate` is out of range.
    """
    flipped = _rates(num_classes, rate)
    stays = jnp.eye(num_classes, dtype=bool)
    return jnp.where(stays, 1 - flipped, flipped / (num_classes - 1))


def pair(num_classes: int, rate: ArrayLike) -> jax.Array:
    """Builds the matrix of flips from class i to class i + 1 (mod K).

    Args:
      num_classes: K, at least 2.
      rate: flip probability, scalar or one per clean class `[K]`; may be traced.

    Returns:
      float32 `[K, K]`.

    Raises:
      InputError: If `num_classes` or `rate` is out of range.
    """
    flipped = _rates(num_classes, rate)
    stays = jnp.eye(num_classes, dtype=jnp.float32)
    return (1 - flipped) * stays + flipped * jnp.roll(stays, 1, axis=1)


def block(
    num_classes: int, groups: Sequence[Sequence[int]], rate: ArrayLike
) -> jax.Array:
    """Builds the matrix of flips within super-classes, to all classes alike.

    The super-class noise of Patrini et al., "Making Deep Neural Networks Robust to
    Label Noise", CVPR 2017, but for the class flipped to: there it is the next one.

    Args:
      num_classes: K, at least 2.
      groups: the super-classes, each the ids of its classes. A class that is alone in
        its group, or in none, keeps its label whatever its rate.
      rate: flip probability, scalar or one per clean class `[K]`; may be traced.

    Returns:
      float32 `[K, K]`.

    Raises:
      InputError: If `num_classes`, `rate` or a class id is out of range, or groups
        overlap.
    """
    flipped = _rates(num_classes, rate)
    for group in groups:
        checks.class_ids("groups", group, num_classes)
    checks.class_ids("groups", [i for group in groups for i in group], num_classes)
    other = np.zeros((num_classes, num_classes), bool)
    for group in groups:
        other[np.ix_(group, group)] = True
    np.fill_diagonal(other, False)
    choices = other.sum(axis=1, keepdims=True)
    flipped = jnp.where(choices > 0, flipped, 0)
    spread = flipped * other / np.maximum(choices, 1)
    return jnp.where(np.eye(num_classes, dtype=bool), 1 - flipped, spread)


def binary(foreground: ArrayLike, background: ArrayLike) -> jax.Array:
    """Builds the matrix of two classes from their flip probabilities.

    Args:
      foreground: Probability that a foreground pixel is flipped; may be traced.
      background: Probability that a background pixel is flipped; may be traced.

    Returns:
      float32 `[2, 2]`.

    Raises:
      InputError: If a probability is out of range.
    """
    checks.number("foreground", foreground, 0, 1)
    checks.number("background", background, 0, 1)
    return symmetric(2, jnp.stack([jnp.asarray(background), jnp.asarray(foreground)]))


def sampling(
    num_classes: int,
    fraction: ArrayLike,
    classes: Sequence[int] | None = None,
    fill: int = 0,
) -> jax.Array:
    """Builds the matrix of keeping a fraction of some classes and filling the rest.

    Args:
      num_classes: K, at least 2.
      fraction: share kept, scalar or one per class of `classes`; may be traced.
      classes: which classes are sampled; by default all but 0.
      fill: the class that pixels not kept become, or `VOID`: then the matrix is
        diagonal and sub-stochastic, its rows being what is left of each class.

    Returns:
      float32 `[K, K]`.

    Raises:
      InputError: If an argument is out of range.
    """
    checks.num_classes("num_classes", num_classes)
    chosen = range(1, num_classes) if classes is None else classes
    checks.class_ids("classes", chosen, num_classes)
    checks.shares("fraction", fraction, len(chosen))
    checks.fill("fill", fill, num_classes)
    share = jnp.asarray(fraction, jnp.float32)
    kept = jnp.ones(num_classes, jnp.float32).at[np.asarray(chosen, int)].set(share)
    matrix = jnp.diag(kept)
    return matrix if fill == VOID else matrix.at[:, fill].add(1 - kept)


def uniform(num_classes: int, prior: ArrayLike | None = None) -> jax.Array:
    """Builds the rank-one matrix of labels drawn without regard to the clean ones.

    Args:
      num_classes: K, at least 2.
      prior: class probabilities `[K]`, or for K = 2 the foreground's alone; by default
        all classes alike. May be traced.

    Returns:
      float32 `[K, K]`.

    Raises:
      InputError: If `num_classes` or `prior` is out of range.
    """
    checks.num_classes("num_classes", num_classes)
    if prior is not None:
        checks.prior("prior", prior, num_classes)
    row = jnp.asarray(1 / num_classes if prior is None else prior, jnp.float32)
    if row.ndim == 0 and prior is not None:
        row = jnp.stack([1 - row, row])
    return jnp.broadcast_to(row, (num_classes, num_classes))


def compose(first: ArrayLike, second: ArrayLike) -> jax.Array:
    """Returns the matrix `first @ second` of two independent noises in turn.

    Args:
      first: Matrix of the noise that is applied first, `[K, K]`.
      second: Matrix of the noise that is applied to its result, `[K, K]`.

    Returns:
      float32 `[K, K]`.

    Raises:
      InputError: If the matrices differ in shape.
    """
    first, second = _square("first", first), _square("second", second)
    if first.shape[-1] != second.shape[-1]:
        raise InputError(f"second: shape {second.shape}, expected that of first")
    return jnp.matmul(first, second, precision="highest")


def decode(probabilities: ArrayLike, matrix: ArrayLike) -> jax.Array:
    """Returns class scores under the clean labels, `p~ @ pinv(T)`.

    A network trained with cross-entropy on labels corrupted by T predicts
    `p~ = p @ T`, rescaled where T is sub-stochastic; the argmax of this is the clean
    class. Scores may lie outside [0, 1]. Where T is singular they are the least-squares
    ones, and classes that T does not tell apart score alike.

    Args:
      probabilities: predicted class probabilities, float `[..., K]`.
      matrix: T, `[K, K]`.

    Returns:
      Scores, float32 `[..., K]`.

    Raises:
      InputError: If the last axis of `probabilities` does not have K entries.
    """
    inverse = jnp.linalg.pinv(_square("matrix", matrix))
    shape, num_classes = np.shape(probabilities), inverse.shape[-1]
    if shape[-1:] != (num_classes,):
        raise InputError(
            f"probabilities: shape {shape}, expected [..., {num_classes}], as matrix"
        )
    return jnp.matmul(jnp.asarray(probabilities), inverse, precision="highest")


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
      foreground is `s >= t`, or `s < t` if inverted. A singular T, whose scores say
      nothing, counts as not inverted.
    """
    (t00, t01), (t10, t11) = _square("matrix", matrix, 2)
    return (t01 + t11) / (t00 + t01 + t10 + t11), t11 * t00 < t01 * t10


def singular_values(matrix: ArrayLike) -> jax.Array:
    """Returns the singular values of a matrix, largest first.

    Args:
      matrix: `[K, K]`.

    Returns:
      float32 `[K]`.
    """
    return jnp.linalg.svd(_square("matrix", matrix), compute_uv=False)


def rank(matrix: ArrayLike, tol: float = 1e-6) -> jax.Array:
    """Counts the singular values above `tol`; below K the noise loses classes.

    None counts that float32 does not tell from 0: K times its relative precision, times
    the largest value.

    Args:
      matrix: `[K, K]`.
      tol: Singular values up to this count as 0.

    Returns:
      int32 scalar.
    """
    values = singular_values(matrix)
    return jnp.sum(values > _floor(values, tol), axis=-1, dtype=jnp.int32)


def condition_number(matrix: ArrayLike, tol: float = 1e-6) -> jax.Array:
    """Returns the largest singular value over the smallest, at least 1.

    Of scores with a relative error e, `decode` has one of up to this number times e.
    Infinite where `rank`, with the same `tol`, is below K.

    Args:
      matrix: `[K, K]`.
      tol: Singular values up to this count as 0.

    Returns:
      float32 scalar.
    """
    values = singular_values(matrix)
    regular = values[..., -1] > _floor(values, tol)[..., 0]
    return jnp.where(regular, values[..., 0] / values[..., -1], jnp.inf)


def joint_counts(clean: ArrayLike, noisy: ArrayLike, num_classes: int) -> jax.Array:
    """Counts the pixels of each pair of clean and noisy class.

    Counts of several batches add up.

    Args:
      clean: class ids, integer, any shape; pixels void here or in `noisy` are left out.
      noisy: class ids, integer, the shape of `clean`.
      num_classes: K.

    Returns:
      int32 `[K, K]`, row = clean class.

    Raises:
      InputError: If the shapes of `clean` and `noisy` differ.
    """
    checks.num_classes("num_classes", num_classes)
    clean, noisy = _class_ids("clean", clean), _class_ids("noisy", noisy)
    if clean.shape != noisy.shape:
        raise InputError(
            f"noisy: shape {noisy.shape}, expected {clean.shape}, as clean"
        )
    clean, noisy = clean.ravel(), noisy.ravel()
    # A signed map may mark void by -1, which `bincount` takes for 0.
    lowest, highest = jnp.minimum(clean, noisy), jnp.maximum(clean, noisy)
    labelled = (lowest >= 0) & (highest < num_classes)
    left_out = num_classes**2
    cell = jnp.where(labelled, clean * num_classes + noisy, left_out)
    counts = jnp.bincount(cell, length=left_out + 1)[:left_out]
    return counts.astype(jnp.int32).reshape(num_classes, num_classes)


def estimate(clean: ArrayLike, noisy: ArrayLike, num_classes: int) -> jax.Array:
    """Estimates the matrix from pixels whose clean and noisy labels are both known.

    The row of a class without such a pixel is the identity's: nothing is claimed to
    happen to it. `from_counts` tells how far each entry can be trusted.

    Args:
      clean: class ids, integer, any shape; pixels void here or in `noisy` are left out.
      noisy: class ids, integer, the shape of `clean`.
      num_classes: K.

    Returns:
      float32 `[K, K]`.
    """
    return _normalised(joint_counts(clean, noisy, num_classes))


class Estimate(NamedTuple):
    """An estimated matrix and how far its entries can be trusted, each `[..., K, K]`.

    Attributes:
      matrix: the estimate, float32; the identity's row for a class without pixels.
      counts: pixels behind each entry, int32.
      low: lower end of each entry's confidence interval, float32 in [0, 1].
      high: upper end, float32 in [0, 1].
    """

    matrix: jax.Array
    counts: jax.Array
    low: jax.Array
    high: jax.Array


def from_counts(counts: ArrayLike, *, confidence: ArrayLike = 0.95) -> Estimate:
    """Estimates the matrix and its Wilson score intervals from counts of pixels.

    With k of a row's n pixels in an entry and z the normal quantile of
    `(1 + confidence) / 2`, the ends are the two p with `(k - n p)^2 = z^2 n p (1-p)`:

        (2k + z^2 -+ z sqrt(z^2 + 4k (n-k) / n)) / (2 (n + z^2)),

    and 0 and 1 where n = 0. Pixels are taken as independent, as they are where noise
    strikes each by itself; where neighbours err together the intervals are too narrow.
    Each holds for its entry alone, not for all entries at once. Source: Wilson,
    "Probable Inference", Journal of the American Statistical Association, 1927.

    Args:
      counts: integer `[..., K, K]`, row = clean class, below 2^31: of `joint_counts`,
        summed over batches, or any confusion matrix of labels against a reference.
      confidence: probability, in (0, 1), that an interval holds its entry; may be
        traced.

    Returns:
      The matrix and the ends of the intervals.
    """
    _check_counts(counts)
    checks.number("confidence", confidence, 0, 1, open_ends=True)
    matrix = _normalised(counts)
    k = jnp.asarray(counts, jnp.float32)
    n = k.sum(axis=-1, keepdims=True)
    # From 1 - confidence, as float32 is finer near 0 than near 1.
    z = -jax.scipy.special.ndtri(jnp.asarray((1 - confidence) / 2, jnp.float32))
    share = k / jnp.maximum(n, 1)
    upper = 2 * k + z**2 + z * jnp.sqrt(z**2 + 4 * share * (n - k))
    high = upper / (2 * (n + z**2))
    low = 2 * k * share / upper  # high * low = k^2 / (n (n + z^2)): nothing cancels
    # Rounding of huge counts must not put the estimate outside its interval.
    low, high = jnp.minimum(low, matrix), jnp.clip(high, matrix, 1)
    return Estimate(matrix, jnp.asarray(counts, jnp.int32), low, high)


def estimate_from_scores(
    probabilities: ArrayLike, clean: ArrayLike, *, unmix: bool = False
) -> jax.Array:
    """Estimates the matrix from a model of the noisy labels and a few clean ones.

    `from_score_sums` of `score_sums`, where the formulas and their limits are.

    Args:
      probabilities: of the noisy classes, as predicted by a network trained on noisy
        labels, for images that it was not trained on; float `[..., H, W, K]`.
      clean: class ids, integer `[..., H, W]`; void pixels are left out.
      unmix: whether to undo the mixing of rows by uncertain pixels.

    Returns:
      float32 `[K, K]`.
    """
    return from_score_sums(score_sums(probabilities, clean), unmix=unmix)


class ScoreSums(NamedTuple):
    """Sums over labelled pixels; those of several batches add up.

    Attributes:
      joint: `sum_x [clean(x) = i] p~_j(x)`, float32 `[K, K]`.
      square: `sum_x p~_i(x) p~_j(x)`, float32 `[K, K]`.
    """

    joint: jax.Array
    square: jax.Array


def score_sums(probabilities: ArrayLike, clean: ArrayLike) -> ScoreSums:
    """Sums what `from_score_sums` needs to know of a batch.

    Args:
      probabilities: of the noisy classes, float `[..., H, W, K]`.
      clean: class ids, integer `[..., H, W]`; void pixels are left out.

    Returns:
      The sums, which add up over batches.

    Raises:
      InputError: If `probabilities` are not floats `[..., H, W, K]` on the pixels of
        `clean`.
    """
    probabilities, clean = jnp.asarray(probabilities), _class_ids("clean", clean)
    if not jnp.issubdtype(probabilities.dtype, jnp.floating):
        raise InputError(f"probabilities: dtype {probabilities.dtype}, expected floats")
    if probabilities.shape[:-1] != clean.shape or probabilities.shape[-1:] < (2,):
        raise InputError(
            f"probabilities: shape {probabilities.shape}, expected [..., K], K >= 2, "
            f"on the {clean.shape} of clean"
        )
    num_classes = probabilities.shape[-1]
    indicator = one_hot(clean, num_classes).reshape(-1, num_classes)
    scores = probabilities.reshape(-1, num_classes).astype(jnp.float32)
    # Not by a product with 0, as scores of void pixels may be NaN.
    scores = jnp.where(indicator.any(axis=-1, keepdims=True), scores, 0)
    joint, square = (
        jnp.matmul(left.T, scores, precision="highest") for left in (indicator, scores)
    )
    _check_score_sums(joint, square)
    return ScoreSums(joint, square)


def from_score_sums(sums: ScoreSums, *, unmix: bool = False) -> jax.Array:
    """Estimates the matrix from the scores of a model on pixels with clean labels.

    Row i is the mean of `p~` over the pixels of clean class i. Source: "gold loss
    correction", Hendrycks et al., "Using Trusted Data to Train Deep Networks on Labels
    Corrupted by Severe Noise", NeurIPS 2018. A calibrated model scores `p~ = p @ T`, p
    being the clean posterior given what the model sees, so that the mean estimates
    `M @ T` with `M[i, k] = E[p_k | clean = i]`. That is T itself only if p is 0 or 1
    everywhere; else rows are mixed, and look more alike than they are.

    `unmix` undoes this (our derivation). The clean indicator y has, given the scores,
    the mean `p~ @ inv(T)`; so inv(T) is the regression of y on `p~`, and

        T = inv(E[p~' p~]^-1 E[p~' y]) = inv(E[p~' y]) E[p~' p~] = inv(joint') square.

    It needs classes that the scores tell apart, and a T of full rank: errors grow with
    their condition numbers. Entries that come out below 0 are set to 0. Where T is
    singular or the model not calibrated, nothing says that it is nearer than the mean.

    A row sums to 1, and is the identity's if its class has no pixel. Neither way fits
    noise that makes void, under which `p~` is not linear in p.

    Args:
      sums: of `score_sums`, added over batches.
      unmix: whether to undo the mixing of rows by uncertain pixels.

    Returns:
      float32 `[K, K]`.
    """
    joint = _square("sums.joint", sums.joint)
    if not unmix:
        return _normalised(joint)
    square = _square("sums.square", sums.square, joint.shape[-1])
    unmixed = jnp.matmul(jnp.linalg.pinv(joint.mT), square, precision="highest")
    seen = joint.sum(axis=-1, keepdims=True) > 0
    return _normalised(jnp.where(seen, jnp.maximum(unmixed, 0), 0))


def validate(matrix: ArrayLike, num_classes: int, where: str = "matrix") -> None:
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
        raise InputError(f"{where}: got {checks.shown(matrix)}, {expected}") from error
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


def _normalised(joint: ArrayLike) -> jax.Array:
    """Rows divided by their sums, float32 `[..., K, K]`; identity's where that is 0."""
    joint = jnp.asarray(joint, jnp.float32)
    total = joint.sum(axis=-1, keepdims=True)
    seen = total > 0
    return jnp.where(seen, joint / jnp.where(seen, total, 1), jnp.eye(joint.shape[-1]))


def _rates(num_classes: int, rate: ArrayLike) -> jax.Array:
    """The rate of each clean class as a column, float32 `[K, 1]`."""
    checks.num_classes("num_classes", num_classes)
    checks.shares("rate", rate, num_classes)
    return jnp.broadcast_to(jnp.asarray(rate, jnp.float32), (num_classes,))[:, None]


def _square(name: str, matrix: ArrayLike, num_classes: int | None = None) -> jax.Array:
    """`matrix` as float32 `[..., K, K]`."""
    size = num_classes or "K"
    expected = f"expected {size} x {size} numbers"
    try:
        values = jnp.asarray(matrix, jnp.float32)
    except (TypeError, ValueError) as error:
        raise InputError(f"{name}: got {checks.shown(matrix)}, {expected}") from error
    rows, columns = values.shape[-2:] if values.ndim > 1 else (0, 0)
    if not rows == columns > 0 or num_classes not in (None, rows):
        raise InputError(f"{name}: shape {values.shape}, {expected}")
    return values


def _floor(values: jax.Array, tol: float) -> jax.Array:
    """What singular values `[..., K]` must exceed not to count as 0, `[..., 1]`."""
    checks.number("tol", tol, 0)
    resolved = values.shape[-1] * jnp.finfo(values.dtype).eps * values[..., :1]
    return jnp.maximum(tol, resolved)


def _class_ids(name: str, labels: ArrayLike) -> jax.Array:
    """`labels` as int32, of any shape."""
    ids = jnp.asarray(labels)
    if not jnp.issubdtype(ids.dtype, jnp.integer):
        raise InputError(f"{name}: dtype {ids.dtype}, expected integer class ids")
    return ids.astype(jnp.int32)


def _check_counts(counts: Any) -> None:
    _square("counts", counts)
    if checks.is_traced(counts):
        return
    values = np.asarray(counts)
    if values.dtype.kind not in "iu":
        raise InputError(f"counts: dtype {values.dtype}, expected integers")
    wrong = (values < 0) | (values >= 2**31)
    if wrong.any():
        raise InputError(f"counts: got {values[wrong][0]}, expected 0..2^31 - 1")


def _check_score_sums(joint: jax.Array, square: jax.Array) -> None:
    """Raise if sums show that scores were no probabilities, but logits, say, or NaN."""
    if checks.is_traced((joint, square)):
        return
    mass, mass_of_square = np.asarray(joint).sum(axis=0), np.asarray(square).sum(axis=1)
    # If each p~ sums to 1, then sum_j p~_i p~_j = p~_i; 1 % leaves room for bfloat16.
    normalised = np.allclose(mass_of_square, mass, rtol=1e-2, atol=1e-2 * mass.sum())
    if not (np.asarray(joint) >= 0).all() or not normalised:
        raise InputError(
            "probabilities: negative or not summing to 1, expected those of K classes"
        )
