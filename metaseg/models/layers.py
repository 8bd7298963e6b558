"""Convolution, up-sampling, pooling and normalisation primitives of the networks.

Pure functions of arrays, channels last. May import `typing`. Each is a textbook
operation in a form that XLA's CPU backend compiles to fast code. The comments give what
a form gains, where it was measured alone: the wall time of one training step of the
width-8 U-Net (128 x 128, batch 8) on two busy AVX2 cores, best of interleaved rounds.
`benchmarks/training.py` measures all of them together.
"""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Float, Float32

from metaseg.typing import AnyArray

__all__ = [
    "COMPILER_OPTIONS",
    "batch_norm_relu",
    "conv3x3",
    "max_pool2x2",
    "upsample2x2",
]

# For `jax.jit(step, compiler_options=...)` of a program for one CPU device. By default
# XLA's CPU backend leaves convolutions to YNNPACK, which runs them in one thread. XLA's
# own convolutions use all threads: a step takes 221 instead of 283 ms, at equal CPU
# time. With a device for each core YNNPACK is the faster one.
COMPILER_OPTIONS = {"xla_cpu_experimental_ynn_fusion_type": ""}

_NHWC = ("NHWC", "HWIO", "NHWC")


@jax.custom_vjp
def conv3x3(
    x: Float[AnyArray, "N H W C"], kernel: Float[AnyArray, "3 3 C D"]
) -> Float[jax.Array, "N H W D"]:
    """Correlates `x` with a 3x3 kernel, stride 1, zero padding.

    Equals `jax.lax.conv_general_dilated(x, kernel, (1, 1), "SAME")` in NHWC/HWIO.

    Args:
      x: Float `[N, H, W, C]`.
      kernel: `[3, 3, C, D]` of the dtype of `x`.

    Returns:
      `[N, H, W, D]` of the dtype of `x`.
    """
    # Which form is compiled depends on the platform that the program is lowered for,
    # not on the machine that traces it.
    x, kernel = jnp.asarray(x), jnp.asarray(kernel)
    return jax.lax.platform_dependent(
        x, kernel, cpu=_conv3x3_on_cpu, default=_conv3x3_directly
    )


def _conv3x3_on_cpu(x: jax.Array, kernel: jax.Array) -> jax.Array:
    # Times of 128 x 128 pixels, batch 8, on two devices of one core each. One channel,
    # 8 outputs: 0.3 ms as a sum, 3.6 directly; 8 channels, 8 outputs: 2.3 ms in pairs,
    # 4.0 directly.
    *_, c, d = kernel.shape
    if c <= 2:
        return _conv3x3_as_sum(x, kernel)
    if min(c, d) <= 8 and x.shape[2] % 2 == 0:
        return _conv3x3_in_pairs(x, kernel)
    return _conv3x3_directly(x, kernel)


def _kernel_gradient(x: jax.Array, g: jax.Array) -> jax.Array:
    return jax.lax.platform_dependent(
        x, g, cpu=_kernel_gradient_on_cpu, default=_kernel_gradient_directly
    )


def _kernel_gradient_on_cpu(x: jax.Array, g: jax.Array) -> jax.Array:
    # 16 channels, 16 outputs, 64 x 64 pixels: 2.4 ms in pairs, 4.0 directly.
    c, d = x.shape[-1], g.shape[-1]
    in_pairs = min(c, d) <= 16 and x.shape[2] % 2 == 0
    conv = _conv3x3_in_pairs if in_pairs else _conv3x3_directly
    return _kernel_gradient_of(conv, x, g)


def _kernel_gradient_directly(x: jax.Array, g: jax.Array) -> jax.Array:
    return _kernel_gradient_of(_conv3x3_directly, x, g)


def _kernel_gradient_of(
    conv: Callable[..., jax.Array], x: jax.Array, g: jax.Array
) -> jax.Array:
    kernel = jax.ShapeDtypeStruct((3, 3, x.shape[-1], g.shape[-1]), x.dtype)
    (gradient,) = jax.linear_transpose(partial(conv, x), kernel)(g)
    return gradient


def _conv3x3_forward(
    x: jax.Array, kernel: jax.Array
) -> tuple[jax.Array, tuple[jax.Array, ...]]:
    return conv3x3(x, kernel), (jnp.asarray(x), jnp.asarray(kernel))


