"""The families by name; a batch from example ids alone; a data set from a config.

May import jax, `data.dataset`, `data.families`, `errors` and the families `cells`,
`network`, `tissue` and `tubes`.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Float, Integer, UInt8

from metaseg.data import dataset
from metaseg.data.families import CLASS_NAMES, num_classes
from metaseg.data.synthetic.cells import cells
from metaseg.data.synthetic.network import network
from metaseg.data.synthetic.tissue import tissue
from metaseg.data.synthetic.tubes import tubes
from metaseg.errors import InputError, prefixed
from metaseg.typing import AnyArray

__all__ = ["FAMILIES", "blank", "examples", "load"]

FAMILIES: dict[str, Callable[..., tuple[jax.Array, jax.Array]]] = {
    "cells": cells,
    "network": network,
    "tissue": tissue,
    "tubes": tubes,
}

_CHUNK = 16  # images rendered per call, so that one compilation serves every split


def examples(
    seed: Integer[ArrayLike, ""],
    ids: Integer[AnyArray, "N"],
    *,
    family: str,
    height: int = 128,
    width: int = 128,
) -> tuple[Float[jax.Array, "N H W C"], UInt8[jax.Array, "N H W"]]:
    """Renders examples by their ids, in a compiled training step or on its own.

    An example depends on the seed, its id and the size alone. On CPU its bits are the
    same in any batch, called directly or within a larger compiled function; on other
    devices, where a batch is rendered at once, that is promised up to rounding.

    Args:
      seed: integer, may be traced.
      ids: integers `[N]`, may be traced.
      family: one of `FAMILIES`, static.
      height: rows of an image, static.
      width: columns of an image, static.

    Returns:
      Images float32 `[N, H, W, C]`, each standardised to mean 0 and variance 1, and
      labels uint8 `[N, H, W]`.

    Raises:
      InputError: for an unknown family.
    """
    num_classes(family)
    with jax.enable_x64(False):  # or the last digits of the images would differ
        return _examples(seed, jnp.asarray(ids), family, height, width)


@functools.partial(jax.jit, static_argnums=(2, 3, 4))
def _examples(
    seed: ArrayLike, ids: jax.Array, family: str, height: int, width: int
) -> tuple[jax.Array, jax.Array]:
    """Returns `examples`."""
    key = jax.random.key(seed, impl="threefry2x32")

    def one(example_id: jax.Array) -> tuple[jax.Array, jax.Array]:
        image, label = FAMILIES[family](
            jax.random.fold_in(key, example_id), height=height, width=width
        )
        mean, std = jnp.mean(image), jnp.std(image)
        return (image - mean) / jnp.maximum(std, 1e-6), label

    # On a CPU, one image at a time fits the cache.
    return jax.lax.platform_dependent(
        ids, cpu=functools.partial(jax.lax.map, one), default=jax.vmap(one)
    )


def _chunk(config: Any, ids: np.ndarray) -> tuple[jax.Array, jax.Array]:
    return examples(
        config.seed,
        ids,
        family=config.name,
        height=config.height,
        width=config.width,
    )


def _render(config: Any, ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    padded = np.resize(ids, -(-len(ids) // _CHUNK) * _CHUNK)
    chunks = [_chunk(config, chunk) for chunk in padded.reshape(-1, _CHUNK)]
    images, labels = (np.concatenate(part) for part in zip(*chunks, strict=True))
    return images[: len(ids)], labels[: len(ids)]


def load(config: Any) -> dataset.Dataset:
    """Renders the three splits of a built-in family.

    Args:
      config: `name` (one of `FAMILIES`), `seed`, `height`, `width` (pixels),
        `train_size`, `val_size`, `test_size` (numbers of images) and, if it likes,
        `num_classes`, which must be the family's.

    Returns:
      The data set, images standardised one by one to zero mean and unit variance.

    Raises:
      InputError: for an unknown family, a size that is not positive, or another
        number of classes than the family has.
    """
    return _dataset(config, _render)


def blank(config: Any) -> dataset.Dataset:
    """Returns the data set of `load` with images and labels of zeros.

    Programs can be compiled for its shapes and types before the images are rendered.

    Args:
      config: As for `load`.

    Raises:
      InputError: As for `load`.
    """
    return _dataset(config, _zeros)


def _zeros(config: Any, ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    chunk = np.resize(ids, _CHUNK)  # as rendered, so that it is traced once
    image, label = jax.eval_shape(lambda ids: _chunk(config, ids), chunk)
    return (
        np.zeros((len(ids), *image.shape[1:]), image.dtype),
        np.zeros((len(ids), *label.shape[1:]), label.dtype),
    )


def _dataset(
    config: Any, fill: Callable[[Any, np.ndarray], tuple[np.ndarray, np.ndarray]]
) -> dataset.Dataset:
    """Returns the data set of a config, whose images and labels come from `fill`."""
    with prefixed("data.", "name"):
        classes = num_classes(config.name)
    given = getattr(config, "num_classes", classes)
    if given != classes:
        raise InputError(
            f"data.num_classes: got {given}, but '{config.name}' has {classes} "
            f"classes ({', '.join(CLASS_NAMES[config.name])})"
        )
    for field in ("height", "width", "train_size", "val_size", "test_size"):
        if config[field] < 1:
            raise InputError(f"data.{field}: got {config[field]}, expected at least 1")

    def split(name: str, size: int) -> dataset.Split:
        names = tuple(f"{config.name}-{i:05d}" for i in range(size))
        ids = dataset.example_ids(name, names)
        images, labels = fill(config, ids)
        sizes = np.tile(np.array([config.height, config.width], np.int32), (size, 1))
        return dataset.Split(images, labels, ids, names, sizes)

    return dataset.Dataset(
        name=config.name,
        train=split("train", config.train_size),
        val=split("val", config.val_size),
        test=split("test", config.test_size),
        num_classes=classes,
        class_names=CLASS_NAMES[config.name],
    )
