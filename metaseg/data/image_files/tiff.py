"""TIFF: which of its planes are pages and which channels, and their pixels.

tifffile reads structure and pixels; compressions that it leaves to a package we do
without, LZW first of all, are read by pillow. Host-side NumPy; imports no jax.
"""

import ctypes
import functools
import math
import struct
from collections.abc import Sequence
from typing import Any, BinaryIO, NamedTuple

import numpy as np
import tifffile
from PIL import Image
from PIL.TiffImagePlugin import TiffImageFile
from tifffile import COMPRESSION, PHOTOMETRIC, TIFF

from metaseg.data.image_files import raster, samples
from metaseg.data.image_files.samples import DamagedError, Want
from metaseg.errors import InputError

__all__ = ["count", "decode"]

_DESCRIBED = ("shaped", "imagej", "ome")  # by metadata that name each axis
_LOSSY = (COMPRESSION.OJPEG, COMPRESSION.JPEG, COMPRESSION.WEBP)
_TAG_BYTES = {kind: struct.calcsize(form) for kind, form in TIFF.DATA_FORMATS.items()}
_MODES = (
    PHOTOMETRIC.MINISWHITE,
    PHOTOMETRIC.MINISBLACK,
    PHOTOMETRIC.RGB,
    PHOTOMETRIC.PALETTE,
)


class _Stack(NamedTuple):
    """Some of a file's planes, all of one kind.

    Attributes:
      planes: pages of the file.
      numbers: `[pages, channels]` of our pages, each the place of a plane.
      whole: tifffile's series where `planes` holds but the first, else None.
    """

    planes: Sequence[Any]
    numbers: np.ndarray
    whole: Any = None


def decode(stream: BinaryIO, want: Want) -> np.ndarray:
    """Reads one page of a TIFF file, or one channel of a page.

    Args:
      stream: Open file.
      want: What is to be read.

    Returns:
      Pixels `[H, W, 1]` or `[H, W, 3]`.
    """
    with _opened(stream) as file:
        stacks = _stacks(file)
        index = samples.page_index(want, sum(len(one.numbers) for one in stacks))
        while index >= len(stacks[0].numbers):
            index -= len(stacks.pop(0).numbers)
        stack = stacks[0]
        numbers = stack.numbers[index]
        if len(numbers) == 1:
            return samples.finish(want, *_plane(stack, numbers[0], want))
        samples.check_channel(want, len(numbers), 3 if len(numbers) == 3 else 0)
        if want.channel is not None:
            numbers = numbers[[want.channel]]
        planes = [_plane(stack, number, want)[0] for number in numbers]
        if len({plane.shape for plane in planes}) > 1:
            raise DamagedError("the channels of a page differ in shape")
        return np.concatenate(planes, axis=-1)


def count(stream: BinaryIO) -> int:
    """Counts the pages of a TIFF file: planes that are not channels of one image.

    Args:
      stream: Open file.

    Returns:
      Number of pages.
    """
    with _opened(stream) as file:
        return sum(len(one.numbers) for one in _stacks(file))


def _opened(stream: BinaryIO) -> tifffile.TiffFile:
    with samples.decoder_errors():
        return tifffile.TiffFile(stream)


def _stacks(file: tifffile.TiffFile) -> list[_Stack]:
    """By the axes that metadata name, else a page for each plane of the file."""
    with samples.decoder_errors():
        named = file.is_shaped or file.is_imagej or file.is_ome
        number, first, last = len(file.pages), file.pages.first, file.pages[-1]
    _check_end(file, first, last)
    if number == 1:  # a single plane, unless these words promise more
        words = ("truncated", "images=")
        named = named and any(word in first.description for word in words)
    with samples.decoder_errors():
        every = list(file.series) if named else []
    usable = [
        one.kind in _DESCRIBED
        and not one.is_multifile
        and _squeezed(one)[1][-len(one.keyframe.shape) :] == one.keyframe.shape
        for one in every
    ]
    if usable and all(usable):
        return [_described(series) for series in every]
    return [_Stack(file.pages, np.arange(number)[:, None])]


