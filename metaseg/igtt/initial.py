"""First scores, computed from the image alone.

May import `masked`, `density` and `typing`.
"""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Float, Real

from metaseg import density
from metaseg.igtt.masked import floats, unit
from metaseg.typing import AnyArray, Masks

__all__ = ["intensity", "local_contrast"]


def intensity(
    images: Real[AnyArray, "*batch H W C"],
) -> Float[jax.Array, "*batch H W"]:
    """Averages the channels of images.

    Args:
      images: Numbers `[..., H, W, C]`.

    Returns:
      float32 `[..., H, W]`.
    """
    return jnp.mean(jnp.asarray(images, jnp.float32), axis=-1)


def local_contrast(
    images: Real[AnyArray, "*batch H W C"],
    valid: Masks | None = None,
    *,
    fine: ArrayLike = 1.0,
    sigma_coarse: ArrayLike = 16.0,
) -> Float[jax.Array, "*batch H W"]:
    """Computes how much brighter each pixel is than its surroundings.

    The intensity of an image is scaled to [0, 1]. Its square root is taken, since
    photon noise then has the same variance in dark and bright regions. The result is
    the local mean at a fine scale minus the local mean at a coarse scale. Both means
    are normalised at the image border and at padding.

    Args:
      images: Numbers `[..., H, W, C]`.
      valid: Boolean `[..., H, W]`, false at padding; None means all pixels are valid.
      fine: Standard deviation of the fine Gaussian in pixels, > 0.
      sigma_coarse: Standard deviation of the coarse Gaussian in pixels, > 0. Choose it
        larger than the radius of an object.

    Returns:
      float32 `[..., H, W]` in [-1, 1]; 0 where not valid.

    Raises:
      InputError: If `fine` or `sigma_coarse` is not positive.
    """
    shade, valid = floats(intensity(images), valid)
    root = jnp.sqrt(unit(shade, valid))
    # The density of soft labels (s, 1 - s) is the local mean of s.
    pair = jnp.stack([root, jnp.where(valid, 1 - root, 0)], axis=-1)
    near, around = (
        density.soft_density(pair, bandwidth=bandwidth)[..., 0]
        for bandwidth in (fine, sigma_coarse)
    )
    return jnp.where(valid, near - around, 0)
