"""PNG and JPEG, decoded by pillow after a look at their parts.

The parts that hold no pixels do not reach pillow, which would warn of damaged ones.
Host-side NumPy; imports no jax.
"""

import io
import zlib
from typing import Any, BinaryIO

import numpy as np
from PIL import Image
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile

from metaseg.data.image_files import samples
from metaseg.data.image_files.samples import DamagedError, Want
from metaseg.errors import InputError

__all__ = ["decode_jpeg", "decode_png", "palette_of", "without_alpha"]

_PNG_PIXELS = (b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND")
_LOW_BYTES = {"RGB;16B": "RGB;16L", "RGBA;16B": "RGBA;16L", "LA;16B": "RGBA"}
_COLOURS = {"L": 1, "LA": 1, "PA": 1, "RGB": 3, "RGBA": 3, "RGBX": 3}


def decode_png(stream: BinaryIO, want: Want) -> np.ndarray:
    """Decodes a PNG file; bits and palette indices stay as they are stored.

    Args:
      stream: Open file.
      want: What is to be read.

    Returns:
      Pixels `[H, W, 1]` or `[H, W, 3]`.
    """
    samples.page_index(want, 1)
    data = _png_pixels(stream.read(), want)
    with samples.decoder_errors():
        file = PngImageFile(io.BytesIO(data))
        layout, mode = file.tile[0][3], file.mode
        pixels = np.array(file)
    if layout in ("L;2", "L;4"):  # pillow stretches these to 0..255; ids must not be
        pixels //= 85 if layout == "L;2" else 17
    if layout in _LOW_BYTES:  # 16-bit colour, of which pillow keeps the high bytes
        with samples.decoder_errors():
            again = PngImageFile(io.BytesIO(data))
            tiles: list[Any] = [(*tile[:3], _LOW_BYTES[layout]) for tile in again.tile]
            again.tile = tiles
            low = np.array(again)
        if layout == "LA;16B":  # read as four bytes: grey high, low, alpha high, low
            pixels, low, mode = pixels[..., :1], low[..., 1:2], "L"
        pixels = pixels.astype(np.uint16) << 8 | low
    palette = palette_of(file)
    return samples.finish(want, *without_alpha(want, pixels, mode), palette)


def _png_pixels(data: bytes, want: Want) -> bytes:
    """The file less what is no pixel, sums checked, which decoding does not look at."""
    width, height = samples.unpack(">II", data, 16)
    samples.check_size(want, height, width)
    view = memoryview(data)
    kept, kind, start = [view[:8]], b"", 8
    while kind != b"IEND":
        length, kind = samples.unpack(">I4s", data, start)
        end = start + 12 + length
        (expected,) = samples.unpack(">I", data, end - 4)
        if zlib.crc32(view[start + 4 : end - 4]) != expected:
            raise DamagedError(f"wrong checksum in {kind!r}")
        if kind in _PNG_PIXELS:
            kept.append(view[start:end])
        if kind == b"eXIf":
            exif = data[start + 8 : end - 4]
            samples.check_upright(want, _orientation(exif))
        if kind == b"acTL":
            _check_still(want, samples.unpack(">I", data, start + 8)[0])
        start = end
    return b"".join(kept)


def _check_still(want: Want, frames: int) -> None:
    if frames != 1:
        raise InputError(
            f"{want.name}: an animation of {frames} frames; expected a still image"
        )


def decode_jpeg(stream: BinaryIO, want: Want) -> np.ndarray:
    """Decodes a JPEG file.

    Args:
      stream: Open file.
      want: What is to be read.

    Returns:
      Pixels uint8 `[H, W, 1]` or `[H, W, 3]`.
    """
    samples.page_index(want, 1)
    data = _jpeg_pixels(stream.read(), want)
    with samples.decoder_errors():
        file = JpegImageFile(io.BytesIO(data))
    samples.check_size(want, file.height, file.width)
    with samples.decoder_errors():
        pixels, mode = np.array(file), file.mode
    return samples.finish(want, *without_alpha(want, pixels, mode))


def _jpeg_pixels(data: bytes, want: Want) -> bytes:
    """The file less its comments and all application data but JFIF and Adobe's."""
    view = memoryview(data)
    kept, start = [view[:2]], 2
    while True:
        mark, kind, length = samples.unpack(">BBH", data, start)
        if mark != 0xFF:
            raise DamagedError("no marker where one should be")
        if kind == 0xFF:  # a filling byte
            start += 1
            continue
        if kind == 0xDA:  # pixels from here to the end
            return b"".join([*kept, view[start:]])
        end = start + 2 + length
        if kind == 0xE1 and data[start + 4 : start + 10] == b"Exif\0\0":
            samples.check_upright(want, _orientation(data[start + 10 : end]))
        if not (0xE1 <= kind <= 0xED or kind in (0xEF, 0xFE)):
            kept.append(view[start:end])
        start = end


def _orientation(exif: bytes) -> int:
    """The orientation that EXIF data gives; 1 if it gives none or is damaged."""
    exif = exif.removeprefix(b"Exif\0\0")
    order = {b"II": "<", b"MM": ">"}.get(exif[:2])
    if order is None:
        return 1
    try:
        (start,) = samples.unpack(f"{order}I", exif, 4)
        (count,) = samples.unpack(f"{order}H", exif, start)
        for at in range(start + 2, start + 2 + 12 * count, 12):
            tag, _, _, value = samples.unpack(f"{order}HHIH", exif, at)
            if tag == 0x0112:
                return value
    except DamagedError:
        return 1
    return 1


def without_alpha(want: Want, pixels: np.ndarray, mode: str) -> tuple[np.ndarray, int]:
    """Drops the alpha channel of pixels in a mode of pillow.

    Args:
      want: What is to be read.
      pixels: Pixels `[H, W]` or `[H, W, C]`.
      mode: Colour mode of pillow, such as "RGBA".

    Returns:
      Pixels `[H, W, C]`, and how many of the channels are colours.

    Raises:
      InputError: If the mode is not grey, palette or RGB(A).
    """
    if pixels.ndim == 2:
        return pixels[..., None], 1
    if mode not in _COLOURS:
        raise InputError(
            f"{want.name}: colour mode {mode}; expected grey, palette or RGB(A)"
        )
    colours = _COLOURS[mode]
    return (pixels if mode == "RGBX" else pixels[..., :colours]), colours


def palette_of(file: Image.Image) -> np.ndarray | None:
    """Returns the palette of an image.

    Args:
      file: Image opened by pillow.

    Returns:
      uint8 `[256, 3]`, where entries that the file leaves out are black; None for an
      image without a palette.
    """
    with samples.decoder_errors():
        colours = file.getpalette("RGB") if file.mode in ("P", "PA") else None
    if colours is None:
        return None
    return np.array(colours + [0] * (768 - len(colours)), np.uint8).reshape(256, 3)
