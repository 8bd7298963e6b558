"""Noise transition matrices: build, compose, inspect, estimate, decode scores.

A matrix is float32 `[K, K]`, `T[i, j] = P(noisy = j | clean = i)`: a row for each clean
class and a column for each noisy class, so rows sum to 1. If noise turns pixels into
void, the column of void is left out, and rows sum to less than 1. Rates may be traced.
Rows that were rounded, to four digits or to float16, are divided by their sums. An
argument that is out of range or of a wrong shape raises an `InputError`. Values are
checked on the host, so values of traced arguments are not checked. Imports
`metaseg.labels`, `metaseg.checks` and `metaseg.errors` only.

Source of the noises: Luo et al., "Deep Neural Networks Learn Meta-Structures from Noisy
Labels in Semantic Segmentation", AAAI 2022; that one matrix describes them, and how
scores are read with it, is our formulation.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float, Float32, Int32, Integer, Real

from metaseg import checks
from metaseg.errors import InputError
from metaseg.labels import VOID, check_ids, is_void, one_hot
from metaseg.typing import AnyArray, Matrix, Number, Numbers

__all__ = [
    "Estimate",
    "ScoreSums",
    "as_matrix",
    "as_prior",
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

_Matrices: TypeAlias = Real[AnyArray, "*batch K K"] | Sequence[Sequence[Number]]
_ClassIds: TypeAlias = Integer[AnyArray, "*shape"] | Sequence[Any]


def symmetric(num_classes: int, rate: Numbers) -> Float32[jax.Array, "K K"]:
    """Builds the matrix of flips to all other classes with equal probability.

    Args:
      num_classes: Number of classes K, at least 2.
      rate: Flip probability, one number or one per clean class `[K]`; may be traced.

    Returns:
      float32 `[K, K]`.

    Raises:
      InputError: If `num_classes` or `rate` is out of range.

    Example:
      >>> symmetric(2, 0.25)
      Array([[0.75, 0.25],
             [0.25, 0.75]], dtype=float32)
    """
    flipped = _rates(num_classes, rate)
    stays = jnp.eye(num_classes, dtype=bool)
    return jnp.where(stays, 1 - flipped, flipped / (num_classes - 1))


def pair(num_classes: int, rate: Numbers) -> Float32[jax.Array, "K K"]:
    """Builds the matrix of flips from class i to class i + 1 (mod K).

    Args:
      num_classes: Number of classes K, at least 2.
      rate: Flip probability, one number or one per clean class `[K]`; may be traced.

    Returns:
      float32 `[K, K]`.

    Raises:
      InputError: If `num_classes` or `rate` is out of range.
    """
    flipped = _rates(num_classes, rate)
    stays = jnp.eye(num_classes, dtype=jnp.float32)
    return (1 - flipped) * stays + flipped * jnp.roll(stays, 1, axis=1)


def block(
    num_classes: int, groups: Sequence[Sequence[int]], rate: Numbers
) -> Float32[jax.Array, "K K"]:
    """Builds the matrix of flips to all other classes of the same super-class.

    All of these classes have the same probability. This is the super-class noise of
    Patrini et al., "Making Deep Neural Networks Robust to Label Noise", CVPR 2017,
    except that there a class flips to the next one of its super-class.

    Args:
      num_classes: Number of classes K, at least 2.
      groups: Class ids of each super-class. A class that is alone in its group, or in
        no group, keeps its label whatever its rate.
      rate: Flip probability, one number or one per clean class `[K]`; may be traced.

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


