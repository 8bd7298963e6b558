"""Meta-structures: the local class densities of a label map.

The density of class k at pixel x is
`rho_k(x) = sum_u K_h(x - u) [y(u) = k] / sum_u K_h(x - u)`, where both sums run over
the labelled pixels u of the image. Labels corrupted by a noise transition matrix T,
independently of place, have `E[rho~(x)] = rho(x) @ T` at every x; labels whose shapes
were changed do not. A density is float32 `[..., H, W, K]` and sums to 1 over the
classes; it is 0 where the kernel reaches no labelled pixel.

All functions are pure, and bandwidths may be traced. Imports `labels`, `ntm`, `checks`,
`errors` and `typing` only.
"""

import math
from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Float32, Int32, Real, Shaped

from metaseg import checks, ntm
from metaseg.errors import InputError
from metaseg.labels import is_void
from metaseg.typing import AnyArray, Labels, Matrix

__all__ = [
    "KERNELS",
    "Adaptive",
    "Bandwidth",
    "Inverse",
    "adaptive",
    "effective_pixels",
    "invert",
    "position",
    "select_bandwidth",
    "soft_density",
    "spatial_density",
    "weighted_sum",
]

# Number of bandwidths beyond which a kernel is 0; the Gaussian is 0 in float32 there.
_REACH = {"gaussian": 13.3, "box": 1.0, "epanechnikov": 1.0}
KERNELS = tuple(_REACH)
Scalar: TypeAlias = Real[ArrayLike, ""]


def spatial_density(
    labels: Labels,
    num_classes: int,
    *,
    bandwidth: Scalar,
    kernel: str = "gaussian",
) -> Float32[jax.Array, "*batch H W K"]:
    """Computes the local class densities of label maps.

    For the Gaussian kernel, this is `scipy.ndimage.gaussian_filter` of the one-hot map
    with `mode="constant"` and without truncation, divided by the same filter of the
    labelled pixels. Each class takes two matrix products, whose cost does not grow with
    the bandwidth. They are banded, which is exact and faster, if the bandwidth is not
    traced and small compared with the image. Rounding errors are at most 1e-5.

    Args:
      labels: Class ids, integer `[..., H, W]`.
      num_classes: Number of classes K, static.
      bandwidth: h in pixels, above 0; may be traced. For "gaussian" the standard
        deviation, for "box" a square with sides of `2 floor(h) + 1` pixels, for
        "epanechnikov" the product of `max(0, 1 - (d / h)^2)` over both axes.
      kernel: One of `KERNELS`, static.

    Returns:
      float32 `[..., H, W, K]`.

    Raises:
      InputError: If the labels, the number of classes, the bandwidth or the kernel are
        wrong.

    Example:
      >>> labels = np.array([[0, 0, 1, 255]])
      >>> spatial_density(labels, 2, bandwidth=1, kernel="box")[0, :, 1]
      Array([0.        , 0.33333334, 0.5       , 1.        ], dtype=float32)
    """
    checks.num_classes("num_classes", num_classes)
    return _normalised(_mass(_planes(labels, num_classes), bandwidth, kernel))


def soft_density(
    probabilities: Real[AnyArray, "*batch H W K"],
    *,
    bandwidth: Scalar,
    kernel: str = "gaussian",
) -> Float32[jax.Array, "*batch H W K"]:
    """Computes the local densities of soft labels, which can be differentiated.

    Args:
      probabilities: Class weights of at least 0, float `[..., H, W, K]`; a pixel whose
        weights are all 0 is void.
      bandwidth: As in `spatial_density`.
      kernel: As in `spatial_density`.

    Returns:
      float32 `[..., H, W, K]`.

    Raises:
      InputError: If the shape, the bandwidth or the kernel is wrong.
    """
    if jnp.ndim(probabilities) < 3:
        raise InputError(
            f"probabilities: got shape {jnp.shape(probabilities)}, "
            "expected [..., H, W, K]"
        )
    planes = jnp.moveaxis(jnp.asarray(probabilities, jnp.float32), -1, -3)
    return _normalised(_mass(planes, bandwidth, kernel))


