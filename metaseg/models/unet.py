"""U-Net: an encoder and a decoder with skip connections.

Ronneberger, Fischer and Brox, "U-Net: Convolutional Networks for Biomedical Image
Segmentation", MICCAI 2015, in the form with batch norm and padded convolutions. May
import `layers`, `typing` and flax.
"""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Float32

from metaseg.models import layers
from metaseg.typing import Images

__all__ = ["NORMS", "UNet"]

Initializer = Callable[..., jax.Array]


class UNet(nn.Module):
    """U-Net with two 3x3 convolutions, norm and ReLU per level.

    Call it as `model.apply(variables, images, train=..., mutable=["batch_stats"])`.
    Parameters, statistics and logits are float32 for every compute dtype.

    Attributes:
      num_classes: Number of classes K; two classes share one output channel, the logit
        of the foreground.
      width: Channels of the first level, doubled at each pooling.
      depth: Number of poolings.
      norm: "batch", "group" (of 8 channels) or "none".
      dtype: Type of activations and products.
      kernel_init: Initializer of all kernels; biases start at zero.
      axis_name: Name of the mapped axis along which the batch continues on other
        devices; batch norm computes its statistics over all of them.
    """

    num_classes: int = 2
    width: int = 64
    depth: int = 4
    norm: str = "batch"
    dtype: Any = jnp.float32
    kernel_init: Initializer = nn.initializers.he_normal()
    axis_name: str | None = None

    @property
    def stride(self) -> int:
        """Number of pixels; the call pads the sides of an image to a multiple of it."""
        return 2**self.depth

    @property
    def channels(self) -> int:
        """Number of channels of the logits: 1 for two classes, else K."""
        return 1 if self.num_classes == 2 else self.num_classes

    @nn.compact
    def __call__(
        self, images: Images, train: bool
    ) -> Float32[jax.Array, "*batch H W channels"]:
        """Maps images to logits.

        Args:
          images: Float `[..., H, W, C]` of any H and W: images are padded to a multiple
            of `stride`, and the logits are cropped.
          train: Whether batch norm uses and records the statistics of the batch.

        Returns:
          `[..., H, W, 1]` float32 for two classes, else `[..., H, W, K]`.
        """
        *batch, height, width, channels = images.shape
        x = jnp.asarray(images).reshape(-1, height, width, channels).astype(self.dtype)
        x = _extend(x, self.stride)
        skips = []
        for level in range(self.depth):
            x = self._level(x, self.width << level, f"down{level}", train)
            skips.append(x)
            x = layers.max_pool2x2(x)
        x = self._level(x, self.width << self.depth, "bottom", train)
        for level in reversed(range(self.depth)):
            features = self.width << level
            kernel, bias = self._weights(f"up{level}", (2, 2, x.shape[-1], features))
            x = layers.upsample2x2(x, kernel) + bias
            x = jnp.concatenate([skips[level], x], -1)
            x = self._level(x, features, f"up{level}", train)
        kernel, bias = self._weights("head", (x.shape[-1], self.channels))
        logits = (x @ kernel + bias)[:, :height, :width].astype(jnp.float32)
        return logits.reshape(*batch, height, width, self.channels)

    def _level(self, x: jax.Array, features: int, name: str, train: bool) -> jax.Array:
        for i in range(2):
            kernel, bias = self._weights(
                f"{name}_conv{i}", (3, 3, x.shape[-1], features)
            )
            x = layers.conv3x3(x, kernel)
            norm = NORMS[self.norm](name=f"{name}_norm{i}", axis_name=self.axis_name)
            x = norm(x, bias, train)
        return x

    def _weights(
        self, name: str, shape: tuple[int, ...]
    ) -> tuple[jax.Array, jax.Array]:
        kernel, bias = _Weights(shape, self.kernel_init, name=name)()
        return kernel.astype(self.dtype), bias.astype(self.dtype)


class _Weights(nn.Module):
    """Kernel of a convolution and the bias of its output channels."""

    shape: tuple[int, ...]
    kernel_init: Initializer

    @nn.compact
    def __call__(self) -> tuple[jax.Array, jax.Array]:
        kernel = self.param("kernel", self.kernel_init, self.shape, jnp.float32)
        zeros = nn.initializers.zeros
        return kernel, self.param("bias", zeros, self.shape[-1:], jnp.float32)


class _BatchNormRelu(nn.Module):
    """Batch norm and ReLU of `x + offset`."""

    axis_name: str | None = None
    momentum: float = 0.9
    epsilon: float = 1e-5

    @nn.compact
    def __call__(self, x: jax.Array, offset: jax.Array, train: bool) -> jax.Array:
        shape = x.shape[-1:]
        scale = self.param("scale", nn.initializers.ones, shape, jnp.float32)
        bias = self.param("bias", nn.initializers.zeros, shape, jnp.float32)
        mean = self.variable("batch_stats", "mean", jnp.zeros, shape, jnp.float32)
        var = self.variable("batch_stats", "var", jnp.ones, shape, jnp.float32)
        if not train:
            gain = scale * jax.lax.rsqrt(var.value + self.epsilon)
            shift = bias + (offset - mean.value) * gain
            return nn.relu(x * gain + shift).astype(x.dtype)
        # Subtracting the mean of the batch cancels the offset, so its gradient is zero
        # and only the running mean contains it.
        y, batch_mean, batch_var = layers.batch_norm_relu(
            x, scale, bias, self.epsilon, self.axis_name
        )
        if not self.is_initializing():
            rate = 1 - self.momentum
            mean.value += rate * (batch_mean + offset - mean.value)
            var.value += rate * (batch_var - var.value)
        return y


class _GroupNormRelu(nn.Module):
    """Group norm, in groups of 8 channels where possible, and ReLU of `x + offset`."""

    axis_name: str | None = None  # of no effect: an image lies on one device

    @nn.compact
    def __call__(self, x: jax.Array, offset: jax.Array, train: bool) -> jax.Array:
        del train
        size = 8 if x.shape[-1] % 8 == 0 else x.shape[-1]
        norm = nn.GroupNorm(None, size, epsilon=1e-5, dtype=x.dtype, name="group")
        return nn.relu(norm(x + offset))


class _Relu(nn.Module):
    """ReLU of `x + offset`."""

    axis_name: str | None = None  # of no effect

    @nn.compact
    def __call__(self, x: jax.Array, offset: jax.Array, train: bool) -> jax.Array:
        del train
        return nn.relu(x + offset)


NORMS = {"batch": _BatchNormRelu, "group": _GroupNormRelu, "none": _Relu}


def _extend(x: jax.Array, stride: int) -> jax.Array:
    """Repeats the lower and right edges until the sides are multiples of `stride`."""
    for axis in (1, 2):
        missing = -x.shape[axis] % stride
        if missing:  # other axes are left alone, as they may be sharded
            edge = jax.lax.slice_in_dim(x, x.shape[axis] - 1, None, axis=axis)
            x = jnp.concatenate([x, jnp.repeat(edge, missing, axis)], axis)
    return x