def binary(foreground: Number, background: Number) -> Float32[jax.Array, "2 2"]:
    """Builds the matrix of two classes from their flip probabilities.

    Args:
      foreground: Probability that a foreground pixel flips; may be traced.
      background: Probability that a background pixel flips; may be traced.

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
    fraction: Numbers,
    *,
    classes: Sequence[int] | None = None,
    fill: int = 0,
) -> Float32[jax.Array, "K K"]:
    """Builds the matrix of keeping a fraction of some classes and filling the rest.

    Args:
      num_classes: Number of classes K, at least 2.
      fraction: Share that is kept, one number or one per class of `classes`; may be
        traced.
      classes: Classes that are sampled; by default all but 0.
      fill: Class that other pixels become, or `VOID`. With `VOID` the matrix is
        diagonal, and its rows sum to the share of each class that is kept.

    Returns:
      float32 `[K, K]`.

    Raises:
      InputError: If an argument is out of range.

    Example:
      >>> sampling(2, 0.25)
      Array([[1.  , 0.  ],
             [0.75, 0.25]], dtype=float32)
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


def uniform(
    num_classes: int, prior: Numbers | None = None
) -> Float32[jax.Array, "K K"]:
    """Builds the rank-one matrix of labels drawn without regard to the clean ones.

    Args:
      num_classes: Number of classes K, at least 2.
      prior: Class probabilities `[K]`, or the foreground probability for K = 2; by
        default all classes have the same. May be traced.

    Returns:
      float32 `[K, K]`.

    Raises:
      InputError: If `num_classes` or `prior` is out of range.
    """
    checks.num_classes("num_classes", num_classes)
    row = jnp.asarray(1 / num_classes, jnp.float32)
    if prior is not None:
        row = as_prior(prior, num_classes)
    return jnp.broadcast_to(row, (num_classes, num_classes))


def compose(first: _Matrices, second: _Matrices) -> Float32[jax.Array, "*batch K K"]:
    """Returns the matrix `first @ second` of two independent noises in turn.

    Args:
      first: Matrix of the noise that is applied first, `[..., K, K]`.
      second: Matrix of the noise that is applied to its result, `[..., K, K]`.

    Returns:
      float32 `[..., K, K]`.

    Raises:
      InputError: If a matrix is not one, or the matrices differ in K.
    """
    left, right = as_matrix(first, where="first"), as_matrix(second, where="second")
    if left.shape[-1] != right.shape[-1]:
        raise InputError(f"second: got shape {right.shape}, expected that of first")
    return jnp.matmul(left, right, precision="highest")


def decode(
    probabilities: Real[AnyArray, "*shape K"] | Sequence[Any], matrix: Matrix
) -> Float[jax.Array, "*shape K"]:
    """Returns class scores under the clean labels, `p~ @ pinv(T)`.

    A network trained with cross-entropy on labels with noise T predicts `p~ = p @ T`,
    rescaled if rows of T sum to less than 1. The class of the highest score of this
    function is the clean class. Scores may lie outside of [0, 1]. If T is singular,
    they are the least-squares solution, and classes that T does not distinguish have
    equal scores.

    Args:
      probabilities: Predicted class probabilities `[..., K]`.
      matrix: Noise transition matrix T, `[K, K]`.

    Returns:
      Scores, float32 `[..., K]`.

    Raises:
      InputError: If `matrix` is not a noise transition matrix, or `probabilities` has
        another number of classes.
    """
    inverse = jnp.linalg.pinv(as_matrix(matrix))
    shape, num_classes = np.shape(probabilities), inverse.shape[-1]
    if shape[-1:] != (num_classes,):
        raise InputError(
            f"probabilities: got shape {shape}, expected [..., {num_classes}], "
            "as matrix"
        )
    return jnp.matmul(jnp.asarray(probabilities), inverse, precision="highest")


