"""The chain of planes of a TIFF file, read from the bytes of its directories.

tifffile parses each directory in full, which would be slow for thousands of planes,
and ends the chain in silence where it is damaged. Imports no jax.
"""

import os
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
_BLOCK = 512  # bytes of a usual directory
_PLACES = (273, 324)  # of strips and tiles
_NO_MATTER = frozenset(  # to pixels: texts, resolution, ImageJ's metadata
    (270, 271, 272, 282, 283, 296, 305, 306, 315, 50838, 50839)
)


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
        """Parses the directory of a plane, or less if it is like that of the first."""
        file, offset = self._file, self._offsets[number]
        first = file.pages.first
        if offset == first.offset:
            return first
        if first.is_contiguous and self._form(offset) == self._form(first.offset):
            return tifffile.TiffFrame(file, number, offset=offset, keyframe=first)
        file.filehandle.seek(offset)
        return tifffile.TiffPage(file, number)

    def _form(self, offset: int) -> list[tuple[int, ...]]:
        """Returns the tags that tell how the pixels of a plane are stored."""
        layout, handle = self._file.tiff, self._file.filehandle
        handle.seek(offset)
        (count,) = samples.unpack(layout.tagnoformat, handle.read(layout.tagnosize))
        block = handle.read(count * layout.tagsize)
        entry = _entry(layout)
        return [
            (*tag[:3], *(() if tag[0] in _PLACES else tag[3:]))
            for tag in entry.iter_unpack(block[: len(block) // entry.size * entry.size])
            if tag[0] not in _NO_MATTER
        ]


def _entry(layout: Any) -> struct.Struct:
    """Form of a tag: its code, its type, the number of values, and value or place."""
    return struct.Struct(
        f"{layout.byteorder}HH{'QQ' if layout.offsetsize == 8 else 'II'}"
    )


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
    try:
        return _follow(_Directories(layout, stream.fileno()))
    except struct.error as error:
        raise DamagedError("a directory lies beyond its end") from error


class _Directories:
    """Directories of tags in an open file.

    They are read in small blocks: a map of the file into memory takes longer where the
    pixels of each plane lie between the directories.
    """

    def __init__(self, layout: Any, descriptor: int) -> None:
        self._descriptor, self._room = descriptor, layout.offsetsize
        self._size = os.fstat(descriptor).st_size
        self._big_endian = layout.byteorder == ">"
        self._entry = _entry(layout)
        self._count = struct.Struct(layout.tagnoformat)
        self._link = struct.Struct(layout.offsetformat)
        self._first = 8 if layout.is_bigtiff else 4  # where its place is

    def follow(self) -> Chain:
        """Reads each directory of the chain."""
        found: dict[int, bool] = {}
        head_bytes = self._count.size + 2 * self._entry.size
        # Planes of a stack have the same number of tags and the same first two, which
        # tell where the directory ends and whether it is an image.
        known: dict[bytes, tuple[int, bool]] = {}
        block, start = b"", 0
        offset = self._link_at(self._first)
        while offset:
            if offset in found or offset > self._size:
                raise DamagedError(f"plane {len(found)} is not where it should be")
            at = offset - start
            if at < 0 or at + _BLOCK > len(block):
                block, start, at = self._read(offset, 16 * _BLOCK), offset, 0
            head = block[at : at + head_bytes]
            if head not in known:
                tags = self._tags(offset)
                form = self._count.size + len(tags), self._is_image(tags)
                if self._two_tell(tags):
                    known[head] = form
            else:
                form = known[head]
            length, found[offset] = form
            if at + length + self._link.size <= len(block):
                (offset,) = self._link.unpack_from(block, at + length)
            else:
                offset = self._link_at(offset + length)
        return Chain(list(found), list(found.values()))

    def check(self, offset: int) -> None:
        """Refuses values beyond the end, which tifffile would leave out."""
        for _, kind, number, where in self._entry.iter_unpack(self._tags(offset)):
            length = number * _TAG_BYTES.get(kind, 0)
            if length > self._room and where + length > self._size:
                raise DamagedError("tags lie beyond its end")

    def _read(self, offset: int, count: int) -> bytes:
        """Reads bytes, fewer at the end of the file."""
        return os.pread(self._descriptor, count, offset)

    def _link_at(self, offset: int) -> int:
        return self._link.unpack(self._read(offset, self._link.size))[0]

    def _tags(self, offset: int) -> bytes:
        """Returns the tags of a directory."""
        start = offset + self._count.size
        (count,) = self._count.unpack(self._read(offset, self._count.size))
        if start + count * self._entry.size > self._size:
            raise DamagedError("a directory lies beyond its end")
        return self._read(start, count * self._entry.size)

    def _is_image(self, tags: bytes) -> bool:
        """Looks at the first tags of a directory, which are sorted by their codes."""
        for code, kind, _, value in self._entry.iter_unpack(tags):
            if code > _SUBFILE_TYPE:
                break
            if kind == _SHORT and self._big_endian:  # it lies first in its room
                value >>= 8 * (self._room - 2)
            if code == _SUBFILE_TYPE:
                value = _OLD_TYPES.get(value, 0)
            if code in (_NEW_SUBFILE_TYPE, _SUBFILE_TYPE) and value & _NO_IMAGE:
                return False
        return True

    def _two_tell(self, tags: bytes) -> bool:
        """Whether the first two tags tell if a plane is an image."""
        size = self._entry.size
        if len(tags) < 2 * size:
            return False
        return self._entry.unpack_from(tags, size)[0] > _SUBFILE_TYPE


def _follow(directories: _Directories) -> Chain:
    found = directories.follow()
    if not found.offsets:
        raise DamagedError("it has no plane")
    for offset in {found.offsets[0], found.offsets[-1]}:
        directories.check(offset)
    return found
