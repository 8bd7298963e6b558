"""Files to stored samples, whatever their format, and samples to class ids.

Host-side NumPy; imports no jax, so that worker processes start fast.
"""

import os
import stat
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import BinaryIO, NamedTuple, TypeVar

import numpy as np
from jaxtyping import Integer, Real, UInt8

from metaseg.data.dataset import VOID
from metaseg.data.file_options import DEFAULT, FileOptions
from metaseg.data.image_files import arrays, raster, tiff
from metaseg.data.image_files.samples import (
    MAX_PIXELS,
    DamagedError,
    Want,
    quiet_decoders,
    shown,
    some,
)
from metaseg.data.image_files.unsupported import unsupported
from metaseg.errors import InputError

__all__ = [
    "IMAGE_SUFFIXES",
    "LABEL_SUFFIXES",
    "array_names",
    "channel_names",
    "count_pages",
    "integers",
    "read_image",
    "read_label",
    "read_label_values",
]

Result = TypeVar("Result")


class _Format(NamedTuple):
    """What files of an ending hold, and how they are read.

    Attributes:
      name: with its article, for messages.
      decode: a stream and what is wanted of it to `[H, W, C]`.
      count: pages of a stream.
    """

    name: str
    decode: Callable[[BinaryIO, Want], np.ndarray]
    count: Callable[[BinaryIO], int]


def _one(stream: BinaryIO) -> int:
    del stream
    return 1


_PNG = _Format("PNG image", raster.decode_png, _one)
_JPEG = _Format("JPEG image", raster.decode_jpeg, _one)
_BMP = _Format("BMP image", raster.decode_bmp, _one)
_GIF = _Format("GIF image", raster.decode_gif, raster.count_gif)
_TIFF = _Format("TIFF image", tiff.decode, tiff.count)
_NPY = _Format("NumPy array", arrays.decode_npy, arrays.count_npy)
_NPZ = _Format("NumPy archive", arrays.decode_npz, arrays.count_npz)
_FORMATS = {
    ".png": _PNG,
    ".jpg": _JPEG,
    ".jpeg": _JPEG,
    ".bmp": _BMP,
    ".gif": _GIF,
    ".tif": _TIFF,
    ".tiff": _TIFF,
    ".npy": _NPY,
    ".npz": _NPZ,
}
IMAGE_SUFFIXES = tuple(_FORMATS)
LABEL_SUFFIXES = tuple(ending for ending in _FORMATS if _FORMATS[ending] is not _JPEG)

_CONTENTS = {  # first bytes; those of formats that we do not read are told apart too
    b"\x89PNG\r\n\x1a\n": _PNG.name,
    b"\xff\xd8\xff": _JPEG.name,
    b"II*\0": _TIFF.name,
    b"MM\0*": _TIFF.name,
    b"II+\0": _TIFF.name,
    b"MM\0+": _TIFF.name,
    b"\x93NUMPY": _NPY.name,
    b"PK\x03\x04": _NPZ.name,
    b"PK\x05\x06": _NPZ.name,
    b"GIF8": _GIF.name,
    b"BM": _BMP.name,
    b"RIFF": "WebP image",
    b"\0\0\0\x0cjP": "JPEG 2000 image",
    b"\x89HDF": "HDF5 file",
    b"\x1f\x8b": "gzip file",
    b"%PDF": "PDF file",
}


def read_image(
    path: Path,
    *,
    page: int | None = None,
    options: FileOptions = DEFAULT,
    max_pixels: int = MAX_PIXELS,
) -> Real[np.ndarray, "H W C"]:
    """Reads an image as stored: alpha dropped, palette expanded, not normalised.

    In TIFF files that say so (ImageJ, OME, tifffile) axes T and Z count pages and C
    counts channels; other files have a page per plane. Planes of reduced resolution and
    transparency masks are no pages. A .npy file of shape `[H, W, C]` is one page if C
    is at most 4 or less than a quarter of H and W, else it is a stack `[pages, H, W]`;
    `[pages, H, W, C]` is one too. A .npz file has a page for each array, a GIF file one
    for each frame.

    Black is 0: grey samples of a TIFF file with photometric interpretation WhiteIsZero
    are inverted. ImageJ writes WhiteIsZero for an image with an inverting look-up
    table, which it shows inverted; but it measures the values as stored, and 255 is
    foreground in its masks. So the values of files whose description starts with
    "ImageJ=" are read as stored. So are bits that tifffile wrote: it says WhiteIsZero
    of every array of bool. All of this holds for label maps too.

    Args:
      path: PNG, JPEG, BMP, GIF, TIFF, .npy or .npz; integers, floats or bool.
      page: Which of several pages, from 0; None: `options.page`.
      options: Which channels, and whether pixels are turned upright.
      max_pixels: of the page; a header that promises more is refused.

    Returns:
      `[H, W, C]` with all channels of the file, or those that are chosen. Three equal
      channels are one. Floats as float32, integers in the file's dtype, bool as uint8.

    Raises:
      InputError: if the file cannot be decoded, has other pages or channels, is not
        stored upright, or holds NaN or infinity.
    """
    want = _want(path, page, options, max_pixels, label=False)
    pixels = _decode(path, want)
    if pixels.dtype.kind == "f":
        with np.errstate(over="ignore"):  # beyond float32 is as bad as infinite
            pixels = pixels.astype(np.float32, copy=False)
        _check_finite(pixels, want.name, "finite float32")
    if options.channels is None and pixels.shape[-1] == 3 and _is_grey(pixels):
        return pixels[..., :1]
    return pixels


