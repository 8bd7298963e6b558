"""Measures of one label map, without a reference.

One program per bucket size is compiled. May import `frame`, `density`, `information`,
`morphology`, `labels` and `typing`.
"""

import hashlib
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Integer

from metaseg import density, information, morphology
from metaseg.auditing.frame import framed
from metaseg.labels import VOID, class_counts, is_void
from metaseg.typing import AnyArray

__all__ = ["THUMB", "LabelMap", "edges", "examine"]

THUMB = 8  # cells per side of the grid on which near-duplicates are compared
_SMOOTHING = 2  # pixels in each direction over which the smoothed map takes a vote
_GOLDEN = 0.6180339887498949


class LabelMap(NamedTuple):
    """Measures of one label map, in a few hundred bytes.

    Attributes:
      size: Rows and columns.
      counts: Number of pixels of each class, int64 `[K]`.
      void: Number of pixels without a label, including those with a wrong id.
      wrong: Number of pixels whose id is neither a class nor void.
      wrong_ids: These ids; the lowest 16.
      information: Spatial information at `bandwidth`, in nats.
      bias: Expected spatial information if labels were independent of position, in
        nats.
      bandwidth: Bandwidth of the density in pixels.
      objects: Number of 8-connected components of each class, int64 `[K]`; 0 for
        class 0.
      perimeter: Number of pairs of neighbouring pixels of different classes.
      smooth_perimeter: Perimeter after each pixel has taken the most frequent class of
        its 5 x 5 neighbourhood.
      thumb: Weighted class density on 8 x 8 cells, uint8 `[64]` from 0 to 255.
      perceptual: 64-bit hash. Bit i is set where `thumb[i]` is above the mean.
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
        """Number of pixels with a class id."""
        return int(self.counts.sum())

    @property
    def void_share(self) -> float:
        """Share of the pixels without a class id."""
        return self.void / (self.size[0] * self.size[1])

    @property
    def roughness(self) -> float:
        """Share of the boundary that smoothing removes, in [0, 1].

        About 0.1 for digitised smooth outlines, near 1 for isolated pixels and thin
        lines, 0 without a boundary. Smoothing keeps structures wider than two pixels.
        """
        left = self.smooth_perimeter / self.perimeter if self.perimeter else 1.0
        return max(0.0, 1 - left)

    @property
    def empty(self) -> bool:
        """Whether no pixel has a class id."""
        return self.labelled == 0

    @property
    def one_class(self) -> bool:
        """Whether all labelled pixels have the same class."""
        return int((self.counts > 0).sum()) == 1


def examine(
    labels: Integer[AnyArray, "H W"],
    num_classes: int,
    *,
    bandwidth: float | None = None,
    where: str = "labels",
) -> LabelMap:
    """Measures one label map.

    Args:
      labels: Integer class ids `[H, W]` of any size; 255 and negative numbers are
        void. Ids that are neither a class nor void count as void and are listed in the
        result.
      num_classes: Number of classes K, at most 255.
      bandwidth: Bandwidth in pixels of the density that the spatial information is
        computed from. The default, 1/32 of the longer side, makes maps of different
        resolution comparable.
      where: Name of the file in error messages.

    Returns:
      The measures.

    Raises:
      InputError: If `labels` is not an integer array of two axes, or is empty.

    Example:
      >>> import numpy as np
      >>> labels = np.zeros((40, 50), int)
      >>> labels[10:20, 10:30] = 1
      >>> found = examine(labels, 2)
      >>> found.counts.tolist(), found.objects.tolist(), found.perimeter
      ([1800, 200], [0, 1], 60)
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


def edges(
    labels: Integer[jax.Array, "H W"],
) -> tuple[Bool[jax.Array, "H-1 W"], Bool[jax.Array, "H W-1"]]:
    """Finds class boundaries between neighbouring pixels.

    Args:
      labels: Integer class ids `[H, W]`; 255 is void.

    Returns:
      Boolean `[H - 1, W]`, true where a pixel and the one below it have different
      classes; and boolean `[H, W - 1]`, the same for a pixel and the one to its right.
      Both are false where either pixel is void.
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
    rho = jnp.where(inside[..., None], rho, 0)  # the density reaches into the padding
    pixels = density.effective_pixels(labels, bandwidth=bandwidth)
    shares = counts / jnp.maximum(counts.sum(), 1)
    bias = information.spatial_information_bias(shares, jnp.where(inside, pixels, 0))

    root = morphology.roots(jnp.where(is_void(labels), jnp.uint8(0), labels))
    first = root == jnp.arange(height * width).reshape(height, width)
    objects = class_counts(jnp.where(first, labels, jnp.uint8(VOID)), num_classes)

    # With these weights two mixtures of classes hardly ever have the same density.
    weights = jnp.asarray((np.arange(num_classes) * _GOLDEN) % 1, jnp.float32)
    known = (~is_void(labels)).astype(jnp.float32)
    value = weights[jnp.minimum(labels, num_classes - 1)] * known
    cell_rows = jnp.minimum(rows * THUMB // size[0], THUMB - 1)[:, None]
    cell = cell_rows * THUMB + jnp.minimum(cols * THUMB // size[1], THUMB - 1)
    sums, labelled = (
        jnp.zeros(THUMB**2, jnp.float32).at[cell].add(plane) for plane in (value, known)
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
    """Returns the most frequent class of each 5 x 5 neighbourhood.

    A pixel keeps its own class if that is among the most frequent ones.
    """
    side = 2 * _SMOOTHING + 1

    def votes(class_id: jax.Array) -> jax.Array:
        plane = (labels == class_id).astype(jnp.int32)
        for window in ((side, 1), (1, side)):
            plane = jax.lax.reduce_window(plane, 0, jax.lax.add, window, (1, 1), "SAME")
        return 2 * plane + (labels == class_id)

    ids = jnp.arange(num_classes, dtype=labels.dtype)
    most = jnp.argmax(jax.lax.map(votes, ids), axis=0).astype(labels.dtype)
    return jnp.where(is_void(labels), labels, most)