def weighted_sum(
    values: Shaped[AnyArray, "*batch H W"],
    *,
    bandwidth: Scalar,
    kernel: str = "gaussian",
) -> Float32[jax.Array, "*batch H W"]:
    """Sums the values around each pixel, weighted by the kernel, which is 1 at 0.

    Values beyond the border are 0. The local mean is the sum of the values divided by
    the sum of ones.

    Args:
      values: Numbers or booleans `[..., H, W]`.
      bandwidth: As in `spatial_density`.
      kernel: As in `spatial_density`.

    Returns:
      float32 `[..., H, W]`.

    Raises:
      InputError: If the shape, the bandwidth or the kernel is wrong.
    """
    if jnp.ndim(values) < 2:
        raise InputError(f"values: got shape {jnp.shape(values)}, expected [..., H, W]")
    return _mass(jnp.asarray(values, jnp.float32), bandwidth, kernel)


def effective_pixels(
    labels: Labels, *, bandwidth: Scalar, kernel: str = "gaussian"
) -> Float32[jax.Array, "*batch H W"]:
    """Computes the number of equally weighted pixels with the variance of the density.

    The number is `(sum_u K)^2 / sum_u K^2` over the labelled pixels: `4 pi h^2` for a
    Gaussian far from borders and void, the number of pixels for a box.

    Args:
      labels: Class ids, integer `[..., H, W]`; only void (255 or negative) matters.
      bandwidth: As in `spatial_density`.
      kernel: As in `spatial_density`.

    Returns:
      float32 `[..., H, W]`; 0 where the kernel reaches no labelled pixel.

    Raises:
      InputError: If the labels, the bandwidth or the kernel are wrong.

    Example:
      >>> effective_pixels(np.zeros((1, 4), int), bandwidth=1, kernel="box")
      Array([[2., 3., 3., 2.]], dtype=float32)
    """
    checks.label_maps("labels", labels)
    known = (~is_void(jnp.asarray(labels))).astype(jnp.float32)
    mass = _mass(known, bandwidth, kernel)
    squares = _mass(known, bandwidth, kernel, power=2)
    # Far from all labels the squares vanish before the mass does; never below one.
    count = mass * (mass / jnp.where(squares > 0, squares, 1))
    return jnp.where(mass > 0, jnp.maximum(count, 1), 0)


class Adaptive(NamedTuple):
    """Densities whose bandwidth differs from pixel to pixel.

    Attributes:
      density: float32 `[..., H, W, K]`.
      radius: int32 `[..., H, W]`; the square around a pixel has sides of
        `2 radius + 1` pixels.
    """

    density: jax.Array
    radius: jax.Array


def adaptive(labels: Labels, num_classes: int, *, neighbours: int) -> Adaptive:
    """Estimates class densities in the smallest square with enough labelled pixels.

    This is a k-nearest-neighbour estimate in the maximum norm, for labels that are
    mostly void, such as clicks and scribbles. If a map has fewer labelled pixels, all
    of them count and the radius is the longer side of the map.

    Args:
      labels: Class ids, integer `[..., H, W]`.
      num_classes: Number of classes K, static.
      neighbours: Smallest number of labelled pixels in the square, static, at least 1.

    Returns:
      Densities, and the radius of the square of each pixel.

    Raises:
      InputError: If the labels, the number of classes or of neighbours are wrong.
    """
    checks.num_classes("num_classes", num_classes)
    checks.integer("neighbours", neighbours, 1)
    planes = _planes(labels, num_classes).astype(jnp.int32)
    counts, radius = _nearest_squares(planes, neighbours)
    return Adaptive(_normalised(counts.astype(jnp.float32)), radius)


