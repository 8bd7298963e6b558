"""What is known of objects beside their scores: their least size, where they end.

May import `start`, `valid`, `density`, `morphology` and `checks`.
"""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from metaseg import checks, density, morphology
from metaseg.igtt.start import intensity
from metaseg.igtt.valid import floats, unit

__all__ = ["fit_boundary", "open_masks"]

_FINE = 1.0  # standard deviation of the Gaussian that intensities are smoothed by
_STEPS = 3


def open_masks(
    mask: jax.Array, valid: jax.Array | None = None, *, smallest: int
) -> jax.Array:
    """Drops what a disk does not fit into: specks, and bridges between objects.

    Args:
      mask: boolean `[..., H, W]`.
      valid: boolean `[..., H, W]`; by default every pixel is. Objects may go on beyond
        these, as beyond the image.
      smallest: radius of the smallest object, pixels, a static integer >= 0.

    Returns:
      Boolean `[..., H, W]`, false where not valid.

    Raises:
      InputError: wrong mask or smallest.
    """
    valid = jnp.ones(mask.shape, bool) if valid is None else valid
    return morphology.opening(mask | ~valid, smallest) & valid


def fit_boundary(
    mask: jax.Array,
    images: jax.Array,
    valid: jax.Array | None = None,
    *,
    bandwidth: ArrayLike,
    band: int = 2,
) -> jax.Array:
    """Moves boundaries to the middle of the local step in intensity.

    One cut for a whole image puts boundaries of bright objects too far out and those of
    dim ones too far in. Here every pixel near the boundary joins the side whose local
    mean intensity is nearer to its own, three times: the two local means of
    region-scalable fitting (Li, Kao, Gore and Ding, 2008), without its length term.
    Intensities are taken as in `local_contrast`: square roots, smoothed a little.

    Args:
      mask: boolean `[..., H, W]`.
      images: float `[..., H, W, C]`.
      valid: boolean `[..., H, W]`; by default every pixel is.
      bandwidth: standard deviation in pixels of the Gaussian that local means are taken
        with, > 0: wider than blur and noise, narrower than where light changes.
      band: how far from the boundary a pixel may change sides at a time, pixels, a
        static integer >= 1.

    Returns:
      Boolean `[..., H, W]`, false where not valid; an empty mask stays empty.

    Raises:
      InputError: wrong mask, bandwidth or band.
    """
    checks.masks("mask", mask)
    checks.integer("band", band, 1, "pixels")
    shade, valid = floats(intensity(images), valid)
    root = jnp.where(valid, jnp.sqrt(unit(shade, valid)), 0)
    smooth, _ = _local_mean(root, valid, _FINE)
    mask = mask & valid
    for _ in range(_STEPS):
        inside, some_in = _local_mean(root, mask, bandwidth)
        outside, some_out = _local_mean(root, ~mask & valid, bandwidth)
        nearer = jnp.abs(smooth - inside) < jnp.abs(smooth - outside)
        near = morphology.dilate(mask, band) & ~morphology.erode(mask | ~valid, band)
        mask = jnp.where(near & some_in & some_out & valid, nearer, mask)
    return mask


def _local_mean(
    values: jax.Array, where: jax.Array, bandwidth: ArrayLike
) -> tuple[jax.Array, jax.Array]:
    """Local mean of values in [0, 1] over some pixels, and where there is one."""
    # The density of soft labels (v, 1 - v) is the local mean of v.
    pair = jnp.where(where[..., None], jnp.stack([values, 1 - values], axis=-1), 0)
    found = density.soft_density(pair, bandwidth=bandwidth)
    return found[..., 0], found.sum(axis=-1) > 0
