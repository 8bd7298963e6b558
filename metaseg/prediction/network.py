"""Compiled programs of a network, and how far from a pixel it looks."""

import functools
import math
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Float32

from metaseg import decoding, models
from metaseg.prediction import tiles
from metaseg.typing import AnyArray

__all__ = ["grain", "program", "radius", "scores", "stride"]

UNKNOWN_STRIDE = 32  # of a network that does not say
GLOBAL_RADIUS = 128  # of a network whose outputs depend on the whole image
_LOUD = 1e30


def stride(model: nn.Module) -> int:
    """Returns by how many pixels an image can move and be pooled in the same way.

    Args:
      model: Flax network.
    """
    return getattr(model, "stride", UNKNOWN_STRIDE)


def grain(model: nn.Module) -> int:
    """Returns the number of pixels to a multiple of which sides of images are extended.

    Args:
      model: Flax network.
    """
    return math.lcm(stride(model), tiles.GRAIN)


def scores(
    model: nn.Module, variables: Any, images: Float[AnyArray, "N H W C"]
) -> Float32[jax.Array, "N H W K"]:
    """Computes class probabilities.

    Args:
      model: Flax network.
      variables: Weights.
      images: Normalised images `[N, H, W, C]`.

    Returns:
      Probabilities `[N, H, W, K]`; for two classes the foreground's, `[N, H, W, 1]`.
    """
    logits: Any = model.apply(variables, images, train=False)
    probability = decoding.probabilities(logits)
    return probability[..., 1:] if probability.shape[-1] == 2 else probability


@functools.lru_cache(maxsize=8)
def program(model: nn.Module) -> Callable[[Any, np.ndarray], jax.Array]:
    """Returns the compiled `scores` of a network, one program for each shape of images.

    Args:
      model: Flax network.

    Returns:
      A function `(variables, images) -> scores`.
    """
    return jax.jit(
        functools.partial(scores, model), compiler_options=models.compiler_options()
    )


@functools.lru_cache(maxsize=16)
def radius(model: nn.Module, channels: int) -> int:
    """Measures how far from a changed input block outputs change.

    The network gets positive weights, so that nothing cancels, and two tall images. One
    of them has a block of huge values in its middle, aligned to the stride. An output
    farther from a cut than the radius does not depend on the cut.

    Args:
      model: Flax network.
      channels: Channels of its images.

    Returns:
      Radius in pixels, beyond blocks of the network's stride. `GLOBAL_RADIUS` for
      networks whose outputs depend on the whole image (global pooling, norms over the
      image); their tiles are not exact.
    """
    step = stride(model)
    height = 64 * step
    middle = slice(height // 2, height // 2 + step)
    images = np.zeros((2, height, step, channels), np.float32)
    images[1, middle] = _LOUD

    def logits(images: jax.Array) -> Any:
        template = jax.eval_shape(
            functools.partial(model.init, train=False), jax.random.key(0), images
        )
        positive = jax.tree_util.tree_map_with_path(_positive, template)
        return model.apply(positive, images, train=False)

    # On the CPU, whose convolutions let nothing leak; unoptimised: it runs once.
    options: Any = {"xla_backend_optimization_level": 0}
    with jax.default_device(jax.local_devices(backend="cpu")[0]):
        quiet, loud = np.asarray(jax.jit(logits, compiler_options=options)(images))
    changed = np.abs(loud - quiet) > 1e-3 * np.abs(quiet)
    rows = np.flatnonzero((changed | np.isnan(loud)).any(axis=(1, 2)))
    if rows[0] == 0 or rows[-1] == height - 1:
        return GLOBAL_RADIUS
    return int(max(middle.start - rows[0], rows[-1] + 1 - middle.stop))


def _positive(path: Any, leaf: Any) -> jax.Array:
    """Returns kernels that average, scales and variances 1, small biases, means 0."""
    name = path[-1].key
    if name in ("mean", "bias"):
        return jnp.full(leaf.shape, 0.0 if name == "mean" else 0.1, leaf.dtype)
    inputs = leaf.size // leaf.shape[-1] if leaf.ndim > 1 else 1
    return jnp.full(leaf.shape, 1 / inputs, leaf.dtype)
