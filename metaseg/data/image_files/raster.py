"""PNG, JPEG, BMP and GIF, decoded after a look at their parts.

The parts that hold no pixels do not reach the decoders, which would warn of damaged
ones.
Host-side NumPy; imports no jax.
"""

import io
import zlib
from typing import BinaryIO, NamedTuple

import imagecodecs
import numpy as np
from PIL import Image
from PIL.BmpImagePlugin import BmpImageFile
from PIL.GifImagePlugin import GifImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile

from metaseg.data.image_files import samples
from metaseg.data.image_files.samples import DamagedError, StoredPage, Want
from metaseg.errors import InputError

__all__ = ["count_gif", "decode_bmp", "decode_gif", "decode_jpeg", "decode_png"]

_PNG_PIXELS = (b"IHDR", b"PLTE", b"IDAT", b"IEND")
_PALETTE = 3  # colour type of PNG
_COLOURS = {"L": 1, "LA": 1, "RGB": 3, "RGBA": 3}  # the channel after them is alpha


class _PngParts(NamedTuple):
    """Chunks of a PNG file.

    Attributes:
      data: The file less what is no pixel.
      depth: Bits of a sample.
      colour_type: Number of grey, colour, palette, with or without alpha.
      orientation: Orientation tag.
      transparency: Values or indices that are transparent, or None.
    """

    data: bytes
    depth: int
    colour_type: int
    orientation: int
    transparency: bytes | None


def decode_png(stream: BinaryIO, want: Want) -> np.ndarray:
    """Decodes a PNG file; bits and palette indices stay as they are stored.

    Args:
      stream: Open file.
      want: What is to be read.

    Returns:
      Pixels `[H, W, C]`.
    """
    samples.page_index(want, 1)
    parts = _png_parts(stream.read(), want)
    palette = None
    with samples.decoder_errors():
        if parts.depth < 8 or parts.colour_type == _PALETTE:
            file = PngImageFile(io.BytesIO(parts.data))
            layout = file.tile[0][3]
            pixels = np.array(file)
        else:
            pixels, layout = imagecodecs.png_decode(parts.data), ""
    if layout:
        palette = _palette(file)
    if layout in ("L;2", "L;4"):  # pillow stretches these to 0..255; ids must not be
        pixels //= 85 if layout == "L;2" else 17
    pixels = pixels[..., None] if pixels.ndim == 2 else pixels
    alpha = None
    if pixels.shape[-1] in (2, 4):
        pixels, alpha = pixels[..., :-1], pixels[..., -1]
    elif want.options.from_alpha:  # else left out: each stored value has one alpha
        alpha = _transparency(parts, pixels)
    return samples.finish(want, StoredPage(pixels, palette, alpha, parts.orientation))


def _transparency(parts: _PngParts, pixels: np.ndarray) -> np.ndarray | None:
    """Alpha `[H, W]` of a PNG file that gives some of its values or indices one."""
    if parts.transparency is None:
        return None
    if parts.colour_type == _PALETTE:
        stored = np.frombuffer(parts.transparency, np.uint8)[:256]
        table = np.full(256, 255, np.uint8)
        table[: len(stored)] = stored
        return table[pixels[..., 0].astype(np.uint8)]
    key = samples.unpack(f">{pixels.shape[-1]}H", parts.transparency)
    return np.where((pixels == np.array(key)).all(axis=-1), 0, 255).astype(np.uint8)


