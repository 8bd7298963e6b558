"""Decoding of LZW data by libtiff.

imagecodecs has another LZW decoder, which takes nearly twice as long and, before
release 2026.10, ends the process for some damaged data. libtiff reads files, so the
data get the header of one. Host-side NumPy; imports no jax.
"""

import re
import struct
from collections.abc import Sequence

import imagecodecs
import numpy as np

from metaseg.data.image_files import samples
from metaseg.data.image_files.samples import DamagedError

__all__ = ["decode", "decode_strips"]

_HEAD = struct.Struct("<2sHHHQQ")  # of a BigTIFF file, with the number of its tags
_TAG = struct.Struct("<HHQQ")  # its code, type, number of values, and value or place
_LONG8 = 16  # type of eight bytes


def decode(data: bytes, size: int) -> np.ndarray:
    """Decodes a strip or tile.

    Args:
      data: Bytes as stored.
      size: Most bytes to decode.

    Returns:
      Decoded bytes `[size]`, fewer if the data end before.

    Raises:
      DamagedError: If the data are not LZW.
    """
    try:
        return decode_strips([data], height=1, line=size, rows=1)[0]
    except DamagedError as error:
        short = re.search(r"Not enough data .*\(short (\d+) bytes\)", str(error))
        if not short or int(short[1]) >= size:
            raise
        left = size - int(short[1])
        return decode_strips([data], height=1, line=left, rows=1)[0]


def decode_strips(
    strips: Sequence[bytes], *, height: int, line: int, rows: int
) -> np.ndarray:
    """Decodes the strips of an image.

    Args:
      strips: Bytes as stored.
      height: Rows of the image.
      line: Bytes of a row.
      rows: Rows of a strip; the last strip may have fewer.

    Returns:
      Decoded bytes `[height, line]`.

    Raises:
      DamagedError: If the data are not LZW or end before.
    """
    if any(strip[:1] in (b"", b"\0") for strip in strips):
        raise DamagedError("LZW data of the older kind, or none")
    header = _header(list(map(len, strips)), height, line, rows)
    with samples.decoder_errors():
        return imagecodecs.tiff_decode(b"".join([header, *strips]))


def _header(lengths: Sequence[int], height: int, line: int, rows: int) -> bytes:
    """Makes the header of a BigTIFF file of an 8-bit grey image; its strips follow."""
    count = len(lengths)
    begin = _HEAD.size + 9 * _TAG.size + 8  # behind the directory and its link
    where, sizes, tables = begin, lengths[0], b""
    if count > 1:  # the tags hold where the tables of both are
        where, sizes = begin, begin + 8 * count
        begins = begin + 16 * count + np.cumsum([0, *lengths[:-1]])
        tables = struct.pack(f"<{2 * count}Q", *begins.tolist(), *lengths)
    tags = (
        (256, 1, line),  # width
        (257, 1, height),
        (258, 1, 8),  # bits of a sample
        (259, 1, 5),  # compression: LZW
        (262, 1, 1),  # 0 is black
        (273, count, where),  # of the strips
        (277, 1, 1),  # samples of a pixel
        (278, 1, rows),  # of a strip
        (279, count, sizes),  # of the strips
    )
    directory = [_TAG.pack(code, _LONG8, number, one) for code, number, one in tags]
    head = _HEAD.pack(b"II", 43, 8, 0, 16, len(tags))
    return b"".join([head, *directory, bytes(8), tables])
