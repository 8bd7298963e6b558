"""How much a label set still says: densities and matrices to numbers.

Information is in nats, of densities `[..., H, W, K]` (metaseg.density) and of noise
transition matrices `[K, K]` (metaseg.ntm). Pure functions, but for `describe`, which
writes words. Imports `metaseg.labels`, `metaseg.ntm`, `metaseg.morphology`,
`metaseg.checks` and `metaseg.errors` only.
"""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from metaseg import checks, morphology, ntm
from metaseg.errors import InputError
from metaseg.labels import is_void

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

DIVERGENCES = ("kl", "js", "tv", "hellinger")


def entropy(probabilities: ArrayLike) -> jax.Array:
    """Returns the Shannon entropy `-sum_k p_k log p_k` over the last axis, in nats.

    Args:
      probabilities: float `[..., K]`.

    Returns:
      Entropies, float32 `[...]`.
    """
    p = jnp.asarray(probabilities, jnp.float32)
    return -jnp.sum(p * jnp.log(jnp.where(p > 0, p, 1)), axis=-1)


def spatial_information(density: jax.Array) -> jax.Array:
    """`H(mean_x rho(x)) - mean_x H(rho(x))`: mutual information of place and label.

    Equally, the Jensen-Shannon divergence of the local densities. 0 where they are the
    same everywhere, as for random labels, but for `spatial_information_bias`.

    Args:
      density: `[..., H, W, K]`; pixels where it is 0 do not count.

    Returns:
      float32 `[...]`, nats.
    """
    mean, known = _mean_density(density)
    within = entropy(density).sum(axis=(-2, -1)) / jnp.maximum(known, 1)
    return jnp.maximum(entropy(mean) - within, 0)


def normalised_spatial_information(density: jax.Array) -> jax.Array:
    """Spatial information over its largest possible value, `H(mean_x rho(x))`.

    Args:
      density: `[..., H, W, K]`.

    Returns:
      float32 `[...]` in [0, 1]; 0 where there is one class only.
    """
    most = entropy(_mean_density(density)[0])
    return spatial_information(density) / jnp.where(most > 1e-12, most, 1)


def spatial_information_bias(shares: ArrayLike, pixels: ArrayLike) -> jax.Array:
    """Spatial information that labels without structure show by chance, about.

    `mean_x (K' - 1) / (2 n(x))` nats, K' the classes that occur and n the effective
    pixels under the kernel: the bias of the plug-in entropy of n draws. Source: Miller,
    "Note on the bias of information estimates", 1955.

    Args:
      shares: class shares of the map, `[..., K]`.
      pixels: effective pixels, `[..., H, W]`: `density.effective_pixels`.

    Returns:
      float32 `[...]`, nats.
    """
    count = jnp.asarray(pixels, jnp.float32)
    classes = jnp.sum(jnp.asarray(shares) > 0, axis=-1)
    inverse = jnp.where(count > 0, 1 / jnp.where(count > 0, count, 1), 0)
    known = jnp.maximum(jnp.sum(count > 0, axis=(-2, -1)), 1)
    mean = inverse.sum(axis=(-2, -1)) / known
    return jnp.maximum(classes - 1, 0) * mean / 2


