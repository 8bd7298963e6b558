"""Arrays -> PNG data URIs; colours of classes, scores and errors.

The first colours are those of Okabe and Ito (2008). Each further colour, and the grey
of void, has the largest distance to all colours before it. The distance is that of
OKLab, the smallest of normal vision and simulated protanopia, deuteranopia and
tritanopia.
"""

import base64
import colorsys
import dataclasses
import functools
import io
import math

import matplotlib
import numpy as np
from PIL import Image
from scipy import ndimage

from metaseg.report import panels

__all__ = [
    "ERROR_COLOURS",
    "LONGEST_SIDE",
    "OUTLINE_COLOUR",
    "REFERENCE_COLOUR",
    "SCORE_LEVELS",
    "VOID_COLOUR",
    "Picture",
    "class_colours",
    "error_picture",
    "image_picture",
    "label_picture",
    "outline_picture",
    "score_colours",
    "score_picture",
]

Colour = tuple[int, int, int]

LONGEST_SIDE = 384
THUMB_SIDE = 288
MOST_OUTLINES = 0.4  # share of the pixels above which outlines would hide the image

VOID_COLOUR: Colour = (0x68, 0x68, 0x68)
DARK: Colour = (0x20, 0x24, 0x2A)
LIGHT: Colour = (0xF4, 0xF4, 0xF1)
VERMILION: Colour = (0xD5, 0x5E, 0x00)
SKY: Colour = (0x56, 0xB4, 0xE9)

OUTLINE_COLOUR: Colour = (0xFF, 0xD4, 0x00)
REFERENCE_COLOUR: Colour = (0xFF, 0x2B, 0xD6)

# Colours of the entries of `panels.error_map`, for two classes and for more.
ERROR_COLOURS: dict[bool, list[Colour]] = {
    True: [DARK, LIGHT, VERMILION, SKY],
    False: [(0xDD, 0xE3, 0xE6), VERMILION],
}

MANY_CLASSES = bytes.fromhex("""
    20242A E69F00 56B4E9 009E73 F0E442 0072B2 D55E00 CC79A7 78FFFF 002D96 5A3C00 B4C3A5
    9678F0 87005A 964B0F A5F0A5 2D4BB4 87D2FF 78B478 5A4B87 3C005A F0C35A 4B0000 0F3C3C
""")

SCORE_LEVELS = 251  # palette entries 0 to 250; entry 251 is for scores not finite


@dataclasses.dataclass(frozen=True)
class Picture:
    """A picture of a page.

    Attributes:
      uri: `data:` URI of the PNG.
      width: Width in pixels.
      height: Height in pixels.
    """

    uri: str
    width: int
    height: int


def class_colours(num_classes: int) -> list[Colour]:
    """Returns one colour for each class.

    Args:
      num_classes: Number of classes K.

    Returns:
      K red, green and blue values from 0 to 255: dark and light for two classes,
      distinct colours for more.
    """
    if num_classes <= 2:
        return [DARK, LIGHT][:num_classes]
    parts = iter(MANY_CLASSES[: 3 * num_classes])
    colours: list[Colour] = list(zip(parts, parts, parts, strict=True))
    for index in range(len(colours), num_classes):
        hue = index * (math.sqrt(5) - 1) / 2 % 1
        red, green, blue = colorsys.hls_to_rgb(hue, (0.35, 0.6, 0.8)[index % 3], 0.6)
        colours.append((round(255 * red), round(255 * green), round(255 * blue)))
    return colours


@functools.cache
def score_colours() -> list[Colour]:
    """Returns `SCORE_LEVELS` colours of evenly spaced scores from 0 to 1 (viridis)."""
    colours = matplotlib.colormaps["viridis"](np.linspace(0, 1, SCORE_LEVELS))
    return [(int(r), int(g), int(b)) for r, g, b, _ in np.rint(255 * colours)]


def image_picture(image: np.ndarray) -> Picture:
    """Draws an image with its brightness stretched between two percentiles.

    Args:
      image: Numbers of any range, `[H, W]` or `[H, W, C]`. The first three of at least
        three channels are drawn as red, green and blue; two channels are averaged.

    Returns:
      The picture, 8-bit grey or RGB.
    """
    return _encode(_shrink(_stretched(image), Image.Resampling.BOX))


def label_picture(labels: np.ndarray, num_classes: int) -> Picture:
    """Draws a label map in the colours of its classes.

    Args:
      labels: Class ids `[H, W]`; 255 is void.
      num_classes: Number of classes K.

    Returns:
      The picture, with a palette.
    """
    return _paint(labels, class_colours(num_classes))


def error_picture(
    clean: np.ndarray, prediction: np.ndarray, num_classes: int
) -> Picture:
    """Draws the error map of a prediction.

    Args:
      clean: Class ids `[H, W]`; 255 is void.
      prediction: Class ids `[H, W]`.
      num_classes: Number of classes K.

    Returns:
      The picture of `panels.error_map`, with a palette.
    """
    errors = panels.error_map(clean, prediction, num_classes)
    return _paint(errors, ERROR_COLOURS[num_classes == 2])


