"""Fluorescence-like images of mitochondria: many separate curved tubes.

A tube is everything within a radius of an arc of a circle, on smoothly warped
coordinates. May import jax, `typing` and `optics`.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, UInt8

from metaseg.data.synthetic import optics
from metaseg.typing import PRNGKey

_TUBES, _HUBS, _DEBRIS = 72, 3, 12  # upper bounds per 128 x 128 pixels
_SCALE = 14.0  # pixels over which smooth fields change
_GAP = 1.5  # pixels left between two tubes


class _Arcs(NamedTuple):
    """Arcs of circles with a thickness and a brightness."""

    middle: jax.Array  # [n, 2] the point halfway along
    normal: jax.Array  # [n, 2] unit vector from the circle's centre to it
    bend: jax.Array  # [n] radius of the circle
    half: jax.Array  # [n] angle from the middle to an end
    radius: jax.Array  # [n] of the tube
    light: jax.Array  # [n]
    crossing: jax.Array  # [n] bool, may lie over others
    branch: jax.Array  # [n] bool, begins on the one before


def _draw_arcs(
    uniform: jax.Array, normal: jax.Array, hubs: jax.Array, height: int, width: int
) -> _Arcs:
    """Places tubes from `[n, 9]` uniform and `[n, 5]` normal numbers.

    Most gather around the `hubs` `[m, 2]` and run around them rather than towards.
    """
    hub = hubs[(uniform[:, 0] * len(hubs)).astype(jnp.int32)]
    gathered = uniform[:, 1] < 0.7
    middle = jnp.where(
        gathered[:, None],
        hub + 24.0 * normal[:, :2],
        uniform[:, 2:4] * jnp.array([height, width]),
    )
    outward = jnp.arctan2(*jnp.moveaxis(middle - hub, -1, 0))
    angle = jnp.where(
        gathered, outward + 0.8 * normal[:, 2], 2 * jnp.pi * uniform[:, 4]
    )
    length = 3.0 + 42.0 * uniform[:, 5] ** 1.6
    curvature = jnp.clip(0.045 * jnp.abs(normal[:, 3]), 0.003, 0.12)
    half = jnp.minimum(0.5 * length * curvature, 2.2)
    bend = 1 / curvature
    light = jnp.exp(0.45 * normal[:, 4])

    branch = (uniform[:, 6] < 0.3) & (jnp.arange(len(uniform)) % 2 == 1)
    turned = jnp.roll(angle, 1) + jnp.pi / 2 + 0.8 * (uniform[:, 4] - 0.5)
    angle = jnp.where(branch, turned, angle)
    sin, cos = jnp.sin(angle), jnp.cos(angle)
    along, up = bend * jnp.sin(half), bend * (jnp.cos(half) - 1)
    end = jnp.stack([up * sin + along * cos, up * cos - along * sin], axis=-1)
    middle = jnp.where(branch[:, None], jnp.roll(middle, 1, axis=0) - end, middle)
    return _Arcs(
        middle=middle,
        normal=jnp.stack([sin, cos], axis=-1),
        bend=bend,
        half=half,
        radius=2.5 + 1.3 * uniform[:, 7],
        light=jnp.where(branch, jnp.roll(light, 1), light),
        crossing=uniform[:, 8] < 0.08,
        branch=branch,
    )


def _distance(arcs: _Arcs, rows: jax.Array, cols: jax.Array) -> jax.Array:
    """Exact distance of positions to arcs, all shapes broadcast together."""
    down = rows - (arcs.middle[..., 0] - arcs.bend * arcs.normal[..., 0])
    across = cols - (arcs.middle[..., 1] - arcs.bend * arcs.normal[..., 1])
    out = down * arcs.normal[..., 0] + across * arcs.normal[..., 1]
    side = jnp.abs(down * arcs.normal[..., 1] - across * arcs.normal[..., 0])
    sin, cos = jnp.sin(arcs.half), jnp.cos(arcs.half)
    to_circle = jnp.abs(jnp.sqrt(out**2 + side**2) - arcs.bend)
    to_end = jnp.sqrt((side - arcs.bend * sin) ** 2 + (out - arcs.bend * cos) ** 2)
    return jnp.where(cos * side > sin * out, to_end, to_circle)


def _choose(arcs: _Arcs) -> jax.Array:
    """Which arcs to draw, bool `[n]`: one after another, where there is room."""
    turn = arcs.half[:, None] * jnp.linspace(-1, 1, 7, dtype=jnp.float32)
    up = (arcs.bend[:, None] * (jnp.cos(turn) - 1))[..., None]
    along = (arcs.bend[:, None] * jnp.sin(turn))[..., None]
    normal = arcs.normal[:, None]
    tangent = normal[..., ::-1] * jnp.array([1.0, -1.0], jnp.float32)
    points = arcs.middle[:, None] + up * normal + along * tangent  # [n, 7, 2]
    others = jax.tree.map(lambda x: x[None, None], arcs)
    apart = _distance(others, points[..., :1], points[..., 1:]).min(axis=1)
    near = apart < arcs.radius[:, None] + arcs.radius + _GAP

    def choose(drawn: jax.Array, item: tuple) -> tuple[jax.Array, None]:
        index, near, crossing, branch = item
        room = ~jnp.any(near & drawn) | crossing | (branch & drawn[index - 1])
        return drawn.at[index].set(room), None

    count = len(arcs.bend)
    items = jnp.arange(count, dtype=jnp.int32), near, arcs.crossing, arcs.branch
    return jax.lax.scan(choose, jnp.zeros(count, bool), items)[0]


def _paint(arcs: _Arcs, position: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Emission and mask `[H, W]` of all arcs."""
    arcs = jax.tree.map(lambda x: x[:, None, None], arcs)
    level = _distance(arcs, position[0], position[1]) / arcs.radius
    inside = level < 1.0
    # A tube of dye seen from above is brightest along its axis.
    profile = jnp.where(inside, arcs.light * (1.0 - 0.6 * level**2), 0.0)
    return jnp.max(profile, axis=0), jnp.any(inside, axis=0)


