"""From a mask to a label: meta-structure (EMS), and alternatives to compare it with.

May import `noise`, `density`, `labels`, `checks` and `typing`.
"""

from functools import partial

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Float, Integer

from metaseg import checks, density, noise
from metaseg.labels import VOID, is_void
from metaseg.typing import Labels, PRNGKey

__all__ = ["TARGETS", "ems", "soft_targets", "target"]

TARGETS = ("ems", "sample", "mask", "random")


def ems(
    key: PRNGKey, labels: Labels, *, radius: int = 1, fraction: ArrayLike = 0.1
) -> Integer[jax.Array, "*batch H W"]:
    """Extracts the meta-structure (EMS): scattered pixels along the skeleton.

    Thins the foreground to its skeleton. Shifts each skeleton pixel along both axes by
    independent integers, uniform in [-radius, radius] and clipped at the border. Keeps
    exactly `ceil(n * fraction)` of the n pixels that are then occupied. This function
    is a NoiseFn. Source: Luo et al., AAAI 2022.

    Args:
      key: Typed PRNG key.
      labels: Integer class ids `[..., H, W]`; 255 is void.
      radius: Largest shift in pixels, a static integer >= 0.
      fraction: Share of the pixels to keep, in [0, 1]; may be traced.

    Returns:
      Class ids of the shape and dtype of `labels`.

    Raises:
      InputError: If `labels` are no label maps, `radius` is negative or no integer, or
        `fraction` is outside [0, 1].
    """
    steps = (
        noise.skeletonize,
        partial(noise.shift_pixels, radius=radius),
        partial(noise.sample, fraction=fraction, exact=True),
    )
    return noise.chain(*steps)(key, jnp.asarray(labels))


def target(
    name: str = "ems", *, radius: int = 1, fraction: ArrayLike = 0.1
) -> noise.NoiseFn:
    """Returns the function that selects the pixels of a mask for the next label.

    Args:
      name: One of `TARGETS`. "ems" applies `ems`. "sample" keeps `ceil(n * fraction)`
        of the n pixels of the mask. "mask" keeps the whole mask. "random" places as
        many pixels as "ems" keeps, anywhere in the image.
      radius: Largest shift in pixels, for "ems" and "random".
      fraction: Share of the pixels to keep, for all but "mask".

    Returns:
      A NoiseFn: `(key, labels) -> labels`.

    Raises:
      InputError: If `name` is unknown.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> mask = jnp.ones((4, 5), jnp.uint8)
      >>> int(target("sample", fraction=0.25)(jax.random.key(0), mask).sum())
      5
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


def soft_targets(
    labels: Labels, *, bandwidth: ArrayLike
) -> Float[jax.Array, "*batch H W"]:
    """Converts labels to soft labels: the local density of foreground pixels.

    Args:
      labels: Binary class ids, integer `[..., H, W]`; 255 and negative numbers are
        void.
      bandwidth: Standard deviation of the kernel in pixels, > 0.

    Returns:
      float32 `[..., H, W]`, soft labels as `losses` takes them: in [0, 1], scaled such
      that the largest density of each image is 1, and 255 where void.

    Raises:
      InputError: If `labels` are no label maps or `bandwidth` is not positive.
    """
    local = density.spatial_density(labels, 2, bandwidth=bandwidth)[..., 1]
    labels = jnp.asarray(labels)
    highest = jnp.max(local, axis=(-2, -1), keepdims=True, initial=0)
    scaled = local / jnp.where(highest > 0, highest, 1)
    return jnp.where(is_void(labels, 2), jnp.float32(VOID), scaled)