def _check_end(file: tifffile.TiffFile, first: Any, last: Any) -> None:
    """Planes lie in a chain; tifffile ends it where it leads back or beyond the end."""
    if first.offset != last.offset:
        _check_tags(first)
    _check_tags(last)
    layout, handle = file.tiff, file.filehandle
    (following,) = samples.unpack(layout.offsetformat, handle.read(layout.offsetsize))
    if following:
        raise DamagedError(f"plane {len(file.pages)} is not where it should be")


def _check_tags(plane: Any) -> None:
    """Refuses those beyond the end of the file, which tifffile would leave out."""
    layout, handle = plane.parent.tiff, plane.parent.filehandle
    handle.seek(plane.offset)
    (tags,) = samples.unpack(layout.tagnoformat, handle.read(layout.tagnosize))
    entry = f"{layout.byteorder}HH{'QQ' if layout.offsetsize == 8 else 'II'}"
    block = handle.read(tags * layout.tagsize)
    for start in range(0, tags * layout.tagsize, layout.tagsize):
        _, kind, number, offset = samples.unpack(entry, block, start)
        size = number * _TAG_BYTES.get(kind, 0)
        if size > layout.offsetsize and offset + size > handle.size:
            raise DamagedError("tags lie beyond its end")


def _described(series: Any) -> _Stack:
    """A stack whose axes before height and width are named: C counts channels."""
    axes, shape = _squeezed(series)
    outer = len(shape) - len(series.keyframe.shape)
    axes, shape = axes[:outer], shape[:outer]
    numbers = np.arange(np.prod(shape, dtype=int)).reshape(shape)[..., None]
    if "C" in axes and series.keyframe.samplesperpixel == 1:
        numbers = np.moveaxis(numbers[..., 0], axes.index("C"), -1)
    numbers = numbers.reshape(-1, numbers.shape[-1])
    return _Stack(series, numbers, series if series.is_truncated else None)


def _squeezed(series: Any) -> tuple[str, tuple[int, ...]]:
    """Axes of a series and their lengths; of length 1 only height and width are kept.

    Releases of tifffile differ in which axes of length 1 `series.shape` has.
    """
    if len(series.axes) != len(series.shape):
        raise DamagedError(f"axes {series.axes} of an array {list(series.shape)}")
    sizes = zip(series.axes, series.shape, strict=True)
    kept = [(axis, size) for axis, size in sizes if size > 1 or axis in "YX"]
    return "".join(axis for axis, _ in kept), tuple(size for _, size in kept)


def _plane(
    stack: _Stack, number: int, want: Want
) -> tuple[np.ndarray, int, np.ndarray | None]:
    """Pixels `[H, W, C]` without alpha, `colours` of them, and the palette if any."""
    with samples.decoder_errors():
        plane = stack.planes[0 if stack.whole else int(number)]
    if plane is None:
        raise InputError(f"{want.name}: plane {number} is missing; expected all planes")
    page = plane.keyframe
    _check(page, want)
    if stack.whole:
        with samples.decoder_errors():
            pixels = stack.whole.asarray(out="memmap")
        shape = (stack.numbers.size, *page.shape)
        if pixels.size == 0 or pixels.size != math.prod(shape):
            raise DamagedError(f"{pixels.size} samples for planes {list(shape)}")
        pixels = np.array(pixels.reshape(shape)[number])
    else:
        try:
            with samples.decoder_errors():
                pixels = plane.asarray()
        except DamagedError as error:
            left = isinstance(error.__cause__, ValueError)
            if not (left and "imagecodecs" in str(error)):
                raise
            return _by_pillow(plane, want)
    pixels = pixels[..., None] if page.axes == "YX" else pixels
    pixels = np.moveaxis(pixels, 0, -1) if page.axes == "SYX" else pixels
    return *_without_alpha(page, pixels), _palette(page)


