"""Image and label files: PNG and TIFF bytes to stored samples, samples to class ids.

Host-side NumPy; imports no jax, so that worker processes start fast.
"""

import contextlib
import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from PIL import Image

from metaseg.errors import InputError

__all__ = ["quiet_decoders", "read_image", "read_label", "read_label_values", "some"]

VOID = 255


def read_image(path: Path) -> np.ndarray:
    """Reads an image as stored: alpha dropped, palette expanded, not normalised.

    Args:
      path: a PNG or single-page TIFF, grey or colour, 8 to 32 bit, integer or float.

    Returns:
      `[H, W, 1]`, also where the three channels are equal, or `[H, W, 3]`; floats as
      float32, integers in the file's dtype.

    Raises:
      InputError: if the file cannot be decoded or holds NaN or infinity.
    """
    pixels, palette = _decode(path)
    if palette is not None:
        pixels = palette[pixels]
    if pixels.dtype.kind == "f":
        with np.errstate(over="ignore"):  # beyond float32 is as bad as infinite
            pixels = pixels.astype(np.float32)
        bad = np.count_nonzero(~np.isfinite(pixels))
        if bad:
            raise InputError(
                f"{path}: {bad} values are NaN or infinite; expected finite float32"
            )
    if pixels.ndim == 2 or _is_grey(pixels):
        pixels = pixels.reshape(*pixels.shape[:2], -1)[..., :1]
    return pixels


def read_label(path: Path, num_classes: int) -> np.ndarray:
    """Reads a label map as stored: grey values, or the indices of a palette.

    Args:
      path: a PNG or single-page TIFF; colour only with three equal channels.
      num_classes: K. With K = 2 the values may be 0 and 1, or 0 and 255.

    Returns:
      uint8 `[H, W]`: ids below K, and 255, which is foreground with K = 2 and void
      with more.

    Raises:
      InputError: if the file cannot be decoded or holds anything else.
    """
    pixels = read_label_values(path)
    expected = (
        "0 and 1, or 0 and 255"
        if num_classes == 2
        else f"0 to {num_classes - 1}, or 255 for void"
    )
    unknown = (pixels < 0) | ((pixels >= num_classes) & (pixels != VOID))
    if unknown.any():
        ids = [str(int(value)) for value in np.unique(pixels[unknown])]
        raise InputError(
            f"{path}: class id {some(ids)} in {np.count_nonzero(unknown)} pixels;"
            f" expected {expected} (config.data.num_classes={num_classes})"
        )
    if num_classes == 2 and (pixels == 1).any() and (pixels == VOID).any():
        raise InputError(f"{path}: both 1 and 255 in a label; expected {expected}")
    return pixels.astype(np.uint8)


def read_label_values(path: Path) -> np.ndarray:
    """Reads a label map as stored, whatever its values.

    Args:
      path: a PNG or single-page TIFF; colour only with three equal channels.

    Returns:
      Integers `[H, W]` in the file's dtype; whole floats as int64.

    Raises:
      InputError: if the file cannot be decoded, or holds colours or fractions.
    """
    pixels, _ = _decode(path)
    if pixels.ndim == 3:
        if not _is_grey(pixels):
            raise InputError(
                f"{path}: a label image with colours; expected class ids as grey"
                " values or palette indices"
            )
        pixels = pixels[..., 0]
    if pixels.dtype.kind != "f":
        return pixels
    if not (np.isfinite(pixels) & (pixels == np.rint(pixels))).all():
        raise InputError(f"{path}: fractions or NaN in a label; expected class ids")
    return pixels.astype(np.int64)


def _decode(path: Path) -> tuple[np.ndarray, np.ndarray | None]:
    """Stored samples `[H, W]` or `[H, W, 3]` without alpha, and the palette if any."""
    kind = "PNG" if path.suffix.lower() == ".png" else "TIFF"
    try:
        if path.stat().st_size == 0:
            raise InputError(f"{path}: zero bytes; expected a {kind} image")
        pixels, palette = _decode_png(path) if kind == "PNG" else _decode_tiff(path)
    except InputError:
        raise
    except Exception as error:  # decoders raise whatever the damaged bytes lead to
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise InputError(
            f"{path}: unreadable, truncated or not a {kind}; expected an intact {kind}"
            f" image ({reason})"
        ) from error
    if pixels.dtype.kind == "b":
        pixels = pixels.astype(np.uint8)
    if pixels.dtype.kind not in "uif" or pixels.size == 0:
        raise InputError(
            f"{path}: {pixels.dtype} samples of shape {pixels.shape}; expected integers"
            " or floats"
        )
    return pixels, palette


