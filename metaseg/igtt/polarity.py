"""Which side of a mask is foreground.

May import `initial`, `masked`, `checks`, `errors` and `typing`.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Bool, Real

from metaseg import checks
from metaseg.errors import InputError
from metaseg.igtt.initial import intensity
from metaseg.igtt.masked import check_images, count, total, validity
from metaseg.typing import AnyArray, Masks

__all__ = ["POLARITIES", "orient"]

POLARITIES = ("smaller", "brighter", "darker", "none")


def orient(
    mask: Masks,
    valid: Masks | None = None,
    images: Real[AnyArray, "*batch H W C"] | None = None,
    *,
    polarity: str = "smaller",
) -> Bool[jax.Array, "*batch H W"]:
    """Inverts masks whose foreground is on the wrong side.

    Args:
      mask: Boolean `[..., H, W]`.
      valid: Boolean `[..., H, W]`, false at padding; None means all pixels are valid.
      images: Numbers `[..., H, W, C]`. The polarities "brighter" and "darker" need
        them.
      polarity: One of `POLARITIES`, static. "smaller" makes the side with fewer pixels
        foreground. "brighter" and "darker" compare the mean intensity of the two
        sides, averaged over the channels, and invert nothing where the means are equal
        or one side is empty. "none" inverts nothing.

    Returns:
      Boolean `[..., H, W]`, false where not valid.

    Raises:
      InputError: If `polarity` is unknown, it needs images and there are none, or
        shapes differ.
    """
    checks.choice("polarity", polarity, POLARITIES)
    mask = jnp.asarray(mask)
    valid = validity(mask, valid, "mask")
    inside, outside = mask & valid, ~mask & valid
    if polarity == "none":
        return inside
    if polarity == "smaller":
        wrong = inside.sum((-2, -1)) > outside.sum((-2, -1))
    else:
        if images is None:
            raise InputError(f"images: got None, polarity '{polarity}' needs them")
        check_images(images, mask.shape, "mask")
        shade = intensity(images)
        contrast = total(shade, inside) / count(inside)
        contrast -= total(shade, outside) / count(outside)
        wrong = contrast < 0 if polarity == "brighter" else contrast > 0
        wrong &= inside.any((-2, -1)) & outside.any((-2, -1))
    return jnp.where(wrong[..., None, None], outside, inside)
