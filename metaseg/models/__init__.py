"""Networks by name. To add one, write a module and its line in `MODELS`.

May import `checks`, `errors`, `registry` and flax.
"""

import functools
import inspect
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from metaseg import checks, registry
from metaseg.errors import InputError
from metaseg.models.layers import COMPILER_OPTIONS
from metaseg.models.unet import NORMS, UNet

__all__ = ["COMPILER_OPTIONS", "MODELS", "UNet", "build", "compiler_options"]

MODELS: Mapping[str, Any] = {"unet": UNet}
DTYPES = {"float32": jnp.float32, "bfloat16": jnp.bfloat16}
INITS = {"he": nn.initializers.he_normal(), "normal": nn.initializers.normal(0.02)}


def compiler_options(devices: int = 1) -> dict[str, Any]:
    """Returns the options of XLA that make the networks fast.

    Args:
      devices: Number of devices that share a batch.

    Returns:
      Keyword arguments for `jax.jit(..., compiler_options=...)`; empty for several
      devices, and if the installed XLA does not know the options.
    """
    return dict(_known_options()) if devices == 1 else {}


@functools.cache
def _known_options() -> Mapping[str, Any]:
    try:
        jax.jit(jnp.negative, compiler_options=COMPILER_OPTIONS)(0.0)
    except jax.errors.JaxRuntimeError:
        return {}
    return COMPILER_OPTIONS


def build(config: Any, num_classes: int) -> nn.Module:
    """Builds the network that a config describes.

    A plug-in is a callable that takes the keyword arguments `num_classes`, `width`,
    `depth`, `norm` (the string of the config), `dtype` and `kernel_init`, and returns a
    `flax.linen.Module`. The module is called as `module(images, train)` with images
    `[..., H, W, C]` and returns float32 logits `[..., H, W, 1]` for two classes, or
    `[..., H, W, K]`. It may keep running statistics in the collection "batch_stats".
    `jax.pmap` needs a field `axis_name`, see `UNet`.

    Args:
      config: Section `model` of a config, with the fields `name` (one of `MODELS`, or
        "package.module:name" of a plug-in), `width` (channels of the first level),
        `depth` (number of poolings), `norm` ("batch", "group" or "none"), `dtype`
        ("float32" or "bfloat16") and `init` ("he", or "normal" for a standard deviation
        of 0.02, as in Luo et al., AAAI 2022).
      num_classes: Number of classes K, at least 2; two classes get one output channel.

    Returns:
      A module for `module.init` and `module.apply`.

    Raises:
      InputError: If a name is unknown, a number is out of range, or a plug-in does not
        have the form above.
    """
    make = registry.lookup(config.name, MODELS, field="model.name")
    checks.num_classes("num_classes", num_classes)
    checks.integer("model.width", config.width, 1, "channels")
    checks.integer("model.depth", config.depth, 1, "poolings")
    checks.choice("model.dtype", config.dtype, DTYPES)
    checks.choice("model.init", config.init, INITS)
    if not registry.is_plugin(config.name):
        checks.choice("model.norm", config.norm, NORMS)
    arguments = {
        "num_classes": num_classes,
        "width": config.width,
        "depth": config.depth,
        "norm": config.norm,
        "dtype": DTYPES[config.dtype],
        "kernel_init": INITS[config.init],
    }
    _check_takes(config.name, make, arguments)
    module = make(**arguments)
    if not isinstance(module, nn.Module):
        raise InputError(
            f"model.name: got {config.name!r}, which returns {type(module).__name__}, "
            "expected a flax.linen.Module"
        )
    return module


def _check_takes(name: str, make: Any, arguments: Mapping[str, Any]) -> None:
    """Raises InputError unless `make` can be called with these keyword arguments."""
    if callable(make):
        try:
            inspect.signature(make).bind(**arguments)
            return
        except ValueError:  # a built-in type tells no signature
            return
        except TypeError:
            pass
    raise InputError(
        f"model.name: got {name!r}, expected a callable that takes the keyword "
        f"arguments {', '.join(arguments)}"
    )