def _decode_png(path: Path) -> tuple[np.ndarray, np.ndarray | None]:
    with Image.open(path, formats=("PNG",)) as file:
        file.verify()  # checksums and end, which decoding does not look at
    with Image.open(path, formats=("PNG",)) as file:
        layout = file.tile[0][3]
        frames, mode = getattr(file, "n_frames", 1), file.mode
        pixels = np.array(file)
        _check_still_and_upright(path, frames, file.getexif().get(0x0112, 1))
        palette = _palette(file)
    if layout in ("L;2", "L;4"):  # pillow stretches these to 0..255; ids must not be
        pixels //= 85 if layout == "L;2" else 17
    if layout in _LOW_BYTES:  # 16-bit colour, of which pillow keeps the high bytes
        with Image.open(path, formats=("PNG",)) as file:
            tiles: list[Any] = [(*tile[:3], _LOW_BYTES[layout]) for tile in file.tile]
            file.tile = tiles
            low = np.array(file)
        if layout == "LA;16B":  # read as four bytes: grey high, low, alpha high, low
            pixels, low, mode = pixels[..., :1], low[..., 1:2], "L"
        pixels = pixels.astype(np.uint16) << 8 | low
    return _without_alpha(path, pixels, mode), palette


_LOW_BYTES = {"RGB;16B": "RGB;16L", "RGBA;16B": "RGBA;16L", "LA;16B": "RGBA"}


def _decode_tiff(path: Path) -> tuple[np.ndarray, np.ndarray | None]:
    with tifffile.TiffFile(path) as file:
        page = file.pages.first
        orientation = page.tags.valueof("Orientation", default=1)
        _check_still_and_upright(path, len(file.pages), orientation)
        try:
            pixels = page.asarray()
        except ValueError as error:
            if "imagecodecs" not in str(error):
                raise
            return _decode_tiff_by_pillow(path, page)
        if page.axes == "SYX":
            pixels = np.moveaxis(pixels, 0, -1)
        elif page.axes not in ("YX", "YXS"):
            raise InputError(
                f"{path}: axes {page.axes}; expected one plane, grey or colour"
            )
        palette = page.colormap
        if palette is not None:
            palette = (palette.T >> 8).astype(np.uint8)
        channels = 1 if pixels.ndim == 2 else pixels.shape[-1]
        is_rgb = page.photometric == tifffile.PHOTOMETRIC.RGB
        has_alpha = any(kind > 0 for kind in page.extrasamples)
    if not (
        channels in (1, 3)
        or (channels == 2 and has_alpha)
        or (channels == 4 and is_rgb)
    ):
        raise InputError(f"{path}: {channels} channels; expected grey or RGB(A)")
    return _without_alpha(path, pixels, "L" if channels < 3 else "RGB"), palette


def _decode_tiff_by_pillow(
    path: Path, page: Any
) -> tuple[np.ndarray, np.ndarray | None]:
    """For the compressions that tifffile leaves to a package we do without."""
    with Image.open(path, formats=("TIFF",)) as file:
        pixels, palette, mode = np.array(file), _palette(file), file.mode
    if page.bitspersample not in (1, 8 * pixels.dtype.itemsize):
        raise InputError(
            f"{path}: {page.compression.name} compression of {page.bitspersample}-bit"
            f" {mode}; expected deflate or none for such samples"
        )
    if page.photometric == tifffile.PHOTOMETRIC.MINISWHITE and mode in ("1", "L"):
        pixels = ~pixels  # pillow has inverted these, tifffile would not
    return _without_alpha(path, pixels, mode), palette


def _without_alpha(path: Path, pixels: np.ndarray, mode: str) -> np.ndarray:
    if pixels.ndim == 2:
        return pixels
    if mode in ("L", "LA", "PA"):
        return pixels[..., 0]
    if mode in ("RGB", "RGBA"):
        return pixels[..., :3]
    raise InputError(f"{path}: colour mode {mode}; expected grey, palette or RGB(A)")


def _palette(file: Image.Image) -> np.ndarray | None:
    """uint8 `[256, 3]`; entries that the file leaves out are black."""
    colours = file.getpalette("RGB") if file.mode in ("P", "PA") else None
    if colours is None:
        return None
    return np.array(colours + [0] * (768 - len(colours)), np.uint8).reshape(256, 3)


def _check_still_and_upright(path: Path, pages: int, orientation: int) -> None:
    if pages != 1:
        raise InputError(f"{path}: {pages} pages; expected a single-page image")
    if orientation != 1:
        raise InputError(
            f"{path}: orientation tag {orientation}; expected pixels stored upright (1)"
        )


def _is_grey(pixels: np.ndarray) -> bool:
    red, green, blue = np.moveaxis(pixels, -1, 0)
    return np.array_equal(red, green) and np.array_equal(red, blue)


@contextlib.contextmanager
def quiet_decoders() -> Iterator[None]:
    """A damaged file gets one line, ours."""
    log = logging.getLogger("tifffile")
    before, log.disabled = log.disabled, True
    try:
        yield
    finally:
        log.disabled = before


def some(names: Sequence[str], count: int = 3) -> str:
    """The first few of a list, for a message."""
    return ", ".join(names[:count]) + (", ..." if len(names) > count else "")
