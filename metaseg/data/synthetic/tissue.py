"""Images like stained sections of tissue: three kinds of regions and thin membranes.

Regions are where one of three smooth fields is the largest, membranes run along their
borders. What tells regions apart is texture: wavy fibres, large nuclei in pale cells,
small crowded nuclei; the strength of the stains differs more between images than their
mean does between regions. May import jax, `typing` and `optics`.
"""

import itertools
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, UInt8

from metaseg.data.synthetic import optics
from metaseg.typing import PRNGKey

_REGION, _SCALE = 24.0, 12.0  # pixels over which smooth fields change
_PSF_SIGMA = 0.7  # pixels
# Optical density in red, green and blue of haematoxylin and of eosin.
_STAINS = ((0.72, 0.68, 0.30), (0.13, 0.80, 0.28))
_WAVELENGTHS = (11.0, 6.5, 4.2)  # of fibres, pixels
_MEMBRANE = 3  # after the three kinds of regions


class _Nuclei(NamedTuple):
    """How one kind of region is strewn with nuclei."""

    pitch: int  # pixels between two
    radius: float  # of the circle of the same area
    stretch: float  # length over breadth
    share: float  # of the places that hold one

    def grid(self, height: int, width: int) -> tuple[int, int]:
        """Places in rows and columns, one beyond the image on every side."""
        return math.ceil(height / self.pitch) + 2, math.ceil(width / self.pitch) + 2


_KINDS = (
    _Nuclei(pitch=14, radius=2.0, stretch=2.5, share=0.6),  # stroma
    _Nuclei(pitch=11, radius=3.8, stretch=1.3, share=0.93),  # epithelium
    _Nuclei(pitch=7, radius=2.7, stretch=1.1, share=0.92),  # lymphoid
)


def _strew(
    kind: _Nuclei, uniform: jax.Array, angle: jax.Array, height: int, width: int
) -> tuple[jax.Array, jax.Array]:
    """Scatters ellipses, one around every node of a square grid.

    A pixel's nearest ellipse is around a node of its own square or of the eight next
    to it, so nothing is gathered and the work does not grow with their number.

    Args:
      kind: how many, how large.
      uniform: `[*kind.grid(height, width), 5]`.
      angle: of the long axis; a number, or one per node.
      height: rows of the result.
      width: columns of the result.

    Returns:
      The normalised radius `[H, W]` in the nearest ellipse, less than 1 inside, and
      that ellipse's tone, 0 to 1.
    """
    rows, cols = (n - 2 for n in kind.grid(height, width))
    pixel = jnp.arange(kind.pitch, dtype=jnp.float32) + 0.5
    jitter = kind.pitch * (0.5 + 0.55 * (jnp.moveaxis(uniform[..., :2], -1, 0) - 0.5))
    radius = kind.radius * (0.85 + 0.3 * uniform[..., 2])
    size = jnp.where(uniform[..., 3] < kind.share, radius, 1e-3)
    turn = jnp.cos(angle), jnp.sin(angle)
    nodes = jnp.stack(
        jnp.broadcast_arrays(*jitter, *turn, kind.stretch / size**2, uniform[..., 4])
    )
    nearest = jnp.full((rows, kind.pitch, cols, kind.pitch), jnp.inf, jnp.float32)
    nearest_tone = jnp.zeros_like(nearest)
    for i, j in itertools.product(range(3), repeat=2):
        around = nodes[:, i : i + rows, None, j : j + cols, None]
        down, across, cos, sin, inverse, tone = around
        y = pixel[:, None, None] - down - kind.pitch * (i - 1)
        x = pixel - across - kind.pitch * (j - 1)
        along, beside = cos * x + sin * y, cos * y - sin * x
        level = inverse * ((along / kind.stretch) ** 2 + beside**2)
        nearest_tone = jnp.where(level < nearest, tone, nearest_tone)
        nearest = jnp.minimum(nearest, level)
    shape = rows * kind.pitch, cols * kind.pitch
    level, tone = (x.reshape(shape) for x in (jnp.sqrt(nearest), nearest_tone))
    return level[:height, :width], tone[:height, :width]


def _membranes(regions: jax.Array, reach: jax.Array) -> jax.Array:
    """Pixels `[H, W]` closer to another region than the square root of `reach`."""
    height, width = regions.shape
    padded = jnp.pad(regions, 2, mode="edge")
    squared = jnp.full(regions.shape, 99, jnp.int32)
    for i, j in itertools.product(range(5), repeat=2):
        other = padded[i : i + height, j : j + width] != regions
        distance = (i - 2) ** 2 + (j - 2) ** 2
        squared = jnp.where(other, jnp.minimum(squared, distance), squared)
    return squared <= reach


