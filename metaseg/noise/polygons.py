"""Outlines redrawn as polygons: simplified, or with every vertex moved.

Every function is `(key, labels, *, ...) -> labels` on integer maps `[..., H, W]`. It
keeps shape and dtype, and void stays void. Class 0 is background. Source: Kimhi et al.,
"Noisy Annotations in Semantic Segmentation" (COCO-N), arXiv 2406.10891, 2024.

Polygons have no static shape, so both noises run on the host, in NumPy and scikit-image
behind `jax.pure_callback`. All other noises run on the device. Labels that are sharded
over devices are gathered for the callback, and one thread draws a batch map by map.
Each foreground class is redrawn by itself:

1. The outlines of the class and of its holes are the marching squares contours of its
   indicator at 1/2. The indicator is 0 outside of the image and at void.
2. Douglas-Peucker removes vertices of each outline. It starts at a fixed vertex, the
   end of the outline in the last cell in raster order. An outline whose vertices all
   lie within the tolerance of that vertex vanishes.
3. A pixel is of the class if its centre is inside by the even-odd rule over all
   polygons of the class. A centre on an edge is inside if the points right of it are,
   or, on a horizontal edge, the points below it. So polygons with a common edge share
   no pixel.

Where several classes are drawn, the highest id remains. All other pixels become 0.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Integer

from metaseg.labels import VOID, is_void
from metaseg.noise.parameters import checked
from metaseg.typing import AnyArray, Labels, Number, PRNGKey

__all__ = ["jitter_vertices", "simplify"]

_SEED_SIZE = 4  # uint32 numbers that seed a map's generator
# Bytes of an operand of the callback. XLA's CPU client copies operands of up to 100 kB
# at once, and larger ones in a thread of its pool. All of these threads may be waiting
# for the callback to end.
_PIECE = 96 << 10


@checked
def simplify(
    key: PRNGKey, labels: Labels, *, tolerance: Number
) -> Integer[jax.Array, "*batch H W"]:
    """Replaces outlines by simplified polygons, COCO-N's "approximation".

    Args:
      key: Not used.
      labels: Integer class ids `[..., H, W]`; 255 is void.
      tolerance: Tolerance of Douglas-Peucker in pixels, one number >= 0; may be
        traced. 0 returns the labels unchanged.

    Returns:
      Label maps of the shape and dtype of `labels`.

    Raises:
      InputError: If an argument is of a wrong type or out of range.
    """
    del key
    seeds = jnp.zeros((*labels.shape[:-2], _SEED_SIZE), jnp.uint32)
    return _redraw_on_host(labels, seeds, tolerance, 0.0)


@checked
def jitter_vertices(
    key: PRNGKey, labels: Labels, *, sigma: Number, tolerance: Number = 1.0
) -> Integer[jax.Array, "*batch H W"]:
    """Moves the vertices of simplified outlines at random, COCO-N's "localization".

    Every vertex moves by independent N(0, sigma^2) along both axes.

    Args:
      key: PRNG key, from which each map gets its own seed.
      labels: Integer class ids `[..., H, W]`; 255 is void.
      sigma: Standard deviation in pixels, one number >= 0; may be traced.
      tolerance: Tolerance of Douglas-Peucker in pixels, one number >= 0; may be
        traced. At about 1 vertices are as sparse as an annotator's; at 0 every
        pixel edge has a vertex.

    Returns:
      Label maps of the shape and dtype of `labels`.

    Raises:
      InputError: If an argument is of a wrong type or out of range.
    """
    seeds = jax.random.bits(key, (*labels.shape[:-2], _SEED_SIZE), jnp.uint32)
    return _redraw_on_host(labels, seeds, tolerance, sigma)


@jax.jit  # for the last line of `_call_host` even where its caller is not compiled
def _redraw_on_host(
    labels: AnyArray, seeds: jax.Array, tolerance: ArrayLike, sigma: ArrayLike
) -> jax.Array:
    # One value per map, so that under vmap all operands gain the same leading axes.
    batch = labels.shape[:-2]
    tolerances = jnp.broadcast_to(jnp.asarray(tolerance, jnp.float32), batch)
    sigmas = jnp.broadcast_to(jnp.asarray(sigma, jnp.float32), batch)
    return _call_host(jnp.asarray(labels), seeds, tolerances, sigmas)


@jax.custom_batching.custom_vmap
def _call_host(
    labels: jax.Array, seeds: jax.Array, tolerances: jax.Array, sigmas: jax.Array
) -> jax.Array:
    kind = jax.ShapeDtypeStruct(labels.shape, labels.dtype)
    flat, step = labels.ravel(), _PIECE // labels.dtype.itemsize
    pieces = [flat[start : start + step] for start in range(0, max(flat.size, 1), step)]
    host_fn = partial(_redraw_maps, labels.shape)
    redrawn = jax.pure_callback(host_fn, kind, seeds, tolerances, sigmas, *pieces)
    # If operands are sharded, the callback's result is on the first device only, and
    # JAX 0.10 cannot pass it on. An operation with the labels shards it again.
    return jnp.where(is_void(labels), labels, redrawn)


@_call_host.def_vmap
def _call_host_batched(
    axis_size: int, in_batched: list[bool], *operands: jax.Array
) -> tuple[jax.Array, bool]:
    """Makes one call for all maps under vmap too, so that its pieces are small."""
    together = [
        operand if batched else jnp.broadcast_to(operand, (axis_size, *operand.shape))
        for operand, batched in zip(operands, in_batched, strict=True)
    ]
    return _call_host(*together), True


def _redraw_maps(
    shape: tuple[int, ...],
    seeds: ArrayLike,
    tolerances: ArrayLike,
    sigmas: ArrayLike,
    *pieces: ArrayLike,
) -> np.ndarray:
    """Redraws maps one by one, each with its own seed. Must not call JAX.

    Args:
      shape: Shape of the labels, `[..., H, W]`.
      seeds: Seeds of the generators, uint32 `[..., 4]`.
      tolerances: Tolerances of Douglas-Peucker in pixels, float32 `[...]`.
      sigmas: Standard deviations of the vertices' moves in pixels, float32 `[...]`.
      *pieces: Integer class ids, the flat labels in pieces.

    Returns:
      Class ids of the shape and dtype of the labels; void is 0.
    """
    labels = np.concatenate([np.asarray(piece) for piece in pieces]).reshape(shape)
    seeds, tolerances = np.asarray(seeds), np.asarray(tolerances)
    sigmas = np.asarray(sigmas)
    redrawn = np.empty_like(labels)
    for place in np.ndindex(shape[:-2]):
        rng = np.random.Generator(np.random.Philox(seeds[place].tolist()))
        tolerance, sigma = float(tolerances[place]), float(sigmas[place])
        redrawn[place] = _redraw(labels[place], rng, tolerance, sigma)
    return redrawn


def _redraw(
    labels: np.ndarray, rng: np.random.Generator, tolerance: float, sigma: float
) -> np.ndarray:
    """Redraws a map `[H, W]`, from the lowest class to the highest; void is 0."""
    from scipy.ndimage import find_objects

    classes = np.where(labels == VOID, 0, labels).astype(np.int32)
    redrawn = np.zeros_like(labels)
    for class_id, box in enumerate(find_objects(classes), start=1):
        if box is None:  # the map has no pixel of this class
            continue
        corner = np.array([box[0].start, box[1].start], np.float64)
        polygons = [
            corner + _thin(outline, tolerance)
            for outline in _trace(classes[box] == class_id)
        ]
        if sigma > 0:
            polygons = [
                polygon + rng.normal(0, sigma, polygon.shape) for polygon in polygons
            ]
        _paint(redrawn, polygons, class_id)
    return redrawn


def _trace(mask: np.ndarray) -> list[np.ndarray]:
    """Returns the closed outlines of a mask, vertices (row, column) `[N, 2]` each."""
    from skimage.measure import find_contours

    return [outline - 1 for outline in find_contours(np.pad(mask, 1), 0.5)]


def _thin(outline: np.ndarray, tolerance: float) -> np.ndarray:
    """Simplifies an outline by Douglas-Peucker; drops the repeated last vertex."""
    from skimage.measure import approximate_polygon

    # Which of two equally distant vertices is farther depends on rounding. With the
    # first vertex as origin it does not depend on the outline's place in the map.
    first = outline[0]
    return approximate_polygon(outline - first, tolerance)[:-1] + first


def _paint(canvas: np.ndarray, polygons: list[np.ndarray], value: int) -> None:
    """Sets the pixels inside polygons, by the even-odd rule over all of them.

    By scan lines: in each row the inside begins and ends where edges cross the row.
    `skimage.draw.polygon` would not do: it counts every centre on an edge as inside, so
    it fills the rim of a hole that goes through pixel centres.

    Args:
      canvas: Map `[H, W]`, changed in place.
      polygons: Vertices (row, column) of each polygon, float64 `[N, 2]`. They may lie
        outside of the canvas.
      value: Value that the pixels get.
    """
    height, width = canvas.shape
    rows, crossings = _cross_rows(polygons, height)
    if rows.size == 0:
        return
    columns = np.ceil(crossings).clip(0, width).astype(np.intp)
    top, left = rows.min(), columns.min()
    size = (rows.max() - top + 1, columns.max() - left + 1)
    cells = (rows - top) * size[1] + columns - left
    toggles = np.bincount(cells, minlength=size[0] * size[1]).reshape(size)
    inside = np.bitwise_xor.accumulate((toggles % 2).astype(bool), axis=1)
    # Each row toggles an even number of times, so the last column is outside.
    inside = inside[:, :-1]
    canvas[top : top + size[0], left : left + size[1] - 1][inside] = value


def _cross_rows(
    polygons: list[np.ndarray], height: int
) -> tuple[np.ndarray, np.ndarray]:
    """Finds where edges cross pixel rows; an edge holds only its upper end.

    Returns:
      Rows in `0..height - 1`, integer `[M]`, and columns, float64 `[M]`.
    """
    tails = np.concatenate(polygons)
    heads = np.concatenate([np.roll(polygon, -1, axis=0) for polygon in polygons])
    downward = tails[:, :1] <= heads[:, :1]
    upper, lower = np.where(downward, tails, heads), np.where(downward, heads, tails)
    first = np.ceil(upper[:, 0]).clip(0, height).astype(np.intp)
    counts = np.ceil(lower[:, 0]).clip(0, height).astype(np.intp) - first
    edge = np.repeat(np.arange(len(counts)), counts)
    rows = np.arange(len(edge)) - (np.cumsum(counts) - counts)[edge] + first[edge]
    (row, column), (rise, run) = upper[edge].T, (lower - upper)[edge].T
    return rows, column + (rows - row) * run / rise
