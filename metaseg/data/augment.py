"""Random crops, flips, rotations and light, as pure functions on the device.

They run inside the compiled training step, on one example; `vmap` serves a batch.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Float, Integer, Real

from metaseg.typing import AnyArray, PRNGKey

__all__ = ["brightness_contrast", "crop", "dihedral", "illumination"]

_GRID = (4, 4)  # random numbers in an image of any size


def crop(
    key: PRNGKey,
    image: Float[AnyArray, "H W C"],
    label: Real[AnyArray, "H W"],
    valid_size: Integer[AnyArray, "2"],
    *,
    size: tuple[int, int],
) -> tuple[Float[jax.Array, "h w C"], Real[jax.Array, "h w"]]:
    """Cuts the same random window from image and label.

    Args:
      key: PRNG key.
      image: Image, float `[H, W, C]`.
      label: Class ids, integer `[H, W]`, or soft targets, float `[H, W]`.
      valid_size: Height and width without padding, integer `[2]`; windows lie within.
      size: Height and width of the window in pixels, static, at most `valid_size`.

    Returns:
      Image `[h, w, C]` and label `[h, w]` of the window.
    """
    room = jnp.maximum(valid_size - jnp.array(size) + 1, 1)
    start = jax.random.randint(key, (2,), 0, room, jnp.int32)
    channels = image.shape[-1]
    return (
        jax.lax.dynamic_slice(image, (*start, jnp.int32(0)), (*size, channels)),
        jax.lax.dynamic_slice(label, tuple(start), size),
    )


def dihedral(
    key: PRNGKey,
    image: Float[AnyArray, "H W C"],
    label: Real[AnyArray, "H W"],
    *,
    flip: bool,
    rot90: bool,
    horizontal_flip_only: bool = False,
) -> tuple[Float[jax.Array, "H W C"], Real[jax.Array, "H W"]]:
    """Flips and rotates image and label alike, all outcomes equally likely.

    Args:
      key: PRNG key.
      image: Image, float `[H, W, C]`.
      label: Class ids, integer `[H, W]`, or soft targets, float `[H, W]`.
      flip: Whether to flip top-bottom and left-right.
      rot90: Whether to rotate by multiples of 90 degrees; needs H = W.
      horizontal_flip_only: Whether to flip left-right alone, for images with a top and
        a bottom; not with `rot90`.

    Returns:
      Image and label of the same shapes.
    """
    image, label = jnp.asarray(image), jnp.asarray(label)
    rows, cols, swap = jax.random.bernoulli(key, jnp.float32(0.5), (3,))
    if flip and not horizontal_flip_only:
        image, label = (jnp.where(rows, x[::-1], x) for x in (image, label))
    if flip:
        image, label = (jnp.where(cols, x[:, ::-1], x) for x in (image, label))
    if rot90:
        # Transposing is a flip and a rotation by 90 degrees; a flip undoes the first.
        if not flip:
            image, label = (jnp.where(cols, x[::-1, ::-1], x) for x in (image, label))
            image, label = (
                jnp.where(swap, jnp.swapaxes(x, 0, 1)[::-1], x) for x in (image, label)
            )
        else:
            image, label = (
                jnp.where(swap, jnp.swapaxes(x, 0, 1), x) for x in (image, label)
            )
    return image, label


def brightness_contrast(
    key: PRNGKey,
    image: Float[AnyArray, "H W C"],
    *,
    brightness: float,
    contrast: float,
) -> Float[jax.Array, "H W C"]:
    """Scales an image about its mean and adds a constant.

    Args:
      key: PRNG key.
      image: Normalised image, float `[H, W, C]`.
      brightness: Bound of the constant, which is uniform in ±brightness, in the units
        of the image.
      contrast: Bound of the factor, which is uniform in 1 ± contrast.

    Returns:
      Image of the same shape and dtype.
    """
    shift, scale = jax.random.uniform(key, (2,), jnp.float32, -1.0, 1.0)
    mean = jnp.mean(image)
    return (image - mean) * (1 + contrast * scale) + mean + brightness * shift


def illumination(
    key: PRNGKey,
    image: Float[AnyArray, "H W C"],
    *,
    amplitude: float,
    modulation: float,
) -> Float[jax.Array, "H W C"]:
    """Lights an image unevenly, as lamps and optics do.

    Computes `low + (image - low) exp(modulation u f) + amplitude v g`. Here low is the
    lowest value, u and v are uniform in [0, 1], and f and g are smooth fields: standard
    normal numbers on a grid of 4 x 4, interpolated by cubics. The result is scaled to
    the mean and standard deviation of the image, so that light changes within the image
    alone.

    Args:
      key: PRNG key.
      image: Normalised image, float `[H, W, C]`.
      amplitude: Strength of the added light, in the units of the image, at least 0.
      modulation: Strength of the logarithm of the factor, at least 0.

    Returns:
      Image of the same shape and dtype; a constant image does not change.
    """
    k_factor, k_light, k_size = jax.random.split(key, 3)

    def field(key: jax.Array) -> jax.Array:
        coarse = jax.random.normal(key, _GRID, image.dtype)
        return jax.image.resize(coarse, image.shape[:2], "cubic")[..., None]

    u, v = jax.random.uniform(k_size, (2,), image.dtype)
    low = jnp.min(image)
    lit = low + (image - low) * jnp.exp(modulation * u * field(k_factor))
    lit += amplitude * v * field(k_light)
    spread, before = jnp.std(lit), jnp.std(image)
    scale = jnp.where(spread > 0, before / jnp.where(spread > 0, spread, 1), 0)
    return (lit - jnp.mean(lit)) * scale + jnp.mean(image)
