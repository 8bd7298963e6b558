"""The chain of planes of a TIFF file, read from the bytes of its directories.

tifffile parses each directory in full, which would be slow for thousands of planes,
and ends the chain in silence where it is damaged. Imports no jax.
"""

import mmap
import struct
from typing import Any, BinaryIO

import tifffile
from tifffile import TIFF

from metaseg.data.image_files import samples
from metaseg.data.image_files.samples import DamagedError

__all__ = ["chain"]

_TAG_BYTES = {kind: struct.calcsize(form) for kind, form in TIFF.DATA_FORMATS.items()}
_NEW_SUBFILE_TYPE = 254
_SUBFILE_TYPE = 255
_OLD_TYPES = {2: 1, 3: 2}  # of SubfileType, as bits of NewSubfileType
_NO_IMAGE = 0b101  # reduced resolution, transparency mask
_SHORT = 3


def chain(stream: BinaryIO, file: tifffile.TiffFile) -> list[bool]:
    """Follows the chain of directories.

    Args:
      stream: The open file.
      file: The same file as tifffile has opened it.

    Returns:
      For each plane, whether it is an image: not a smaller copy or a mask of another.

    Raises:
      DamagedError: If the chain leads back or beyond the end of the file, or the first
        or last plane has tags there.
    """
    layout = file.tiff
    if layout.is_ndpi:  # whose offsets are of another form
        with samples.decoder_errors():
            return [True] * len(file.pages)
    with mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as data:
        try:
            return _follow(layout, data)
        except struct.error as error:
            raise DamagedError("a directory lies beyond its end") from error


def _follow(layout: Any, data: mmap.mmap) -> list[bool]:
    form = f"{layout.byteorder}HH{'QQ' if layout.offsetsize == 8 else 'II'}"
    entry, count = struct.Struct(form), struct.Struct(layout.tagnoformat)
    link = struct.Struct(layout.offsetformat)
    images: list[bool] = []
    seen: set[int] = set()
    first = last = 0
    (offset,) = link.unpack_from(data, 8 if layout.is_bigtiff else 4)
    while offset:
        if offset in seen or offset > len(data):
            raise DamagedError(f"plane {len(images)} is not where it should be")
        seen.add(offset)
        first, last = first or offset, offset
        start, (tags,) = offset + count.size, count.unpack_from(data, offset)
        end = start + tags * entry.size
        if end > len(data):
            raise DamagedError("a directory lies beyond its end")
        images.append(_is_image(layout, entry, data, start, end))
        (offset,) = link.unpack_from(data, end)
    if not images:
        raise DamagedError("it has no plane")
    for offset in {first, last}:
        start, (tags,) = offset + count.size, count.unpack_from(data, offset)
        _check_tags(layout, entry, data[start : start + tags * entry.size], len(data))
    return images


def _is_image(
    layout: Any, entry: struct.Struct, data: mmap.mmap, start: int, end: int
) -> bool:
    """Looks at the first tags of a directory, which are sorted by their codes."""
    for at in range(start, end, entry.size):
        code, kind, _, value = entry.unpack_from(data, at)
        if code > _SUBFILE_TYPE:
            break
        if kind == _SHORT and layout.byteorder == ">":  # it lies first in its room
            value >>= 8 * (layout.offsetsize - 2)
        if code == _SUBFILE_TYPE:
            value = _OLD_TYPES.get(value, 0)
        if code in (_NEW_SUBFILE_TYPE, _SUBFILE_TYPE) and value & _NO_IMAGE:
            return False
    return True


def _check_tags(layout: Any, entry: struct.Struct, tags: bytes, size: int) -> None:
    """Refuses values beyond the end of the file, which tifffile would leave out."""
    room = layout.offsetsize
    for _, kind, number, where in entry.iter_unpack(tags):
        length = number * _TAG_BYTES.get(kind, 0)
        if length > room and where + length > size:
            raise DamagedError("tags lie beyond its end")