def read_label_values(
    path: Path,
    *,
    page: int | None = None,
    options: FileOptions = DEFAULT,
    max_pixels: int = MAX_PIXELS,
) -> Real[np.ndarray, "..."]:
    """Reads a label map as stored, whatever its values.

    A palette of greys, such as black and white, is read by colour, because programs
    that compress files renumber it; every palette is if the options give colours their
    class ids. Of other palettes the indices are read, but the colours of a GIF file,
    whose writers choose the indices. Three equal channels are one.

    Args:
      path: PNG, BMP, GIF, TIFF, .npy or .npz.
      page: Which of several pages, from 0, as for `read_image`; None: `options.page`.
      options: Whether pixels are turned upright, whether the map is the alpha, and
        whether palettes are read by colour.
      max_pixels: of the page; a header that promises more is refused.

    Returns:
      Integers or finite floats `[H, W]`, or integer colours `[H, W, 3]`, in the file's
      dtype; bool as uint8.

    Raises:
      InputError: if the file cannot be decoded, may have lost ids (JPEG), has alpha
        that is not constant, or is not stored upright.
    """
    want = _want(path, page, options, max_pixels, label=True)
    pixels = _decode(path, want)
    if pixels.dtype.kind == "f":
        _check_finite(pixels, want.name, "class ids")
    coloured = pixels.shape[-1] == 3 and not _is_grey(pixels)
    return pixels if coloured else pixels[..., 0]


def read_label(
    path: Path,
    num_classes: int,
    *,
    page: int | None = None,
    options: FileOptions = DEFAULT,
) -> UInt8[np.ndarray, "H W"]:
    """Reads a label map of class ids: grey values, or the indices of a palette.

    Args:
      path: PNG, BMP, GIF, TIFF, .npy or .npz; colour only with three equal channels.
      num_classes: Number of classes K.
      page: Which of several pages, from 0, as for `read_image`.
      options: As for `read_label_values`.

    Returns:
      uint8 `[H, W]`, see `class_ids`.

    Raises:
      InputError: If the file cannot be decoded or holds anything else.
    """
    where = shown(path)
    values = read_label_values(path, page=page, options=options)
    return class_ids(integers(values, where=where), num_classes, where=where)


def integers(
    values: Real[np.ndarray, "..."], *, where: str
) -> Integer[np.ndarray, "H W"]:
    """Checks that stored values of a label map can be ids.

    Args:
      values: What `read_label_values` gives.
      where: What messages name.

    Returns:
      Integers `[H, W]`; whole floats as int64.

    Raises:
      InputError: If they are colours or fractions.
    """
    if values.ndim == 3:
        raise InputError(
            f"{where}: a label image with colours; expected class ids as grey values"
            " or palette indices"
        )
    if values.dtype.kind != "f":
        return values
    if (values != np.rint(values)).any():
        raise InputError(f"{where}: fractions in a label; expected class ids")
    return values.astype(np.int64)


def class_ids(
    values: Integer[np.ndarray, "H W"], num_classes: int, *, where: str
) -> UInt8[np.ndarray, "H W"]:
    """Checks stored values of a label map.

    Args:
      values: Integers `[H, W]`. With K = 2 they may be 0 and 1, or 0 and 255.
      num_classes: Number of classes K.
      where: What messages name.

    Returns:
      uint8 `[H, W]`: ids below K, and 255, which is foreground with K = 2 and void
      with more.

    Raises:
      InputError: If other values are stored.
    """
    expected = (
        "0 and 1, or 0 and 255"
        if num_classes == 2
        else f"0 to {num_classes - 1}, or 255 for void"
    )
    unknown = (values < 0) | ((values >= num_classes) & (values != VOID))
    if unknown.any():
        ids = [str(int(value)) for value in np.unique(values[unknown])]
        raise InputError(
            f"{where}: class id {some(ids)} in {np.count_nonzero(unknown)}"
            f" pixels; expected {expected} (num_classes={num_classes})"
        )
    if num_classes == 2 and (values == 1).any() and (values == VOID).any():
        raise InputError(f"{where}: both 1 and 255 in a label; expected {expected}")
    return values.astype(np.uint8)


