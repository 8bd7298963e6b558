"""Normalisation of images: `(image - shift) / scale`, computed per image or fixed.

Host-side NumPy; imports no jax. Works in slabs of rows, so that an image of any size
needs little more memory than itself.
"""

import dataclasses
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float32, Real

from metaseg.errors import InputError, prefixed

__all__ = ["METHODS", "Affine", "Normalizer", "build", "of_config"]

_SLAB = 1 << 24  # samples that are converted at a time
METHODS = ("zscore", "percentile", "fixed", "none")
PERCENTILES = (1, 99.8)  # what "percentile" maps to 0 and 1


class Affine(NamedTuple):
    """The map `(image - shift) / scale`.

    Attributes:
      shift: Number, or array `[C]`.
      scale: Number, or array `[C]`.
    """

    shift: Any
    scale: Any

    def __call__(
        self, image: Real[np.ndarray, "H W C"]
    ) -> Float32[np.ndarray, "H W _"]:
        """Applies the map to `[H, W, C]` of any dtype; returns float32.

        A grey image is repeated where `shift` or `scale` differ by channel.
        """
        values = _floats(image)
        channels = max(np.size(self.shift), np.size(self.scale))
        if values.shape[-1] < channels:
            values = np.repeat(values, channels, axis=-1)
        values -= self.shift
        values /= self.scale
        return values.astype(np.float32, copy=False)


@dataclasses.dataclass(frozen=True)
class Normalizer:
    """How images are normalised; made by `build`.

    Called with a whole image `[H, W, C]`, returns the `Affine` that normalises the
    image or any part of it.

    Attributes:
      method: One of `METHODS`.
      mean: For "fixed": a number, or one per channel, in the units of the files.
      std: For "fixed": the divisor, a number or one per channel.
    """

    method: str
    mean: float | tuple[float, ...] = 0.0
    std: float | tuple[float, ...] = 1.0

    def __call__(self, image: Real[np.ndarray, "H W C"]) -> Affine:
        """Returns the map for a whole image `[H, W, C]`.

        Raises:
          InputError: If `mean` or `std` are not for C channels.
        """
        if self.method == "zscore":
            return _zscore(image)
        if self.method == "percentile":
            return _percentile(image)
        for field, value in (("mean", self.mean), ("std", self.std)):
            if image.shape[-1] != 1 and np.size(value) not in (1, image.shape[-1]):
                raise InputError(
                    f"{field}: got {np.size(value)} numbers, expected one, or one for"
                    f" each of {image.shape[-1]} channels"
                )
        return Affine(*(np.asarray(x) if np.ndim(x) else x for x in self._fixed()))

    def _fixed(self) -> tuple[Any, Any]:
        return (self.mean, self.std) if self.method == "fixed" else (0.0, 1.0)


def build(
    normalize: str = "zscore", *, mean: Any = None, std: Any = None
) -> Normalizer:
    """Returns a normalisation of images.

    Args:
      normalize: "zscore" maps each image to mean 0 and variance 1 over all its pixels
        and channels. "percentile" maps the percentiles 1 and 99.8 of each image to 0
        and 1 and clips nothing. "fixed" computes `(image - mean) / std`. "none" keeps
        the stored values. "zscore" and "percentile" map a constant image to zeros.
      mean: For "fixed": a number or one per channel, in the units of the files; 0 by
        default.
      std: For "fixed": a number or one per channel, above 0; 1 by default.

    Returns:
      The normalisation.

    Raises:
      InputError: If an argument is wrong.

    Example:
      >>> normalizer = build("fixed", mean=128, std=64)
      >>> image = np.array([[[128], [192]]], np.uint8)
      >>> normalizer(image)(image)[..., 0].tolist()
      [[0.0, 1.0]]
    """
    if normalize not in METHODS:
        raise InputError(
            f"normalize: got {normalize!r}, expected one of {', '.join(METHODS)}"
        )
    if normalize != "fixed":
        return Normalizer(normalize)
    scale = _per_channel("std", std, 1.0)
    if not np.all(np.greater(scale, 0)):
        raise InputError(f"std: got {std!r}, expected numbers above 0")
    return Normalizer(normalize, _per_channel("mean", mean, 0.0), scale)


def of_config(data: Any) -> Normalizer:
    """Returns the normalisation that the section `data` of a config describes.

    Args:
      data: Has the attributes `normalize` ("zscore" if missing), `mean` and `std`, see
        `build`.

    Raises:
      InputError: If a field is wrong; names it as `data.FIELD`.
    """
    with prefixed("data."):
        return build(
            getattr(data, "normalize", "zscore"),
            mean=getattr(data, "mean", None),
            std=getattr(data, "std", None),
        )


def _per_channel(field: str, value: Any, default: float) -> float | tuple[float, ...]:
    if value is None:
        return default
    try:
        array = np.asarray(value, np.float64)
    except (TypeError, ValueError):
        array = np.array(np.nan)
    if array.ndim > 1 or array.size == 0 or not np.isfinite(array).all():
        raise InputError(
            f"{field}: got {value!r}, expected a number, or one per channel"
        )
    return tuple(array.tolist()) if array.size > 1 else float(array.reshape(()))


def _zscore(image: np.ndarray) -> Affine:
    if image.min() == image.max():  # the computed deviation need not be exactly 0
        return Affine(image.flat[0], 1.0)
    mean = sum(x.sum(dtype=np.float64) for x in _slabs(image)) / image.size

    def squares(values: np.ndarray) -> float:
        values -= mean
        return np.square(values, dtype=np.float64).sum()

    return Affine(mean, np.sqrt(sum(map(squares, _slabs(image))) / image.size))


def _percentile(image: np.ndarray) -> Affine:
    low, high = np.percentile(image, PERCENTILES)
    if low == high:  # all but a few pixels are equal: the few set the scale
        low, high = float(image.min()), float(image.max())
    return Affine(low, high - low if high > low else 1.0)


def _slabs(image: np.ndarray) -> Iterator[np.ndarray]:
    """Yields copies of the rows as floats, a few rows at a time."""
    rows = max(1, _SLAB // max(1, image[:1].size))
    for start in range(0, len(image), rows):
        yield _floats(image[start : start + rows])


def _floats(image: np.ndarray) -> np.ndarray:
    """Returns a copy to subtract from: float32 holds 8 and 16 bit integers exactly."""
    return image.astype(np.float32 if image.itemsize < 4 else np.float64)