def _png_parts(data: bytes, want: Want) -> _PngParts:
    """Reads the chunks; sums are checked, which decoding does not look at."""
    width, height, depth, colour_type = samples.unpack(">IIBB", data, 16)
    samples.check_size(want, height, width)
    view = memoryview(data)
    kept, kind, start = [view[:8]], b"", 8
    orientation, transparency = 1, None
    while kind != b"IEND":
        length, kind = samples.unpack(">I4s", data, start)
        end = start + 12 + length
        (expected,) = samples.unpack(">I", data, end - 4)
        if zlib.crc32(view[start + 4 : end - 4]) != expected:
            raise DamagedError(f"wrong checksum in {kind!r}")
        if kind in _PNG_PIXELS:
            kept.append(view[start:end])
        if kind == b"tRNS":
            transparency = data[start + 8 : end - 4]
        if kind == b"eXIf":
            orientation = _orientation(data[start + 8 : end - 4])
            samples.check_upright(want, orientation)
        if kind == b"acTL":
            _check_still(want, samples.unpack(">I", data, start + 8)[0])
        start = end
    return _PngParts(b"".join(kept), depth, colour_type, orientation, transparency)


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
      Pixels uint8 `[H, W, C]`.
    """
    samples.page_index(want, 1)
    data, orientation = _jpeg_pixels(stream.read(), want)
    with samples.decoder_errors():
        file = JpegImageFile(io.BytesIO(data))
    samples.check_size(want, file.height, file.width)
    with samples.decoder_errors():
        pixels, mode = np.array(file), file.mode
    found = _found(want, pixels, mode)
    return samples.finish(want, found._replace(orientation=orientation))


def _jpeg_pixels(data: bytes, want: Want) -> tuple[bytes, int]:
    """The file less its comments and all application data but JFIF and Adobe's."""
    view = memoryview(data)
    kept, start = [view[:2]], 2
    orientation = 1
    while True:
        mark, kind, length = samples.unpack(">BBH", data, start)
        if mark != 0xFF:
            raise DamagedError("no marker where one should be")
        if kind == 0xFF:  # a filling byte
            start += 1
            continue
        if kind == 0xDA:  # pixels from here to the end
            return b"".join([*kept, view[start:]]), orientation
        end = start + 2 + length
        if kind == 0xE1 and data[start + 4 : start + 10] == b"Exif\0\0":
            orientation = _orientation(data[start + 10 : end])
            samples.check_upright(want, orientation)
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


def decode_bmp(stream: BinaryIO, want: Want) -> np.ndarray:
    """Decodes a BMP file; its palette is treated as that of a PNG file.

    Args:
      stream: Open file.
      want: What is to be read.

    Returns:
      Pixels uint8 `[H, W, C]`.
    """
    samples.page_index(want, 1)
    with samples.decoder_errors():
        file = BmpImageFile(stream)
    samples.check_size(want, file.height, file.width)
    with samples.decoder_errors():
        pixels, mode = np.array(file), file.mode
    if mode == "1":  # a palette of black and white
        pixels = pixels.astype(np.uint8) * 255
    found = _found(want, pixels, mode)
    return samples.finish(want, found._replace(palette=_palette(file)))


def decode_gif(stream: BinaryIO, want: Want) -> np.ndarray:
    """Decodes one frame of a GIF file, as it is shown.

    Args:
      stream: Open file.
      want: What is to be read.

    Returns:
      Colours uint8 `[H, W, 3]`, also of a label map: writers choose the indices.
    """
    with samples.decoder_errors():
        file = GifImageFile(stream)
        frames = file.n_frames
    index = samples.page_index(want, frames)
    samples.check_size(want, file.height, file.width)
    with samples.decoder_errors():
        file.seek(index)
        pixels = np.array(file.convert("RGB"))
    return samples.finish(want, StoredPage(pixels))


def count_gif(stream: BinaryIO) -> int:
    """Counts the frames of a GIF file.

    Args:
      stream: Open file.

    Returns:
      Number of frames.
    """
    with samples.decoder_errors():
        return GifImageFile(stream).n_frames


def _found(want: Want, pixels: np.ndarray, mode: str) -> StoredPage:
    """Pixels in a mode of pillow, and their alpha."""
    if pixels.ndim == 2:
        return StoredPage(pixels[..., None])
    if mode not in _COLOURS:
        raise InputError(
            f"{want.name}: colour mode {mode}; expected grey, palette or RGB(A)"
        )
    colours = _COLOURS[mode]
    alpha = pixels[..., colours] if pixels.shape[-1] > colours else None
    return StoredPage(pixels[..., :colours], alpha=alpha)


def _palette(file: Image.Image) -> np.ndarray | None:
    """Colours uint8 `[256, 3]`; entries that the file leaves out are black."""
    with samples.decoder_errors():
        colours = file.getpalette("RGB") if file.mode == "P" else None
    if colours is None:
        return None
    return np.array(colours + [0] * (768 - len(colours)), np.uint8).reshape(256, 3)
