"""Classical unsupervised segmentation of one image, as a baseline; on the host.

Every method is `image -> mask`, from float `[H, W, C]` to boolean `[H, W]`. It divides
the image into two sides, and `segment` decides which side is the foreground. To add a
method, write the function and its line in `METHODS`. May import scikit-image, NumPy,
`checks` and `errors`.
"""

from collections.abc import Callable

import numpy as np
from jaxtyping import Bool, Real
from skimage import filters
from skimage.segmentation import chan_vese as level_sets

from metaseg import checks
from metaseg.errors import InputError

__all__ = [
    "METHODS",
    "POLARITIES",
    "chan_vese",
    "kmeans",
    "li",
    "otsu",
    "segment",
    "triangle",
]

POLARITIES = ("smaller", "brighter")

_ROUNDS = 300  # at most, of Lloyd's algorithm, which ends when no pixel changes sides


def otsu(image: Real[np.ndarray, "H W C"]) -> Bool[np.ndarray, "H W"]:
    """Thresholds at Otsu's value, where the variance between both sides is largest.

    Args:
      image: Float `[H, W, C]`.

    Returns:
      Boolean `[H, W]`.

    Raises:
      InputError: If `image` has other axes, or numbers that are not finite.
    """
    return _above(image, filters.threshold_otsu)


def li(image: Real[np.ndarray, "H W C"]) -> Bool[np.ndarray, "H W"]:
    """Thresholds at Li's value, of minimum cross-entropy to the mean of each side.

    Args:
      image: Float `[H, W, C]`.

    Returns:
      Boolean `[H, W]`.

    Raises:
      InputError: If `image` has other axes, or numbers that are not finite.
    """
    return _above(image, filters.threshold_li)


def triangle(image: Real[np.ndarray, "H W C"]) -> Bool[np.ndarray, "H W"]:
    """Thresholds by the triangle method: farthest below the slope of the histogram.

    Args:
      image: Float `[H, W, C]`.

    Returns:
      Boolean `[H, W]`.

    Raises:
      InputError: If `image` has other axes, or numbers that are not finite.
    """
    return _above(image, filters.threshold_triangle)


def kmeans(image: Real[np.ndarray, "H W C"]) -> Bool[np.ndarray, "H W"]:
    """Takes the brighter of two clusters of colours, by Lloyd's algorithm.

    The first two centres are the mean colours above and below the mean intensity, so
    that nothing is drawn at random.

    Args:
      image: Float `[H, W, C]`.

    Returns:
      Boolean `[H, W]`.

    Raises:
      InputError: If `image` has other axes, or numbers that are not finite.
    """
    _check(image)
    pixels = np.asarray(image, np.float64).reshape(-1, image.shape[-1])
    bright = pixels.mean(axis=-1) > pixels.mean()
    for _ in range(_ROUNDS):
        if bright.all() or not bright.any():
            break
        centres = pixels[~bright].mean(axis=0), pixels[bright].mean(axis=0)
        dark, light = (((pixels - centre) ** 2).sum(axis=-1) for centre in centres)
        before, bright = bright, light < dark
        if (bright == before).all():
            break
    return bright.reshape(image.shape[:2])


def chan_vese(image: Real[np.ndarray, "H W C"]) -> Bool[np.ndarray, "H W"]:
    """Takes the brighter side of Chan and Vese's active contour.

    The contour starts from a checkerboard. With the weight of the contour's length that
    scikit-image proposes, 25 times this one, objects of a few pixels in radius are
    lost.

    Args:
      image: Float `[H, W, C]`.

    Returns:
      Boolean `[H, W]`.

    Raises:
      InputError: If `image` has other axes, or numbers that are not finite.
    """
    found = level_sets(_unit(image), mu=0.01, max_num_iter=200)
    shade = _intensity(image)
    dark = (
        found.any() and not found.all() and shade[found].mean() < shade[~found].mean()
    )
    return ~found if dark else found


METHODS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "otsu": otsu,
    "li": li,
    "triangle": triangle,
    "kmeans": kmeans,
    "chan_vese": chan_vese,
}


def segment(
    image: Real[np.ndarray, "H W C"], method: str, *, polarity: str = "smaller"
) -> Bool[np.ndarray, "H W"]:
    """Segments the foreground of one image by one of the methods.

    Args:
      image: Float or integer `[H, W, C]`, finite. All methods but "kmeans" take the
        mean of the channels.
      method: One of `METHODS`.
      polarity: "smaller", if the foreground is the smaller of the two sides (the
        brighter one where both are of one size), or "brighter".

    Returns:
      Boolean `[H, W]`; all false if all pixels are equal.

    Raises:
      InputError: If the image, the method or the polarity is wrong.
    """
    checks.choice("method", method, METHODS)
    checks.choice("polarity", polarity, POLARITIES)
    image = np.asarray(image)
    _check(image)
    if (image == image[:1, :1]).all():
        return np.zeros(image.shape[:2], bool)
    mask = METHODS[method](image)
    return ~mask if polarity == "smaller" and 2 * mask.sum() > mask.size else mask


def _check(image: np.ndarray) -> None:
    if np.ndim(image) != 3 or not np.isfinite(image).all():
        what = (
            f"shape {np.shape(image)}" if np.ndim(image) != 3 else "values not finite"
        )
        raise InputError(f"image: got {what}, expected finite numbers [H, W, C]")


def _intensity(image: np.ndarray) -> np.ndarray:
    _check(image)
    return np.asarray(image, np.float64).mean(axis=-1)


def _unit(image: np.ndarray) -> np.ndarray:
    """Intensity with the image's range brought to [0, 1]; 0 where it has none."""
    shade = _intensity(image)
    return (shade - shade.min()) / (np.ptp(shade) or 1)


def _above(image: np.ndarray, threshold: Callable[[np.ndarray], float]) -> np.ndarray:
    shade = _unit(image)
    return shade > threshold(shade)
