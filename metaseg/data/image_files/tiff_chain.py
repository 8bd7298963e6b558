"""The chain of planes of a TIFF file, read from the bytes of its directories.

tifffile parses each directory in full, which would be slow for thousands of planes,
and ends the chain in silence where it is damaged. Imports no jax.
"""

import os
import struct
from typing import Any, BinaryIO, NamedTuple

import tifffile
from tifffile import TIFF

from metaseg.data.image_files import samples
from metaseg.data.image_files.samples import DamagedError

__all__ = ["PlaneEntry", "chain"]

_TAG_BYTES = {kind: struct.calcsize(form) for kind, form in TIFF.DATA_FORMATS.items()}
_NEW_SUBFILE_TYPE = 254
_SUBFILE_TYPE = 255
_OLD_TYPES = {2: 1, 3: 2}  # of SubfileType, as bits of NewSubfileType
_NO_IMAGE = 0b101  # reduced resolution, transparency mask
_SHORT = 3


class PlaneEntry(NamedTuple):
    """A directory of a TIFF file.

    Attributes:
      offset: Where it begins.
      is_image: Whether it is neither a smaller copy nor a mask of another plane.
    """

    offset: int
    is_image: bool


def chain(stream: BinaryIO, file: tifffile.TiffFile) -> list[PlaneEntry]:
    """Follows the chain of directories.

    Args:
      stream: The open file.
      file: The same file as tifffile has opened it.

    Returns:
      An entry for each plane.

    Raises:
      DamagedError: If the chain leads back or beyond the end of the file, or the first
        or last plane has tags there.
    """
    layout = file.tiff
    if layout.is_ndpi:  # whose offsets are of another form
        with samples.decoder_errors():
            return [PlaneEntry(page.offset, True) for page in file.pages]
    size = os.fstat(stream.fileno()).st_size
    found: list[PlaneEntry] = []
    seen: set[int] = set()
    tags: bytes = b""
    stream.seek(8 if layout.is_bigtiff else 4)
    while True:
        (offset,) = samples.unpack(
            layout.offsetformat, stream.read(layout.offsetsize), 0
        )
        if not offset:
            break
        if offset in seen or offset > size:
            raise DamagedError(f"plane {len(found)} is not where it should be")
        seen.add(offset)
        stream.seek(offset)
        (count,) = samples.unpack(layout.tagnoformat, stream.read(layout.tagnosize))
        if count * layout.tagsize > size:
            raise DamagedError(f"{count} tags")
        tags = stream.read(count * layout.tagsize)
        if len(tags) < count * layout.tagsize:
            raise DamagedError("a directory lies beyond its end")
        if not found:
            _check_tags(layout, tags, size)
        found.append(PlaneEntry(offset, _is_image(layout, tags)))
    if not found:
        raise DamagedError("it has no plane")
    if len(found) > 1:
        _check_tags(layout, tags, size)
    return found


def _entry_form(layout: Any) -> str:
    return f"{layout.byteorder}HH{'QQ' if layout.offsetsize == 8 else 'II'}"


def _is_image(layout: Any, tags: bytes) -> bool:
    """Looks at the first tags of a directory, which are sorted by their codes."""
    for code, kind, _, value in struct.iter_unpack(_entry_form(layout), tags):
        if code > _SUBFILE_TYPE:
            return True
        if kind == _SHORT and layout.byteorder == ">":  # it lies first in its room
            value >>= 8 * (layout.offsetsize - 2)
        if code == _SUBFILE_TYPE:
            value = _OLD_TYPES.get(value, 0)
        if code in (_NEW_SUBFILE_TYPE, _SUBFILE_TYPE) and value & _NO_IMAGE:
            return False
    return True


def _check_tags(layout: Any, tags: bytes, size: int) -> None:
    """Refuses values beyond the end of the file, which tifffile would leave out."""
    room = layout.offsetsize
    for _, kind, number, where in struct.iter_unpack(_entry_form(layout), tags):
        length = number * _TAG_BYTES.get(kind, 0)
        if length > room and where + length > size:
            raise DamagedError("tags lie beyond its end")
