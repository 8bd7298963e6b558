"""What is kept of a mask as a label: the meta-structure, or what to compare it with.

May import `noise`, `density`, `labels` and `checks`.
"""

from functools import partial

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from metaseg import checks, density, noise
from metaseg.labels import VOID, is_void

__all__ = ["TARGETS", "ems", "soft_targets", "target"]

TARGETS = ("ems", "sample", "mask", "random")


def ems(
    key: jax.Array, labels: jax.Array, *, radius: int = 1, fraction: ArrayLike = 0.1
) -> jax.Array:
    """Extraction of meta-structure: a few scattered pixels along the skeleton.

    Thins the foreground to its skeleton, moves each of its pixels by independent
    integers, uniform in [-radius, radius] a side and held back at the border, and keeps
    exactly `ceil(n fraction)` of the n pixels they land on. A NoiseFn.

    Args:
      key: PRNG key.
      labels: class ids, integer `[..., H, W]`.
      radius: pixels, a static integer >= 0.
      fraction: share kept, in [0, 1]; may be traced.

    Raises:
      InputError: wrong labels, radius or fraction.
    """
    steps = (
        noise.skeletonize,
        partial(noise.shift_pixels, radius=radius),
        partial(noise.sample, fraction=fraction, exact=True),
    )
    return noise.chain(*steps)(key, labels)


def target(
    name: str = "ems", *, radius: int = 1, fraction: ArrayLike = 0.1
) -> noise.NoiseFn:
    """What is kept of a mask as the next round's label.

    Args:
      name: "ems"; "sample": `ceil(n fraction)` of the mask's n pixels, skeleton or not;
        "mask": all of it; "random": as many pixels as "ems" keeps, anywhere.
      radius: of "ems" and "random", pixels.
      fraction: of all but "mask".

    Raises:
      InputError: unknown name.
    """
    checks.choice("name", name, TARGETS)
    extract = partial(ems, radius=radius, fraction=fraction)
    known: dict[str, noise.NoiseFn] = {
        "ems": extract,
        "sample": partial(noise.sample, fraction=fraction, exact=True),
        "mask": noise.clean,
        "random": noise.chain(extract, noise.shuffle),
    }
    return known[name]


def soft_targets(labels: jax.Array, *, bandwidth: ArrayLike) -> jax.Array:
    """Labels weighted by density: the local density of the foreground's pixels.

    Args:
      labels: binary, integer `[..., H, W]`.
      bandwidth: standard deviation of the kernel in pixels, > 0.

    Returns:
      float32 `[..., H, W]`, soft labels of `losses`: in [0, 1], each image's highest
      density 1, and 255 where void.

    Raises:
      InputError: wrong labels or bandwidth.
    """
    local = density.spatial_density(labels, 2, bandwidth=bandwidth)[..., 1]
    highest = jnp.max(local, axis=(-2, -1), keepdims=True)
    scaled = local / jnp.where(highest > 0, highest, 1)
    return jnp.where(is_void(labels), jnp.float32(VOID), scaled)
