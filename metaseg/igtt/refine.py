"""Prior knowledge of objects, applied to masks: smallest size, boundaries in the image.

May import `initial`, `masked`, `density`, `morphology`, `checks` and `typing`.
"""

import math
from functools import partial

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Bool, Real

from metaseg import checks, density, morphology
from metaseg.igtt.initial import intensity
from metaseg.igtt.masked import check_images, floats, unit, validity
from metaseg.typing import AnyArray, Masks

__all__ = ["fit_boundary", "open_masks"]

_FINE = 1.0  # standard deviation of the Gaussian that intensities are smoothed by
_STEPS = 3
_HALF_WIDTH = math.sqrt(5)  # of an Epanechnikov kernel of standard deviation 1


def open_masks(
    mask: Masks, valid: Masks | None = None, *, min_radius: int
) -> Bool[jax.Array, "*batch H W"]:
    """Opens masks by a disk: removes specks and thin bridges between objects.

    Pixels outside the image and at padding do not erode an object, since the object may
    continue there (`skimage.morphology.opening` with `mode="ignore"`).

    Args:
      mask: Boolean `[..., H, W]`.
      valid: Boolean `[..., H, W]`, false at padding; None means all pixels are valid.
      min_radius: Radius of the smallest object in pixels, a static integer >= 0.

    Returns:
      Boolean `[..., H, W]`, false where not valid.

    Raises:
      InputError: If `mask` is not boolean `[..., H, W]`, or `min_radius` is negative or
        no integer.
    """
    mask = jnp.asarray(mask)
    valid = validity(mask, valid, "mask")
    left = morphology.erode(mask | ~valid, min_radius) & valid
    return morphology.dilate(left, min_radius) & valid


def fit_boundary(
    mask: Masks,
    images: Real[AnyArray, "*batch H W C"],
    valid: Masks | None = None,
    *,
    bandwidth: ArrayLike,
    band: int = 2,
) -> Bool[jax.Array, "*batch H W"]:
    """Moves boundaries to the middle of the local step in intensity.

    One threshold for a whole image draws bright objects too large and dim objects too
    small. This function repeats one step three times: every pixel near the boundary
    joins the side whose local mean intensity is closer to its own. The two local means
    are those of region-scalable fitting (Li, Kao, Gore and Ding, 2008); the length term
    is left out. As in `local_contrast`, the intensity is the square root of the scaled
    intensity, here smoothed by a Gaussian of 1 pixel.

    Args:
      mask: Boolean `[..., H, W]`.
      images: Numbers `[..., H, W, C]`.
      valid: Boolean `[..., H, W]`, false at padding; None means all pixels are valid.
      bandwidth: Standard deviation in pixels of the Epanechnikov kernel of the local
        means, > 0. Choose it wider than blur and noise, and narrower than the scale on
        which the illumination changes.
      band: Largest distance in pixels from the boundary at which one step may change a
        pixel, a static integer >= 1.

    Returns:
      Boolean `[..., H, W]`, false where not valid. An empty mask stays empty.

    Raises:
      InputError: If `mask` is not boolean `[..., H, W]`, `bandwidth` is not positive,
        or `band` is below 1 or no integer.
    """
    checks.masks("mask", mask)
    checks.integer("band", band, 1, "pixels")
    check_images(images, mask.shape, "mask")
    shade, valid = floats(intensity(images), valid)
    checks.number("bandwidth", bandwidth, 0, open_ends=True, unit="pixels")
    around = partial(
        density.weighted_sum,
        bandwidth=_HALF_WIDTH * bandwidth,
        kernel="epanechnikov",  # reaches less far than a Gaussian: half the time
    )
    root = jnp.where(valid, jnp.sqrt(unit(shade, valid)), 0)
    both = jnp.stack([valid.astype(jnp.float32), root])
    pixels, smooth = density.weighted_sum(both, bandwidth=_FINE)
    smooth = smooth / jnp.where(valid, pixels, 1)
    all_pixels, all_sum = around(both)
    mask = jnp.asarray(mask) & valid
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
    """Returns local means, and where they average more than a rounding error."""
    some = pixels > 1e-5 * of
    return total / jnp.where(some, pixels, 1), some