def semantic_information(matrix: ArrayLike, prior: ArrayLike) -> jax.Array:
    """Mutual information of clean and noisy label, `H(pi T) - sum_i pi_i H(T_i)`.

    At most `H(pi)`, reached where T can be undone pixel by pixel; 0 at rank one; never
    more after further noise. Where T makes void, void is one more outcome that is not
    looked at: the information is that of the pixels left.

    Args:
      matrix: T, `[K, K]`.
      prior: clean class shares pi, `[K]`, or for K = 2 the foreground's alone.

    Returns:
      float32 scalar, nats a pixel.

    Raises:
      InputError: wrong matrix or prior.
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
    """How many clean labels one noisy label is worth, each float32 in [0, 1].

    Attributes:
      mean: over the directions in which class shares can differ.
      worst: for the two mixtures of classes that the noise makes hardest to tell apart.
    """

    mean: jax.Array
    worst: jax.Array


def effective_labels(matrix: ArrayLike, prior: ArrayLike | None = None) -> Worth:
    """Returns how many clean labels a noisy one is worth, by Fisher information.

    n labels corrupted by T tell two class densities near pi apart as well as `n w`
    clean ones, w being noisy over clean Fisher information about the density. The clean
    one is `diag(1 / pi)`, the noisy one `T diag(1 / (pi T)) T'`, both on directions
    that sum to 0: w ranges over the eigenvalues of the one relative to the other. For
    two classes there is one direction; flips at rate r near 1/2 leave `(1 - 2 r)^2`,
    40 % of them a 25th.

    Args:
      matrix: T, `[K, K]`; where its rows sum to less than 1, pixels became void.
      prior: class shares pi, `[K]`, all > 0, or for K = 2 the foreground's alone; by
        default all alike.

    Returns:
      The worth on average, and for the two mixtures of classes that are hardest to tell
      apart.

    Raises:
      InputError: wrong matrix or prior.
    """
    matrix, pi = _matrix_and_prior(matrix, prior)
    noisy = jnp.matmul(pi, matrix, precision="highest")
    left = jnp.sum(noisy)
    # Of d = sqrt(pi) e, e orthogonal to sqrt(pi), clean information is |e|^2.
    scaled = jnp.sqrt(pi)[:, None] * matrix
    scaled = scaled / jnp.sqrt(jnp.where(noisy > 0, noisy, 1))
    information = jnp.matmul(scaled, scaled.T, precision="highest")
    # What void takes of each class must not count as information: project it out.
    kept = jnp.sqrt(pi) * matrix.sum(axis=1)
    information -= jnp.outer(kept, kept) / jnp.where(left > 0, left, 1)
    values = jnp.clip(jnp.linalg.eigvalsh(information), 0, 1)
    # One eigenvalue, 0, belongs to the direction in which shares do not sum to 1.
    return Worth(values.sum() / (len(values) - 1), values[1])


def divergence(p: jax.Array, q: jax.Array, kind: str = "js") -> jax.Array:
    """Mean over pixels of the divergence of two densities.

    "kl": `sum p log(p / q)`, infinite where q is 0 and p is not; "js": the mean of KL
    of both to their middle, at most log 2; "tv": `sum |p - q| / 2`; "hellinger":
    `sqrt(sum (sqrt p - sqrt q)^2 / 2)`. The last two are at most 1.

    Args:
      p: density `[..., H, W, K]`.
      q: density `[..., H, W, K]`; pixels where either is 0 do not count.
      kind: one of `DIVERGENCES`, static.

    Returns:
      float32 `[...]`; nats for "kl" and "js".

    Raises:
      InputError: unknown kind.
    """
    checks.choice("kind", kind, DIVERGENCES)
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
    """Noisy class shares by signed distance to the clean boundary; batches add up.

    Attributes:
      counts: noisy pixels of each class, int32 `[K, 2 D + 1, K]`: of clean class c, at
        signed distance `d - D`, given each noisy class.
    """

    counts: jax.Array

    @property
    def distance(self) -> np.ndarray:
        """Signed distance in pixels `[2 D + 1]`: negative inside the class."""
        reach = self.counts.shape[-2] // 2
        return np.arange(-reach, reach + 1)

    @property
    def share(self) -> jax.Array:
        """Share labelled as the class itself, float32 `[K, 2 D + 1]`; NaN if unseen."""
        own = jnp.diagonal(self.counts, axis1=0, axis2=2).T
        return own / self.counts.sum(axis=-1)


def boundary_profile(
    clean: jax.Array, noisy: jax.Array, num_classes: int, *, max_distance: int = 16
) -> Profile:
    """Counts noisy labels by their distance to the boundary of each clean class.

    For every class by itself, on the exact Euclidean distance: pixels of the class lie
    at `-d`, d the distance to the nearest pixel of another, others at `d - 1`, d that
    to the nearest pixel of it, rounded; so that -1 and 0 are the two sides of the
    boundary. Void is of no class, and no boundary. Independent noise leaves the clean
    step, scaled and offset; changed shapes move it; random labels are flat.

    Args:
      clean: class ids, integer `[..., H, W]`; void here or in `noisy` does not count.
      noisy: class ids, integer `[..., H, W]`.
      num_classes: K, static.
      max_distance: D in pixels, static; pixels farther off do not count.

    Returns:
      The counts.

    Raises:
      InputError: wrong labels, number of classes or distance.
    """
    checks.num_classes("num_classes", num_classes)
    checks.integer("max_distance", max_distance, 1, "pixels")
    checks.label_maps("clean", clean)
    checks.label_maps("noisy", noisy)
    if clean.shape != noisy.shape:
        raise InputError(
            f"noisy: shape {noisy.shape}, expected {clean.shape}, as clean"
        )
    known = ~is_void(clean) & (noisy >= 0) & (noisy < num_classes)
    bins = 2 * max_distance + 1

    def of_class(class_id: jax.Array) -> jax.Array:
        mask = clean == class_id
        inside = -morphology.distance(mask | is_void(clean))
        outside = morphology.distance(~mask) - 1
        signed = jnp.round(jnp.where(mask, inside, outside))
        near = known & (jnp.abs(signed) <= max_distance)
        index = jnp.where(near, signed, 0).astype(jnp.int32) + max_distance
        cell = index * num_classes + noisy.astype(jnp.int32)
        cell = jnp.where(near, cell, bins * num_classes)
        counts = jnp.bincount(cell.ravel(), length=bins * num_classes + 1)
        return counts[:-1].reshape(bins, num_classes).astype(jnp.int32)

    return Profile(jax.lax.map(of_class, jnp.arange(num_classes, dtype=clean.dtype)))


def describe(
    matrix: ArrayLike, class_names: Sequence[str] | None = None, *, tol: float = 1e-3
) -> str:
    """Says in one sentence which classes a matrix leaves distinguishable.

    Args:
      matrix: T, `[K, K]`, concrete.
      class_names: K names; by default "class 0" and so on.
      tol: singular values up to this count as 0.

    Returns:
      The sentence.

    Raises:
      InputError: wrong matrix, or not K names.
    """
    values = np.asarray(_matrix_and_prior(matrix, None)[0], np.float64)
    num_classes = len(values)
    names = list(class_names or (f"class {i}" for i in range(num_classes)))
    if len(names) != num_classes:
        raise InputError(f"class_names: got {len(names)}, expected {num_classes}")
    rank = int(ntm.rank(values, tol))
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
    if rank < len(groups):  # what is lost is not whole classes alone
        said.append("some mixtures of classes look like others")
    return f"{'; '.join(said)} (rank {rank} of {num_classes})"


def _matrix_and_prior(
    matrix: ArrayLike, prior: ArrayLike | None
) -> tuple[jax.Array, jax.Array]:
    """`[K, K]` and `[K]`, float32; classes are all alike without a prior."""
    values = jnp.asarray(matrix, jnp.float32)
    if values.ndim != 2 or len(values) != values.shape[1] or len(values) < 2:
        raise InputError(f"matrix: shape {values.shape}, expected K x K numbers, K > 1")
    if prior is None:
        return values, jnp.full(len(values), 1 / len(values), jnp.float32)
    checks.prior("prior", prior, len(values))
    pi = jnp.asarray(prior, jnp.float32)
    return values, jnp.stack([1 - pi, pi]) if pi.ndim == 0 else pi


def _mean_density(density: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Mean over the pixels where a density is known, and how many these are."""
    known = jnp.sum(density.sum(axis=-1) > 0.5, axis=(-2, -1))
    return density.sum(axis=(-3, -2)) / jnp.maximum(known, 1)[..., None], known


def _relative_entropy(p: jax.Array, q: jax.Array) -> jax.Array:
    ratio = jnp.where(p > 0, p / jnp.where(q > 0, q, 1), 1)
    each = jnp.where((p > 0) & (q <= 0), jnp.inf, p * jnp.log(ratio))
    return jnp.maximum(jnp.sum(each, axis=-1), 0)