def threshold(
    matrix: Matrix,
) -> tuple[Float32[jax.Array, ""], Bool[jax.Array, ""]]:
    """Returns the threshold of a binary network's score that gives the clean class.

    With clean foreground probability p the score of the noisy foreground is `s(p) =
    ((1-p) T01 + p T11) / ((1-p) (T00+T01) + p (T10+T11))`. The denominator is 1 if the
    rows of T sum to 1. The score is monotone in p, and rises if det T > 0. So the
    threshold at p = 1/2 is `(T01 + T11) / sum(T)`, and it is inverted if det T < 0.

    Args:
      matrix: Noise transition matrix T, `[2, 2]`.

    Returns:
      The threshold t in [0, 1], float32, and whether scores are inverted, bool.
      Foreground is `s >= t`, or `s < t` if inverted. If T is singular, scores hold no
      information, and they count as not inverted.

    Raises:
      InputError: If `matrix` is not a noise transition matrix of two classes.
    """
    (t00, t01), (t10, t11) = as_matrix(matrix, 2)
    return (t01 + t11) / (t00 + t01 + t10 + t11), t11 * t00 < t01 * t10


def singular_values(matrix: _Matrices) -> Float32[jax.Array, "*batch K"]:
    """Returns the singular values of a matrix, largest first.

    Args:
      matrix: Matrix `[..., K, K]`.

    Returns:
      float32 `[..., K]`.

    Raises:
      InputError: If `matrix` is not a noise transition matrix.
    """
    return jnp.linalg.svd(as_matrix(matrix), compute_uv=False)


def rank(matrix: _Matrices, *, tol: Number = 1e-6) -> Int32[jax.Array, "*batch"]:
    """Counts the singular values above `tol`; below K the noise loses classes.

    Values that float32 cannot tell from 0 are never counted: those up to K times its
    relative precision, times the largest value.

    Args:
      matrix: Matrix `[..., K, K]`.
      tol: Singular values up to this count as 0; may be traced.

    Returns:
      int32 `[...]`.

    Raises:
      InputError: If `matrix` is not a noise transition matrix, or `tol` is negative.

    Example:
      >>> rank(symmetric(2, 0.5))
      Array(1, dtype=int32)
    """
    values = singular_values(matrix)
    return jnp.sum(values > _floor(values, tol), axis=-1, dtype=jnp.int32)


def condition_number(matrix: Matrix, *, tol: float = 1e-6) -> Float32[jax.Array, ""]:
    """Returns the largest singular value over the smallest, at least 1.

    If scores have a relative error e, `decode` returns scores with a relative error of
    up to this number times e. It is infinite where `rank`, with the same `tol`, is
    below K.

    Args:
      matrix: Matrix `[..., K, K]`.
      tol: Singular values up to this count as 0; may be traced.

    Returns:
      float32 `[...]`.

    Raises:
      InputError: If `matrix` is not a noise transition matrix, or `tol` is negative.
    """
    values = singular_values(matrix)
    regular = values[..., -1] > _floor(values, tol)[..., 0]
    return jnp.where(regular, values[..., 0] / values[..., -1], jnp.inf)


def joint_counts(
    clean: _ClassIds, noisy: _ClassIds, num_classes: int
) -> Int32[jax.Array, "K K"]:
    """Counts the pixels of each pair of clean and noisy class.

    Counts of several batches can be added.

    Args:
      clean: Integer class ids, of any shape. Pixels that are void (255 or negative)
        here or in `noisy` are not counted.
      noisy: Integer class ids of the shape of `clean`.
      num_classes: Number of classes K.

    Returns:
      int32 `[K, K]`, row = clean class.

    Raises:
      InputError: If `clean` or `noisy` are not integers or no classes, or their shapes
        differ.

    Example:
      >>> joint_counts(np.array([0, 0, 1, 255]), np.array([0, 1, 1, 1]), 2)
      Array([[1, 1],
             [0, 1]], dtype=int32)
    """
    checks.num_classes("num_classes", num_classes)
    before = _class_ids("clean", clean, num_classes)
    after = _class_ids("noisy", noisy, num_classes)
    checks.same_shape("noisy", after, before.shape, "clean")
    before, after = before.ravel(), after.ravel()
    void = is_void(before, num_classes) | is_void(after, num_classes)
    left_out = num_classes**2
    cell = jnp.where(void, left_out, before * num_classes + after)
    counts = jnp.bincount(cell, length=left_out + 1)[:left_out]
    return counts.astype(jnp.int32).reshape(num_classes, num_classes)


