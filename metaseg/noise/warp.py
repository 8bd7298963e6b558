"""Labels that lie beside their image: translated, rotated, bent.

Every function is `(key, labels, *, ...) -> labels` on integer maps `[..., H, W]`, keeps
shape and dtype, and leaves void where it is: each pixel reads the label at another
place, and takes `fill` where that is void or outside the image. One draw per map.
Places are computed in integers, so the same key gives the same bits on every device. An
invalid parameter raises an `InputError`, which is a ValueError, that names it.
"""

import jax
import jax.numpy as jnp
import numpy as np

from metaseg.labels import is_void
from metaseg.noise import draw
from metaseg.noise.parameters import checked

__all__ = ["affine", "elastic", "translate"]

_LEVELS = 1024  # values that an angle, scale or shear takes, evenly spaced
_UNITS = 12  # bits after the point of matrix entries
_BASIS_UNITS = 7  # bits after the point of waves and of their random coefficients
_FIELD_BITS = 10  # bits dropped from a field: 128 x 64 x 128 x modes is much


@checked
def translate(
    key: jax.Array, labels: jax.Array, *, shift: int, fill: int = 0
) -> jax.Array:
    """Move the whole map by whole pixels, uniformly in [-shift, shift] a side.

    Args:
      key: PRNG key.
      labels: class ids, integer `[..., H, W]`.
      shift: pixels, a static integer >= 0.
      fill: what is taken from outside the image and from void: a class id, or `VOID`.

    Returns:
      Label maps of the shape and dtype of `labels`.
    """
    height, width = labels.shape[-2:]
    words = draw.words(key, (*labels.shape[:-2], 1, 2))
    down, right = jnp.moveaxis(draw.integers(words, 2 * shift + 1) - shift, -1, 0)
    rows = jnp.arange(height)[:, None] - down[..., None]
    cols = jnp.arange(width) - right[..., None]
    return _read(labels, rows, cols, fill)


@checked
def affine(
    key: jax.Array,
    labels: jax.Array,
    *,
    angle: float = 0.0,
    scale: float = 0.0,
    shear: float = 0.0,
    shift: int = 0,
    fill: int = 0,
) -> jax.Array:
    """Rotate, scale, shear and move the whole map about its centre.

    A pixel at x reads the nearest label to `z R S (x - centre) + centre + t`: R turns
    by an angle, S shears along columns, z scales. All are drawn uniformly.

    Args:
      key: PRNG key.
      labels: class ids, integer `[..., H, W]`, sides of at most 8192.
      angle: R turns by [-angle, angle] degrees; static, as all that follow.
      scale: z lies in [1 - scale, 1 + scale]; at most 0.9.
      shear: S moves along columns by the tangent of [-shear, shear] degrees, at most
        60, times the height above the centre.
      shift: t lies in [-shift, shift] pixels a side, whole pixels.
      fill: what is taken from outside the image and from void: a class id, or `VOID`.

    Returns:
      Label maps of the shape and dtype of `labels`.
    """
    height, width = labels.shape[-2:]
    words = draw.words(key, (*labels.shape[:-2], 1, 5))
    drawn = jnp.moveaxis(words, -1, 0)[..., None]
    level = draw.integers(drawn[:3], _LEVELS)
    moves = draw.integers(drawn[3:], 2 * shift + 1) - shift

    steps = np.linspace(-1, 1, _LEVELS)
    turn = np.deg2rad(angle * steps)
    cos, sin, slope, zoom = (
        jnp.asarray(np.round(values * (1 << _UNITS)), jnp.int32)
        for values in (
            np.cos(turn),
            np.sin(turn),
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
    key: jax.Array,
    labels: jax.Array,
    *,
    amplitude: float,
    wavelength: float = 32.0,
    fill: int = 0,
) -> jax.Array:
    """Bend the map by a smooth random field of displacements.

    Each component is a sum of all waves no shorter than `wavelength`, of a period twice
    the longer side, with independent coefficients: stationary and nearly normal.

    Args:
      key: PRNG key.
      labels: class ids, integer `[..., H, W]`.
      amplitude: root mean square of the displacement a side, in pixels; static.
      wavelength: shortest wave in pixels, static, at least 2.
      fill: what is taken from outside the image and from void: a class id, or `VOID`.

    Returns:
      Label maps of the shape and dtype of `labels`.
    """
    height, width = labels.shape[-2:]
    period = 2 * max(height, width)
    waves = max(1, int(period / wavelength))
    number = np.arange(waves + 1)
    long_enough = np.hypot(*np.meshgrid(number, number)) * wavelength <= period
    long_enough[:2, 0] = long_enough[0, 1] = True, True  # the longest waves always
    long_enough[0, 0] = False  # a move of the whole map is not a bend
    mask = np.tile(long_enough, (2, 2))  # cosines, then sines

    words = draw.words(key, (2, *labels.shape[:-2], *mask.shape))
    spread = 1 << _BASIS_UNITS - 1
    weights = (draw.integers(words, 2 * spread + 1) - spread) * mask

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
    """`sum over i, j of weights[i, j] wave_i(y) wave_j(x)`, int32 `[..., H, W]`.

    Partial sums are whole numbers below 2^24 (beyond lies more than 15 standard
    deviations away), which float32 holds exactly: matrix products give the same bits in
    any order of summation.
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


def _read(labels: jax.Array, rows: jax.Array, cols: jax.Array, fill: int) -> jax.Array:
    """Each pixel's label from `rows` and `cols`, int32 broadcast to `[..., H, W]`."""
    height, width = labels.shape[-2:]
    inside = (rows >= 0) & (rows < height) & (cols >= 0) & (cols < width)
    place = jnp.clip(rows, 0, height - 1) * width + jnp.clip(cols, 0, width - 1)
    flat = (*labels.shape[:-2], height * width)
    place = jnp.broadcast_to(place, labels.shape).reshape(flat)
    read = jnp.take_along_axis(labels.reshape(flat), place, axis=-1)
    read = read.reshape(labels.shape)
    read = jnp.where(inside & ~is_void(read), read, jnp.asarray(fill, labels.dtype))
    return jnp.where(is_void(labels), labels, read)
