"""Bringing images to one scale: `(image - shift) / scale`, chosen per image or fixed.

Host-side NumPy; imports no jax. Works in slabs of rows, so that an image of any size
needs little more memory than itself.
"""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np

from metaseg.errors import InputError

__all__ = ["METHODS", "Affine", "Normalizer", "build"]

_SLAB = 1 << 24  # samples worked on at a time
METHODS = ("zscore", "percentile", "fixed", "none")


class Affine(NamedTuple):
    """`(image - shift) / scale`; each a number, or an array `[C]`."""

    shift: Any
    scale: Any

    def __call__(self, image: np.ndarray) -> np.ndarray:
        """Applies it to `[H, W, C]` of any dtype; returns float32."""
        values = _floats(image)
        values -= self.shift
        values /= self.scale
        return values.astype(np.float32, copy=False)


Normalizer = Callable[[np.ndarray], Affine]


def build(config: Any) -> Normalizer:
    """The normalisation that a config describes.

    Args:
      config: may have the attributes `normalize` ("zscore" unless given) and, for
        "fixed", `mean` and `std`, in the units of the files. "zscore" brings each
        image to mean 0 and variance 1 over all its pixels and channels; "percentile"
        its percentiles 1 and 99.8 to 0 and 1, unclipped; "fixed" subtracts `mean`
        and divides by `std`, a number or one per channel; "none" keeps stored values.
        A constant image becomes zeros with "zscore" and "percentile".

    Returns:
      A function from a whole image `[H, W, C]` to the `Affine` that normalises it, or
      any part of it.

    Raises:
      InputError: if a field is wrong.
    """
    method = getattr(config, "normalize", "zscore")
    if method not in METHODS:
        raise InputError(
            f"config.data.normalize: {method!r}; expected one of {', '.join(METHODS)}"
        )
    if method == "fixed":
        fixed = Affine(
            _per_channel(config, "mean", 0.0), _per_channel(config, "std", 1.0)
        )
        if not np.all(np.greater(fixed.scale, 0)):
            raise InputError(
                f"config.data.std: {config.std!r}; expected numbers above 0"
            )
        return lambda _: fixed
    return {"zscore": _zscore, "percentile": _percentile, "none": _stored}[method]


def _per_channel(config: Any, field: str, default: float) -> Any:
    value = getattr(config, field, None)
    if value is None:
        return default
    try:
        array = np.asarray(value, np.float64)
    except (TypeError, ValueError):
        array = np.array(np.nan)
    if array.ndim > 1 or array.size not in (1, 3) or not np.isfinite(array).all():
        raise InputError(
            f"config.data.{field}: {value!r}; expected a number, or one per channel"
        )
    return array if array.size > 1 else float(array.reshape(()))


def _zscore(image: np.ndarray) -> Affine:
    if image.min() == image.max():  # the computed deviation need not be exactly 0
        return Affine(image.flat[0], 1.0)
    mean = sum(x.sum(dtype=np.float64) for x in _slabs(image)) / image.size

    def squares(values: np.ndarray) -> float:
        values -= mean
        return np.square(values, dtype=np.float64).sum()

    return Affine(mean, np.sqrt(sum(map(squares, _slabs(image))) / image.size))


def _percentile(image: np.ndarray) -> Affine:
    low, high = np.percentile(image, (1, 99.8))
    if low == high:  # all but a few pixels are equal: the few set the scale
        low, high = float(image.min()), float(image.max())
    return Affine(low, high - low if high > low else 1.0)


def _stored(image: np.ndarray) -> Affine:
    del image
    return Affine(0.0, 1.0)


def _slabs(image: np.ndarray) -> Iterator[np.ndarray]:
    """The rows, a few at a time, as floats of their own."""
    rows = max(1, _SLAB // max(1, image[:1].size))
    for start in range(0, len(image), rows):
        yield _floats(image[start : start + rows])


def _floats(image: np.ndarray) -> np.ndarray:
    """A copy precise enough to subtract in: 8 and 16 bit are exact in float32."""
    return image.astype(np.float32 if image.itemsize < 4 else np.float64)
