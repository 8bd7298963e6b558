"""Networks by name. A new one is a module and a line in `MODELS`.

May import `errors` and flax.
"""

import functools
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from metaseg.errors import InputError
from metaseg.models.layers import COMPILER_OPTIONS
from metaseg.models.unet import NORMS, UNet

__all__ = ["COMPILER_OPTIONS", "MODELS", "UNet", "build", "compiler_options"]

MODELS: Mapping[str, Any] = {"unet": UNet}
DTYPES = {"float32": jnp.float32, "bfloat16": jnp.bfloat16}
INITS = {"he": nn.initializers.he_normal(), "normal": nn.initializers.normal(0.02)}


@functools.cache
def compiler_options() -> dict[str, Any]:
    """Options of XLA that suit the networks, if this version has them; else none."""
    options = dict(COMPILER_OPTIONS)
    try:
        jax.jit(jnp.negative, compiler_options=options)(0.0)
    except jax.errors.JaxRuntimeError:
        return {}
    return options


def build(config: Any, num_classes: int) -> nn.Module:
    """Builds the network that a config describes.

    Args:
      config: `config.model`, with the fields `name` (see `MODELS`), `width` (channels
        of the first level), `depth` (number of poolings), `norm` ("batch", "group",
        "none"), `dtype` ("float32", "bfloat16") and `init` ("he", or "normal" with
        standard deviation 0.02 as in the source's protocol).
      num_classes: K >= 2; two classes get one output channel.

    Returns:
      A module for `model.init` and `model.apply`.

    Raises:
      metaseg.errors.InputError: if a name is unknown or a size is below 1.
    """
    for field in ("width", "depth"):
        if (size := config[field]) < 1:
            raise InputError(f"config.model.{field}: got {size}, expected at least 1")
    _look_up(NORMS, "norm", "norm", config)
    return _look_up(MODELS, "name", "model", config)(
        num_classes=num_classes,
        width=config.width,
        depth=config.depth,
        norm=config.norm,
        dtype=_look_up(DTYPES, "dtype", "dtype", config),
        kernel_init=_look_up(INITS, "init", "initializer", config),
    )


def _look_up(known: Mapping[str, Any], field: str, what: str, config: Any) -> Any:
    name = config[field]
    if name not in known:
        raise InputError(
            f"config.model.{field}: unknown {what} {name!r}; known: {', '.join(known)}"
        )
    return known[name]
