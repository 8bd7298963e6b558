"""TIFF files of the plainest form, read without the cost of parsing every tag.

One plane of strips, grey or RGB, of whole bytes, uncompressed or LZW or deflate. For
small images tifffile's metadata take longer than the pixels. Whatever is unusual or
damaged is left to tifffile. Host-side NumPy; imports no jax.
"""

import io
import os
import struct
from typing import Any, BinaryIO, NamedTuple

import imagecodecs
import numpy as np

from metaseg.data.image_files import lzw, samples
from metaseg.data.image_files.samples import DamagedError, StoredPage, Want

__all__ = ["MORE_PLANES", "decode"]

_LARGEST = 1 << 22  # bytes of pixels, above which the cost does not matter
_FORMS = {3: "H", 4: "I"}  # of the tags that are used
_LZW = 5
_DECODERS: dict[int, Any] = {
    1: None,
    8: imagecodecs.deflate_decode,
    32946: imagecodecs.deflate_decode,
}
MORE_PLANES = ("truncated", "images=")  # words of metadata: not each has a directory
_WORDS = tuple(word.encode() for word in MORE_PLANES)
_NO_MATTER = frozenset(
    (271, 272, 282, 283, 296, 305, 306, 315, 33432)  # maker, resolution, software
)
_DEFAULTS = {254: 0, 258: 1, 259: 1, 266: 1, 274: 1, 277: 1, 284: 1, 317: 1, 339: 1}
_KNOWN = frozenset((*_DEFAULTS, 256, 257, 262, 270, 273, 278, 279, *_NO_MATTER))


class _Strips(NamedTuple):
    """Where the pixels are, and what they are.

    Attributes:
      shape: Rows, columns and samples.
      dtype: Of a sample, in the order of the file.
      rows: Rows of a strip.
      offsets: Places of the strips.
      lengths: Bytes of the strips as stored.
      compression: Number of the compression.
      differences: Whether each sample but the first is stored as a difference.
    """

    shape: tuple[int, int, int]
    dtype: np.dtype
    rows: int
    offsets: tuple[int, ...]
    lengths: tuple[int, ...]
    compression: int
    differences: bool


def decode(stream: BinaryIO, want: Want) -> StoredPage | None:
    """Reads a file of the plainest form.

    Args:
      stream: Open file.
      want: What is to be read.

    Returns:
      Its only page; None if the file has another form or is damaged.
    """
    try:
        strips = _strips(stream)
        if strips is None:
            return None
        height, width, channels = strips.shape
        samples.check_size(want, height, width, channels)
        assert isinstance(stream, io.BufferedReader)
        return StoredPage(_pixels(stream, strips))
    except DamagedError:
        return None


def _strips(stream: BinaryIO) -> _Strips | None:
    head = stream.read(8)
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(head[:4])
    if order is None:
        return None
    stream.seek(samples.unpack(f"{order}I", head, 4)[0])
    (count,) = samples.unpack(f"{order}H", stream.read(2))
    block = stream.read(12 * count + 4)
    samples.unpack(f"{order}I", block, 12 * count)
    if any(block[12 * count :]):  # another plane
        return None
    tags: dict[int, tuple[int, ...]] = {code: (n,) for code, n in _DEFAULTS.items()}
    for code, kind, number, where in struct.iter_unpack(f"{order}HHII", block[:-4]):
        if code not in _KNOWN:
            return None
        if code == 270:
            stream.seek(where)
            text = stream.read(number) if number > 4 else b""
            if len(text) < number > 4 or any(word in text for word in _WORDS):
                return None
        elif code not in _NO_MATTER:
            if kind not in _FORMS or not 0 < number <= 65_536:
                return None
            tags[code] = _values(stream, order + str(number) + _FORMS[kind], where)
    return _usual(tags, order, os.fstat(stream.fileno()).st_size)


def _values(stream: BinaryIO, form: str, where: int) -> tuple[int, ...]:
    length = struct.calcsize(form)
    if length <= 4:
        return struct.unpack_from(form, struct.pack(f"{form[0]}I", where))
    stream.seek(where)
    return samples.unpack(form, stream.read(length))


def _usual(tags: dict[int, tuple[int, ...]], order: str, size: int) -> _Strips | None:
    """What tags say if all of it is usual."""
    if not {256, 257, 262, 273, 279} <= tags.keys():
        return None
    bits, kinds = set(tags[258]), set(tags[339])
    single = (256, 257, 259, 262, 266, 274, 277, 284, 317)
    if len(bits) != 1 or len(kinds) != 1 or any(len(tags[i]) != 1 for i in single):
        return None
    width, height, channels = tags[256][0], tags[257][0], tags[277][0]
    (depth,), (kind,) = bits, kinds
    expected = {254: 0, 266: 1, 274: 1, 284: 1, 262: 2 if channels == 3 else 1}
    compression, predictor = tags[259][0], tags[317][0]
    rows = min(tags.get(278, (height,))[0], height)
    if (
        any(tags[code] != (value,) for code, value in expected.items())
        or channels not in (1, 3)
        or depth not in (8, 16, 32)
        or (kind == 3 and depth != 32)
        or kind not in (1, 2, 3)
        or compression not in (_LZW, *_DECODERS)
        or predictor not in ((1, 2) if kind < 3 and compression > 1 else (1,))
        or not 0 < width * height * channels * depth <= 8 * _LARGEST
        or rows < 1
    ):
        return None
    offsets, lengths = tags[273], tags[279]
    ends = [start + length for start, length in zip(offsets, lengths, strict=False)]
    if not len(offsets) == len(lengths) == -(-height // rows) or max(ends) > size:
        return None
    shape = (height, width, channels)
    dtype = np.dtype(f"{order}{'?uif'[kind]}{depth // 8}")
    return _Strips(shape, dtype, rows, offsets, lengths, compression, predictor == 2)


def _pixels(stream: io.BufferedReader, strips: _Strips) -> np.ndarray:
    height, width, channels = strips.shape
    line = width * channels * strips.dtype.itemsize
    if strips.compression == _LZW:
        stored = []
        for offset, length in zip(strips.offsets, strips.lengths, strict=True):
            stream.seek(offset)
            stored.append(stream.read(length))
        flat = lzw.decode_strips(stored, height=height, line=line, rows=strips.rows)
    else:
        flat = np.empty(height * line, np.uint8)
        _read_strips(flat, stream, strips, strips.rows * line)
    pixels = flat.view(strips.dtype).reshape(strips.shape)
    pixels = pixels.astype(strips.dtype.newbyteorder("="), copy=False)
    if strips.differences:
        with samples.decoder_errors():
            imagecodecs.delta_decode(pixels, axis=-2, out=pixels)
    return pixels


def _read_strips(
    flat: np.ndarray, stream: io.BufferedReader, strips: _Strips, size: int
) -> None:
    """Fills an array with strips of `size` bytes; the last strip may be shorter."""
    decoder = _DECODERS[strips.compression]
    for index, (offset, length) in enumerate(
        zip(strips.offsets, strips.lengths, strict=True)
    ):
        part = flat[index * size : (index + 1) * size]
        stream.seek(offset)
        if decoder is None:
            count = stream.readinto(part.data) if length == len(part) else 0
        else:
            data = stream.read(length)
            with samples.decoder_errors():
                count = len(decoder(data, out=part))
        if count != len(part):
            raise DamagedError("a strip of another length")
