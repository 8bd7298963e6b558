"""A check of LZW data before they are decoded.

imagecodecs 2026.3, the newest for Python 3.11, ends the process for some damaged data:
for codes that are not in the table yet. Host-side NumPy; imports no jax.
"""

import imagecodecs
import numpy as np

from metaseg.data.image_files.samples import DamagedError

__all__ = ["check"]

_MAY_CRASH = tuple(map(int, imagecodecs.__version__.split(".")[:2])) < (2026, 10)
_CLEAR, _END, _FIRST = 256, 257, 258
_LONGEST = 4096 - _FIRST  # codes after which the table is full
_HIGHEST = np.arange(_FIRST - 1, _FIRST + _LONGEST - 1)  # that may come, by place
_WIDTHS = np.select([_HIGHEST < 511, _HIGHEST < 1023, _HIGHEST < 2047], [9, 10, 11], 12)
_PLACES = np.cumsum(_WIDTHS) - _WIDTHS  # in bits
_ENDS = _PLACES + _WIDTHS
_HIGHEST = _HIGHEST.astype(np.uint32)
_MASKS = ((1 << _WIDTHS) - 1).astype(np.uint32)
_BYTES = [(_PLACES + bit) >> 3 for bit in range(8)]  # by the first bit in its byte
_SHIFTS = [(24 - _WIDTHS - ((_PLACES + bit) & 7)).astype(np.uint32) for bit in range(8)]


def check(data: bytes) -> None:
    """Refuses data with a code that the table lacks, where imagecodecs does not.

    Args:
      data: A strip or tile as stored.

    Raises:
      DamagedError: If there is such a code.
    """
    if data[:1] == b"\0":  # the bits of a byte in reverse
        raise DamagedError("LZW data of the older kind")
    if not _MAY_CRASH:
        return
    stored = np.frombuffer(data + bytes(4), np.uint8).astype(np.uint32)
    words = stored[:-2] << 16 | stored[1:-1] << 8 | stored[2:]
    position, bits = 0, 8 * len(data)
    while position + 9 <= bits:
        count = _ENDS.size
        if position + _ENDS[-1] > bits:
            count = int(np.searchsorted(_ENDS, bits - position, "right"))
        byte, bit = divmod(position, 8)
        codes = words[byte:].take(_BYTES[bit][:count]) >> _SHIFTS[bit][:count]
        codes &= _MASKS[:count]
        ends = np.flatnonzero(codes >> 1 == _CLEAR >> 1)  # a clear code or the end
        count = int(ends[0]) if len(ends) else count
        if (codes[:count] > _HIGHEST[:count]).any():
            raise DamagedError("an LZW code that is not in the table")
        if not len(ends) or codes[count] == _END:
            return
        position += int(_ENDS[count])
