"""Fluorescence-like images of a reticulum: a mesh of thin tubules, and sheets.

The mesh is the edges of the Voronoi diagram of jittered points, some left out, on
smoothly warped coordinates. May import jax, `typing` and `optics`.
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, UInt8

from metaseg.data.synthetic import optics
from metaseg.typing import PRNGKey

_SPACING = 19.0  # pixels between the points whose Voronoi edges are tubules
_SCALE = 16.0  # pixels over which smooth fields change
_DEBRIS, _NUCLEI = 10, 1  # upper bounds per 128 x 128 pixels
_DROPPED = 0.12  # share of the mesh's edges


class _NearestPoints(NamedTuple):
    """The three points nearest to each pixel: squared distances, indices, `[H, W]`."""

    squared: tuple[jax.Array, jax.Array, jax.Array]
    which: tuple[jax.Array, jax.Array, jax.Array]


def _nearest(points: jax.Array, position: jax.Array) -> _NearestPoints:
    """Inserts the points `[n, 2]` one by one: memory of a few images, whatever n."""

    def insert(
        best: _NearestPoints, item: tuple[jax.Array, jax.Array]
    ) -> tuple[_NearestPoints, None]:
        i, point = item
        d = (position[0] - point[0]) ** 2 + (position[1] - point[1]) ** 2
        (d1, d2, d3), (i1, i2, i3) = best
        squared = jnp.minimum(d, d1), jnp.clip(d, d1, d2), jnp.clip(d, d2, d3)
        which = (
            jnp.where(d < d1, i, i1),
            jnp.where(d < d1, i1, jnp.where(d < d2, i, i2)),
            jnp.where(d < d2, i2, jnp.where(d < d3, i, i3)),
        )
        return _NearestPoints(squared, which), None

    far = jnp.full(position.shape[1:], 1e9, jnp.float32)
    none = jnp.zeros(position.shape[1:], jnp.int32)
    start = _NearestPoints((far, 2 * far, 3 * far), (none, none, none))
    items = jnp.arange(len(points), dtype=jnp.int32), points
    return jax.lax.scan(insert, start, items, unroll=4)[0]


def _mesh(
    uniform: jax.Array, position: jax.Array, dropped: float
) -> tuple[jax.Array, jax.Array]:
    """Distance `[H, W]` to the nearest tubule's axis and its brightness, 0 to 1.

    Args:
      uniform: `[r, c, 4]`: jitter in rows and columns, and two numbers whose sums over
        a pair of points, modulo 1, say whether their edge is there and how bright.
      position: `[2, H, W]`, where each pixel is on the mesh.
      dropped: share of the edges that are left out.
    """
    rows, cols = uniform.shape[:2]
    node = jnp.stack(
        jnp.meshgrid(jnp.arange(rows), jnp.arange(cols), indexing="ij"), axis=-1
    )
    shifted = node + jnp.array([0.0, 0.5], jnp.float32) * (
        node[..., :1] % 2
    )  # rounder polygons
    points = _SPACING * (shifted - 1.25 + 0.95 * (uniform[..., :2] - 0.5))
    table = jnp.concatenate([points, uniform[..., 2:]], axis=-1).reshape(-1, 4)
    near = _nearest(table[:, :2], position)
    first, *others = (table[i] for i in near.which)
    shape = position.shape[1:]
    result = jnp.full(shape, 1e9, jnp.float32), jnp.zeros(shape, jnp.float32)
    for squared, other in zip(near.squared[1:], others, strict=True):
        apart = jnp.linalg.norm(first[..., :2] - other[..., :2], axis=-1)
        # Exact distance to the line halfway between the two points.
        distance = (squared - near.squared[0]) / (2 * jnp.maximum(apart, 1.0))
        drawn, light = jnp.moveaxis((first + other)[..., 2:] % 1.0, -1, 0)
        distance = jnp.where(drawn < dropped, 1e9, distance)
        closer = distance < result[0]
        result = (
            jnp.where(closer, distance, result[0]),
            jnp.where(closer, light, result[1]),
        )
    return result


def _nuclei(
    uniform: jax.Array, position: jax.Array, height: int, width: int
) -> jax.Array:
    """Signed distance `[H, W]`, roughly, to the nearest nucleus; negative inside."""
    centre = uniform[:, :2] * jnp.array([height, width])
    radius = jnp.where(uniform[:, 2] < 0.6, 13 + 9 * uniform[:, 3], -1e3)
    offset = position - centre[:, :, None, None]
    stretch = jnp.stack(
        [jnp.full(len(uniform), 1.15, jnp.float32), 0.85 + 0.1 * uniform[:, 4]], 1
    )
    distance = jnp.linalg.norm(offset * stretch[:, :, None, None], axis=1)
    return jnp.min(distance - radius[:, None, None], axis=0)


def network(
    key: PRNGKey, *, height: int = 128, width: int = 128
) -> tuple[Float[jax.Array, "H W C"], UInt8[jax.Array, "H W"]]:
    """Renders a fluorescence-like image of a reticulum and its exact mask.

    Args:
      key: PRNG key; the same key gives the same image.
      height: Rows H of the image, static.
      width: Columns W of the image, static.

    Returns:
      `(image, label)`: float32 `[H, W, 1]` photo-electrons, not normalised, and uint8
      `[H, W]`, 1 on a tubule, a sheet or the envelope of a nucleus and 0 elsewhere.
    """
    mesh_shape = math.ceil(height / _SPACING) + 3, math.ceil(width / _SPACING) + 3
    n_mesh = math.prod(mesh_shape)
    n_nuclei, n_debris = (
        max(1, round(per_area * height * width / 128**2))
        for per_area in (_NUCLEI, _DEBRIS)
    )
    k_uniform, k_normal, k_noise = jax.random.split(key, 3)
    uniform = jax.random.uniform(
        k_uniform, (n_mesh + n_nuclei + n_debris + 1, 5), jnp.float32
    )
    u_mesh, u_nuclei, u_debris, u_image = jnp.split(
        uniform, np.cumsum([n_mesh, n_nuclei, n_debris])
    )
    u_gain, u_extent, u_width, u_haze, u_sheet = u_image[0]
    normal = jax.random.normal(k_normal, (6, optics.WAVES, 3), jnp.float32)
    bends = optics.waves(normal[:2], _SCALE, height, width)
    fields = optics.waves(normal[2:], 1.6 * _SCALE, height, width)
    patch, glow, light_field, outline = fields

    warped = optics.pixels(height, width) + 4.0 * bends
    axis, light = _mesh(u_mesh[:, :4].reshape(*mesh_shape, 4), warped, _DROPPED)
    to_nucleus = _nuclei(u_nuclei, warped, height, width)

    # A tubule widens into a sheet where the patch field is high or a nucleus is near.
    sheet = jnp.maximum(patch - 1.35 + 0.5 * u_sheet, 0.0)
    sheet += 0.9 * jnp.exp(-jnp.maximum(to_nucleus, 0.0) / 5)
    half = 1.15 + 0.45 * u_width + 0.15 * glow + 4.5 * sheet
    tubule = axis < jnp.clip(half, 1.0, 9.0)
    envelope = jnp.abs(to_nucleus) < 1.3
    in_cell = outline > -2.6 + 1.6 * u_extent
    inside = jnp.where(to_nucleus < 1.3, envelope, tubule) & in_cell

    light = jnp.exp(1.5 * (light - 0.5) + 0.35 * light_field)
    light *= 1.0 + 0.25 * jnp.minimum(sheet, 2.0)
    emission = jnp.where(inside, light, 0.0)
    image = optics.fluoresce(
        k_noise,
        emission,
        u_debris,
        uneven=0.25 * jnp.exp(0.6 * glow),
        beyond=0.25 + 0.4 * u_haze,
        gain=jnp.exp(4.3 + u_gain),
    )
    return image[..., None], inside.astype(jnp.uint8)