def estimate(
    clean: _ClassIds, noisy: _ClassIds, num_classes: int
) -> Float32[jax.Array, "K K"]:
    """Estimates the matrix from pixels whose clean and noisy labels are both known.

    The row of a class without such a pixel is that of the identity. `from_counts` also
    returns how far each entry can be trusted.

    Args:
      clean: Integer class ids, of any shape. Pixels that are void (255 or negative)
        here or in `noisy` are not counted.
      noisy: Integer class ids of the shape of `clean`.
      num_classes: Number of classes K.

    Returns:
      float32 `[K, K]`.

    Raises:
      InputError: If `clean` or `noisy` are not integers or no classes, or their shapes
        differ.
    """
    return _normalised(joint_counts(clean, noisy, num_classes))


class Estimate(NamedTuple):
    """An estimated matrix and how far its entries can be trusted, each `[..., K, K]`.

    Attributes:
      matrix: Estimate, float32; the row of the identity for a class without pixels.
      counts: Pixels behind each entry, int32.
      low: Lower end of the confidence interval of each entry, float32 in [0, 1].
      high: Upper end, float32 in [0, 1].
    """

    matrix: Float32[jax.Array, "*batch K K"]
    counts: Int32[jax.Array, "*batch K K"]
    low: Float32[jax.Array, "*batch K K"]
    high: Float32[jax.Array, "*batch K K"]


def from_counts(
    counts: Integer[AnyArray, "*batch K K"] | Sequence[Sequence[int]],
    *,
    confidence: Number = 0.95,
) -> Estimate:
    """Estimates the matrix and its Wilson score intervals from counts of pixels.

    With k of a row's n pixels in an entry and z the normal quantile of
    `(1 + confidence) / 2`, the ends are the two p with `(k - n p)^2 = z^2 n p (1-p)`:

        (2k + z^2 -+ z sqrt(z^2 + 4k (n-k) / n)) / (2 (n + z^2)),

    and 0 and 1 if n = 0. Pixels are assumed to be independent, as they are for noise
    that changes each pixel by itself. If neighbours err together, the intervals are too
    narrow. Each interval holds for its entry alone, not for all entries at once.
    Source: Wilson, "Probable Inference", Journal of the American Statistical
    Association, 1927.

    Args:
      counts: Integers `[..., K, K]` below 2^31, row = clean class, such as the result
        of `joint_counts` or any confusion matrix of labels against a reference.
      confidence: Probability, in (0, 1), that an interval holds its entry; may be
        traced.

    Returns:
      The matrix, the counts and the ends of the intervals.

    Raises:
      InputError: If `counts` or `confidence` are out of range.
    """
    _check_counts(counts)
    checks.number("confidence", confidence, 0, 1, open_ends=True)
    matrix = _normalised(counts)
    k = jnp.asarray(counts, jnp.float32)
    n = k.sum(axis=-1, keepdims=True)
    # From 1 - confidence, because float32 is finer near 0 than near 1.
    z = -jax.scipy.special.ndtri(jnp.asarray((1 - confidence) / 2, jnp.float32))
    share = k / jnp.maximum(n, 1)
    upper = 2 * k + z**2 + z * jnp.sqrt(z**2 + 4 * share * (n - k))
    high = upper / (2 * (n + z**2))
    low = 2 * k * share / upper  # high * low = k^2 / (n (n + z^2)): nothing cancels
    # Rounding of huge counts must not put the estimate outside its interval.
    low, high = jnp.minimum(low, matrix), jnp.clip(high, matrix, 1)
    return Estimate(matrix, jnp.asarray(counts, jnp.int32), low, high)