def outline_picture(
    labels: np.ndarray,
    num_classes: int,
    *,
    image: np.ndarray | None = None,
    reference: np.ndarray | None = None,
) -> tuple[Picture, bool]:
    """Draws the outlines of a label map, and dashed those of its reference.

    The outlines of the labels are drawn in `OUTLINE_COLOUR` on the side of the higher
    class id and dark on the other side, so that they are visible on any image. The
    outlines of the reference are dashes of `REFERENCE_COLOUR`.

    Args:
      labels: Class ids `[H, W]`; ids that are no class are void.
      num_classes: Number of classes K.
      image: Numbers of any range, `[H, W]` or `[H, W, C]`, to draw the outlines on.
        None draws the label map in the colours of its classes.
      reference: Class ids `[H, W]`, or None.

    Returns:
      The picture, and whether it shows the image. If the outlines would hide the image,
      the label map is drawn in the colours of its classes.
    """
    rows, columns = _thumb_grid(labels.shape)
    small = _known(labels, num_classes)[rows][:, columns]
    bright, dark = _outlines(small)
    ragged = float((bright | dark).mean()) > MOST_OUTLINES
    over_image = image is not None and not ragged
    if image is not None and over_image:
        size = (len(columns), len(rows))
        below = _stretched(image).convert("RGB").resize(size, Image.Resampling.BOX)
        canvas = np.array(below)
        wide = ndimage.binary_dilation(bright) & ~dark
        canvas[wide], canvas[dark] = OUTLINE_COLOUR, DARK
    else:
        colours = [*class_colours(num_classes), VOID_COLOUR]
        canvas = np.array(colours, np.uint8)[np.minimum(small, num_classes)]
    if reference is not None:
        bright, dark = _outlines(_known(reference, num_classes)[rows][:, columns])
        y, x = np.indices(dark.shape)
        dash = (y // 5 + x // 7) % 2 == 0  # unequal, or diagonals would be all dash
        canvas[(bright | dark) & dash] = REFERENCE_COLOUR
    return _encode(Image.fromarray(canvas)), over_image


def _known(labels: np.ndarray, num_classes: int) -> np.ndarray:
    """Replaces ids that are no class by void."""
    known = (labels >= 0) & (labels < num_classes)
    return np.where(known, labels, panels.VOID).astype(np.uint8)


def _thumb_grid(shape: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Returns the rows and columns of a thumbnail; small maps repeat them."""
    scale = THUMB_SIDE / max(shape)
    scale = math.floor(scale) if scale >= 1 else scale
    sides = [max(1, round(scale * side)) for side in shape]
    rows, columns = (
        np.arange(new) * old // new for new, old in zip(sides, shape, strict=True)
    )
    return rows, columns


def _outlines(ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Finds pixels beside a lower id, and pixels beside a higher id only."""
    bright, dark = np.zeros(ids.shape, bool), np.zeros(ids.shape, bool)
    for axis in (0, 1):
        first, second = (slice(None),) * axis, (slice(None),) * axis
        first, second = (*first, slice(None, -1)), (*second, slice(1, None))
        bright[first] |= ids[first] > ids[second]
        bright[second] |= ids[second] > ids[first]
        dark[first] |= ids[first] < ids[second]
        dark[second] |= ids[second] < ids[first]
    return bright, dark & ~bright


def score_picture(score: np.ndarray) -> Picture:
    """Draws scores between 0 and 1, and grey where they are not finite.

    Args:
      score: Float `[H, W]`.

    Returns:
      The picture, with a palette of `SCORE_LEVELS` colours.
    """
    values = np.asarray(score, np.float32)
    small = np.asarray(_shrink(Image.fromarray(values), Image.Resampling.BOX))
    known = np.isfinite(small)
    level = np.clip(np.where(known, small, 0), 0, 1) * (SCORE_LEVELS - 1)
    return _paint(np.where(known, np.rint(level), panels.VOID), score_colours())


def _stretched(image: np.ndarray) -> Image.Image:
    """Converts an image to 8 bits: see `image_picture`."""
    values = np.asarray(image, np.float32)
    if values.ndim == 3:
        many = values.shape[-1] >= 3
        values = values[..., :3] if many else values.mean(axis=-1)
    finite = values[np.isfinite(values)]
    low, high = np.percentile(finite, [0.5, 99.5]) if finite.size else (0.0, 0.0)
    if high <= low:  # nearly constant: use the whole range
        low, high = (finite.min(), finite.max()) if finite.size else (0.0, 0.0)
    span = float(high - low)
    scaled = (values - low) / span if span > 0 else np.full_like(values, 0.5)
    scaled = np.clip(np.nan_to_num(scaled, nan=0.0), 0, 1)
    return Image.fromarray(np.rint(255 * scaled).astype(np.uint8))


def _paint(index: np.ndarray, colours: list[Colour]) -> Picture:
    """Draws indices `[H, W]` of `colours`; larger indices become the grey of void."""
    index = np.minimum(index, len(colours)).astype(np.uint8)
    picture = Image.frombytes("P", index.shape[::-1], index.tobytes())
    picture.putpalette([part for colour in [*colours, VOID_COLOUR] for part in colour])
    return _encode(_shrink(picture, Image.Resampling.NEAREST))


def _shrink(picture: Image.Image, resampling: Image.Resampling) -> Image.Image:
    """Scales a picture down to `LONGEST_SIDE`; smaller pictures keep their size."""
    scale = LONGEST_SIDE / max(picture.size)
    if scale >= 1:
        return picture
    width, height = (max(1, round(scale * side)) for side in picture.size)
    return picture.resize((width, height), resampling)


def _encode(picture: Image.Image) -> Picture:
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", optimize=True)
    code = base64.b64encode(buffer.getvalue()).decode("ascii")
    return Picture(f"data:image/png;base64,{code}", *picture.size)