def count_pages(path: Path) -> int:
    """Counts the pages of a file, which the argument `page` chooses from.

    Reads headers only.

    Args:
      path: PNG, JPEG, BMP, GIF, TIFF, .npy or .npz.

    Returns:
      Number of pages.

    Raises:
      InputError: if the file is not what its ending promises.
    """
    format_ = _format(path, IMAGE_SUFFIXES)
    return _with(path, format_, format_.count)


def channel_names(path: Path, *, page: int | None = None) -> tuple[str, ...] | None:
    """Reads the names of the channels of an image, which `options.channels` may use.

    Args:
      path: File; OME and ImageJ store names in TIFF files.
      page: Which of several pages, from 0.

    Returns:
      A name for each channel; None if the file names none.

    Raises:
      InputError: if the file is not what its ending promises, or has other pages.
    """
    format_ = _format(path, IMAGE_SUFFIXES)
    if format_ is not _TIFF:
        return None
    want = _want(path, page, DEFAULT, MAX_PIXELS, label=False)
    names = _with(path, format_, lambda stream: tiff.channel_names(stream, want))
    return names or None


def array_names(path: Path) -> list[str]:
    """Lists the arrays of a .npz file in the order of its pages.

    Args:
      path: The file.

    Returns:
      Names of the arrays.

    Raises:
      InputError: if the file is not an intact .npz.
    """
    names = _with(path, _format(path, (".npz",)), arrays.names_of_npz)
    return [name.removesuffix(".npy") for name in names]


def _want(
    path: Path, page: int | None, options: FileOptions, max_pixels: int, *, label: bool
) -> Want:
    chosen = options.page if page is None else page
    return Want(shown(path), chosen, options, max_pixels, label)


def _check_finite(pixels: np.ndarray, name: str, expected: str) -> None:
    bad = np.count_nonzero(~np.isfinite(pixels))
    if bad:
        raise InputError(
            f"{name}: {bad} values are NaN or infinite; expected {expected}"
        )


def _decode(path: Path, want: Want) -> np.ndarray:
    """Stored samples `[H, W, C]` in this machine's order of bytes."""
    suffixes = LABEL_SUFFIXES if want.label else IMAGE_SUFFIXES
    format_ = _format(path, suffixes)
    pixels = _with(path, format_, lambda stream: format_.decode(stream, want))
    if pixels.dtype.kind == "b":
        pixels = pixels.astype(np.uint8)
    if pixels.dtype.kind not in "uif" or pixels.size == 0:
        raise InputError(
            f"{want.name}: {pixels.dtype} samples of shape {pixels.shape}; expected"
            " integers or floats"
        )
    pixels = pixels.astype(pixels.dtype.newbyteorder("="), copy=False)
    return pixels.view(pixels.dtype.str)  # one name for each of numpy's twins of int64


def _format(path: Path, suffixes: Sequence[str]) -> _Format:
    suffix = path.suffix.lower()
    if suffix in suffixes:
        return _FORMATS[suffix]
    known = unsupported(path)
    if known:
        raise InputError(f"{shown(path)}: {known}")
    found = f"ending {suffix!r}"
    if suffix in _FORMATS and _FORMATS[suffix] is _JPEG:
        found = "a label map as JPEG, whose lossy compression invents class ids"
    raise InputError(f"{shown(path)}: {found}; expected {', '.join(suffixes)}")


def _with(path: Path, format_: _Format, call: Callable[[BinaryIO], Result]) -> Result:
    """Calls with an open file of the right content; one line for a damaged file."""
    name = shown(path)
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):  # a pipe would be waited for
            raise InputError(f"{name}: not a file; expected an intact {format_.name}")
        with open(path, "rb") as stream:
            _check_content(path, stream, format_)
            with quiet_decoders():
                return call(stream)
    except (DamagedError, OSError) as error:
        found = getattr(error, "strerror", None)
        if not found:
            found = f"unreadable or truncated ({' '.join(str(error).split())})"
        raise InputError(
            f"{name}: {found}; expected an intact {format_.name}"
        ) from error


def _check_content(path: Path, stream: BinaryIO, format_: _Format) -> None:
    """Refuses a file whose first bytes are not those of the format."""
    start = stream.read(16)
    stream.seek(0)
    names = (name for mark, name in _CONTENTS.items() if start.startswith(mark))
    name = next(names, None)
    if name == format_.name:
        return
    held = f"holds a {name}" if name else "holds neither image nor array"
    raise InputError(
        f"{shown(path)}: {held if start else 'zero bytes'}; expected an intact"
        f" {format_.name}, as the ending {path.suffix} promises"
    )


def _is_grey(pixels: np.ndarray) -> bool:
    grey = pixels[..., :1]
    first = pixels[:1]  # tells for most colour images, and takes no time
    return bool((first == grey[:1]).all() and (pixels == grey).all())
