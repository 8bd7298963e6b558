"""What one label map says by itself, without a reference.

The numbers come from one compiled program per bucket size (`audit.frame`). May
import `frame`, `density`, `information`, `morphology` and `labels`.
"""

import hashlib
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from metaseg import density, information, morphology
from metaseg.audit.frame import framed
from metaseg.labels import VOID, class_counts, is_void

__all__ = ["THUMB", "LabelMap", "edges", "examine"]

THUMB = 8  # cells a side of the grid that near-duplicates are found on
_SMOOTHING = 2  # pixels each way that the smoothed map asks
_GOLDEN = 0.6180339887498949


class LabelMap(NamedTuple):
    """One label map in a few hundred bytes.

    Attributes:
      size: rows and columns.
      counts: pixels of each class, int64 `[K]`.
      void: pixels without a label, wrong ids among them.
      wrong: pixels whose id is neither a class nor void.
      wrong_ids: those ids, the lowest 16.
      information: spatial information at `bandwidth`, nats.
      bias: what of it chance alone would show, were labels independent of place.
      bandwidth: of the density, pixels.
      objects: 8-connected components of each class, int64 `[K]`; class 0 has none.
      perimeter: pairs of neighbouring pixels of different classes.
      smooth_perimeter: the same after each pixel took the most frequent class of its
        5 x 5 pixels.
      thumb: weighted class density on 8 x 8 cells, 0..255, uint8 `[64]`.
      perceptual: 64-bit hash, bit i set where `thumb[i]` is above its mean.
      exact: 64-bit hash of size and pixels.
    """

    size: tuple[int, int]
    counts: np.ndarray
    void: int
    wrong: int
    wrong_ids: tuple[int, ...]
    information: float
    bias: float
    bandwidth: float
    objects: np.ndarray
    perimeter: int
    smooth_perimeter: int
    thumb: np.ndarray
    perceptual: int
    exact: int

    @property
    def labelled(self) -> int:
        """Pixels that hold a class."""
        return int(self.counts.sum())

    @property
    def void_share(self) -> float:
        """Share of the pixels that hold no class."""
        return self.void / (self.size[0] * self.size[1])

    @property
    def roughness(self) -> float:
        """Share of the boundary that smoothing takes away, in [0, 1]; 0 if none.

        About 0.1 for digitised smooth outlines, near 1 for isolated pixels and thin
        lines. Smoothing leaves what is wider than two pixels.
        """
        left = self.smooth_perimeter / self.perimeter if self.perimeter else 1.0
        return max(0.0, 1 - left)

    @property
    def empty(self) -> bool:
        """Whether no pixel holds a class."""
        return self.labelled == 0

    @property
    def one_class(self) -> bool:
        """Whether all labelled pixels hold the same class."""
        return int((self.counts > 0).sum()) == 1


def examine(
    labels: np.ndarray,
    num_classes: int,
    *,
    bandwidth: float | None = None,
    where: str = "labels",
) -> LabelMap:
    """Measure one label map.

    Args:
      labels: class ids, integer `[H, W]`, any size.
      num_classes: K.
      bandwidth: of the density behind the spatial information, pixels; by default a
        32nd of the longer side, so that maps of different resolution compare.
      where: the file that a message names.

    Raises:
      InputError: not an integer array `[H, W]`.
    """
    frame = framed(labels, num_classes, where=where)
    size = (int(frame.size[0]), int(frame.size[1]))
    reach = max(size) / 32 if bandwidth is None else bandwidth
    measured = jax.device_get(
        _measure(frame.labels, frame.size, jnp.float32(reach), num_classes=num_classes)
    )
    counts = measured["counts"].astype(np.int64)
    thumb = np.round(255 * measured["thumb"]).astype(np.uint8).ravel()
    bits = np.packbits(thumb > thumb.mean())
    inside = np.ascontiguousarray(frame.labels[: size[0], : size[1]])
    digest = hashlib.blake2b(inside.tobytes(), digest_size=8, salt=_salt(size))
    return LabelMap(
        size=size,
        counts=counts,
        void=size[0] * size[1] - int(counts.sum()),
        wrong=frame.wrong,
        wrong_ids=frame.wrong_ids,
        information=float(measured["information"]),
        bias=float(measured["bias"]),
        bandwidth=float(reach),
        objects=measured["objects"].astype(np.int64),
        perimeter=int(measured["perimeter"]),
        smooth_perimeter=int(measured["smooth_perimeter"]),
        thumb=thumb,
        perceptual=int.from_bytes(bits.tobytes(), "big"),
        exact=int.from_bytes(digest.digest(), "big"),
    )


