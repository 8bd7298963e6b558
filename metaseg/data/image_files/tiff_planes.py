"""One plane of a TIFF file: what its tags say of its samples, and the samples.

Host-side NumPy; imports no jax.
"""

import copy
import math
from typing import Any

import imagecodecs
import numpy as np
from tifffile import COMPRESSION, PHOTOMETRIC, TIFF

from metaseg.data.image_files import lzw, samples
from metaseg.data.image_files.samples import DamagedError, StoredPage, Want
from metaseg.errors import InputError

__all__ = ["decode"]

_JPEG = (COMPRESSION.OJPEG, COMPRESSION.JPEG, COMPRESSION.ALT_JPEG)
_WEBP = (COMPRESSION.WEBP, COMPRESSION.WEBP_DEPRECATED)
_JPEG_2000 = (
    COMPRESSION.APERIO_JP2000_RGB,
    COMPRESSION.APERIO_JP2000_YCBC,
    COMPRESSION.JPEG2000,
    COMPRESSION.JPEG_2000_LOSSY,
)
_JPEG_XL = (COMPRESSION.JPEGXL, COMPRESSION.JPEGXL_DNG)
_LOSSY = (  # or perhaps lossy, which their tags do not tell
    *_JPEG,
    COMPRESSION.JPEG_LOSSY,
    *_JPEG_XL,
    COMPRESSION.JPEGXR,
    COMPRESSION.JPEGXR_NDPI,
    COMPRESSION.LERC,
)
_MODES = (
    PHOTOMETRIC.MINISWHITE,
    PHOTOMETRIC.MINISBLACK,
    PHOTOMETRIC.RGB,
    PHOTOMETRIC.PALETTE,
)


def decode(plane: Any, want: Want, *, whole: Any = None, number: int = 0) -> StoredPage:
    """Reads a plane.

    Args:
      plane: Page or frame of tifffile.
      want: What is to be read.
      whole: Series of which the file has but the first plane as a page, or None.
      number: Place of the plane in `whole`.

    Returns:
      What was found.

    Raises:
      InputError: If its tags name samples that are not read.
    """
    page = plane.keyframe
    orientation = _check(plane, want)
    if whole is not None:
        pixels = _of_series(whole, number)
    else:
        _check_codestream(plane)
        _decode_lzw_by_libtiff(page)
        try:
            with samples.decoder_errors():
                pixels = plane.asarray()
        except DamagedError as error:
            if isinstance(error.__cause__, NotImplementedError):
                raise _unread(want, page, str(error.__cause__)) from error
            raise
    pixels = pixels[..., None] if page.axes == "YX" else pixels
    pixels = np.moveaxis(pixels, 0, -1) if page.axes == "SYX" else pixels
    pixels, alpha = _without_alpha(page, _black_is_zero(page, pixels, want))
    guessed = _is_by_tifffile(page)
    return StoredPage(pixels, _palette(page), alpha, orientation, guessed_alpha=guessed)


def _of_series(series: Any, number: int) -> np.ndarray:
    with samples.decoder_errors():
        pixels = series.asarray(out="memmap")
    shape = series.keyframe.shape
    if pixels.size == 0 or pixels.size % math.prod(shape):
        raise DamagedError(f"{pixels.size} samples for planes {list(shape)}")
    return np.array(pixels.reshape(-1, *shape)[number])


def _palette(page: Any) -> np.ndarray | None:
    """Colours uint8 `[entries, 3]` of the 16 bits that are stored."""
    palette = page.colormap
    if palette is None:
        return None
    if getattr(palette, "shape", ())[:-1] != (3,) or palette.dtype.kind != "u":
        raise DamagedError("its palette is not a table of colours")
    if palette.max(initial=0) > 255:  # else some programs have stored 8 bits
        palette = palette >> 8
    return palette.T.astype(np.uint8)