@jax.jit  # so that eager calls compile the loop only once
def _nearest_squares(
    planes: jax.Array, neighbours: ArrayLike
) -> tuple[jax.Array, jax.Array]:
    """Counts the classes in the smallest squares that hold enough labelled pixels.

    Args:
      planes: Indicators of the classes, int32 `[..., K, H, W]`.
      neighbours: Number of labelled pixels that is enough.

    Returns:
      Counts of the shape of `planes`, and radii of the squares, int32 `[..., H, W]`.
    """
    table = jnp.cumsum(planes, axis=-2, dtype=jnp.int32)
    table = jnp.cumsum(table, axis=-1, dtype=jnp.int32)
    table = jnp.pad(table, [(0, 0)] * (table.ndim - 2) + [(1, 0), (1, 0)])
    height, width = planes.shape[-2:]
    row, col = (jnp.arange(size, dtype=jnp.int32) for size in (height, width))
    row = row[:, None]

    def inside(radius: jax.Array, sums: jax.Array) -> jax.Array:
        """Sum of `[..., H, W]` windows, from summed areas `[..., H + 1, W + 1]`."""
        top = jnp.maximum(row - radius, 0)
        bottom = jnp.minimum(row + radius + 1, height)
        left, right = jnp.maximum(col - radius, 0), jnp.minimum(col + radius + 1, width)
        flat = sums.reshape(*sums.shape[:-2], (height + 1) * (width + 1))

        def at(rows: jax.Array, cols: jax.Array) -> jax.Array:
            place = rows * (width + 1) + cols
            place = place.reshape(*radius.shape[:-2], height * width)
            place = jnp.broadcast_to(place, (*flat.shape[:-1], height * width))
            taken = jnp.take_along_axis(flat, place, axis=-1)
            return taken.reshape(*flat.shape[:-1], height, width)

        return at(bottom, right) - at(top, right) - at(bottom, left) + at(top, left)

    known = table.sum(axis=-3, dtype=jnp.int32)
    low = jnp.zeros_like(known[..., 1:, 1:])
    high = jnp.full_like(low, max(height, width))

    def halve(_: int, ends: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        low, high = ends
        middle = (low + high) // 2
        enough = inside(middle, known) >= neighbours
        low, high = jnp.where(enough, low, middle + 1), jnp.where(enough, middle, high)
        return jnp.minimum(low, high), high

    steps = max(height, width).bit_length()
    _, high = jax.lax.fori_loop(0, steps, halve, (low, high))
    return inside(high[..., None, :, :], table), high


class Bandwidth(NamedTuple):
    """The bandwidth that predicts left-out pixels best.

    Attributes:
      best: Bandwidth in pixels, float32 scalar.
      log_likelihood: Mean over the labelled pixels for each candidate in nats, float32
        `[C]`.
    """

    best: jax.Array
    log_likelihood: jax.Array


def select_bandwidth(
    labels: Labels,
    num_classes: int,
    candidates: Real[AnyArray, "C"] | Sequence[Scalar],
    *,
    kernel: str = "gaussian",
) -> Bandwidth:
    """Chooses the bandwidth with the highest leave-one-out likelihood.

    Each labelled pixel is predicted from the others by
    `p(k) = (m_k + 1 / K) / (m + 1)`, where m is their mass under the kernel. This adds
    one pixel that all classes share, so that the loss of a single pixel is finite.

    Args:
      labels: Class ids, integer `[..., H, W]`; all maps count together.
      num_classes: Number of classes K, static.
      candidates: Bandwidths in pixels, `[C]`; may be traced.
      kernel: One of `KERNELS`, static.

    Returns:
      The best candidate, and the log-likelihood of all of them.

    Raises:
      InputError: If the labels, the number of classes, the candidates or the kernel are
        wrong.
    """
    checks.num_classes("num_classes", num_classes)
    tried = _candidates(candidates)
    checks.choice("kernel", kernel, KERNELS)
    likelihood = _log_likelihoods(_planes(labels, num_classes), tried, kernel)
    return Bandwidth(tried[jnp.argmax(likelihood)], likelihood)


@partial(jax.jit, static_argnums=2)  # so that eager calls compile the loop only once
def _log_likelihoods(planes: jax.Array, tried: jax.Array, kernel: str) -> jax.Array:
    """Returns the log-likelihood of `select_bandwidth` for each candidate, `[C]`."""
    num_classes = planes.shape[-3]
    known = planes.sum(axis=-3)

    def mean_log_likelihood(bandwidth: jax.Array) -> jax.Array:
        others = _mass(planes, bandwidth, kernel) - planes
        own = (others * planes).sum(axis=-3)
        predicted = (own + 1 / num_classes) / (others.sum(axis=-3) + 1)
        total = (known * jnp.log(jnp.maximum(predicted, 1e-30))).sum()
        return total / jnp.maximum(known.sum(), 1)

    return jax.lax.map(mean_log_likelihood, tried)


def position(
    labels: Labels, num_classes: int, *, grid: tuple[int, int] | None = None
) -> Int32[jax.Array, "rows columns K"]:
    """Counts the pixels of each class by their place in the image, over all maps.

    The counts of several batches can be added. The prior of the classes at each place
    is `counts / counts.sum(-1, keepdims=True)`.

    Args:
      labels: Class ids, integer `[..., H, W]`.
      num_classes: Number of classes K, static.
      grid: Numbers of rows and columns of equal cells that the image is divided into,
        static. A grid lets counts of maps of different sizes be added. By default each
        pixel is a cell.

    Returns:
      int32 `[rows, columns, K]`.

    Raises:
      InputError: If the labels, the number of classes or the grid are wrong.

    Example:
      >>> position(np.array([[0, 0, 1, 1], [0, 1, 1, 255]]), 2, grid=(1, 2))[0]
      Array([[3, 1],
             [0, 3]], dtype=int32)
    """
    checks.num_classes("num_classes", num_classes)
    planes = _planes(labels, num_classes).astype(jnp.int32)
    height, width = labels.shape[-2:]
    rows, cols = (height, width) if grid is None else grid
    if grid is not None:
        checks.integer("grid", rows, 1)
        checks.integer("grid", cols, 1)
    batch = math.prod(labels.shape[:-2])
    counts = planes.reshape(batch, num_classes, height, width).sum(axis=0)
    cell_row = jnp.arange(height) * rows // height
    cell_col = jnp.arange(width) * cols // width
    cells = jnp.zeros((num_classes, rows, cols), jnp.int32)
    cells = cells.at[:, cell_row[:, None], cell_col].add(counts)
    return jnp.moveaxis(cells, 0, -1)


class Inverse(NamedTuple):
    """A clean density estimated from a noisy one, each float32 `[..., H, W, K]`.

    Attributes:
      density: The estimate. It is unbiased, so it may lie outside [0, 1].
      standard_error: Standard error of each entry, given the clean labels; infinite
        where there are no pixels.
    """

    density: jax.Array
    standard_error: jax.Array


def invert(
    noisy_density: Real[AnyArray, "*batch H W K"],
    matrix: Matrix,
    *,
    pixels: Scalar | Real[AnyArray, "*batch H W"],
) -> Inverse:
    """Estimates the clean density behind a noisy one: `rho~ @ pinv(T)`.

    The covariance of the estimate is `P' C P / n` with `P = pinv(T)`, n the number of
    effective pixels and `C = sum_k rho_k (diag(T_k) - T_k' T_k)` the mean covariance of
    a noisy label given the clean one. If T is singular, the estimate is the
    least-squares density, in which classes that T merges share their mass.

    Args:
      noisy_density: Float `[..., H, W, K]`.
      matrix: T, `[K, K]`, whose rows sum to 1; may be traced. If the noise turns pixels
        into void, take the matrix of the pixels that are left.
      pixels: Number of effective pixels n, scalar or `[..., H, W]`, see
        `effective_pixels`.

    Returns:
      The estimate and its standard error.

    Raises:
      InputError: If T is not `[K, K]`, or a row does not sum to 1.
    """
    matrix = ntm.as_matrix(matrix, noisy_density.shape[-1], void=False)
    estimate = ntm.decode(noisy_density, matrix)
    inverse = jnp.linalg.pinv(matrix)
    # Variance of entry j of a decoded label drawn from row k of T.
    mean = jnp.matmul(matrix, inverse, precision="highest")
    spread = jnp.matmul(matrix, inverse**2, precision="highest") - mean**2
    shares = jnp.maximum(estimate, 0)
    shares /= jnp.maximum(shares.sum(axis=-1, keepdims=True), 1e-6)
    variance = jnp.matmul(shares, jnp.maximum(spread, 0), precision="highest")
    count = jnp.asarray(pixels, jnp.float32)[..., None]
    error = jnp.sqrt(variance / jnp.where(count > 0, count, 1))
    return Inverse(estimate, jnp.where(count > 0, error, jnp.inf))


def _planes(labels: AnyArray, num_classes: int) -> jax.Array:
    """Indicator of each class, float32 `[..., K, H, W]`; void is in none."""
    checks.label_maps("labels", labels, num_classes)
    labels = jnp.asarray(labels)
    ids = jnp.arange(num_classes, dtype=labels.dtype)[:, None, None]
    return (labels[..., None, :, :] == ids).astype(jnp.float32)


def _normalised(mass: jax.Array) -> jax.Array:
    """Masses `[..., K, H, W]` as densities `[..., H, W, K]`."""
    mass = jnp.moveaxis(mass, -3, -1)  # first: three times as fast on a CPU as last
    total = mass.sum(axis=-1, keepdims=True)
    return jnp.where(total > 0, mass / jnp.where(total > 0, total, 1), 0)


def _mass(
    planes: jax.Array, bandwidth: ArrayLike, kernel: str, power: int = 1
) -> jax.Array:
    """`sum_u K(x - u)^power planes(u)` with K(0) = 1, `[..., H, W]`."""
    checks.choice("kernel", kernel, KERNELS)
    checks.number("bandwidth", bandwidth, 0, open_ends=True, unit="pixels")
    along_rows = _filtered(planes, bandwidth, kernel, power, axis=-1)
    return _filtered(along_rows, bandwidth, kernel, power, axis=-2)


def _filtered(
    values: jax.Array, bandwidth: ArrayLike, kernel: str, power: int, *, axis: int
) -> jax.Array:
    """Weighted sums along one of the last two axes, as matrix products.

    The cost of a convolution grows with the bandwidth, and a recursive filter visits
    one pixel after the other; matrix products are fast on every device. The line is
    divided into tiles, each computed from the pixels within the reach of the kernel, if
    these are at most half of the line.
    """
    if not values.size:
        return values
    size = values.shape[axis]
    tile, reach = max(64, -(-size // 16)), size
    if not checks.is_traced(bandwidth):
        reach = int(min(_REACH[kernel] * float(np.asarray(bandwidth)) + 1, size))
    if 2 * (tile + 2 * reach) > size:
        tile, reach = size, 0  # one tile, the whole line
    offset = jnp.arange(-reach, tile + reach)[:, None] - jnp.arange(tile)
    weights = _weights(offset, bandwidth, kernel) ** power
    tiles = -(-size // tile)
    around = [(0, 0)] * values.ndim
    around[axis] = (reach, tiles * tile - size + reach)
    padded = jnp.pad(values, around)
    parts = []
    for start in range(0, tiles * tile, tile):
        part = jax.lax.slice_in_dim(padded, start, start + len(offset), axis=axis)
        sides = (part, weights) if axis == -1 else (weights.T, part)
        parts.append(jnp.matmul(*sides, precision="highest"))
    whole = jnp.concatenate(parts, axis=axis)
    return jax.lax.slice_in_dim(whole, 0, size, axis=axis)


def _weights(offset: jax.Array, bandwidth: ArrayLike, kernel: str) -> jax.Array:
    """The kernel in one dimension, 1 at offset 0; float32."""
    if kernel == "box":
        return (jnp.abs(offset) <= bandwidth).astype(jnp.float32)
    scaled = offset / jnp.asarray(bandwidth, jnp.float32)
    if kernel == "gaussian":
        return jnp.exp(-0.5 * scaled**2)
    return jnp.maximum(1 - scaled**2, 0)


def _candidates(candidates: Any) -> jax.Array:
    """Bandwidths `[C]`, float32, C >= 1."""
    tried = jnp.asarray(candidates, jnp.float32)
    if tried.ndim != 1 or not len(tried):
        raise InputError(f"candidates: got shape {tried.shape}, expected [C], C >= 1")
    if not checks.is_traced(tried):
        for candidate in tried.tolist():
            checks.number("candidates", candidate, 0, open_ends=True, unit="pixels")
    return tried