def edges(labels: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Where a pixel and the one below, or right of it, are of different classes.

    Returns:
      Boolean `[H - 1, W]` and `[H, W - 1]`; false where either is void.
    """
    known = ~is_void(labels)
    down = (labels[1:] != labels[:-1]) & known[1:] & known[:-1]
    right = (labels[:, 1:] != labels[:, :-1]) & known[:, 1:] & known[:, :-1]
    return down, right


def _salt(size: tuple[int, int]) -> bytes:
    return size[0].to_bytes(4, "big") + size[1].to_bytes(4, "big")


@partial(jax.jit, static_argnames="num_classes")
def _measure(
    labels: jax.Array, size: jax.Array, bandwidth: jax.Array, *, num_classes: int
) -> dict[str, jax.Array]:
    height, width = labels.shape
    rows, cols = jnp.arange(height), jnp.arange(width)
    inside = (rows[:, None] < size[0]) & (cols < size[1])
    counts = class_counts(labels, num_classes)

    rho = density.spatial_density(labels, num_classes, bandwidth=bandwidth)
    rho = jnp.where(inside[..., None], rho, 0)  # reaches into the padding
    pixels = density.effective_pixels(labels, bandwidth=bandwidth)
    shares = counts / jnp.maximum(counts.sum(), 1)
    bias = information.spatial_information_bias(shares, jnp.where(inside, pixels, 0))

    root = morphology.roots(jnp.where(is_void(labels), jnp.uint8(0), labels))
    first = root == jnp.arange(height * width).reshape(height, width)
    objects = class_counts(jnp.where(first, labels, jnp.uint8(VOID)), num_classes)

    # Class weights that no two mixtures are likely to share; 0 for background.
    weights = jnp.asarray((np.arange(num_classes) * _GOLDEN) % 1, jnp.float32)
    known = (~is_void(labels)).astype(jnp.float32)
    value = weights[jnp.minimum(labels, num_classes - 1)] * known
    cell_rows = jnp.minimum(rows * THUMB // size[0], THUMB - 1)[:, None]
    cell = cell_rows * THUMB + jnp.minimum(cols * THUMB // size[1], THUMB - 1)
    sums, labelled = (
        jnp.zeros(THUMB**2).at[cell].add(plane) for plane in (value, known)
    )
    return {
        "counts": counts,
        "information": information.spatial_information(rho),
        "bias": bias,
        "objects": objects,
        "perimeter": _perimeter(labels),
        "smooth_perimeter": _perimeter(_smoothed(labels, num_classes)),
        "thumb": sums / jnp.maximum(labelled, 1),
    }


def _perimeter(labels: jax.Array) -> jax.Array:
    down, right = edges(labels)
    return down.sum() + right.sum()


def _smoothed(labels: jax.Array, num_classes: int) -> jax.Array:
    """Each pixel's most frequent class among its 5 x 5; of equals, its own."""
    side = 2 * _SMOOTHING + 1

    def votes(class_id: jax.Array) -> jax.Array:
        plane = (labels == class_id).astype(jnp.int32)
        for window in ((side, 1), (1, side)):
            plane = jax.lax.reduce_window(plane, 0, jax.lax.add, window, (1, 1), "SAME")
        return 2 * plane + (labels == class_id)

    ids = jnp.arange(num_classes, dtype=labels.dtype)
    most = jnp.argmax(jax.lax.map(votes, ids), axis=0).astype(labels.dtype)
    return jnp.where(is_void(labels), labels, most)
