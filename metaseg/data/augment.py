"""Random crops, flips, turns and light on device: pure `(key, ...)` functions.

They run inside the compiled training step, on one example; `vmap` serves a batch.
"""

import jax
import jax.numpy as jnp

__all__ = ["brightness_contrast", "crop", "dihedral", "illumination"]

_GRID = (4, 4)  # random numbers across an image of any size


def crop(
    key: jax.Array,
    image: jax.Array,
    label: jax.Array,
    valid_size: jax.Array,
    *,
    size: tuple[int, int],
) -> tuple[jax.Array, jax.Array]:
    """Cuts the same random window from image and label.

    Args:
      key: typed PRNG key.
      image: float `[H, W, C]`.
      label: integer `[H, W]`.
      valid_size: integer `[2]`, height and width without padding; windows lie in it.
      size: height and width of the window, static, not above `valid_size`.

    Returns:
      `(image, label)` of the window.
    """
    room = jnp.maximum(valid_size - jnp.array(size) + 1, 1)
    start = jax.random.randint(key, (2,), 0, room)
    channels = image.shape[-1]
    return (
        jax.lax.dynamic_slice(image, (start[0], start[1], 0), (*size, channels)),
        jax.lax.dynamic_slice(label, (start[0], start[1]), size),
    )


def dihedral(
    key: jax.Array,
    image: jax.Array,
    label: jax.Array,
    *,
    flip: bool,
    rot90: bool,
    horizontal_flip_only: bool = False,
) -> tuple[jax.Array, jax.Array]:
    """Mirrors and turns image and label alike, all outcomes equally likely.

    Args:
      key: typed PRNG key.
      image: float `[H, W, C]`.
      label: integer `[H, W]`.
      flip: whether to mirror top-bottom and left-right.
      rot90: whether to turn by quarters; needs H == W.
      horizontal_flip_only: whether to mirror left-right alone, for images with a top
        and a bottom; not with `rot90`.

    Returns:
      `(image, label)`, shapes unchanged.
    """
    rows, cols, swap = jax.random.bernoulli(key, 0.5, (3,))
    if flip and not horizontal_flip_only:
        image, label = (jnp.where(rows, x[::-1], x) for x in (image, label))
    if flip:
        image, label = (jnp.where(cols, x[:, ::-1], x) for x in (image, label))
    if rot90:
        # Transposing is a flip and a quarter turn; alone it is turned back by a flip.
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
    key: jax.Array, image: jax.Array, *, brightness: float, contrast: float
) -> jax.Array:
    """Scales an image about its mean and adds a constant.

    Args:
      key: typed PRNG key.
      image: float `[H, W, C]`, normalised.
      brightness: the constant is uniform in ±brightness, in the image's own units.
      contrast: the factor is uniform in 1 ± contrast.

    Returns:
      The image, shape and dtype unchanged.
    """
    shift, scale = jax.random.uniform(key, (2,), minval=-1.0, maxval=1.0)
    mean = jnp.mean(image)
    return (image - mean) * (1 + contrast * scale) + mean + brightness * shift


def illumination(
    key: jax.Array, image: jax.Array, *, amplitude: float, modulation: float
) -> jax.Array:
    """Lights an image unevenly, as lamps and optics do.

    `low + (image - low) exp(modulation u f) + amplitude v g`, low being the lowest
    value, u and v uniform in [0, 1], f and g smooth fields: standard normal numbers on
    a grid of 4 x 4, interpolated by cubics. Then mean and standard deviation are
    brought back to what they were, so that light changes within the image alone.

    Args:
      key: typed PRNG key.
      image: float `[H, W, C]`, normalised.
      amplitude: of the light that is added, in the image's own units, >= 0.
      modulation: of the logarithm of the factor, >= 0.

    Returns:
      The image, shape and dtype unchanged; a constant one stays as it is.
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
