"""What an image alone says of its foreground: scores to begin with.

May import `masked` and `density`.
"""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from metaseg import density
from metaseg.igtt.masked import floats, unit

__all__ = ["intensity", "local_contrast"]


def intensity(images: jax.Array) -> jax.Array:
    """Mean over the channels of images `[..., H, W, C]`, float32 `[..., H, W]`."""
    return jnp.mean(jnp.asarray(images, jnp.float32), axis=-1)


def local_contrast(
    images: jax.Array,
    valid: jax.Array | None = None,
    *,
    fine: ArrayLike = 1.0,
    sigma_coarse: ArrayLike = 16.0,
) -> jax.Array:
    """How much brighter a pixel is than its surroundings.

    The square root of the intensity above the image's lowest, so that photon noise is
    alike in dark and bright places; its local mean over a few pixels minus that over
    many, border and padding left out of both.

    Args:
      images: float `[..., H, W, C]`.
      valid: boolean `[..., H, W]`; by default every pixel is.
      fine: standard deviation of the smaller Gaussian in pixels, > 0.
      sigma_coarse: standard deviation of the larger one, above an object's radius.

    Returns:
      float32 `[..., H, W]` in [-1, 1], 1 being the image's range; 0 where not valid.

    Raises:
      InputError: wrong fine or coarse.
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
