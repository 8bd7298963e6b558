"""Meta-structures: the local class densities of a label map.

`rho_k(x) = sum_u K_h(x - u) [y(u) = k] / sum_u K_h(x - u)`, void pixels and what lies
outside the image left out of both sums. Labels corrupted independently of place by a
noise transition matrix T have `E[rho~(x)] = rho(x) @ T` at every x; labels whose shapes
were changed have not. A density is float32 `[..., H, W, K]` and sums to 1 over the
classes, but is 0 where no labelled pixel is in the kernel's reach.

Pure functions; bandwidths may be traced. Imports `metaseg.labels`, `metaseg.ntm`,
`metaseg.checks` and `metaseg.errors` only.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from metaseg import checks, ntm
from metaseg.errors import InputError
from metaseg.labels import is_void

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

# Bandwidths beyond which a kernel is 0, the gaussian in float32.
_REACH = {"gaussian": 13.3, "box": 1.0, "epanechnikov": 1.0}
KERNELS = tuple(_REACH)


def spatial_density(
    labels: jax.Array,
    num_classes: int,
    *,
    bandwidth: ArrayLike,
    kernel: str = "gaussian",
) -> jax.Array:
    """Local class densities of label maps.

    With the kernel's mass renormalised this is `scipy.ndimage.gaussian_filter` of the
    one-hot map, `mode="constant"`, over that of the labelled pixels, its kernel not
    truncated. Two matrix products per class, whose cost does not grow with the
    bandwidth; where it is known and small against the image they are banded, which is
    quicker and leaves out nothing. Errors are those of float32, 1e-5 at most.

    Args:
      labels: class ids, integer `[..., H, W]`.
      num_classes: K, static.
      bandwidth: h in pixels, > 0; may be traced. "gaussian": standard deviation; "box":
        square of `2 floor(h) + 1` pixels a side; "epanechnikov": the product of
        `max(0, 1 - (d / h)^2)` over both axes.
      kernel: one of `KERNELS`, static.

    Returns:
      float32 `[..., H, W, K]`.

    Raises:
      InputError: wrong labels, number of classes, bandwidth or kernel.
    """
    checks.num_classes("num_classes", num_classes)
    return _normalised(_mass(_planes(labels, num_classes), bandwidth, kernel))


def soft_density(
    probabilities: jax.Array, *, bandwidth: ArrayLike, kernel: str = "gaussian"
) -> jax.Array:
    """Local densities of soft labels; differentiable in them.

    Args:
      probabilities: class weights >= 0, float `[..., H, W, K]`; all 0 is void.
      bandwidth: as in `spatial_density`.
      kernel: as in `spatial_density`.

    Returns:
      float32 `[..., H, W, K]`.

    Raises:
      InputError: wrong shape, bandwidth or kernel.
    """
    if jnp.ndim(probabilities) < 3:
        raise InputError(
            f"probabilities: shape {jnp.shape(probabilities)}, expected [..., H, W, K]"
        )
    planes = jnp.moveaxis(jnp.asarray(probabilities, jnp.float32), -1, -3)
    return _normalised(_mass(planes, bandwidth, kernel))


def weighted_sum(
    values: jax.Array, *, bandwidth: ArrayLike, kernel: str = "gaussian"
) -> jax.Array:
    """Sum of the values around each pixel, weighted by the kernel, 1 at its centre.

    Nothing lies beyond the border. Over the sum of ones it is the local mean.

    Args:
      values: float `[..., H, W]`.
      bandwidth: as in `spatial_density`.
      kernel: as in `spatial_density`.

    Returns:
      float32 `[..., H, W]`.

    Raises:
      InputError: wrong shape, bandwidth or kernel.
    """
    if jnp.ndim(values) < 2:
        raise InputError(f"values: shape {jnp.shape(values)}, expected [..., H, W]")
    return _mass(jnp.asarray(values, jnp.float32), bandwidth, kernel)


def effective_pixels(
    labels: jax.Array, *, bandwidth: ArrayLike, kernel: str = "gaussian"
) -> jax.Array:
    """Number of equally weighted pixels whose mean varies as much as the density does.

    `(sum_u K)^2 / sum_u K^2` over labelled pixels: `4 pi h^2` for a gaussian far from
    borders and void, the number of pixels for a box.

    Args:
      labels: class ids, integer `[..., H, W]`; which pixels are void matters alone.
      bandwidth: as in `spatial_density`.
      kernel: as in `spatial_density`.

    Returns:
      float32 `[..., H, W]`; 0 where no labelled pixel is in reach.

    Raises:
      InputError: wrong labels, bandwidth or kernel.
    """
    checks.label_maps("labels", labels)
    known = (~is_void(labels)).astype(jnp.float32)
    mass = _mass(known, bandwidth, kernel)
    squares = _mass(known, bandwidth, kernel, power=2)
    # Far from all labels the squares vanish before the mass does; never below one.
    count = mass * (mass / jnp.where(squares > 0, squares, 1))
    return jnp.where(mass > 0, jnp.maximum(count, 1), 0)


class Adaptive(NamedTuple):
    """Densities with a bandwidth of their own at each pixel.

    Attributes:
      density: float32 `[..., H, W, K]`.
      radius: the square around the pixel has `2 radius + 1` pixels a side, int32
        `[..., H, W]`.
    """

    density: jax.Array
    radius: jax.Array


def adaptive(labels: jax.Array, num_classes: int, *, neighbours: int) -> Adaptive:
    """Estimates class densities in the smallest square with enough labelled pixels.

    A k-nearest-neighbour estimate in the maximum norm, for labels that are mostly void:
    clicks and scribbles. Where the map has fewer labelled pixels, all of them count and
    the radius is the map's longer side.

    Args:
      labels: class ids, integer `[..., H, W]`.
      num_classes: K, static.
      neighbours: labelled pixels that the square holds at least, static, >= 1.

    Returns:
      Densities, and the radius of the square of each pixel.

    Raises:
      InputError: wrong labels, number of classes or neighbours.
    """
    checks.num_classes("num_classes", num_classes)
    checks.integer("neighbours", neighbours, 1)
    planes = _planes(labels, num_classes).astype(jnp.int32)
    table = jnp.cumsum(jnp.cumsum(planes, axis=-2), axis=-1)
    table = jnp.pad(table, [(0, 0)] * (table.ndim - 2) + [(1, 0), (1, 0)])
    height, width = labels.shape[-2:]
    row, col = jnp.arange(height)[:, None], jnp.arange(width)[None, :]

    def inside(radius: jax.Array, sums: jax.Array) -> jax.Array:
        """Sum of `[..., H, W]` windows, from summed areas `[..., H + 1, W + 1]`."""
        top = jnp.maximum(row - radius, 0)
        bottom = jnp.minimum(row + radius + 1, height)
        left, right = jnp.maximum(col - radius, 0), jnp.minimum(col + radius + 1, width)
        flat = sums.reshape(*sums.shape[:-2], -1)

        def at(rows: jax.Array, cols: jax.Array) -> jax.Array:
            place = (rows * (width + 1) + cols).reshape(*radius.shape[:-2], -1)
            place = jnp.broadcast_to(place, (*flat.shape[:-1], height * width))
            taken = jnp.take_along_axis(flat, place, axis=-1)
            return taken.reshape(*flat.shape[:-1], height, width)

        return at(bottom, right) - at(top, right) - at(bottom, left) + at(top, left)

    known = table.sum(axis=-3)
    low = jnp.zeros(labels.shape, jnp.int32)
    high = jnp.full(labels.shape, max(height, width), jnp.int32)

    def halve(_: int, ends: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        low, high = ends
        middle = (low + high) // 2
        enough = inside(middle, known) >= neighbours
        low, high = jnp.where(enough, low, middle + 1), jnp.where(enough, middle, high)
        return jnp.minimum(low, high), high

    steps = max(height, width).bit_length()
    _, high = jax.lax.fori_loop(0, steps, halve, (low, high))
    counts = inside(high[..., None, :, :], table)
    return Adaptive(_normalised(counts.astype(jnp.float32)), high)


class Bandwidth(NamedTuple):
    """The bandwidth that predicts left-out pixels best.

    Attributes:
      best: float32 scalar, pixels.
      log_likelihood: mean over labelled pixels for each candidate, nats, float32 `[C]`.
    """

    best: jax.Array
    log_likelihood: jax.Array


def select_bandwidth(
    labels: jax.Array,
    num_classes: int,
    candidates: ArrayLike,
    *,
    kernel: str = "gaussian",
) -> Bandwidth:
    """Chooses the bandwidth with the highest leave-one-out likelihood.

    Each labelled pixel is predicted from the others, `p(k) = (m_k + 1 / K) / (m + 1)`
    with m their mass under the kernel, as if one more pixel were shared by all classes:
    so that no single surprise costs infinitely much.

    Args:
      labels: class ids, integer `[..., H, W]`; all maps count together.
      num_classes: K, static.
      candidates: bandwidths in pixels, `[C]`; may be traced.
      kernel: one of `KERNELS`, static.

    Returns:
      The best candidate, and the log-likelihood of all of them.

    Raises:
      InputError: wrong labels, number of classes, candidates or kernel.
    """
    checks.num_classes("num_classes", num_classes)
    tried = _candidates(candidates)
    planes = _planes(labels, num_classes)
    known = planes.sum(axis=-3)

    def mean_log_likelihood(bandwidth: jax.Array) -> jax.Array:
        others = _mass(planes, bandwidth, kernel) - planes
        own = (others * planes).sum(axis=-3)
        predicted = (own + 1 / num_classes) / (others.sum(axis=-3) + 1)
        total = (known * jnp.log(jnp.maximum(predicted, 1e-30))).sum()
        return total / jnp.maximum(known.sum(), 1)

    likelihood = jax.lax.map(mean_log_likelihood, tried)
    return Bandwidth(tried[jnp.argmax(likelihood)], likelihood)


def position(
    labels: jax.Array, num_classes: int, *, grid: tuple[int, int] | None = None
) -> jax.Array:
    """Pixels of each class by place in the image, summed over maps; batches add up.

    What a data set's labels say of a place before any image is seen: `counts /
    counts.sum(-1)`, a streaming mean over any number of maps.

    Args:
      labels: class ids, integer `[..., H, W]`.
      num_classes: K, static.
      grid: rows and columns of equal cells that the image is divided into, static, so
        that maps of different sizes add up; by default each pixel by itself.

    Returns:
      int32 `[rows, columns, K]`.

    Raises:
      InputError: wrong labels, number of classes or grid.
    """
    checks.num_classes("num_classes", num_classes)
    planes = _planes(labels, num_classes).astype(jnp.int32)
    height, width = labels.shape[-2:]
    rows, cols = (height, width) if grid is None else grid
    checks.integer("grid", rows, 1)
    checks.integer("grid", cols, 1)
    counts = planes.reshape(-1, num_classes, height, width).sum(axis=0)
    cell_row = jnp.arange(height) * rows // height
    cell_col = jnp.arange(width) * cols // width
    cells = jnp.zeros((num_classes, rows, cols), jnp.int32)
    cells = cells.at[:, cell_row[:, None], cell_col].add(counts)
    return jnp.moveaxis(cells, 0, -1)


class Inverse(NamedTuple):
    """A clean density estimated from a noisy one, each float32 `[..., H, W, K]`.

    Attributes:
      density: the estimate; unbiased, so that it may lie outside [0, 1].
      standard_error: of each entry, given the clean labels; infinite without pixels.
    """

    density: jax.Array
    standard_error: jax.Array


def invert(
    noisy_density: jax.Array, matrix: ArrayLike, *, pixels: ArrayLike
) -> Inverse:
    """Estimates the clean density behind a noisy one: `rho~ @ pinv(T)`.

    The noise that is left varies as `P' C P / n` with `P = pinv(T)`, n effective pixels
    and `C = sum_k rho_k (diag(T_k) - T_k' T_k)`, the mean covariance of a noisy label
    given the clean one. Where T is singular, the least-squares density comes out and
    classes that T merges share their mass.

    Args:
      noisy_density: float `[..., H, W, K]`.
      matrix: T, `[K, K]`, rows summing to 1 (pixels turned into void are not seen: take
        the matrix of those left); may be traced.
      pixels: effective pixels n, scalar or `[..., H, W]`: `effective_pixels`.

    Returns:
      The estimate and its standard error.

    Raises:
      InputError: T is not `[K, K]`, or a row does not sum to 1.
    """
    if not checks.is_traced(matrix):
        ntm.validate(matrix, noisy_density.shape[-1], "matrix")
    matrix = jnp.asarray(matrix, jnp.float32)
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


def _planes(labels: jax.Array, num_classes: int) -> jax.Array:
    """Indicator of each class, float32 `[..., K, H, W]`; void is in none."""
    checks.label_maps("labels", labels)
    ids = jnp.arange(num_classes, dtype=labels.dtype)[:, None, None]
    return (labels[..., None, :, :] == ids).astype(jnp.float32)


def _normalised(mass: jax.Array) -> jax.Array:
    """Masses `[..., K, H, W]` as densities `[..., H, W, K]`."""
    mass = jnp.moveaxis(mass, -3, -1)  # first: on CPU three times as fast as last
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

    A convolution's cost grows with the bandwidth, a recursive filter goes pixel by
    pixel; products are what all devices are best at. In tiles, each from what is within
    the kernel's reach of it, where that is at most half of the line.
    """
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


def _candidates(candidates: ArrayLike) -> jax.Array:
    """Bandwidths `[C]`, float32, C >= 1."""
    tried = jnp.asarray(candidates, jnp.float32)
    if tried.ndim != 1 or not len(tried):
        raise InputError(f"candidates: shape {tried.shape}, expected [C], C >= 1")
    if not checks.is_traced(tried):
        for candidate in tried.tolist():
            checks.number("candidates", candidate, 0, open_ends=True, unit="pixels")
    return tried