def estimate_from_scores(
    probabilities: Float[AnyArray, "*shape K"],
    clean: _ClassIds,
    *,
    unmix: bool = False,
) -> Float32[jax.Array, "K K"]:
    """Estimates the matrix from a model of the noisy labels and a few clean labels.

    Equal to `from_score_sums(score_sums(probabilities, clean), unmix=unmix)`, which
    explain the formulas and their limits.

    Args:
      probabilities: Probabilities of the noisy classes, float `[..., H, W, K]`, as
        predicted by a network that was trained on noisy labels, for other images.
      clean: Integer class ids `[..., H, W]`; void pixels are not used.
      unmix: Whether to undo the mixing of rows by uncertain pixels.

    Returns:
      float32 `[K, K]`.

    Raises:
      InputError: As in `score_sums`.
    """
    return from_score_sums(score_sums(probabilities, clean), unmix=unmix)


class ScoreSums(NamedTuple):
    """Sums over labelled pixels; those of several batches can be added.

    Attributes:
      joint: `sum_x [clean(x) = i] p~_j(x)`, float32 `[K, K]`.
      square: `sum_x p~_i(x) p~_j(x)`, float32 `[K, K]`.
    """

    joint: Float32[jax.Array, "K K"]
    square: Float32[jax.Array, "K K"]


def score_sums(
    probabilities: Float[AnyArray, "*shape K"], clean: _ClassIds
) -> ScoreSums:
    """Computes the sums over a batch that `from_score_sums` needs.

    Args:
      probabilities: Probabilities of the noisy classes, float `[..., H, W, K]`.
      clean: Integer class ids `[..., H, W]`; void pixels are not used.

    Returns:
      The sums; those of several batches can be added.

    Raises:
      InputError: If `probabilities` are not floats on the pixels of `clean`, are
        negative or do not sum to 1.
    """
    probabilities = jnp.asarray(probabilities)
    if not jnp.issubdtype(probabilities.dtype, jnp.floating):
        raise InputError(
            f"probabilities: got dtype {probabilities.dtype}, expected floats"
        )
    num_classes = probabilities.shape[-1] if probabilities.ndim else 0
    if probabilities.shape[:-1] != np.shape(clean) or num_classes < 2:
        raise InputError(
            f"probabilities: got shape {probabilities.shape}, "
            f"expected [..., K], K >= 2, on the {np.shape(clean)} of clean"
        )
    ids = _class_ids("clean", clean, num_classes)
    indicator = one_hot(ids, num_classes).reshape(-1, num_classes)
    scores = probabilities.reshape(-1, num_classes).astype(jnp.float32)
    # `where` rather than a product with 0, because scores of void pixels may be NaN.
    scores = jnp.where(indicator.any(axis=-1, keepdims=True), scores, 0)
    joint, square = (
        jnp.matmul(left.T, scores, precision="highest") for left in (indicator, scores)
    )
    _check_score_sums(joint, square)
    return ScoreSums(joint, square)


def from_score_sums(
    sums: ScoreSums, *, unmix: bool = False
) -> Float32[jax.Array, "K K"]:
    """Estimates the matrix from the scores of a model on pixels with clean labels.

    Row i is the mean of `p~` over the pixels of clean class i. Source: "gold loss
    correction", Hendrycks et al., "Using Trusted Data to Train Deep Networks on Labels
    Corrupted by Severe Noise", NeurIPS 2018. A calibrated model scores `p~ = p @ T`
    with the clean posterior p, given the model's input. So the mean estimates `M @ T`
    with `M[i, k] = E[p_k | clean = i]`. This is T itself only if p is 0 or 1
    everywhere. Otherwise rows are mixed: they are more alike than the rows of T.

    `unmix` undoes this (our derivation). Given the scores, the clean indicator y has
    the mean `p~ @ inv(T)`, so inv(T) is the regression of y on `p~`, and

        T = inv(E[p~' p~]^-1 E[p~' y]) = inv(E[p~' y]) E[p~' p~] = inv(joint') square.

    This needs classes that the scores distinguish and a T of full rank: errors grow
    with their condition numbers. Entries below 0 are set to 0. If T is singular or the
    model is not calibrated, the result need not be better than the mean.

    Rows sum to 1, and the row of a class without pixels is that of the identity.
    Neither estimate is valid for noise that makes void, for which `p~` is not linear in
    p.

    Args:
      sums: Result of `score_sums`, added over batches.
      unmix: Whether to undo the mixing of rows by uncertain pixels.

    Returns:
      float32 `[K, K]`.

    Raises:
      InputError: If the sums are not square.
    """
    joint = _square("sums.joint", sums.joint)
    if not unmix:
        return _normalised(joint)
    square = _square("sums.square", sums.square, joint.shape[-1])
    unmixed = jnp.matmul(jnp.linalg.pinv(joint.mT), square, precision="highest")
    seen = joint.sum(axis=-1, keepdims=True) > 0
    return _normalised(jnp.where(seen, jnp.maximum(unmixed, 0), 0))


