"""The chain of planes of a TIFF file, read from the bytes of its directories.

tifffile parses each directory in full, which would be slow for thousands of planes,
and ends the chain in silence where it is damaged. Imports no jax.
"""

import mmap
import struct
from collections.abc import Sequence
from typing import Any, BinaryIO, NamedTuple

import tifffile
from tifffile import TIFF

from metaseg.data.image_files import samples
from metaseg.data.image_files.samples import DamagedError

__all__ = ["Chain", "Planes", "chain"]

_TAG_BYTES = {kind: struct.calcsize(form) for kind, form in TIFF.DATA_FORMATS.items()}
_NEW_SUBFILE_TYPE = 254
_SUBFILE_TYPE = 255
_OLD_TYPES = {2: 1, 3: 2}  # of SubfileType, as bits of NewSubfileType
_NO_IMAGE = 0b101  # reduced resolution, transparency mask
_SHORT = 3


class Chain(NamedTuple):
    """The directories of a TIFF file.

    Attributes:
      offsets: Where each begins.
      images: For each, whether its plane is an image: not a smaller copy or a mask of
        another.
    """

    offsets: list[int]
    images: list[bool]


class Planes(Sequence[Any]):
    """The planes of a file, of which only those that are asked for are parsed."""

    def __init__(self, file: tifffile.TiffFile, offsets: Sequence[int]) -> None:
        """Takes the open file and where its directories begin."""
        self._file, self._offsets = file, offsets

    def __len__(self) -> int:
        """Returns the number of planes."""
        return len(self._offsets)

    def __getitem__(self, number: Any) -> Any:
        """Parses the directory of a plane."""
        self._file.filehandle.seek(self._offsets[number])
        return tifffile.TiffPage(self._file, number)


def chain(stream: BinaryIO, file: tifffile.TiffFile) -> Chain:
    """Follows the chain of directories.

    Args:
      stream: The open file.
      file: The same file as tifffile has opened it.

    Returns:
      The directories.

    Raises:
      DamagedError: If the chain leads back or beyond the end of the file, or the first
        or last plane has tags there.
    """
    layout = file.tiff
    if layout.is_ndpi:  # whose offsets are of another form
        with samples.decoder_errors():
            offsets = [page.offset for page in file.pages]
        return Chain(offsets, [True] * len(offsets))
    with mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as data:
        try:
            return _follow(_Directories(layout, data))
        except struct.error as error:
            raise DamagedError("a directory lies beyond its end") from error


class _Directories:
    """Directories of tags in the bytes of a file."""

    def __init__(self, layout: Any, data: mmap.mmap) -> None:
        form = f"{layout.byteorder}HH{'QQ' if layout.offsetsize == 8 else 'II'}"
        self.data, self._room = data, layout.offsetsize
        self._big_endian = layout.byteorder == ">"
        self._entry = struct.Struct(form)
        self._count = struct.Struct(layout.tagnoformat)
        self._link = struct.Struct(layout.offsetformat)
        (self.first,) = self._link.unpack_from(data, 8 if layout.is_bigtiff else 4)

    def tags(self, offset: int) -> tuple[int, int, int]:
        """Where the tags begin and end, and where the next directory begins."""
        start = offset + self._count.size
        end = start + self._count.unpack_from(self.data, offset)[0] * self._entry.size
        if end > len(self.data):
            raise DamagedError("a directory lies beyond its end")
        return start, end, self._link.unpack_from(self.data, end)[0]

    def is_image(self, start: int, end: int) -> bool:
        """Looks at the first tags of a directory, which are sorted by their codes."""
        for at in range(start, end, self._entry.size):
            code, kind, _, value = self._entry.unpack_from(self.data, at)
            if code > _SUBFILE_TYPE:
                break
            if kind == _SHORT and self._big_endian:  # it lies first in its room
                value >>= 8 * (self._room - 2)
            if code == _SUBFILE_TYPE:
                value = _OLD_TYPES.get(value, 0)
            if code in (_NEW_SUBFILE_TYPE, _SUBFILE_TYPE) and value & _NO_IMAGE:
                return False
        return True

    def check(self, offset: int) -> None:
        """Refuses values beyond the end, which tifffile would leave out."""
        start, end, _ = self.tags(offset)
        for _, kind, number, where in self._entry.iter_unpack(self.data[start:end]):
            length = number * _TAG_BYTES.get(kind, 0)
            if length > self._room and where + length > len(self.data):
                raise DamagedError("tags lie beyond its end")


def _follow(directories: _Directories) -> Chain:
    found = Chain([], [])
    seen: set[int] = set()
    offset = directories.first
    while offset:
        if offset in seen or offset > len(directories.data):
            raise DamagedError(f"plane {len(seen)} is not where it should be")
        seen.add(offset)
        found.offsets.append(offset)
        start, end, offset = directories.tags(offset)
        found.images.append(directories.is_image(start, end))
    if not seen:
        raise DamagedError("it has no plane")
    for offset in {found.offsets[0], found.offsets[-1]}:
        directories.check(offset)
    return found
