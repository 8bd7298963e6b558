"""What is known of objects beside their scores: their least size, where they end.

May import `initial`, `masked`, `density`, `morphology` and `checks`.
"""

import math
from functools import partial

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from metaseg import checks, density, morphology
from metaseg.igtt.initial import intensity
from metaseg.igtt.masked import floats, unit

__all__ = ["fit_boundary", "open_masks"]

_FINE = 1.0  # standard deviation of the Gaussian that intensities are smoothed by
_STEPS = 3
_HALF_WIDTH = math.sqrt(5)  # of an Epanechnikov kernel of standard deviation 1


def open_masks(
    mask: jax.Array, valid: jax.Array | None = None, *, min_radius: int
) -> jax.Array:
    """Drops what a disk does not fit into: specks, and bridges between objects.

    Args:
      mask: boolean `[..., H, W]`.
      valid: boolean `[..., H, W]`; by default every pixel is. Objects may go on beyond
        these, as beyond the image.
      min_radius: radius of the smallest object, pixels, a static integer >= 0.

    Returns:
      Boolean `[..., H, W]`, false where not valid.

    Raises:
      InputError: wrong mask or min_radius.
    """
    valid = jnp.ones(mask.shape, bool) if valid is None else valid
    left = morphology.erode(mask | ~valid, min_radius) & valid
    return morphology.dilate(left, min_radius) & valid


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
      bandwidth: standard deviation in pixels of the kernel that local means are taken
        with, Epanechnikov's, > 0: wider than blur and noise, narrower than where light
        changes.
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
    checks.number("bandwidth", bandwidth, 0, open_ends=True, unit="pixels")
    around = partial(
        density.weighted_sum,
        bandwidth=_HALF_WIDTH * bandwidth,
        kernel="epanechnikov",  # of a shorter reach than a Gaussian: half the time
    )
    root = jnp.where(valid, jnp.sqrt(unit(shade, valid)), 0)
    both = jnp.stack([valid.astype(jnp.float32), root])
    pixels, smooth = density.weighted_sum(both, bandwidth=_FINE)
    smooth = smooth / jnp.where(valid, pixels, 1)
    all_pixels, all_sum = around(both)
    mask = mask & valid
    for _ in range(_STEPS):
        pixels, total = around(mask * both)
        inside, some_inside = _mean(total, pixels, all_pixels)
        outside, some_outside = _mean(all_sum - total, all_pixels - pixels, all_pixels)
        to_in, to_out = jnp.abs(smooth - inside), jnp.abs(smooth - outside)
        near = morphology.dilate(mask, band) & ~morphology.erode(mask | ~valid, band)
        near &= some_inside & some_outside & valid & (to_in != to_out)
        mask = jnp.where(near, to_in < to_out, mask)
    return mask


def _mean(
    total: jax.Array, pixels: jax.Array, of: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Local mean, and where it is of more pixels than rounding makes up."""
    some = pixels > 1e-5 * of
    return total / jnp.where(some, pixels, 1), some