def validate(
    matrix: Any, num_classes: int, *, where: str = "matrix", void: bool = False
) -> None:
    """Checks on the host that a value is a noise transition matrix.

    Rounding to four digits or to float16 is allowed for.

    Args:
      matrix: Value to check.
      num_classes: Number of classes K.
      where: Name of the argument, for the message.
      void: Whether rows may sum to less than 1, as they do if noise makes void.

    Raises:
      InputError: If it is not `[K, K]` numbers, or has an entry that is negative or not
        finite, or a row that sums to another number than 1; names the row.
    """
    expected = f"expected {num_classes} x {num_classes} numbers"
    values = _on_host(matrix, where, expected)
    if values.shape != (num_classes, num_classes):
        raise InputError(f"{where}: got shape {values.shape}, {expected}")
    _check_rows(values, where, void)


def as_matrix(
    matrix: Any,
    num_classes: int | None = None,
    *,
    where: str = "matrix",
    void: bool = True,
) -> Float32[jax.Array, "*batch K K"]:
    """Checks noise transition matrices and converts them to arrays.

    Rows whose sum was changed by rounding are divided by it. The numbers of a traced
    matrix are not known: they are neither checked nor changed.

    Args:
      matrix: Matrices `[..., K, K]`; may be traced.
      num_classes: Number of classes K; by default any.
      where: Name of the argument, for the message.
      void: Whether rows may sum to less than 1, as they do if noise makes void.

    Returns:
      float32 `[..., K, K]`.

    Raises:
      InputError: As in `validate`.

    Example:
      >>> as_matrix([[0.3333, 0.3333, 0.3333], [0, 1, 0], [0, 0, 1]], void=False)[0]
      Array([0.33333334, 0.33333334, 0.33333334], dtype=float32)
    """
    values = _square(where, matrix, num_classes)
    if checks.is_traced(matrix):
        return values
    host = _on_host(matrix, where, "expected numbers")
    _check_rows(host, where, void)
    return jnp.asarray(_unrounded(host, void), jnp.float32)


def as_prior(
    prior: Any, num_classes: int | None = None, *, where: str = "prior"
) -> Float32[jax.Array, "K"]:
    """Checks class probabilities and converts them to an array.

    Args:
      prior: Class probabilities `[K]`, or the foreground probability for K = 2. They
        may be 0. Those whose sum was changed by rounding are divided by it. May be
        traced; then they are neither checked nor changed.
      num_classes: Number of classes K; by default any.
      where: Name of the argument, for the message.

    Returns:
      float32 `[K]`.

    Raises:
      InputError: If `prior` holds no probabilities, or their sum is not 1.
    """
    checks.prior(where, prior, num_classes)
    row = jnp.asarray(prior, jnp.float32)
    if row.ndim == 0:
        return jnp.stack([1 - row, row])
    if checks.is_traced(prior):
        return row
    return jnp.asarray(_unrounded(np.asarray(prior, np.float64), False), jnp.float32)


