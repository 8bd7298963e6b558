"""What a step costs: FLOPs of a network, peak rates and memory of devices.

May import jax only.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend import core

__all__ = ["flops", "flops_of", "forward_flops", "memory", "peak_flops"]

# Dense peak of one JAX device in TFLOP/s, as its maker states it: for products of
# bfloat16, and of float32 at JAX's default precision (TF32 on NVIDIA's GPUs since
# Ampere, bfloat16 on TPUs). The first entry that `device_kind` starts with counts.
PEAKS = (
    ("NVIDIA H100 PCIe", 756.0, 378.0),
    ("NVIDIA H100 NVL", 835.0, 417.5),
    ("NVIDIA H100", 989.4, 494.7),
    ("NVIDIA H200", 989.4, 494.7),
    ("NVIDIA A100", 312.0, 156.0),
    ("NVIDIA L4", 121.0, 60.0),
    ("TPU v4", 275.0, 275.0),
    ("TPU v5 lite", 197.0, 197.0),
    ("TPU v5e", 197.0, 197.0),
    ("TPU v5", 459.0, 459.0),
    ("TPU v6", 918.0, 918.0),
)


def flops(fn: Callable[..., Any], *args: Any) -> int:
    """Counts floating-point operations of the convolutions and matrix products of `fn`.

    A multiplication and an addition count as two operations. Other operations do not
    count, as is usual for networks. The body of a loop counts once, and of several
    branches the most expensive one counts. Where the code depends on the platform, the
    default code counts, so that the number is the same on every backend.

    Args:
      fn: A function of arrays.
      *args: Its arguments, arrays or `jax.ShapeDtypeStruct`.

    Returns:
      The number of operations of one call.

    Example:
      >>> flops(jnp.matmul, jnp.zeros((3, 5)), jnp.zeros((5, 7)))
      210
    """
    return _count(jax.make_jaxpr(fn)(*args).jaxpr)


def _count(jaxpr: core.Jaxpr) -> int:
    total = 0
    for equation in jaxpr.eqns:
        total += flops_of(equation)
        inner = [_count(each) for each in core.jaxprs_in_params(equation.params)]
        if equation.primitive.name == "cond":
            # Of `jax.lax.platform_dependent`; None is the platform of the default.
            platforms = equation.params.get("branches_platforms") or ()
            total += inner[platforms.index(None)] if None in platforms else max(inner)
        else:
            total += sum(inner)
    return total


def flops_of(equation: core.JaxprEqn) -> int:
    """Counts the operations of one convolution or matrix product.

    Args:
      equation: Equation of a traced program.

    Returns:
      The number of operations; 0 for everything else.
    """
    shapes = [getattr(v.aval, "shape", ()) for v in equation.invars]
    out = math.prod(getattr(equation.outvars[0].aval, "shape", ()))
    if equation.primitive.name == "conv_general_dilated":
        kernel = shapes[1]
        spec = equation.params["dimension_numbers"].rhs_spec  # (out, in, *window)
        return 2 * out * math.prod(kernel) // kernel[spec[0]]
    if equation.primitive.name == "dot_general":
        (contracted, _), _ = equation.params["dimension_numbers"]
        return 2 * out * math.prod(shapes[0][i] for i in contracted)
    return 0


def forward_flops(model: Any, image_shape: Sequence[int]) -> int:
    """Counts the FLOPs of a network's forward pass over one image.

    A training step takes three times as many: from each product, the backward pass
    computes a gradient of the input and one of the weights.

    Args:
      model: Flax network.
      image_shape: `(H, W, C)`.

    Returns:
      The number of operations, see `flops`.
    """
    image = jax.ShapeDtypeStruct((1, *image_shape), jnp.float32)
    key = jax.eval_shape(lambda: jax.random.key(0))

    def init(key: jax.Array, image: jax.Array) -> Any:
        return model.init(key, image, train=False)

    def forward(variables: Any, image: jax.Array) -> Any:
        return model.apply(variables, image, train=False)

    return flops(forward, jax.eval_shape(init, key, image), image)


def peak_flops(device: Any, dtype: Any = jnp.float32) -> float | None:
    """Returns the peak rate of a device, as its maker states it.

    Args:
      device: JAX device.
      dtype: Type of the numbers that are multiplied.

    Returns:
      FLOP/s; None if the device is not known.
    """
    half = jnp.dtype(dtype).itemsize <= 2
    for start, low, full in PEAKS:
        if device.device_kind.startswith(start):
            return 1e12 * (low if half else full)
    return None


def memory(devices: Sequence[Any]) -> list[int | None]:
    """Returns the largest memory in use so far on each device.

    Args:
      devices: JAX devices.

    Returns:
      Bytes of each device; None where the backend does not count them.
    """
    stats = [device.memory_stats() or {} for device in devices]
    return [each.get("peak_bytes_in_use") for each in stats]
