"""What a step costs: FLOPs of a network, peak rates and memory of devices.

May import jax only.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend import core

__all__ = ["flops", "forward_flops", "memory", "peak_flops"]

# Dense peak of one JAX device in TFLOP/s, as its maker gives it: products of bfloat16,
# and of float32 at JAX's default precision (TF32 on Ampere and later, bfloat16 on TPU).
# First match of the start of `device_kind`.
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
    """Counts the operations of the convolutions and matrix products of a function.

    A multiplication and an addition count as two; everything else counts as nothing, as
    is usual for networks. Loops are counted once.

    Args:
      fn: a function of arrays.
      *args: arrays, or `jax.ShapeDtypeStruct`.

    Returns:
      Floating-point operations of one call.
    """
    return _count(jax.make_jaxpr(fn)(*args).jaxpr)


def _count(jaxpr: core.Jaxpr) -> int:
    total = 0
    for equation in jaxpr.eqns:
        name = equation.primitive.name
        shapes = [getattr(v.aval, "shape", ()) for v in equation.invars]
        out = math.prod(getattr(equation.outvars[0].aval, "shape", ()))
        if name == "conv_general_dilated":
            kernel = shapes[1]
            spec = equation.params["dimension_numbers"].rhs_spec  # (out, in, *window)
            total += 2 * out * math.prod(kernel) // kernel[spec[0]]
        elif name == "dot_general":
            (contracted, _), _ = equation.params["dimension_numbers"]
            total += 2 * out * math.prod(shapes[0][i] for i in contracted)
        for inner in core.jaxprs_in_params(equation.params):
            total += _count(inner)
    return total


def forward_flops(model: Any, image_shape: Sequence[int]) -> int:
    """Counts the operations of a network's forward pass over one image.

    A training step takes three times as many: the backward pass makes a gradient of the
    input and one of the weights from each product.

    Args:
      model: Flax network.
      image_shape: `(H, W, C)`.

    Returns:
      Floating-point operations.
    """
    image = jax.ShapeDtypeStruct((1, *image_shape), jnp.float32)
    key = jax.eval_shape(lambda: jax.random.key(0))

    def init(key: jax.Array, image: jax.Array) -> Any:
        return model.init(key, image, train=False)

    def forward(variables: Any, image: jax.Array) -> Any:
        return model.apply(variables, image, train=False)

    return flops(forward, jax.eval_shape(init, key, image), image)


def peak_flops(device: Any, dtype: Any = jnp.float32) -> float | None:
    """Returns the peak rate of a device for products of a type.

    Args:
      device: Device of JAX.
      dtype: Type of the factors.

    Returns:
      FLOP/s; None where it is not known.
    """
    half = jnp.dtype(dtype).itemsize <= 2
    for start, low, full in PEAKS:
        if device.device_kind.startswith(start):
            return 1e12 * (low if half else full)
    return None


def memory(devices: Sequence[Any]) -> list[int | None]:
    """Returns the largest memory that each device has used so far.

    Args:
      devices: Devices of JAX.

    Returns:
      Bytes for each device; None where it is not counted.
    """
    stats = [device.memory_stats() or {} for device in devices]
    return [each.get("peak_bytes_in_use") for each in stats]