def _conv3x3_backward(
    residuals: tuple[jax.Array, ...], g: jax.Array
) -> tuple[jax.Array, jax.Array]:
    x, kernel = residuals
    # The gradient of `x` is a convolution too, with the kernel turned by 180 degrees.
    turned = kernel[::-1, ::-1].swapaxes(2, 3)
    return conv3x3(g, turned), _kernel_gradient(x, g)


conv3x3.defvjp(_conv3x3_forward, _conv3x3_backward)


def _conv3x3_directly(x: jax.Array, kernel: jax.Array) -> jax.Array:
    return jax.lax.conv_general_dilated(
        x, kernel, (1, 1), "SAME", dimension_numbers=_NHWC
    )


def _conv3x3_as_sum(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """Computes `conv3x3` of one or two channels as one fused sum of products."""
    _, h, w, c = x.shape
    padded = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0))).astype(jnp.float32)
    total = sum(
        padded[:, i : i + h, j : j + w, k, None] * kernel[i, j, k].astype(jnp.float32)
        for i in range(3)
        for j in range(3)
        for k in range(c)
    )
    return jnp.asarray(total, x.dtype)


def _conv3x3_in_pairs(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """Computes `conv3x3` two columns at a time, as channels of one wider pixel.

    Output columns 2j and 2j + 1 read input columns 2j - 1 .. 2j + 2. In `x` padded by
    one column and viewed as pairs of columns that is a 3x2 window of 2 C channels, with
    2 D outputs, at 4/3 of the products.
    """
    n, h, w, c = x.shape
    d = kernel.shape[-1]
    pairs = jnp.pad(x, ((0, 0), (0, 0), (1, 1), (0, 0))).reshape(n, h, w // 2 + 1, -1)
    left = jnp.pad(kernel, ((0, 0), (0, 1), (0, 0), (0, 0)))
    right = jnp.pad(kernel, ((0, 0), (1, 0), (0, 0), (0, 0)))
    wide = jnp.stack([left, right], -2).reshape(3, 2, 2 * c, 2 * d)
    rows_only = ((1, 1), (0, 0))
    y = jax.lax.conv_general_dilated(
        pairs, wide, (1, 1), rows_only, dimension_numbers=_NHWC
    )
    return y.reshape(n, h, w, d)


def upsample2x2(
    x: Float[AnyArray, "N H W C"], kernel: Float[AnyArray, "2 2 C D"]
) -> Float[jax.Array, "N 2*H 2*W D"]:
    """Doubles both sides by a 2x2 transposed convolution of stride 2.

    Windows of size and stride 2 do not overlap, so the operation is one matrix product
    per pixel and a pixel shuffle: output pixel `(2i + a, 2j + b)` is
    `x[i, j] @ kernel[a, b]`, as in `torch.nn.ConvTranspose2d`. Equals
    `jax.lax.conv_transpose(x, kernel[::-1, ::-1], (2, 2), "VALID")` in NHWC/HWIO.

    Args:
      x: Float `[N, H, W, C]`.
      kernel: `[2, 2, C, D]` of the dtype of `x`.

    Returns:
      `[N, 2 H, 2 W, D]` of the dtype of `x`.
    """
    n, h, w, _ = x.shape
    blocks = jnp.einsum("nhwc,abcd->nhawbd", x, kernel)
    return blocks.reshape(n, 2 * h, 2 * w, kernel.shape[-1])


@jax.custom_vjp
def max_pool2x2(
    x: Float[AnyArray, "N H W C"],
) -> Float[jax.Array, "N H//2 W//2 C"]:
    """Halves both sides by the maximum over 2x2 windows of stride 2.

    Equals `flax.linen.max_pool(x, (2, 2), (2, 2))`, gradient included: of several
    pixels of a window that attain the maximum, the first one gets the whole gradient.

    Args:
      x: Float `[N, H, W, C]`, H and W even.

    Returns:
      `[N, H / 2, W / 2, C]` of the dtype of `x`.
    """
    n, h, w, c = x.shape
    return jnp.asarray(x).reshape(n, h // 2, 2, w // 2, 2, c).max((2, 4))


def _max_pool2x2_forward(x: jax.Array) -> tuple[jax.Array, tuple[jax.Array, ...]]:
    y = max_pool2x2(x)
    return y, (x, y)


def _max_pool2x2_backward(
    residuals: tuple[jax.Array, ...], g: jax.Array
) -> tuple[jax.Array]:
    # JAX's gradient of the maximum compares, counts ties and divides in three passes: a
    # step takes 298 instead of 283 ms.
    x, y = residuals
    taken = jnp.zeros(y.shape, bool)
    rows = []
    for a in range(2):
        columns = []
        for b in range(2):
            hit = (x[:, a::2, b::2] == y) & ~taken
            taken |= hit
            columns.append(jnp.where(hit, g, 0))
        rows.append(jnp.stack(columns, 3))
    return (jnp.stack(rows, 2).reshape(x.shape),)


max_pool2x2.defvjp(_max_pool2x2_forward, _max_pool2x2_backward)


@partial(jax.custom_vjp, nondiff_argnums=(3, 4))
def batch_norm_relu(
    x: Float[AnyArray, "*batch C"],
    scale: Float[AnyArray, "C"],
    bias: Float[AnyArray, "C"],
    epsilon: float = 1e-5,
    axis_name: str | None = None,
) -> tuple[
    Float[jax.Array, "*batch C"], Float32[jax.Array, "C"], Float32[jax.Array, "C"]
]:
    """Normalises every channel over the batch, scales, shifts and rectifies.

    `y = max(0, scale * (x - mean) / sqrt(var + epsilon) + bias)` with mean and
    (biased) variance over all axes but the last (Ioffe and Szegedy 2015). Only `y` has
    a gradient; mean and variance are for the running averages.

    Args:
      x: Float `[..., C]`.
      scale: float32 `[C]`.
      bias: float32 `[C]`.
      epsilon: Constant that is added to the variance.
      axis_name: Name of the mapped axis (of `jax.pmap` or `jax.shard_map`) along which
        the batch continues on other devices, if any. The gradients of `scale` and
        `bias` are then this device's share of a sum over the axis.

    Returns:
      `(y, mean, variance)`: `y` has the shape and dtype of `x`; mean and variance are
      float32 `[C]`.
    """
    y, mean, var, _ = _normalise(x, scale, bias, epsilon, axis_name)
    return y, mean, var


def _normalise(
    x: AnyArray,
    scale: AnyArray,
    bias: AnyArray,
    epsilon: float,
    axis_name: str | None,
) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array]:
    axes = tuple(range(x.ndim - 1))
    wide = jnp.asarray(x, jnp.float32)
    mean, square = wide.mean(axes), (wide * wide).mean(axes)
    if axis_name is not None:
        mean, square = jax.lax.pmean((mean, square), axis_name)
    var = jnp.maximum(0.0, square - mean * mean)
    inverse = jax.lax.rsqrt(var + epsilon)
    gain = scale * inverse
    y = jnp.maximum(wide * gain + (bias - mean * gain), 0.0)
    return y.astype(x.dtype), mean, var, inverse


def _batch_norm_relu_forward(
    x: jax.Array,
    scale: jax.Array,
    bias: jax.Array,
    epsilon: float,
    axis_name: str | None,
) -> tuple[tuple[jax.Array, jax.Array, jax.Array], tuple[jax.Array, ...]]:
    y, mean, var, inverse = _normalise(x, scale, bias, epsilon, axis_name)
    return (y, mean, var), (x, y, scale, mean, inverse)


def _batch_norm_relu_backward(
    epsilon: float,
    axis_name: str | None,
    residuals: tuple[jax.Array, ...],
    cotangents: tuple[jax.Array, ...],
) -> tuple[jax.Array, jax.Array, jax.Array]:
    # Written out, dx is one pass `p g + q x + r` with numbers per channel; the gradient
    # that JAX derives from the forward pass takes several. Not measured alone.
    del epsilon
    x, y, scale, mean, inverse = residuals
    axes = tuple(range(x.ndim - 1))
    wide = x.astype(jnp.float32)
    g = jnp.where(y > 0, cotangents[0].astype(jnp.float32), 0.0)
    d_bias = g.sum(axes)
    d_scale = ((g * wide).sum(axes) - mean * d_bias) * inverse
    count = x.size // x.shape[-1]
    all_scale, all_bias = d_scale, d_bias
    if axis_name is not None:
        all_scale, all_bias = jax.lax.psum((d_scale, d_bias), axis_name)
        count *= jax.lax.axis_size(axis_name)
    p = scale * inverse
    q = -p * inverse * all_scale / count
    r = -p * all_bias / count - q * mean
    return (p * g + q * wide + r).astype(x.dtype), d_scale, d_bias


batch_norm_relu.defvjp(_batch_norm_relu_forward, _batch_norm_relu_backward)
