"""Warped labels: translated, rotated or bent relative to their image.

Every function is `(key, labels, *, ...) -> labels` on integer maps `[..., H, W]`. It
keeps shape and dtype, and void stays where it is. Each other pixel takes the label of
another place, or `fill` if that place is void or outside of the image. Each map has its
own draw. Places are computed in integers, so the same key gives the same bits on every
device.

Source of `elastic`: Simard et al., "Best practices for convolutional neural networks
applied to visual document analysis", ICDAR 2003.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Integer

from metaseg.labels import is_void
from metaseg.noise import draw
from metaseg.noise.parameters import checked
from metaseg.typing import AnyArray, Labels, PRNGKey

__all__ = ["affine", "elastic", "translate"]

_LEVELS = 1024  # number of evenly spaced values of an angle, scale or shear
_UNITS = 12  # binary places of matrix entries
_BASIS_UNITS = 7  # binary places of waves and of their random coefficients
_FIELD_BITS = 10  # bits dropped from a field, so that its products fit in 32 bits


@checked
def translate(
    key: PRNGKey, labels: Labels, *, shift: int, fill: int = 0
) -> Integer[jax.Array, "*batch H W"]:
    """Moves each map by whole pixels, uniformly in [-shift, shift] along each axis.

    Args:
      key: PRNG key.
      labels: Integer class ids `[..., H, W]`; 255 is void.
      shift: Largest move in pixels, static.
      fill: Label of pixels that come from outside of the image or from void: a
        class id, or 255; static.

    Returns:
      Label maps of the shape and dtype of `labels`.

    Raises:
      InputError: If an argument is of a wrong type or out of range.
    """
    height, width = labels.shape[-2:]
    bits = draw.bits(key, (*labels.shape[:-2], 1, 2))
    down, right = jnp.moveaxis(draw.integers(bits, 2 * shift + 1) - shift, -1, 0)
    rows = jnp.arange(height)[:, None] - down[..., None]
    cols = jnp.arange(width) - right[..., None]
    return _read(labels, rows, cols, fill)


@checked
def affine(
    key: PRNGKey,
    labels: Labels,
    *,
    angle: float = 0.0,
    scale: float = 0.0,
    shear: float = 0.0,
    shift: int = 0,
    fill: int = 0,
) -> Integer[jax.Array, "*batch H W"]:
    """Rotates, scales, shears and moves each map about its centre.

    The pixel at x takes the nearest label to `z R S (x - centre) + centre + t`. R
    rotates by an angle, S shears along rows and z scales. All are drawn uniformly.

    Args:
      key: PRNG key.
      labels: Integer class ids `[..., H, W]`, sides of at most 8192 pixels; 255 is
        void.
      angle: R rotates by an angle in [-angle, angle] degrees; static, as all that
        follow.
      scale: z lies in [1 - scale, 1 + scale]; at most 0.9.
      shear: S moves a pixel along its row by the tangent of an angle in [-shear, shear]
        degrees, times its vertical distance from the centre; at most 60.
      shift: t lies in [-shift, shift] along each axis, in whole pixels.
      fill: Label of pixels that come from outside of the image or from void: a
        class id, or 255; static.

    Returns:
      Label maps of the shape and dtype of `labels`.

    Raises:
      InputError: If an argument is of a wrong type or out of range.
    """
    height, width = labels.shape[-2:]
    bits = draw.bits(key, (*labels.shape[:-2], 1, 5))
    drawn = jnp.moveaxis(bits, -1, 0)[..., None]
    level = draw.integers(drawn[:3], _LEVELS)
    moves = draw.integers(drawn[3:], 2 * shift + 1) - shift

    steps = np.linspace(-1, 1, _LEVELS)
    radians = np.deg2rad(angle * steps)
    cos, sin, slope, zoom = (
        jnp.asarray(np.round(values * (1 << _UNITS)), jnp.int32)
        for values in (
            np.cos(radians),
            np.sin(radians),
            np.tan(np.deg2rad(shear * steps)),
            1 + scale * steps,
        )
    )
    cos, sin, slope, zoom = (
        cos[level[0]],
        sin[level[0]],
        slope[level[1]],
        zoom[level[2]],
    )

    def times(a: jax.Array, b: jax.Array) -> jax.Array:
        return (a * b) >> _UNITS

    # Twice the distance from the centre, which is a whole number for every pixel.
    y = 2 * jnp.arange(height)[:, None] - (height - 1)
    x = 2 * jnp.arange(width) - (width - 1)
    from_x = (times(zoom, -sin), times(zoom, cos))
    from_y = (
        times(zoom, cos - times(sin, slope)),
        times(zoom, sin + times(cos, slope)),
    )
    rows, cols = (
        ((across * x + along * y + (size << _UNITS)) >> (_UNITS + 1)) + move
        for across, along, size, move in zip(
            from_x, from_y, (height, width), moves, strict=True
        )
    )
    return _read(labels, rows, cols, fill)


@checked
def elastic(
    key: PRNGKey,
    labels: Labels,
    *,
    amplitude: float,
    wavelength: float = 32.0,
    fill: int = 0,
) -> Integer[jax.Array, "*batch H W"]:
    """Bends each map by a smooth random field of displacements.

    Each component of the field is a sum of all waves that are not shorter than
    `wavelength` and have a period of twice the longer side. Their coefficients are
    independent, so the field is stationary and nearly normal.

    Args:
      key: PRNG key.
      labels: Integer class ids `[..., H, W]`; 255 is void.
      amplitude: Root mean square of the displacement along each axis, in pixels;
        static.
      wavelength: Shortest wave in pixels, at least 2; static.
      fill: Label of pixels that come from outside of the image or from void: a
        class id, or 255; static.

    Returns:
      Label maps of the shape and dtype of `labels`.

    Raises:
      InputError: If an argument is of a wrong type or out of range.
    """
    height, width = labels.shape[-2:]
    period = 2 * max(height, width)
    waves = max(1, int(period / wavelength))
    number = np.arange(waves + 1)
    long_enough = np.hypot(*np.meshgrid(number, number)) * wavelength <= period
    long_enough[:2, 0] = long_enough[0, 1] = True, True  # always the longest waves
    long_enough[0, 0] = False  # a move of the whole map is not a bend
    mask = np.tile(long_enough, (2, 2))  # cosines, then sines

    bits = draw.bits(key, (2, *labels.shape[:-2], *mask.shape))
    spread = 1 << _BASIS_UNITS - 1
    weights = (draw.integers(bits, 2 * spread + 1) - spread) * mask

    field = _sum_of_waves(weights, height, width, period)
    variance = (spread * (spread + 1) / 3) * long_enough.sum()
    typical = np.sqrt(variance) * 4**_BASIS_UNITS / (1 << _FIELD_BITS)
    gain = round(amplitude / typical * (1 << 20))
    moves = (field * gain + (1 << 19)) >> 20
    rows = jnp.arange(height)[:, None] + moves[0]
    cols = jnp.arange(width) + moves[1]
    return _read(labels, rows, cols, fill)


def _sum_of_waves(
    weights: jax.Array, height: int, width: int, period: int
) -> jax.Array:
    """Computes `sum over i, j of weights[i, j] wave_i(y) wave_j(x)`, `[..., H, W]`.

    Partial sums are integers. Only sums of more than 15 standard deviations would reach
    2^24, so float32 holds them exactly, and matrix products give the same bits in any
    order of summation.
    """
    waves = weights.shape[-1] // 2

    def basis(size: int) -> jax.Array:
        phase = 2 * np.pi * np.outer(np.arange(waves), np.arange(size)) / period
        both = np.concatenate([np.cos(phase), np.sin(phase)])
        return jnp.asarray(np.round(both * (1 << _BASIS_UNITS)), jnp.float32)

    def product(spec: str, a: jax.Array, b: jax.Array) -> jax.Array:
        return jnp.einsum(spec, a, b, precision="highest").astype(jnp.int32)

    along_x = product("...ij,jw->...iw", weights.astype(jnp.float32), basis(width))
    along_x >>= _BASIS_UNITS
    both = product("ih,...iw->...hw", basis(height), along_x.astype(jnp.float32))
    return both >> _FIELD_BITS - _BASIS_UNITS


def _read(labels: AnyArray, rows: jax.Array, cols: jax.Array, fill: int) -> jax.Array:
    """Takes each label from `rows` and `cols`, int32, broadcast to `[..., H, W]`."""
    height, width = labels.shape[-2:]
    inside = (rows >= 0) & (rows < height) & (cols >= 0) & (cols < width)
    place = jnp.clip(rows, 0, height - 1) * width + jnp.clip(cols, 0, width - 1)
    flat = (*labels.shape[:-2], height * width)
    place = jnp.broadcast_to(place, labels.shape).reshape(flat)
    read = jnp.take_along_axis(labels.reshape(flat), place, axis=-1)
    read = read.reshape(labels.shape)
    read = jnp.where(inside & ~is_void(read), read, jnp.asarray(fill, labels.dtype))
    return jnp.where(is_void(labels), labels, read)