def tubes(
    key: PRNGKey, *, height: int = 128, width: int = 128
) -> tuple[Float[jax.Array, "H W C"], UInt8[jax.Array, "H W"]]:
    """Renders a fluorescence-like image of mitochondria and its exact mask.

    Args:
      key: PRNG key; the same key gives the same image.
      height: Rows H of the image, static.
      width: Columns W of the image, static.

    Returns:
      `(image, label)`: float32 `[H, W, 1]` photo-electrons, not normalised, and uint8
      `[H, W]`, 1 in a tube and 0 elsewhere.
    """
    n, n_hubs, n_debris = (
        max(1, round(per_area * height * width / 128**2))
        for per_area in (_TUBES, _HUBS, _DEBRIS)
    )
    k_uniform, k_normal, k_noise = jax.random.split(key, 3)
    uniform = jax.random.uniform(k_uniform, (n + n_hubs + n_debris + 1, 9), jnp.float32)
    u_tubes, u_hubs, u_debris, u_image = jnp.split(
        uniform, np.cumsum([n, n_hubs, n_debris])
    )
    u_gain, u_count, u_haze = u_image[0, :3]
    fine = max(1, height // 3), max(1, width // 3)
    sizes = [5 * n, fine[0] * fine[1]]
    normal = jax.random.normal(
        k_normal, (sum(sizes) + 4 * optics.WAVES * 3,), jnp.float32
    )
    z_tubes, z_texture, z_fields = jnp.split(normal, np.cumsum(sizes))
    texture = optics.smooth_field(z_texture.reshape(fine), height, width)
    z_fields = z_fields.reshape(4, optics.WAVES, 3)
    fields = optics.waves(z_fields, _SCALE, height, width)

    hubs = u_hubs[:, :2] * jnp.array([height, width])
    arcs = _draw_arcs(u_tubes, z_tubes.reshape(n, 5), hubs, height, width)
    drawn = _choose(arcs) & (jnp.arange(n) < n * (0.6 + 0.4 * u_count))
    arcs = arcs._replace(radius=jnp.where(drawn, arcs.radius, 1e-6))
    warped = optics.pixels(height, width) + 2.5 * fields[:2]
    emission, inside = _paint(arcs, warped)
    emission *= jnp.maximum(1 + 0.22 * texture, 0.3) * jnp.exp(0.3 * fields[2])

    image = optics.fluoresce(
        k_noise,
        emission,
        u_debris[:, :5],
        uneven=0.25 * jnp.exp(0.5 * fields[3]),
        beyond=0.1 + 0.35 * u_haze,
        gain=jnp.exp(3.5 + u_gain),
    )
    return image[..., None], inside.astype(jnp.uint8)
