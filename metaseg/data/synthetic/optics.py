"""What the built-in families share: smooth fields, spots, blur and noise.

Pure functions of arrays, static shapes. May import jax and `typing`.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from metaseg.typing import AnyArray, PRNGKey

__all__ = [
    "WAVES",
    "blur",
    "expose",
    "fluoresce",
    "glows",
    "pixels",
    "smooth_field",
    "threefry",
    "waves",
]

WAVES = 16  # that make a field
_READ_NOISE = 2.0  # electrons, standard deviation
_FOCUSED, _DEFOCUSED, _SCATTERED = 1.2, 3.2, 6.0  # blur in pixels


def blur_matrix(size: int, sigma: float) -> Float[np.ndarray, "N N"]:
    """Returns the matrix that blurs a row of pixels, with its border reflected.

    Args:
      size: Length of the row in pixels.
      sigma: Standard deviation in pixels.

    Returns:
      float32 `[size, size]`.
    """
    radius = max(1, round(3 * sigma))
    taps = np.exp(-0.5 * (np.arange(-radius, radius + 1) / sigma) ** 2)
    kernel = np.pad(np.eye(size), ((0, 0), (radius, radius)), mode="symmetric")
    rows = [np.convolve(row, taps / taps.sum(), mode="valid") for row in kernel]
    return np.stack(rows, axis=1).astype(np.float32)


def blur(image: Float[AnyArray, "H W"], sigma: float) -> Float[jax.Array, "H W"]:
    """Blurs an image by a Gaussian; the border is reflected.

    Args:
      image: float32 `[H, W]`.
      sigma: Standard deviation in pixels.

    Returns:
      float32 `[H, W]`.
    """
    height, width = image.shape
    rows, columns = blur_matrix(height, sigma), blur_matrix(width, sigma)
    return rows @ jnp.asarray(image) @ columns.T


def smooth_field(
    grid: Float[AnyArray, "*batch h w"], height: int, width: int
) -> Float[jax.Array, "*batch H W"]:
    """Enlarges coarse grids of numbers to smooth fields.

    Args:
      grid: `[..., h, w]`.
      height: Rows H of the result.
      width: Columns W of the result.

    Returns:
      `[..., H, W]`.
    """
    return jax.image.resize(grid, (*grid.shape[:-2], height, width), "cubic")


def waves(
    normal: Float[AnyArray, "*batch M 3"], scale: float, height: int, width: int
) -> Float[jax.Array, "*batch H W"]:
    """Smooth random fields without a preferred direction, of mean 0 and variance 1.

    A sum of plane waves with normally distributed frequencies, which tends to the
    Gaussian process of covariance `exp(-distance^2 / (2 scale^2))`.

    Args:
      normal: `[..., WAVES, 3]` normal numbers.
      scale: in pixels.
      height: rows of the result.
      width: columns of the result.

    Returns:
      float32 `[..., H, W]`.
    """
    phase = 2 * jnp.pi * normal[..., 2:]
    down = normal[..., :1] / scale * jnp.arange(height) + phase
    across = normal[..., 1:2] / scale * jnp.arange(width)
    # cos(a + b) of all pixels from the rows' and columns' own: no cosine per pixel.
    left = jnp.concatenate([jnp.cos(down), -jnp.sin(down)], axis=-2)
    right = jnp.concatenate([jnp.cos(across), jnp.sin(across)], axis=-2)
    total = jnp.einsum("...mh,...mw->...hw", left, right, precision="highest")
    return total * np.float32(np.sqrt(2 / normal.shape[-2]))


def pixels(height: int, width: int) -> Float[jax.Array, "2 H W"]:
    """Returns row and column of every pixel.

    Args:
      height: Rows H.
      width: Columns W.

    Returns:
      float32 `[2, H, W]`.
    """
    return jnp.stack(
        jnp.meshgrid(
            jnp.arange(height, dtype=jnp.float32),
            jnp.arange(width, dtype=jnp.float32),
            indexing="ij",
        )
    )


def glows(
    centre: jax.Array, size: jax.Array, peak: jax.Array, height: int, width: int
) -> jax.Array:
    """Adds up round Gaussian spots.

    Args:
      centre: `[n, 2]`, as a share of height and width.
      size: `[n]` standard deviations in pixels.
      peak: `[n]`.
      height: rows of the result.
      width: columns of the result.

    Returns:
      float32 `[H, W]`.
    """
    rows = jnp.arange(height) - centre[:, 0, None] * height
    cols = jnp.arange(width) - centre[:, 1, None] * width
    down, across = (jnp.exp(-0.5 * (x / size[:, None]) ** 2) for x in (rows, cols))
    return jnp.einsum("n,nh,nw->hw", peak, down, across)


def threefry(key: PRNGKey) -> PRNGKey:
    """Returns a key for `jax.random.poisson`, which needs one of Threefry.

    Args:
      key: PRNG key of any kind.

    Returns:
      The key, or one of Threefry that follows from it.
    """
    if str(jax.random.key_impl(key)) == "threefry2x32":
        return key
    seed = jax.random.bits(key, (2,), jnp.uint32)
    return jax.random.wrap_key_data(seed, impl="threefry2x32")


def expose(
    key: PRNGKey, photons: Float[AnyArray, "*shape"]
) -> Float[jax.Array, "*shape"]:
    """Adds shot noise and read noise to expected numbers of photo-electrons.

    The Poisson distribution is replaced by the normal one of the same mean and
    variance, which costs a tenth and differs little from ten electrons on.

    Args:
      key: PRNG key.
      photons: Expected numbers, float32 `[...]`.

    Returns:
      float32 `[...]`.
    """
    photons = jnp.asarray(photons)
    deviation = jnp.sqrt(photons + _READ_NOISE**2)
    return photons + deviation * jax.random.normal(key, photons.shape, photons.dtype)


def fluoresce(
    key: jax.Array,
    emission: jax.Array,
    debris: jax.Array,
    *,
    uneven: jax.Array,
    beyond: jax.Array,
    gain: jax.Array,
) -> jax.Array:
    """What a fluorescence microscope makes of light from one plane.

    Args:
      key: typed PRNG key of the noise.
      emission: `[H, W]`, about 1 where there is dye.
      debris: `[n, 5]` uniform numbers: up to `n` bright spots that are not labelled.
      uneven: `[H, W]`, the background.
      beyond: strength of a second layer, out of focus.
      gain: photo-electrons per unit of light.

    Returns:
      Photo-electrons `[H, W]`, with noise.
    """
    peak = jnp.where(debris[:, 4] < 0.65, 0.4 + 1.7 * debris[:, 3], 0.0)
    size = 0.8 + 1.1 * debris[:, 2] ** 2
    spots = glows(debris[:, :2], size, peak, *emission.shape)
    # The second layer is this one turned upside down: as real, and free.
    haze = beyond * blur(emission[::-1, ::-1], _DEFOCUSED)
    haze += 0.33 * blur(emission, _SCATTERED)
    light = blur(emission + spots, _FOCUSED) + uneven + haze
    return expose(key, gain * light)