def _on_host(matrix: Any, where: str, expected: str) -> np.ndarray:
    try:
        return np.asarray(matrix, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise InputError(f"{where}: got {checks.shown(matrix)}, {expected}") from error


def _check_rows(values: np.ndarray, where: str, void: bool) -> None:
    """Checks the entries and the sums of the rows of `[..., K, K]`."""
    for index, row in enumerate(values.reshape(-1, values.shape[-1])):
        name = f"{where}: row {index % values.shape[-1]}"
        if not ((row >= 0) & (row < np.inf)).all():
            wrong = row[~((row >= 0) & (row < np.inf))][0]
            raise InputError(f"{name} holds {wrong:g}, expected probabilities >= 0")
        low = void and row.sum() < 1
        if not low and not checks.sums_to_one(row):
            most = "at most 1" if void else "1"
            raise InputError(
                f"{name} sums to {row.sum():g}, expected rows to sum to {most}"
            )


def _unrounded(values: np.ndarray, void: bool) -> np.ndarray:
    """Divides rows by their sums where these differ from 1 by more than float32's.

    With `void`, a sum below 1 may be meant, so only sums above 1 are set right.
    """
    total = values.sum(axis=-1, keepdims=True)
    off = total - 1 > 1e-5 if void else abs(total - 1) > 1e-5
    return np.where(off, values / np.where(off, total, 1), values)


def _normalised(joint: Any) -> jax.Array:
    """Rows divided by their sums, float32 `[..., K, K]`; identity's where that is 0."""
    joint = jnp.asarray(joint, jnp.float32)
    total = joint.sum(axis=-1, keepdims=True)
    seen = total > 0
    return jnp.where(
        seen,
        joint / jnp.where(seen, total, 1),
        jnp.eye(joint.shape[-1], dtype=jnp.float32),
    )


def _rates(num_classes: int, rate: Numbers) -> jax.Array:
    """The rate of each clean class as a column, float32 `[K, 1]`."""
    checks.num_classes("num_classes", num_classes)
    checks.shares("rate", rate, num_classes)
    return jnp.broadcast_to(jnp.asarray(rate, jnp.float32), (num_classes,))[:, None]


def _square(name: str, matrix: Any, num_classes: int | None = None) -> jax.Array:
    """`matrix` as float32 `[..., K, K]`."""
    size = num_classes or "K"
    expected = f"expected {size} x {size} numbers"
    try:
        values = jnp.asarray(matrix, jnp.float32)
    except (TypeError, ValueError) as error:
        raise InputError(f"{name}: got {checks.shown(matrix)}, {expected}") from error
    rows, columns = values.shape[-2:] if values.ndim > 1 else (0, 0)
    if not rows == columns > 0 or num_classes not in (None, rows):
        raise InputError(f"{name}: got shape {values.shape}, {expected}")
    return values


def _floor(values: jax.Array, tol: Number) -> jax.Array:
    """What singular values `[..., K]` must exceed not to count as 0, `[..., 1]`."""
    checks.number("tol", tol, 0)
    resolved = values.shape[-1] * jnp.finfo(values.dtype).eps * values[..., :1]
    return jnp.maximum(tol, resolved)


def _class_ids(name: str, labels: Any, num_classes: int) -> jax.Array:
    """`labels` as int32, of any shape."""
    values = labels if hasattr(labels, "dtype") else np.asarray(labels)
    if not jnp.issubdtype(values.dtype, jnp.integer):
        raise InputError(
            f"{name}: got dtype {values.dtype}, expected integer class ids"
        )
    check_ids(values, num_classes, where=name)
    return jnp.asarray(values).astype(jnp.int32)


def _check_counts(counts: Any) -> None:
    _square("counts", counts)
    if checks.is_traced(counts):
        return
    values = np.asarray(counts)
    if values.dtype.kind not in "iu":
        raise InputError(f"counts: got dtype {values.dtype}, expected integers")
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
