"""Settings of jax that hold while a run computes.

May import jax only.
"""

import contextlib
from collections.abc import Iterator

import jax

__all__ = ["same_numbers"]

# Settings of jax that change random numbers or the types of arrays.
_NUMBERS = {
    "jax_enable_x64": False,
    "jax_default_prng_impl": "threefry2x32",
    "jax_threefry_partitionable": True,
}


@contextlib.contextmanager
def same_numbers() -> Iterator[None]:
    """Computes the block, or a decorated function, with jax's own default settings.

    With `JAX_ENABLE_X64` weights would have 64 bits, and with another default generator
    all random numbers would be others: a run could not resume from its checkpoint, and
    its results would not be those of its config. The settings hold for all threads of
    the process, and are restored afterwards.
    """
    before = {name: getattr(jax.config, name) for name in _NUMBERS}
    for name, value in _NUMBERS.items():
        jax.config.update(name, value)
    try:
        yield
    finally:
        for name, value in before.items():
            jax.config.update(name, value)
