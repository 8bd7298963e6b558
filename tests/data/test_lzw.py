"""LZW data: decoded as a decoder in plain Python does, or refused."""

import pickle
import subprocess
import sys

import imagecodecs
import numpy as np
import pytest
import tifffile
from PIL import Image

from metaseg.data import image_files
from metaseg.data.image_files import lzw
from metaseg.errors import DamagedError

RNG = np.random.default_rng(0)
CLEAR, END = 256, 257

IN_A_PROCESS = """
import pickle, sys
from metaseg.data.image_files import lzw
from metaseg.errors import DamagedError
found = []
for data, size in pickle.load(sys.stdin.buffer):
    try:
        found.append(lzw.decode(data, size).tobytes())
    except DamagedError:
        found.append(None)
pickle.dump(found, sys.stdout.buffer)
"""


def reference(data, size):
    """Decodes code by code; None if a code is not in the table."""
    bits = "".join(format(byte, "08b") for byte in data)
    table, before, place, out = None, b"", 0, b""
    while len(out) < size:
        width = max(9, min(12, (len(table or []) + 1).bit_length()))
        if place + width > len(bits):
            break
        code = int(bits[place : place + width], 2)
        place += width
        if code == END:
            break
        if code == CLEAR:
            table, before = [*(bytes([i]) for i in range(256)), b"", b""], b""
            continue
        if table is None or code > len(table) - (not before):
            return None
        string = table[code] if code < len(table) else before + before[:1]
        if before:
            table.append(before + string[:1])
        out, before = out + string, string
    return out[:size]


def samples_of(levels, size):
    smooth = np.cumsum(RNG.integers(-1, 2, size)) * (levels > 99)
    return (RNG.integers(0, levels, size) + smooth).astype(np.uint8).tobytes()


def by_pillow(path, data):
    """The strip that libtiff's own encoder writes."""
    image = Image.frombytes("L", (len(data), 1), data)
    image.save(path, compression="tiff_lzw")
    with tifffile.TiffFile(path) as file:
        page = file.pages.first
        (start,), (length,) = page.dataoffsets, page.databytecounts
    return path.read_bytes()[start : start + length]


@pytest.mark.parametrize("levels", [1, 2, 50, 256])
@pytest.mark.parametrize("size", [1, 2, 255, 4000, 30_000])
def test_data_of_two_encoders_are_decoded_as_written(tmp_path, levels, size):
    data = samples_of(levels, size)
    for stored in (imagecodecs.lzw_encode(data), by_pillow(tmp_path / "a.tif", data)):
        assert reference(stored, size) == data
        assert lzw.decode(stored, size).tobytes() == data
        assert lzw.decode(stored, size // 2 + 1).tobytes() == data[: size // 2 + 1]
        assert lzw.decode(stored, size + 9).tobytes() == data  # as much as there is


@pytest.mark.parametrize("rows", [1, 3, 4, 10, 99])
def test_strips_are_decoded_in_order(rows):
    image = RNG.integers(0, 60, (10, 7), dtype=np.uint8)
    strips = [
        imagecodecs.lzw_encode(image[i : i + rows].tobytes())
        for i in range(0, 10, rows)
    ]
    found = lzw.decode_strips(strips, height=10, line=7, rows=rows)
    np.testing.assert_array_equal(found, image)


@pytest.mark.parametrize("data", [b"", b"\0\1\2\3", b"\xff" * 9, b"\x80"])
def test_data_of_another_kind_are_refused(data):
    with pytest.raises(DamagedError):
        lzw.decode(data, 10)


def damaged(stored):
    """Bytes replaced, bits flipped, cut out, put in, or the end cut off."""
    data = bytearray(stored)
    for _ in range(RNG.choice([1, 1, 2, 30])):
        at = int(RNG.integers(len(data)))
        kind = RNG.integers(5)
        if kind == 0:
            data[at] = RNG.integers(256)
        elif kind == 1:
            data[at] ^= 1 << int(RNG.integers(8))
        elif kind == 2:
            data[at : at + 2] = RNG.bytes(2)
        elif kind == 3:
            data[at:at] = RNG.bytes(1)
        else:
            del data[max(at, 1) :]
    return bytes(data)


def test_damaged_data_are_decoded_as_the_reference_does_or_refused():
    """In a process of its own, which imagecodecs' other decoder would end."""
    jobs = []
    for levels in (2, 9, 60, 256):
        for size in (20, 300, 9000):
            stored = imagecodecs.lzw_encode(samples_of(levels, size))
            count = 20 if size > 999 else 150
            jobs += [(damaged(stored), size) for _ in range(count)]
    done = subprocess.run(
        [sys.executable, "-c", IN_A_PROCESS],
        input=pickle.dumps(jobs),
        stdout=subprocess.PIPE,
    )
    assert done.returncode == 0
    found = pickle.loads(done.stdout)
    decoded = 0
    for (data, size), ours in zip(jobs, found, strict=True):
        expected = reference(data, size)
        if ours is not None:
            decoded += 1
            assert ours == expected
        elif expected is not None and data[0]:  # the end is missing
            assert len(expected) < size
    assert len(jobs) / 10 < decoded < len(jobs) * 9 / 10


@pytest.mark.parametrize("dtype", ["u1", "u2", "f4"])
def test_a_last_tile_may_lack_the_rows_below_the_image(tmp_path, dtype):
    """As some programs write GeoTIFF."""
    pixels = RNG.integers(0, 50, (20, 16)).astype(dtype)
    path = tmp_path / "a.tif"
    options = {"tile": (16, 16), "compression": "lzw", "photometric": "minisblack"}
    tifffile.imwrite(path, pixels, **options)
    short = imagecodecs.lzw_encode(pixels[16:].tobytes())
    with tifffile.TiffFile(path, mode="r+b") as file:
        page = file.pages.first
        first, last = page.databytecounts
        assert len(short) < last
        page.tags["TileByteCounts"].overwrite([first, len(short)])
        file.filehandle.seek(page.dataoffsets[1])
        file.filehandle.write(short)
    np.testing.assert_array_equal(image_files.read_image(path)[..., 0], pixels)
