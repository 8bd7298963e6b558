"""Outlines redrawn as polygons: simplified, or with every vertex moved.

Every function is `(key, labels, *, ...) -> labels` on integer maps `[..., H, W]`, keeps
shape and dtype, and leaves void alone. Class 0 is background. An invalid parameter
raises an `InputError`, which is a ValueError, that names it. Source: Kimhi et al.,
"Noisy Annotations in Semantic Segmentation" (COCO-N), arXiv 2406.10891, 2024.

Polygons have no static shape, so both noises run on the host, in NumPy and scikit-image
behind `jax.pure_callback`; all else in `metaseg.noise` stays on the device. Labels
sharded over devices are gathered for it, and one thread draws a batch map by map. Each
foreground class is redrawn by itself:

1. Its outlines, those of holes too, are the marching squares contours at 1/2 of its
   indicator, with background outside of the image and void not of the class.
2. Douglas-Peucker thins each outline's vertices from a fixed first vertex, its end in
   the cell that comes last in raster order. What lies within the tolerance of that
   vertex as a whole vanishes.
3. A pixel is of the class if its centre is inside by the even-odd rule over all of the
   class's polygons. A centre on an edge is inside if what is right of it is, or below
   it where the edge is horizontal, so that polygons with a common edge share no pixel.

Of several classes that claim a pixel the highest id wins; unclaimed pixels become 0.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from metaseg.labels import VOID, is_void
from metaseg.noise.parameters import checked

__all__ = ["jitter_vertices", "simplify"]

_WORDS = 4  # random words that seed a map's generator, uint32
# Bytes of an operand of the callback. XLA's CPU client copies up to 100 kB at once, but
# more in a thread of its pool; all of these may be waiting for the callback to end.
_PIECE = 96 << 10


@checked
def simplify(key: jax.Array, labels: jax.Array, *, tolerance: ArrayLike) -> jax.Array:
    """Replace outlines by simplified polygons: COCO-N's "approximation".

    Args:
      key: ignored.
      labels: class ids, integer `[..., H, W]`.
      tolerance: of Douglas-Peucker, pixels >= 0, scalar; may be traced. 0 gives the
        labels back.

    Returns:
      Label maps of the shape and dtype of `labels`.
    """
    del key
    seeds = jnp.zeros((*labels.shape[:-2], _WORDS), jnp.uint32)
    return _redraw_on_host(labels, seeds, tolerance, 0.0)


@checked
def jitter_vertices(
    key: jax.Array, labels: jax.Array, *, sigma: ArrayLike, tolerance: ArrayLike = 1.0
) -> jax.Array:
    """Move the vertices of simplified outlines at random: COCO-N's "localization".

    Every vertex moves by independent N(0, sigma^2) along both axes.

    Args:
      key: PRNG key; each map draws with a seed of its own from it.
      labels: class ids, integer `[..., H, W]`.
      sigma: standard deviation, pixels >= 0, scalar; may be traced.
      tolerance: of Douglas-Peucker, pixels >= 0, scalar; may be traced. Vertices as
        sparse as an annotator's need about 1; with 0 every pixel edge has one.

    Returns:
      Label maps of the shape and dtype of `labels`.
    """
    seeds = jax.random.bits(key, (*labels.shape[:-2], _WORDS), jnp.uint32)
    return _redraw_on_host(labels, seeds, tolerance, sigma)


@jax.jit  # for the last line of `_call_host` even where its caller is not compiled
def _redraw_on_host(
    labels: jax.Array, seeds: jax.Array, tolerance: ArrayLike, sigma: ArrayLike
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
    # Of sharded operands the callback's result is on the first device alone, which JAX
    # 0.10 cannot pass on; an operation with the labels spreads it.
    return jnp.where(is_void(labels), labels, redrawn)


@_call_host.def_vmap
def _call_host_batched(
    axis_size: int, in_batched: list[bool], *operands: jax.Array
) -> tuple[jax.Array, bool]:
    """Under vmap too, one call for all maps, or its pieces would not be small."""
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
    """Redraw maps one by one, each from its own seed. Must not call JAX.

    Args:
      shape: of the labels, `[..., H, W]`.
      seeds: random words, uint32 `[..., 4]`.
      tolerances: of Douglas-Peucker, pixels, float32 `[...]`.
      sigmas: standard deviation of a vertex's move, pixels, float32 `[...]`.
      *pieces: class ids, integer, the labels flat and cut up.

    Returns:
      Class ids, `shape` and dtype of the labels; void is 0.
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
    """One map `[H, W]`, class by class upwards as the highest id wins; void is 0."""
    from scipy.ndimage import find_objects

    classes = np.where(labels == VOID, 0, labels).astype(np.int32)
    redrawn = np.zeros_like(labels)
    for class_id, box in enumerate(find_objects(classes), start=1):
        if box is None:  # the map has nothing of this class
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
    """Outlines of a mask: (row, column) `[N, 2]` each, the first vertex also last."""
    from skimage.measure import find_contours

    return [outline - 1 for outline in find_contours(np.pad(mask, 1), 0.5)]


def _thin(outline: np.ndarray, tolerance: float) -> np.ndarray:
    """Douglas-Peucker; the polygon's vertices, each once."""
    from skimage.measure import approximate_polygon

    # Vertices that are equally far tie up to rounding: counted from the first vertex,
    # it is the same wherever in the map the outline lies.
    first = outline[0]
    return approximate_polygon(outline - first, tolerance)[:-1] + first


def _paint(canvas: np.ndarray, polygons: list[np.ndarray], value: int) -> None:
    """Set the pixels inside polygons, by the even-odd rule over all of them.

    Scan lines: a row's inside begins and ends where edges cross it. Done here as
    `skimage.draw.polygon` counts every centre on an edge as inside, and so fills the
    rim of a hole that goes through pixel centres.

    Args:
      canvas: `[H, W]`, changed in place.
      polygons: vertices (row, column) `[N, 2]` each, float64, may be out of the canvas.
      value: what the pixels become.
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
    # Rows toggle an even number of times: the last column, maybe off canvas, is outside
    inside = inside[:, :-1]
    canvas[top : top + size[0], left : left + size[1] - 1][inside] = value


def _cross_rows(
    polygons: list[np.ndarray], height: int
) -> tuple[np.ndarray, np.ndarray]:
    """Where edges cross pixel rows; an edge has its upper end but not its lower.

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