def _check(plane: Any, want: Want) -> int:
    """Refuses what is not read; returns the orientation."""
    page = plane.keyframe
    orientation = _checked_numbers(plane)
    samples.check_upright(want, orientation)
    if want.label and _may_be_lossy(plane):
        raise InputError(
            f"{want.name}: a label map with {_name(page.compression)} compression,"
            " which invents class ids; expected a lossless one"
        )
    to_rgb = page.photometric == PHOTOMETRIC.YCBCR and page.compression in (
        *_JPEG,
        *_WEBP,
    )
    if page.photometric not in _MODES and not to_rgb:
        mode = getattr(page.photometric, "name", page.photometric)
        raise InputError(
            f"{want.name}: colour mode {mode}; expected grey, palette or RGB(A)"
        )
    if page.axes not in ("YX", "YXS", "SYX"):
        raise InputError(
            f"{want.name}: axes {page.axes}; expected planes, grey or colour"
        )
    samples.check_size(want, page.imagelength, page.imagewidth, page.samplesperpixel)
    _check_coding(page, want)
    return orientation


def _checked_numbers(plane: Any) -> int:
    """Refuses tags that hold texts or many numbers; returns the orientation."""
    page, size = plane.keyframe, plane.parent.filehandle.size
    with samples.decoder_errors():
        orientation = page.tags.valueof("Orientation", default=1)
    single = (
        orientation,
        page.imagelength,
        page.imagewidth,
        page.samplesperpixel,
        page.imagedepth,
        page.rowsperstrip,
        page.tilelength,
        page.tilewidth,
        page.tiledepth,
        page.planarconfig,
        page.fillorder,
        page.compression,
        page.predictor,
        page.photometric,
    )
    counts = tuple(plane.databytecounts)
    if not all(isinstance(n, int) for n in (*single, *plane.dataoffsets, *counts)):
        raise DamagedError("a tag does not hold a number")
    if not (counts and plane.dataoffsets):
        raise DamagedError("it does not say where its pixels are")
    if max(counts) > size or not (page.is_tiled or page.rowsperstrip):
        raise DamagedError("a tag holds a number that cannot be")
    return orientation


def _check_coding(page: Any, want: Want) -> None:
    """Refuses compressions, predictors and samples that have no decoder."""
    if page.compression not in TIFF.DECOMPRESSORS:
        raise _unread(want, page)
    if page.predictor not in TIFF.UNPREDICTORS:
        raise _unread(want, page, f"predictor {page.predictor}")
    if page.dtype is None:
        raise _unread(want, page, f"sample format {_name(page.sampleformat)}")
    predictor = f"predictor {_name(page.predictor)}"
    if page.bitspersample == 1:
        if page.predictor != 1:
            raise _unread(want, page, predictor)
        if page.axes == "YXS" and page.samplesperpixel > 1:
            # Programs differ in the order of such bits.
            raise _unread(want, page, f"{page.samplesperpixel} of them in a pixel")
    if page.bitspersample == 24 and page.dtype.kind == "u":
        raise _unread(want, page, "of whose bytes the order is not known")
    if page.compression == COMPRESSION.LERC and page.predictor > 2:
        raise _unread(want, page, predictor)
    if page.compression in _JPEG_2000 and page.dtype.itemsize > 2:
        raise _unread(want, page)  # decoders give other values
    if page.compression in _JPEG_XL and page.dtype == np.float16:
        raise _unread(want, page, "floats")  # the smallest come out as others
    if page.is_subsampled and page.compression not in (*_JPEG, *_WEBP):
        raise _unread(want, page, "subsampled colours")


def _unread(want: Want, page: Any, why: str = "") -> InputError:
    because = f" ({why})" if why else ""
    return InputError(
        f"{want.name}: compression {_name(page.compression)} of"
        f" {page.bitspersample}-bit samples{because}, which cannot be read; expected a"
        " common one, such as LZW or deflate of 8, 16 or 32 bits"
    )


def _name(code: int) -> str:
    return str(getattr(code, "name", code))


def _may_be_lossy(plane: Any) -> bool:
    """Whether samples may differ from what was written."""
    compression = plane.keyframe.compression
    if compression in _LOSSY:
        return True
    if compression in _WEBP:
        return b"VP8L" not in _segment_start(plane, 0, 64)
    if compression not in _JPEG_2000:
        return False
    # The marker COD: 2 bytes, length 2, style 1, progression and layers 4, and of the
    # wavelet levels 1, block 2, block style 1, kind 1: the last is 1 if reversible.
    start = _segment_start(plane, 0, 4096)
    at = start.find(b"\xff\x52")
    return at < 0 or start[at + 13 : at + 14] != b"\1"


