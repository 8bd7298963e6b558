"""Fluorescence-like micrographs of cells.

They imitate what makes real ones hard for a threshold: cells of very different
brightness on an uneven background, haze that is out of focus, bright debris that is not
a cell, blur, photon and read noise. May import jax, `typing` and `optics`.
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, UInt8

from metaseg.data.synthetic import optics
from metaseg.typing import PRNGKey

# Upper bounds on what one image holds, per 128 x 128 pixels.
_CELLS, _DEBRIS, _HAZE = 14, 14, 3
_READ_NOISE = 2.0  # electrons, standard deviation
_PSF_SIGMA = 1.1  # pixels


class _Blobs(NamedTuple):
    """Star-shaped blobs: radius as a function of angle by four harmonics."""

    centre: jax.Array  # [n, 2]
    radius: jax.Array  # [n]
    stretch: jax.Array  # [n] elongation, >= 1
    angle: jax.Array  # [n]
    harmonics: jax.Array  # [n, 4, 2] relative amplitudes of cosine and sine
    present: jax.Array  # [n] bool


def _draw_cells(
    uniform: jax.Array, normal: jax.Array, count: jax.Array, height: int, width: int
) -> _Blobs:
    """Places cells from `[n, 6]` uniform and `[n, 9]` normal numbers."""
    radius = 9.5 * jnp.exp(0.3 * normal[:, 0])
    free = uniform[:, :2] * jnp.array([height, width])
    # Every third cell or so is put where it touches the one drawn before it.
    towards = 2 * jnp.pi * uniform[:, 2]
    apart = 0.95 * (radius + jnp.roll(radius, 1))
    beside = jnp.roll(free, 1, axis=0) + apart[:, None] * jnp.stack(
        [jnp.sin(towards), jnp.cos(towards)], axis=-1
    )
    decay = 1 / jnp.arange(2, 6, dtype=jnp.float32)
    return _Blobs(
        centre=jnp.where(uniform[:, 3, None] < 0.35, beside, free),
        radius=radius,
        stretch=1 + 0.7 * uniform[:, 4] ** 2,
        angle=jnp.pi * uniform[:, 5],
        harmonics=0.15 * decay[:, None] * normal[:, 1:].reshape(-1, 4, 2),
        present=jnp.arange(len(radius)) < count,
    )


def _level(blobs: _Blobs, height: int, width: int) -> jax.Array:
    """Normalised radius `[n, H, W]` of every pixel in every blob; inside is < 1."""
    radius, stretch, angle = (x[:, None, None] for x in blobs[1:4])
    rows = jnp.arange(height)[:, None] - blobs.centre[:, 0, None, None]
    cols = jnp.arange(width)[None, :] - blobs.centre[:, 1, None, None]
    along = (jnp.cos(angle) * cols + jnp.sin(angle) * rows) / stretch
    across = jnp.cos(angle) * rows - jnp.sin(angle) * cols
    distance = jnp.sqrt(along**2 + across**2)
    # cos(k t), sin(k t) by the angle-sum recurrence: no trigonometry per pixel.
    cos1, sin1 = (
        along / jnp.maximum(distance, 1e-6),
        across / jnp.maximum(distance, 1e-6),
    )
    cos_k, sin_k, outline = cos1, sin1, jnp.ones_like(distance)
    for k in range(blobs.harmonics.shape[1]):
        cos_k, sin_k = cos_k * cos1 - sin_k * sin1, sin_k * cos1 + cos_k * sin1
        outline += blobs.harmonics[:, k, 0, None, None] * cos_k
        outline += blobs.harmonics[:, k, 1, None, None] * sin_k
    level = distance / (radius * jnp.maximum(outline, 0.3))
    return jnp.where(blobs.present[:, None, None], level, jnp.inf)


def cells(
    key: PRNGKey, *, height: int = 128, width: int = 128
) -> tuple[Float[jax.Array, "H W C"], UInt8[jax.Array, "H W"]]:
    """Renders a fluorescence-like image of cells and its exact mask.

    Args:
      key: PRNG key; the same key gives the same image.
      height: Rows H of the image, static.
      width: Columns W of the image, static.

    Returns:
      `(image, label)`: float32 `[H, W, 1]` photo-electrons, not normalised, and uint8
      `[H, W]`, 1 inside a cell and 0 elsewhere.
    """
    n, n_debris, n_haze = (
        max(1, round(per_area * height * width / 128**2))
        for per_area in (_CELLS, _DEBRIS, _HAZE)
    )
    # Few draws of many numbers: each draw of its own would cost a quarter of a second
    # of compilation.
    k_uniform, k_normal, k_shot, k_read = jax.random.split(key, 4)
    uniform = jax.random.uniform(k_uniform, (n + n_debris + n_haze + 1, 6), jnp.float32)
    u_cells, u_debris, u_haze, u_image = jnp.split(
        uniform, np.cumsum([n, n_debris, n_haze])
    )
    grid_shape, field_shape = (max(1, height // 4), max(1, width // 4)), (4, 4)
    normal = jax.random.normal(
        k_normal,
        (10 * n + math.prod(grid_shape) + math.prod(field_shape),),
        jnp.float32,
    )
    z_cells, z_texture, z_field = jnp.split(
        normal, np.cumsum([10 * n, math.prod(grid_shape)])
    )
    z_cells = z_cells.reshape(n, 10)
    u_count, u_debris_count, u_gain = u_image[0, :3]

    count = jnp.round(n * (0.45 + 0.55 * u_count))
    blobs = _draw_cells(u_cells, z_cells[:, 1:], count, height, width)
    level = _level(blobs, height, width)
    inside = level < 1.0

    # Brightness spreads over a factor of five; a cell is brightest in its middle.
    light = jnp.exp(0.4 * z_cells[:, 0] + 0.1)
    dome = light[:, None, None] * (1.0 - 0.35 * jnp.clip(level, 0.0, 1.0) ** 2)
    emission = jnp.max(jnp.where(inside, dome, 0.0), axis=0)
    texture = optics.smooth_field(z_texture.reshape(grid_shape), height, width)
    emission = emission * jnp.maximum(1 + 0.18 * texture, 0.2)

    field = optics.smooth_field(z_field.reshape(field_shape), height, width)
    haze = optics.glows(
        u_haze[:, :2], 9 + 11 * u_haze[:, 2], 0.8 * u_haze[:, 3], height, width
    )
    drawn = jnp.arange(n_debris) < 3 + (n_debris - 2) * u_debris_count
    debris = optics.glows(
        u_debris[:, :2],
        0.8 + 1.7 * u_debris[:, 2] ** 2,
        jnp.where(drawn, 0.6 + 2.2 * u_debris[:, 3], 0.0),
        height,
        width,
    )
    uneven = 0.35 * jnp.exp(0.5 * field)
    photons = optics.blur(emission + debris, _PSF_SIGMA) + uneven + haze

    gain = jnp.exp(4.2 + 1.0 * u_gain)
    shot = jax.random.poisson(optics.threefry(k_shot), gain * photons, dtype=jnp.int32)
    read = jax.random.normal(k_read, (height, width), jnp.float32)
    image = shot.astype(jnp.float32) + _READ_NOISE * read
    return image[..., None], jnp.any(inside, axis=0).astype(jnp.uint8)