def _palette(page: Any) -> np.ndarray | None:
    """uint8 `[entries, 3]` of the 16 bits that are stored."""
    palette = page.colormap
    if palette is None:
        return None
    if getattr(palette, "shape", ())[:-1] != (3,) or palette.dtype.kind != "u":
        raise DamagedError("its palette is not a table of colours")
    return (palette.T >> 8).astype(np.uint8)


def _check(page: Any, want: Want) -> None:
    with samples.decoder_errors():
        orientation = page.tags.valueof("Orientation", default=1)
    sizes = (page.imagelength, page.imagewidth, page.samplesperpixel)
    for number in (orientation, *sizes):
        if not isinstance(number, int):  # damaged tags hold texts or many numbers
            raise DamagedError("a tag does not hold a number")
    samples.check_upright(want, orientation)
    lossy = page.compression in _LOSSY
    if want.label and lossy:
        raise InputError(
            f"{want.name}: a label map with {page.compression.name} compression, which"
            " invents class ids; expected a lossless one"
        )
    known = page.photometric in _MODES
    if not known and not (page.photometric == PHOTOMETRIC.YCBCR and lossy):
        mode = getattr(page.photometric, "name", page.photometric)
        raise InputError(
            f"{want.name}: colour mode {mode}; expected grey, palette or RGB(A)"
        )
    if page.axes not in ("YX", "YXS", "SYX"):
        raise InputError(
            f"{want.name}: axes {page.axes}; expected planes, grey or colour"
        )
    samples.check_size(want, *sizes)


def _without_alpha(page: Any, pixels: np.ndarray) -> tuple[np.ndarray, int]:
    """Alpha is what is said to be: other extra samples are channels."""
    is_rgb = page.photometric == PHOTOMETRIC.RGB
    basic = pixels.shape[-1] - len(page.extrasamples)
    if basic < 0:
        raise DamagedError("it has more extra samples than samples")
    alpha = [basic + i for i, kind in enumerate(page.extrasamples) if kind > 0]
    pixels = np.delete(pixels, alpha, axis=-1) if alpha else pixels
    channels = pixels.shape[-1]
    if channels == 1:
        return pixels, 1
    return pixels, 3 if channels == 3 or (channels == 4 and is_rgb) else 0


def _by_pillow(plane: Any, want: Want) -> tuple[np.ndarray, int, np.ndarray | None]:
    """For the compressions that tifffile leaves to a package we do without."""
    page, handle = plane.keyframe, plane.parent.filehandle
    parts = zip(plane.dataoffsets, plane.databytecounts, strict=True)
    ends = [start + length for start, length in parts]
    if max(ends) > handle.size:
        raise DamagedError(f"{max(ends) - handle.size} bytes are missing at its end")
    _silence_libtiff()
    with open(handle.path, "rb") as stream:
        with samples.decoder_errors():
            file = TiffImageFile(stream)
            file.seek(plane.index)
            mode, size = file.mode, file.size
            # Without this line pillow warns of more than 89 Mpixel.
            file.im = Image.new(mode, size).im
            pixels = np.array(file)
        palette = raster.palette_of(file)
    if mode == "I" and page.dtype.itemsize < 4:  # pillow widens int16
        pixels = pixels.astype(page.dtype)
    if page.bitspersample not in (1, 8 * pixels.dtype.itemsize):
        raise InputError(
            f"{want.name}: {page.compression.name} compression of"
            f" {page.bitspersample}-bit {mode}; expected deflate or none for such"
            " samples"
        )
    if pixels.dtype.kind != "b" and page.bitspersample > 1:
        pixels = pixels.view(page.dtype)  # pillow knows not all signs
    if page.photometric == PHOTOMETRIC.MINISWHITE and mode in ("1", "L"):
        pixels = ~pixels  # pillow has inverted these, tifffile would not
    return *raster.without_alpha(want, pixels, mode), palette


@functools.cache
def _silence_libtiff() -> None:
    """Damaged data make libtiff print, besides the error that pillow raises."""
    path = getattr(Image.core, "__file__", None)  # some builds of pillow hide libtiff
    set_handler = path and getattr(ctypes.CDLL(path), "TIFFSetErrorHandler", None)
    if set_handler:
        set_handler(None)