def _segment_start(plane: Any, index: int, count: int) -> bytes:
    """First bytes of a strip or tile."""
    with samples.decoder_errors():
        handle = plane.parent.filehandle
        handle.seek(plane.dataoffsets[index])
        return handle.read(min(plane.databytecounts[index], count))


def _check_codestream(plane: Any) -> None:
    """Refuses a last strip of JPEG 2000 whose axes are in another order than told.

    Some writers take a strip `[4, W, C]` for four planes `[4, H, W]`.
    """
    page = plane.keyframe
    if page.compression not in _JPEG_2000 or page.is_tiled:
        return
    start = _segment_start(plane, -1, 4096)
    at = start.find(b"\xff\x51")  # SIZ: 2 bytes, length 2, profile 2, then sizes
    if at < 0:
        return
    right, bottom, left, top = samples.unpack(">IIII", start, at + 6)
    (channels,) = samples.unpack(">H", start, at + 38)
    rows = page.imagelength % page.rowsperstrip or page.rowsperstrip
    expected = (rows, page.imagewidth, 1 if page.planarconfig == 2 else page.shaped[-1])
    found = (bottom - top, right - left, channels)
    if found != expected:
        raise DamagedError(f"a strip {list(found)} where {list(expected)} should be")


def _decode_lzw_by_libtiff(page: Any) -> None:
    """Replaces the function by which tifffile decodes strips and tiles of a page."""
    if page.compression != COMPRESSION.LZW or "decode" in vars(page):
        return
    uncompressed = copy.copy(page)
    uncompressed.compression = COMPRESSION.NONE
    uncompressed.fillorder = 1
    with samples.decoder_errors():
        arrange = uncompressed.decode

    def decode(data: bytes | None, index: int, **options: Any) -> Any:
        if data is None:
            return arrange(data, index, **options)
        if page.fillorder == 2:
            data = bytes(imagecodecs.bitorder_decode(data))
        _, _, (depth, rows, width, channels) = arrange(None, index)
        bits = page.bitspersample
        bits = sum(bits) if isinstance(bits, tuple) else bits * channels
        size = depth * rows * -(-bits * width // 8)
        return arrange(lzw.decode(data, size).data, index, **options)

    page.decode = decode


def _black_is_zero(page: Any, pixels: np.ndarray, want: Want) -> np.ndarray:
    """Inverts samples for which 0 is white, as the file says; see `reading`."""
    if page.photometric != PHOTOMETRIC.MINISWHITE or _is_meant_as_stored(page):
        return pixels
    grey = pixels[..., :1]
    if grey.dtype.kind == "b":
        inverse = ~grey
    elif grey.dtype.kind == "u":
        inverse = np.array(2**page.bitspersample - 1, grey.dtype) - grey
    else:
        raise InputError(
            f"{want.name}: 0 is white (WhiteIsZero) in {grey.dtype} samples, which"
            " leaves open what is black; expected BlackIsZero, or unsigned integers"
        )
    return np.concatenate([inverse, pixels[..., 1:]], axis=-1)


def _is_meant_as_stored(page: Any) -> bool:
    """Whether a program wrote WhiteIsZero that shows, but does not use, values so."""
    bits = page.bitspersample == 1 and _is_by_tifffile(page)
    return bool(page.parent.pages.first.is_imagej or bits)


def _is_by_tifffile(page: Any) -> bool:
    first = page.parent.pages.first
    return bool(first.is_shaped or first.software.startswith("tifffile"))


def _without_alpha(
    page: Any, pixels: np.ndarray
) -> tuple[np.ndarray, np.ndarray | None]:
    """Alpha is what is said to be: other extra samples are channels."""
    basic = pixels.shape[-1] - len(page.extrasamples)
    if basic < 0:
        raise DamagedError("it has more extra samples than samples")
    alpha = [basic + i for i, kind in enumerate(page.extrasamples) if kind > 0]
    if not alpha or len(alpha) == pixels.shape[-1]:
        return pixels, None
    return np.delete(pixels, alpha, axis=-1), pixels[..., alpha[0]]
