"""Measures of the information that noisy labels hold about clean ones.

The functions turn densities `[..., H, W, K]` (see `metaseg.density`) and noise
transition matrices `[K, K]` (see `metaseg.ntm`) into numbers; information is in nats.
All of them are pure except `describe`, which returns a sentence. Imports `labels`,
`ntm`, `morphology`, `checks`, `errors` and `typing` only.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Float32, Real

from metaseg import checks, morphology, ntm
from metaseg.errors import InputError
from metaseg.labels import is_void
from metaseg.typing import AnyArray, Labels, Matrix, Numbers

__all__ = [
    "DIVERGENCES",
    "Profile",
    "Worth",
    "boundary_profile",
    "describe",
    "divergence",
    "effective_labels",
    "entropy",
    "normalised_spatial_information",
    "semantic_information",
    "spatial_information",
    "spatial_information_bias",
]

Prior: TypeAlias = Numbers | Sequence[Real[ArrayLike, ""]]
DIVERGENCES = ("kl", "js", "tv", "hellinger")


def entropy(
    probabilities: Real[AnyArray, "*batch K"] | Sequence[float],
) -> Float32[jax.Array, "..."]:
    """Returns the Shannon entropy `-sum_k p_k log p_k` over the last axis, in nats.

    Args:
      probabilities: Float `[..., K]`.

    Returns:
      Entropies, float32 `[...]`.
    """
    p = jnp.asarray(probabilities, jnp.float32)
    return -jnp.sum(p * jnp.log(jnp.where(p > 0, p, 1)), axis=-1)


def spatial_information(
    density: Real[AnyArray, "*batch H W K"],
) -> Float32[jax.Array, "*batch"]:
    """Computes the mutual information of place and label.

    It is `H(mean_x rho(x)) - mean_x H(rho(x))`, which is also the Jensen-Shannon
    divergence of the local densities. It is 0 if the densities are equal everywhere, as
    for random labels, apart from `spatial_information_bias`.

    Args:
      density: Float `[..., H, W, K]`; pixels whose density is 0 do not count.

    Returns:
      float32 `[...]`, nats.

    Raises:
      InputError: If `density` has fewer than three axes.
    """
    mean, known = _mean_density(density)
    within = entropy(density).sum(axis=(-2, -1)) / jnp.maximum(known, 1)
    return jnp.maximum(entropy(mean) - within, 0)


def normalised_spatial_information(
    density: Real[AnyArray, "*batch H W K"],
) -> Float32[jax.Array, "*batch"]:
    """Computes spatial information divided by its upper bound, `H(mean_x rho(x))`.

    Args:
      density: Float `[..., H, W, K]`; pixels whose density is 0 do not count.

    Returns:
      float32 `[...]` in [0, 1]; 0 where there is one class only.

    Raises:
      InputError: If `density` has fewer than three axes.
    """
    most = entropy(_mean_density(density)[0])
    return spatial_information(density) / jnp.where(most > 1e-12, most, 1)


def spatial_information_bias(
    shares: Real[AnyArray, "*other K"] | Sequence[float],
    pixels: Real[AnyArray, "*batch H W"],
) -> Float32[jax.Array, "..."]:
    """Estimates the spatial information that labels without structure show by chance.

    It is `mean_x (K' - 1) / (2 n(x))` nats, with K' the number of classes that occur
    and n the number of effective pixels under the kernel: the bias of the plug-in
    entropy of n draws. Source: Miller, "Note on the bias of information estimates",
    1955.

    Args:
      shares: Class shares of the map, `[..., K]`.
      pixels: Effective pixels, `[..., H, W]`, of `density.effective_pixels`.

    Returns:
      float32 `[...]`, nats.
    """
    count = jnp.asarray(pixels, jnp.float32)
    classes = jnp.sum(jnp.asarray(shares) > 0, axis=-1)
    inverse = jnp.where(count > 0, 1 / jnp.where(count > 0, count, 1), 0)
    known = jnp.maximum(jnp.sum(count > 0, axis=(-2, -1)), 1)
    mean = inverse.sum(axis=(-2, -1)) / known
    return jnp.maximum(classes - 1, 0) * mean / 2


def semantic_information(matrix: Matrix, prior: Prior) -> Float32[jax.Array, ""]:
    """Computes the mutual information of clean and noisy label.

    It is `H(pi T) - sum_i pi_i H(T_i)`, at most `H(pi)`. It reaches `H(pi)` if each
    noisy label determines the clean one, is 0 if T has rank one, and never grows by
    further noise. If T turns labels into void, only the pixels left count.

    Args:
      matrix: T, `[K, K]`.
      prior: Clean class shares pi, `[K]`, or for K = 2 that of the foreground alone.

    Returns:
      float32 scalar, nats per pixel.

    Raises:
      InputError: If the matrix or the prior is wrong.

    Example:
      >>> semantic_information(np.eye(2), 0.5)  # log 2
      Array(0.6931472, dtype=float32)
    """
    values, pi = _matrix_and_prior(matrix, prior)
    joint = pi[:, None] * values
    left = jnp.sum(joint)
    joint = joint / jnp.where(left > 0, left, 1)
    information = (
        entropy(joint.sum(axis=0)) + entropy(joint.sum(axis=1)) - entropy(joint.ravel())
    )
    return left * jnp.maximum(information, 0)


class Worth(NamedTuple):
    """Number of clean labels that one noisy label is worth, float32 in [0, 1].

    Attributes:
      mean: Mean over the directions in which class shares can differ.
      worst: Worth for the two mixtures of classes that the noise makes hardest to tell
        apart.
    """

    mean: jax.Array
    worst: jax.Array


def effective_labels(matrix: Matrix, prior: Prior | None = None) -> Worth:
    """Returns how many clean labels a noisy one is worth, by Fisher information.

    n labels corrupted by T tell two class densities near pi apart as well as `n w`
    clean labels, where w is the ratio of noisy to clean Fisher information about the
    density. The clean information is `diag(1 / pi)`, the noisy one `T diag(1 / (pi T))
    T'`, both restricted to directions that sum to 0, and w is an eigenvalue of the
    second relative to the first. Two classes have one direction: flips at rate r leave
    `(1 - 2 r)^2` for equal class shares, so that 40 % of flips leave 1/25.

    Args:
      matrix: T, `[K, K]`; rows that sum to less than 1 mean that pixels became void.
      prior: Class shares pi, `[K]`, or for K = 2 that of the foreground alone; by
        default equal shares. Classes with a share of 0 do not count: the directions are
        those of the other classes.

    Returns:
      The worth on average, and for the two mixtures of classes that are hardest to tell
      apart; 0 if there are no two classes.

    Raises:
      InputError: If the matrix or the prior is wrong.

    Example:
      >>> effective_labels(np.array([[0.6, 0.4], [0.4, 0.6]])).mean.round(3)
      Array(0.04, dtype=float32)
    """
    matrix, pi = _matrix_and_prior(matrix, prior)
    noisy = jnp.matmul(pi, matrix, precision="highest")
    left = jnp.sum(noisy)
    # Of d = sqrt(pi) e, e orthogonal to sqrt(pi), clean information is |e|^2.
    scaled = jnp.sqrt(pi)[:, None] * matrix
    scaled = scaled / jnp.sqrt(jnp.where(noisy > 0, noisy, 1))
    information = jnp.matmul(scaled, scaled.T, precision="highest")
    # The share of void in each class must not count as information: project it out.
    kept = jnp.sqrt(pi) * matrix.sum(axis=1)
    information -= jnp.outer(kept, kept) / jnp.where(left > 0, left, 1)
    values = jnp.clip(jnp.linalg.eigvalsh(information), 0, 1)
    # One eigenvalue, 0, belongs to the direction in which shares do not sum to 1, and
    # one to each class with a share of 0.
    seen = jnp.sum(pi > 0)
    lowest = values[jnp.minimum(len(values) - seen + 1, len(values) - 1)]
    several = seen > 1
    return Worth(
        jnp.where(several, values.sum() / jnp.maximum(seen - 1, 1), 0),
        jnp.where(several, lowest, 0),
    )


def divergence(
    p: Real[AnyArray, "*batch H W K"],
    q: Real[AnyArray, "*batch H W K"],
    *,
    kind: str = "js",
) -> Float32[jax.Array, "*batch"]:
    """Computes the divergence of two densities, averaged over the pixels.

    - "kl" is `sum p log(p / q)`, infinite where q is 0 and p is not.
    - "js" is the mean of KL of both densities to their mean, at most log 2.
    - "tv" is `sum |p - q| / 2`, at most 1.
    - "hellinger" is `sqrt(sum (sqrt p - sqrt q)^2 / 2)`, at most 1.

    Args:
      p: Density `[..., H, W, K]`.
      q: Density `[..., H, W, K]`; pixels where either density is 0 do not count.
      kind: One of `DIVERGENCES`, static.

    Returns:
      float32 `[...]`; nats for "kl" and "js".

    Raises:
      InputError: If the kind is unknown, or the shapes differ.
    """
    checks.choice("kind", kind, DIVERGENCES)
    _check_density("p", p)
    checks.same_shape("q", q, p.shape, "p")
    p, q = jnp.asarray(p), jnp.asarray(q)
    if kind == "kl":
        each = _relative_entropy(p, q)
    elif kind == "js":
        middle = (p + q) / 2
        each = (_relative_entropy(p, middle) + _relative_entropy(q, middle)) / 2
    elif kind == "tv":
        each = jnp.sum(jnp.abs(p - q), axis=-1) / 2
    else:
        squares = (jnp.sqrt(jnp.maximum(p, 0)) - jnp.sqrt(jnp.maximum(q, 0))) ** 2
        each = jnp.sqrt(jnp.sum(squares, axis=-1) / 2)
    known = (p.sum(axis=-1) > 0) & (q.sum(axis=-1) > 0)
    total = jnp.sum(jnp.where(known, each, 0), axis=(-2, -1))
    return total / jnp.maximum(jnp.sum(known, axis=(-2, -1)), 1)


class Profile(NamedTuple):
    """Noisy labels by their signed distance to the clean boundary.

    The counts of several batches can be added.

    Attributes:
      counts: int32 `[K, 2 D + 1, K]`; entry `[c, d, k]` is the number of pixels at
        distance `d - D` from the boundary of clean class c whose noisy label is k.
    """

    counts: jax.Array

    @property
    def distance(self) -> np.ndarray:
        """Signed distances in pixels, `[2 D + 1]`; negative inside the class."""
        reach = self.counts.shape[-2] // 2
        return np.arange(-reach, reach + 1)

    @property
    def share(self) -> jax.Array:
        """Shares labelled as the class itself, `[K, 2 D + 1]`; NaN without pixels."""
        own = jnp.diagonal(self.counts, axis1=0, axis2=2).T
        return own / self.counts.sum(axis=-1)


def boundary_profile(
    clean: Labels, noisy: Labels, num_classes: int, *, max_distance: int = 16
) -> Profile:
    """Counts noisy labels by their distance to the boundary of each clean class.

    For each class, a pixel of the class has distance `-d`, with d the Euclidean
    distance to the nearest pixel of another class; any other pixel has distance `d -
    1`, with d the distance to the nearest pixel of the class. Distances are exact and
    then rounded, so that -1 and 0 are the two sides of the boundary. Void belongs to no
    class and has no boundary. As a function of the distance, the share of a class is a
    step at the boundary: independent noise scales and offsets the step, changed shapes
    move it, and random labels are flat.

    Args:
      clean: Class ids, integer `[..., H, W]`; void (255 or negative) here or in
        `noisy` does not count.
      noisy: Class ids, integer `[..., H, W]`.
      num_classes: Number of classes K, static.
      max_distance: D in pixels, static; pixels farther away do not count.

    Returns:
      The counts.

    Raises:
      InputError: If the labels, the number of classes or the distance are wrong.
    """
    checks.num_classes("num_classes", num_classes)
    checks.integer("max_distance", max_distance, 1, "pixels")
    checks.label_maps("clean", clean, num_classes)
    checks.label_maps("noisy", noisy, num_classes)
    checks.same_shape("noisy", noisy, clean.shape, "clean")
    clean, noisy = jnp.asarray(clean), jnp.asarray(noisy)
    return Profile(_profile(clean, noisy, num_classes, max_distance))


@partial(jax.jit, static_argnums=(2, 3))  # so that eager calls compile only once
def _profile(
    clean: jax.Array, noisy: jax.Array, num_classes: int, max_distance: int
) -> jax.Array:
    """Returns the counts of a `Profile`."""
    void = is_void(clean, num_classes)
    known = ~(void | is_void(noisy, num_classes))
    bins = 2 * max_distance + 1

    def of_class(class_id: jax.Array) -> jax.Array:
        mask = clean == class_id
        inside = -morphology.distance(mask | void)
        outside = morphology.distance(~mask) - 1
        signed = jnp.round(jnp.where(mask, inside, outside))
        near = known & (jnp.abs(signed) <= max_distance)
        index = jnp.where(near, signed, 0).astype(jnp.int32) + max_distance
        cell = index * num_classes + noisy.astype(jnp.int32)
        cell = jnp.where(near, cell, bins * num_classes)
        counts = jnp.bincount(cell.ravel(), length=bins * num_classes + 1)
        return counts[:-1].reshape(bins, num_classes).astype(jnp.int32)

    return jax.lax.map(of_class, jnp.arange(num_classes, dtype=clean.dtype))


def describe(
    matrix: Matrix, *, class_names: Sequence[str] | None = None, tol: float = 1e-3
) -> str:
    """Says in one sentence which classes a matrix leaves distinguishable.

    Args:
      matrix: T, `[K, K]`, not traced.
      class_names: K names; by default "class 0" and so on.
      tol: Singular values up to this number count as 0.

    Returns:
      The sentence.

    Raises:
      InputError: If the matrix is wrong or there are not K names.

    Example:
      >>> describe([[1, 0, 0], [0, 0.5, 0.5], [0, 0.5, 0.5]])
      'class 1 and class 2 are no longer distinguishable (rank 2 of 3)'
    """
    values = np.asarray(_matrix_and_prior(matrix, None)[0], np.float64)
    num_classes = len(values)
    names = list(class_names or (f"class {i}" for i in range(num_classes)))
    if len(names) != num_classes:
        raise InputError(f"class_names: got {len(names)}, expected {num_classes}")
    rank = int(ntm.rank(values, tol=tol))
    if rank == num_classes:
        return f"all {num_classes} classes can be told apart (rank {rank})"
    if rank <= 1:
        return f"no class can be told from another (rank {rank} of {num_classes})"
    # Classes whose labels are spread alike are one group.
    left = values.sum(axis=1)
    spread = values / np.where(left > tol, left, 1)[:, None]
    said = [f"{names[i]} is left without labels" for i in np.flatnonzero(left <= tol)]
    groups: list[list[int]] = []
    for index in np.flatnonzero(left > tol).tolist():
        for group in groups:
            if np.linalg.norm(spread[group[0]] - spread[index]) <= 2 * tol:
                group.append(index)
                break
        else:
            groups.append([index])
    for group in groups:
        if len(group) > 1:
            alike = " and ".join(names[i] for i in group)
            said.append(f"{alike} are no longer distinguishable")
    if rank < len(groups):  # more is lost than the difference between whole classes
        said.append("some mixtures of classes look like others")
    return f"{'; '.join(said)} (rank {rank} of {num_classes})"


def _matrix_and_prior(matrix: Any, prior: Any) -> tuple[jax.Array, jax.Array]:
    """`[K, K]` and `[K]`, float32; without a prior all shares are equal."""
    values = ntm.as_matrix(matrix)
    if values.ndim != 2 or len(values) < 2:
        raise InputError(
            f"matrix: got shape {values.shape}, expected K x K numbers, K > 1"
        )
    if prior is None:
        return values, jnp.full(len(values), 1 / len(values), jnp.float32)
    return values, ntm.as_prior(prior, len(values))


def _mean_density(density: AnyArray) -> tuple[jax.Array, jax.Array]:
    """Mean over the pixels where a density is known, and the number of these pixels."""
    _check_density("density", density)
    density = jnp.asarray(density)
    known = jnp.sum(density.sum(axis=-1) > 0.5, axis=(-2, -1))
    return density.sum(axis=(-3, -2)) / jnp.maximum(known, 1)[..., None], known


def _check_density(where: str, density: AnyArray) -> None:
    if np.ndim(density) < 3:
        raise InputError(
            f"{where}: got shape {np.shape(density)}, expected [..., H, W, K]"
        )


def _relative_entropy(p: jax.Array, q: jax.Array) -> jax.Array:
    ratio = jnp.where(p > 0, p / jnp.where(q > 0, q, 1), 1)
    each = jnp.where((p > 0) & (q <= 0), jnp.inf, p * jnp.log(ratio))
    return jnp.maximum(jnp.sum(each, axis=-1), 0)