def _fibres(position: jax.Array, angle: jax.Array, phase: jax.Array) -> jax.Array:
    """Wavy bundles `[H, W]`, 0 to 1, along `angle`, one wave per wavelength."""
    across = jnp.cos(angle) * position[0] - jnp.sin(angle) * position[1]
    along = jnp.sin(angle) * position[0] + jnp.cos(angle) * position[1]
    waves = [
        jnp.sin(2 * jnp.pi * ((across + 0.12 * along * (k - 1)) / length + phase[k]))
        for k, length in enumerate(_WAVELENGTHS)
    ]
    return 0.5 + 0.5 * jnp.mean(jnp.stack(waves), axis=0)


def tissue(
    key: PRNGKey, *, height: int = 128, width: int = 128
) -> tuple[Float[jax.Array, "H W C"], UInt8[jax.Array, "H W"]]:
    """Renders an image like a stained section of tissue and its exact label map.

    Args:
      key: PRNG key; the same key gives the same image.
      height: Rows H of the image, static.
      width: Columns W of the image, static.

    Returns:
      `(image, label)`: float32 `[H, W, 3]` light in red, green and blue, not
      normalised, and uint8 `[H, W]`: 0 stroma, 1 epithelium, 2 lymphoid, 3 membrane.
    """
    k_uniform, k_normal, k_noise = jax.random.split(key, 3)
    grids = [kind.grid(height, width) for kind in _KINDS]
    counts = [math.prod(grid) for grid in grids]
    uniform = jax.random.uniform(k_uniform, (sum(counts) + 2, 5), jnp.float32)
    *u_kinds, u_image = jnp.split(uniform, np.cumsum(counts))
    u_image = u_image.reshape(10)
    fine_shape = 2, max(1, height * 2 // 5), max(1, width * 2 // 5)
    waves = 10 * optics.WAVES * 3
    normal = jax.random.normal(k_normal, (waves + math.prod(fine_shape),), jnp.float32)
    z_waves = normal[:waves].reshape(10, optics.WAVES, 3)
    areas = optics.waves(z_waves[:3], _REGION, height, width)
    broad = optics.waves(z_waves[3:], _SCALE, height, width)
    fine = optics.smooth_field(normal[waves:].reshape(fine_shape), height, width)

    # Broad fields roughen the outlines.
    regions = jnp.argmax(areas + 0.15 * broad[:3], axis=0)
    membrane = _membranes(regions, jnp.maximum(2.6 + 1.4 * broad[3], 1.0))
    label = jnp.where(membrane, _MEMBRANE, regions)

    angle = 2 * jnp.pi * u_image[0]
    position = optics.pixels(height, width) + 6.0 * broad[4:6]
    fibres = _fibres(position, angle, u_image[1:4]) + 0.12 * fine[0]
    angles = [angle + 0.6 * (u_kinds[0][:, 4] - 0.5)] + [
        2 * jnp.pi * u[:, 4] for u in u_kinds[1:]
    ]
    spread = [
        _strew(kind, u.reshape(*g, 5), a.reshape(g), height, width)
        for kind, u, a, g in zip(_KINDS, u_kinds, angles, grids, strict=True)
    ]
    stains = _stain(label, fibres, spread, fine)
    # Thickness of the section and strength of the stains.
    strength = jnp.exp(0.9 * (u_image[4:6] - 0.5))[:, None, None]
    stains = stains * strength * (1 + 0.15 * broad[6])
    density = jnp.einsum("shw,sc->chw", stains, jnp.array(_STAINS, jnp.float32))
    tint = jnp.exp(0.1 * (u_image[6:9] - 0.5))[:, None, None]
    light = jax.vmap(lambda x: optics.blur(x, _PSF_SIGMA))(tint * jnp.exp(-density))
    image = optics.expose(k_noise, 900.0 * light)
    return jnp.moveaxis(image, 0, -1), label.astype(jnp.uint8)


def _stain(
    label: jax.Array,
    fibres: jax.Array,
    spread: list[tuple[jax.Array, jax.Array]],
    fine: jax.Array,
) -> jax.Array:
    """How much haematoxylin and eosin `[2, H, W]` every pixel takes up."""
    (spindle, _), (large, tone), (small, shade) = spread
    speckle = 1 + 0.2 * fine[1]
    # Chromatin gathers at the rim of a large nucleus.
    nucleus = (0.55 + 0.5 * tone) * (0.7 + 0.5 * large**3) * speckle
    haematoxylin = jax.lax.select_n(
        label,
        jnp.where(spindle < 1, 1.0, 0.10 + 0.12 * fibres),
        jnp.where(large < 1, nucleus, 0.16),
        jnp.where(small < 1, (0.75 + 0.5 * shade) * speckle, 0.2),
        0.2 + 0.1 * fibres,
    )
    eosin = jax.lax.select_n(
        label,
        jnp.where(spindle < 1, 0.3, 0.05 + 0.75 * fibres),
        jnp.where(large < 1, 0.2, 0.32 + 0.12 * fine[0]),
        jnp.where(small < 1, 0.2, 0.3 + 0.12 * fine[0]),
        0.85 + 0.2 * fine[0],
    )
    return jnp.maximum(jnp.stack([haematoxylin, eosin]), 0.0)
