"""Which side of a mask is foreground.

May import `initial`, `masked`, `checks` and `errors`.
"""

import jax
import jax.numpy as jnp

from metaseg import checks
from metaseg.errors import InputError
from metaseg.igtt.initial import intensity
from metaseg.igtt.masked import count, total

__all__ = ["POLARITIES", "orient"]

POLARITIES = ("smaller", "brighter", "darker", "none")


def orient(
    mask: jax.Array,
    valid: jax.Array | None = None,
    images: jax.Array | None = None,
    *,
    polarity: str = "smaller",
) -> jax.Array:
    """Inverts masks whose foreground is on the wrong side.

    Args:
      mask: boolean `[..., H, W]`.
      valid: boolean `[..., H, W]`; by default every pixel is.
      images: float `[..., H, W, C]`; needed where the polarity looks at them.
      polarity: static: the foreground is the "smaller" side, or the one that is
        "brighter" or "darker" on average, channels averaged; "none" inverts nothing.
        Where both are equal or one is empty, "brighter" and "darker" invert nothing.

    Returns:
      Boolean `[..., H, W]`, false where not valid.

    Raises:
      InputError: wrong polarity, or images that it needs are missing.
    """
    checks.choice("polarity", polarity, POLARITIES)
    valid = jnp.ones(mask.shape, bool) if valid is None else valid
    inside, outside = mask & valid, ~mask & valid
    if polarity == "none":
        return inside
    if polarity == "smaller":
        wrong = inside.sum((-2, -1)) > outside.sum((-2, -1))
    else:
        if images is None:
            raise InputError(f"images: got None, polarity '{polarity}' needs them")
        shade = intensity(images)
        contrast = total(shade, inside) / count(inside)
        contrast -= total(shade, outside) / count(outside)
        wrong = contrast < 0 if polarity == "brighter" else contrast > 0
        wrong &= inside.any((-2, -1)) & outside.any((-2, -1))
    return jnp.where(wrong[..., None, None], outside, inside)
