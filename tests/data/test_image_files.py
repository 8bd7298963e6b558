"""Files written by the test, read back; every bad one is named in one line."""

import json
import os
import struct
import warnings
import zipfile
import zlib

import numpy as np
import pytest
import tifffile
from PIL import Image

from metaseg.data import image_files
from metaseg.data.file_options import FileOptions
from metaseg.data.image_files import samples
from metaseg.errors import InputError

RNG = np.random.default_rng(0)
GREY8 = RNG.integers(0, 256, (9, 12), dtype=np.uint8)
GREY16 = RNG.integers(0, 65_536, (9, 12), dtype=np.uint16)
RGB8 = RNG.integers(0, 256, (9, 12, 3), dtype=np.uint8)
RGB16 = RNG.integers(0, 65_536, (9, 12, 3), dtype=np.uint16)
ALPHA8 = RNG.integers(0, 256, (9, 12, 1), dtype=np.uint8)
FLOAT = RNG.normal(size=(9, 12)).astype(np.float32)
BINARY = RNG.integers(0, 2, (9, 12), dtype=np.uint8)
IDS = RNG.integers(0, 4, (9, 12), dtype=np.uint8)
IDS[0, 0] = 255
PALETTE = RNG.integers(0, 256, (256, 3), dtype=np.uint8)
PLANES = RNG.integers(0, 65_536, (5, 9, 12), dtype=np.uint16)
# JPEG at its best quality keeps blocks of one value exactly.
BLOCKS = np.kron(RNG.integers(0, 256, (2, 3), dtype=np.uint8), np.ones((8, 8), "u1"))
RGB_BLOCKS = np.dstack([BLOCKS, 255 - BLOCKS, BLOCKS // 2])


def save(path, array, **options):
    Image.fromarray(array).save(path, **options)
    return path


def save_jpeg(path, array, **options):
    return save(path, array, format="JPEG", quality=100, **options)


def save_tiff(path, array, **options):
    tifffile.imwrite(path, array, **options)
    return path


def save_planes(path, array, **options):
    return save_tiff(path, array, photometric="minisblack", **options)


def save_frames(path, arrays, **options):
    first, *others = [Image.fromarray(array) for array in arrays]
    first.save(path, save_all=True, append_images=others, **options)
    return path


LZW_MODES = {  # in which pillow writes the bits of a kind of number
    "u1": "L",
    "i1": "L",
    "u2": "I;16",
    "i2": "I;16",
    "u4": "I",
    "i4": "I",
    "f4": "F",
}


def save_lzw(path, pixels, mode, kind):
    """Writes what pillow has no mode for; `kind` is TIFF's SampleFormat."""
    image = Image.frombytes(mode, pixels.shape[::-1], pixels.tobytes())
    image.save(path, compression="tiff_lzw", tiffinfo={339: kind})
    with tifffile.TiffFile(path, mode="r+b") as file:
        file.pages.first.tags["SampleFormat"].overwrite(kind)


def save_npy(path, array):
    np.save(path, array)
    return path


def save_npz(path, *arrays):
    np.savez_compressed(path, *arrays)
    return path


def save_palette(path, indices, **options):
    image = Image.frombytes("P", indices.shape[::-1], indices.tobytes())
    image.putpalette(PALETTE.ravel().tolist())
    image.save(path, **options)
    return path


def chunk(kind, data):
    body = kind + data
    return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))


def save_raw_png(path, rows, width, depth, colour_type, height=None):
    """Writes what pillow does not: packed ids, 16-bit colour, false promises."""
    size = (width, height or len(rows))
    header = struct.pack(">IIBBBBB", *size, depth, colour_type, 0, 0, 0)
    data = zlib.compress(b"".join(b"\0" + row for row in rows))
    chunks = chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunks)
    return path


def save_png16(path, pixels, colour_type):
    rows = [row.astype(">u2").tobytes() for row in pixels]
    return save_raw_png(path, rows, pixels.shape[1], 16, colour_type)


def take(*chosen):
    return FileOptions(channels=chosen)


def failure(call, *args, **options):
    with pytest.raises(InputError) as caught:
        call(*args, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def refused(path, **options):
    """What reading an image says, less the path it must start with."""
    message = failure(image_files.read_image, path, **options)
    assert message.startswith(f"{path}: ")
    assert "expected" in message
    return message.removeprefix(f"{path}: ")


# What is accepted


IMAGES = {
    "grey8.png": (lambda p: save(p, GREY8), GREY8),
    "grey16.png": (lambda p: save(p, GREY16), GREY16),
    "bits.png": (lambda p: save(p, BINARY.astype(bool)), BINARY),
    "rgb.PNG": (lambda p: save(p, RGB8), RGB8),
    "rgba.png": (lambda p: save(p, np.dstack([RGB8, ALPHA8])), RGB8),
    "la.png": (lambda p: save(p, np.dstack([GREY8, ALPHA8])), GREY8),
    "equal.png": (lambda p: save(p, np.dstack([GREY8] * 3)), GREY8),
    "palette.png": (lambda p: save_palette(p, GREY8), PALETTE[GREY8]),
    "rgb16.png": (lambda p: save_png16(p, RGB16, 2), RGB16),
    "rgba16.png": (lambda p: save_png16(p, np.dstack([RGB16, GREY16]), 6), RGB16),
    "la16.png": (lambda p: save_png16(p, np.dstack([GREY16, ~GREY16]), 4), GREY16),
    "grey8.tif": (lambda p: save_tiff(p, GREY8), GREY8),
    "grey16.TIFF": (lambda p: save_tiff(p, GREY16), GREY16),
    "big_endian.tif": (lambda p: save_tiff(p, GREY16, byteorder=">"), GREY16),
    "float.tif": (lambda p: save_tiff(p, FLOAT), FLOAT),
    "bits.tif": (lambda p: save(p, BINARY.astype(bool)), BINARY),
    "rgb16.tif": (lambda p: save_tiff(p, RGB16, photometric="rgb"), RGB16),
    "planar.tif": (
        lambda p: save_tiff(
            p, RGB16.transpose(2, 0, 1), photometric="rgb", planarconfig="separate"
        ),
        RGB16,
    ),
    "rgba.tif": (lambda p: save(p, np.dstack([RGB8, ALPHA8])), RGB8),
    "la.tif": (lambda p: save(p, np.dstack([GREY8, ALPHA8])), GREY8),
    "palette.tif": (lambda p: save_palette(p, GREY8), PALETTE[GREY8]),
    "deflate.tif": (lambda p: save(p, GREY16, compression="tiff_deflate"), GREY16),
    "predictor.tif": (
        lambda p: save(p, GREY8, compression="tiff_deflate", tiffinfo={317: 2}),
        GREY8,
    ),
    "lzw8.tif": (lambda p: save(p, GREY8, compression="tiff_lzw"), GREY8),
    "lzw16.tif": (lambda p: save(p, GREY16, compression="tiff_lzw"), GREY16),
    "lzw_rgb.tif": (lambda p: save(p, RGB8, compression="tiff_lzw"), RGB8),
    "lzw_palette.tif": (
        lambda p: save_palette(p, GREY8, compression="tiff_lzw"),
        PALETTE[GREY8],
    ),
    "white0.tif": (lambda p: save_tiff(p, GREY8, photometric="miniswhite"), ~GREY8),
    "lzw_white0.tif": (  # pillow inverts what it writes so
        lambda p: save(p, GREY8, compression="tiff_lzw", tiffinfo={262: 0}),
        GREY8,
    ),
    "group4.tif": (
        lambda p: save(p, BINARY.astype(bool), compression="group4"),
        BINARY,
    ),
    "zstd.tif": (lambda p: save_tiff(p, GREY16, compression="zstd"), GREY16),
    "jpeg2000.tif": (lambda p: save_tiff(p, GREY16, compression="jpeg2000"), GREY16),
    "grey.bmp": (lambda p: save(p, GREY8), GREY8),
    "grey.gif": (lambda p: save(p, GREY8), GREY8),
    "grey.jpg": (lambda p: save_jpeg(p, BLOCKS), BLOCKS),
    "colour.JPEG": (lambda p: save_jpeg(p, RGB_BLOCKS, keep_rgb=True), RGB_BLOCKS),
    "int8.tif": (lambda p: save_tiff(p, GREY8.view(np.int8)), GREY8.view(np.int8)),
    "int32.tif": (lambda p: save_tiff(p, GREY16.astype(np.int32)), GREY16),
    "extra.tif": (
        lambda p: save_tiff(
            p,
            np.dstack([RGB8, ALPHA8]),
            photometric="rgb",
            extrasamples=["unspecified"],
        ),
        np.dstack([RGB8, ALPHA8]),
    ),
    "grey.npy": (lambda p: save_npy(p, GREY16), GREY16),
    "big_endian.npy": (lambda p: save_npy(p, GREY16.astype(">u2")), GREY16),
    "columns.npy": (lambda p: save_npy(p, np.asfortranarray(RGB8)), RGB8),
    "double.npy": (lambda p: save_npy(p, FLOAT.astype(np.float64)), FLOAT),
    "half.npy": (lambda p: save_npy(p, GREY8.astype(np.float16)), GREY8),
    "bool.npy": (lambda p: save_npy(p, BINARY.astype(bool)), BINARY),
    "one.npz": (lambda p: save_npz(p, RGB8), RGB8),
}


@pytest.mark.parametrize("name", IMAGES)
def test_image_is_read_as_written(tmp_path, name):
    write, expected = IMAGES[name]
    image = image_files.read_image(write(tmp_path / name))
    assert image.dtype.isnative
    np.testing.assert_array_equal(image, np.atleast_3d(expected))


PACKED = np.arange(8, dtype=np.uint8).reshape(2, 4)  # ids, two to a byte below
PACKED_ROWS = [bytes([0x01, 0x23]), bytes([0x45, 0x67])]

LABELS = {
    "ids.png": (lambda p: save(p, IDS), IDS),
    "ids16.png": (lambda p: save(p, IDS.astype(np.uint16)), IDS),
    "ids.tif": (lambda p: save_tiff(p, IDS.astype(np.int32)), IDS),
    "float.tif": (lambda p: save_tiff(p, IDS.astype(np.float32)), IDS),
    "lzw.tif": (lambda p: save(p, IDS, compression="tiff_lzw"), IDS),
    "palette.png": (lambda p: save_palette(p, IDS), IDS),
    "palette.tif": (lambda p: save_palette(p, IDS), IDS),
    "equal.png": (lambda p: save(p, np.dstack([IDS] * 3)), IDS),
    "bits.png": (lambda p: save(p, BINARY.astype(bool)), BINARY),
    "nibbles.png": (lambda p: save_raw_png(p, PACKED_ROWS, 4, 4, 0), PACKED),
    "bool.npy": (lambda p: save_npy(p, BINARY.astype(bool)), BINARY),
    "ids.npy": (lambda p: save_npy(p, IDS.astype(np.int64)), IDS),
    "ids.npz": (lambda p: save_npz(p, IDS), IDS),
    "crumbs.png": (
        lambda p: save_raw_png(p, [bytes([0b00011011])], 4, 2, 0),
        np.array([[0, 1, 2, 3]], np.uint8),
    ),
}


@pytest.mark.parametrize("name", LABELS)
def test_label_is_read_as_written(tmp_path, name):
    write, expected = LABELS[name]
    label = image_files.read_label(write(tmp_path / name), num_classes=9)
    assert label.dtype == np.uint8
    np.testing.assert_array_equal(label, expected)


@pytest.mark.parametrize("dtype", ["u1", "i1", "u2", "i2", "u4", "i4", "f4", "f8"])
@pytest.mark.parametrize("compression", [None, "deflate"])
def test_any_numbers_of_a_tiff_are_read_as_written(tmp_path, dtype, compression):
    pixels = PLANES[0].astype(dtype)
    path = save_tiff(tmp_path / "a.tif", pixels, compression=compression)
    image = image_files.read_image(path)
    np.testing.assert_array_equal(image[..., 0], pixels)
    assert image.dtype == (np.float32 if dtype == "f8" else dtype)


@pytest.mark.parametrize("dtype", LZW_MODES)
def test_any_numbers_of_an_lzw_tiff_are_read_as_written(tmp_path, dtype):
    pixels = (PLANES[0].astype("u4") * 65_537).astype(dtype)
    kind = {"u": 1, "i": 2, "f": 3}[dtype[0]]
    save_lzw(tmp_path / "a.tif", pixels, LZW_MODES[dtype], kind)
    image = image_files.read_image(tmp_path / "a.tif")
    np.testing.assert_array_equal(image[..., 0], pixels)
    assert image.dtype == dtype


# Pages and channels


def save_ome(path, array, axes):
    return save_planes(path, array, ome=True, metadata={"axes": axes})


def save_imagej(path, array, axes):
    return save_planes(path, array, imagej=True, metadata={"axes": axes})


TWICE = RNG.integers(0, 65_536, (2, 5, 9, 12), dtype=np.uint16)
COLOURS = RNG.integers(0, 256, (4, 9, 12, 3), dtype=np.uint8)

PAGES = {
    "plain.tif": (lambda p: save_planes(p, PLANES, metadata=None), PLANES),
    "big.tif": (lambda p: save_planes(p, PLANES, metadata=None, bigtiff=True), PLANES),
    "lzw.tif": (
        lambda p: save_frames(p, PLANES >> 8, compression="tiff_lzw"),
        PLANES >> 8,
    ),
    "imagej_z.tif": (lambda p: save_imagej(p, PLANES, "ZYX"), PLANES),
    "ome_t.tif": (lambda p: save_ome(p, PLANES, "TYX"), PLANES),
    "imagej_first_only.tif": (  # has but one directory, as ImageJ writes above 4 GB
        lambda p: save_planes(
            p, PLANES, imagej=True, metadata={"axes": "ZYX"}, truncate=True
        ),
        PLANES,
    ),
    "shaped_first_only.tif": (
        lambda p: save_planes(p, PLANES, metadata={"axes": "ZYX"}, truncate=True),
        PLANES,
    ),
    "colour.tif": (lambda p: save_tiff(p, COLOURS, photometric="rgb"), COLOURS),
    "stack.npy": (lambda p: save_npy(p, PLANES), PLANES),
    "colour.npy": (lambda p: save_npy(p, COLOURS), COLOURS),
    "named.npz": (lambda p: save_npz(p, *PLANES), PLANES),
}


@pytest.mark.parametrize("name", PAGES)
def test_each_page_is_read_as_written(tmp_path, name):
    write, pages = PAGES[name]
    path = write(tmp_path / name)
    assert image_files.count_pages(path) == len(pages)
    for i, page in enumerate(pages):
        image = image_files.read_image(path, page=i)
        np.testing.assert_array_equal(image, np.atleast_3d(page))


@pytest.mark.parametrize("name", ["plain.tif", "stack.npy", "named.npz"])
def test_many_pages_without_a_choice_are_counted(tmp_path, name):
    path = PAGES[name][0](tmp_path / name)
    message = refused(path)
    assert message.startswith("5 pages")
    assert "`page=0` to `page=4`" in message
    assert f"{path}: 5 pages" in failure(image_files.read_label_values, path)


@pytest.mark.parametrize("page", [-1, 5])
@pytest.mark.parametrize("name", ["plain.tif", "stack.npy", "named.npz"])
def test_a_page_that_is_not_there_is_named(tmp_path, name, page):
    path = PAGES[name][0](tmp_path / name)
    assert refused(path, page=page).startswith(f"page {page} of 5; expected 0 to 4")


@pytest.mark.parametrize("name", IMAGES)
def test_other_files_have_one_page(tmp_path, name):
    path = IMAGES[name][0](tmp_path / name)
    assert image_files.count_pages(path) == 1
    assert "page 1 of 1" in refused(path, page=1)


CHANNELS = {  # of each a writer and `[channels, H, W]`
    "colour.png": (lambda p: save(p, RGB8), RGB8.transpose(2, 0, 1)),
    "palette.png": (
        lambda p: save_palette(p, GREY8),
        np.moveaxis(PALETTE[GREY8], -1, 0),
    ),
    "imagej.tif": (lambda p: save_imagej(p, PLANES, "CYX"), PLANES),
    "imagej_three.tif": (lambda p: save_imagej(p, PLANES[:3], "CYX"), PLANES[:3]),
    "ome.tif": (lambda p: save_ome(p, PLANES, "CYX"), PLANES),
    "shaped.tif": (lambda p: save_planes(p, PLANES, metadata={"axes": "CYX"}), PLANES),
    "planar.tif": (lambda p: save_planes(p, PLANES, planarconfig="separate"), PLANES),
    "last.tif": (
        lambda p: save_planes(p, PLANES.transpose(1, 2, 0), planarconfig="contig"),
        PLANES,
    ),
    "last.npy": (
        lambda p: save_npy(p, np.tile(PLANES.transpose(1, 2, 0), (3, 2, 1))),
        np.tile(PLANES, (1, 3, 2)),
    ),
    "two.npz": (lambda p: save_npz(p, PLANES[:2].transpose(1, 2, 0)), PLANES[:2]),
}


@pytest.mark.parametrize("name", CHANNELS)
def test_each_channel_is_read_as_written(tmp_path, name):
    write, channels = CHANNELS[name]
    path = write(tmp_path / name)
    assert image_files.count_pages(path) == 1
    for i, channel in enumerate(channels):
        image = image_files.read_image(path, options=take(i))
        np.testing.assert_array_equal(image, channel[..., None])
    for wrong in (-1, len(channels)):
        message = refused(path, options=take(wrong))
        assert f"channel {wrong} of {len(channels)}" in message
    image = image_files.read_image(path)
    np.testing.assert_array_equal(image, np.moveaxis(channels, 0, -1))
    last = len(channels) - 1
    image = image_files.read_image(path, options=take(last, 0, last))
    expected = np.stack([channels[i] for i in (last, 0, last)], axis=-1)
    np.testing.assert_array_equal(image, expected)


@pytest.mark.parametrize(("axes", "transposed"), [("TCYX", False), ("CTYX", True)])
def test_pages_and_channels_are_told_apart_by_their_axes(tmp_path, axes, transposed):
    stored = TWICE.swapaxes(0, 1) if transposed else TWICE
    path = save_ome(tmp_path / "a.ome.tif", stored, axes)
    assert image_files.count_pages(path) == 2
    image = image_files.read_image(path, page=1, options=take(3))
    np.testing.assert_array_equal(image[..., 0], TWICE[1, 3])


@pytest.mark.parametrize(
    ("shape", "pages"),
    [((9, 12, 4), 1), ((4, 9, 12), 4), ((40, 40, 9), 1), ((40, 40, 11), 40)],
)
def test_the_shape_of_an_array_tells_pages_from_channels(tmp_path, shape, pages):
    path = save_npy(tmp_path / "a.npy", np.zeros(shape, np.uint8))
    assert image_files.count_pages(path) == pages


def test_arrays_are_named_in_the_order_of_their_pages(tmp_path):
    np.savez(tmp_path / "a.npz", zebra=IDS, ant=BINARY)
    assert image_files.array_names(tmp_path / "a.npz") == ["zebra", "ant"]
    label = image_files.read_label_values(tmp_path / "a.npz", page=1)
    np.testing.assert_array_equal(label, BINARY)


# What is refused


def test_a_missing_file_and_a_folder_are_named(tmp_path):
    assert "No such file" in refused(tmp_path / "a.png")
    (tmp_path / "b.png").mkdir()
    assert refused(tmp_path / "b.png").startswith("not a file")


def test_a_link_to_itself_is_named(tmp_path):
    (tmp_path / "a.png").symlink_to(tmp_path / "a.png")
    refused(tmp_path / "a.png")


def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "a.png")
    assert refused(tmp_path / "a.png").startswith("not a file")


def test_an_ending_without_a_reader_is_named(tmp_path):
    (tmp_path / "a.xyz").touch()
    assert refused(tmp_path / "a.xyz").startswith("ending '.xyz'; expected .png, .jpg")


@pytest.mark.parametrize("suffix", image_files.IMAGE_SUFFIXES)
def test_an_empty_file_is_named(tmp_path, suffix):
    path = tmp_path / f"a{suffix}"
    path.touch()
    assert refused(path).startswith("zero bytes")


@pytest.mark.parametrize("suffix", image_files.IMAGE_SUFFIXES)
def test_a_file_that_is_no_image_is_named(tmp_path, suffix):
    path = tmp_path / f"a{suffix}"
    path.write_bytes(b"not an image\n" * 9)
    assert refused(path).startswith("holds neither image nor array")


@pytest.mark.parametrize(
    ("name", "suffix", "found", "promised"),
    [
        ("grey8.png", ".tif", "PNG image", "TIFF image"),
        ("grey.jpg", ".png", "JPEG image", "PNG image"),
        ("grey8.tif", ".npy", "TIFF image", "NumPy array"),
        ("grey.npy", ".npz", "NumPy array", "NumPy archive"),
        ("one.npz", ".jpg", "NumPy archive", "JPEG image"),
    ],
)
def test_content_of_another_format_is_named(tmp_path, name, suffix, found, promised):
    path = IMAGES[name][0](tmp_path / name).rename(tmp_path / f"a{suffix}")
    message = refused(path)
    assert f"holds a {found}; expected an intact {promised}" in message
    assert f"ending {suffix} promises" in message


WHOLE = {name: write for name, (write, _) in (IMAGES | PAGES).items()}


@pytest.mark.parametrize(
    "name",
    [
        "grey8.png",
        "rgb16.png",
        "colour.JPEG",
        "grey16.TIFF",
        "deflate.tif",
        "lzw8.tif",
        "zstd.tif",
        "jpeg2000.tif",
        "group4.tif",
        "ome_t.tif",
        "stack.npy",
        "named.npz",
    ],
)
@pytest.mark.parametrize("share", [0.02, 0.1, 0.5, 0.9, 1])
def test_a_file_cut_short_is_named_and_decoders_are_silent(
    tmp_path, capfd, caplog, name, share
):
    path = WHOLE[name](tmp_path / name)
    data = path.read_bytes()
    path.write_bytes(data[: int(share * (len(data) - 2))])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        message = refused(path, page=4 if name in PAGES else None)
    assert "Warning" not in message
    assert not caplog.records
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    "name",
    [
        "palette.png",
        "la16.png",
        "grey.jpg",
        "big_endian.tif",
        "deflate.tif",
        "lzw_palette.tif",
        "group4.tif",
        "jpeg2000.tif",
        "big.tif",
        "imagej_z.tif",
        "ome_t.tif",
        "grey.bmp",
        "grey.gif",
        "stack.npy",
        "named.npz",
    ],
)
def test_a_file_of_wrong_bytes_is_read_or_named(tmp_path, name):
    path = WHOLE[name](tmp_path / name)
    data = path.read_bytes()
    rng = np.random.default_rng(0)
    named = 0
    for _ in range(100):
        wrong = np.frombuffer(data, np.uint8).copy()
        # Most wrong bytes go where headers and directories are.
        places = rng.integers(0, rng.choice([200, len(data)]), rng.integers(1, 5))
        places = rng.choice([1, -1]) * (places % len(data))
        wrong[places] = rng.choice([0, 1, 2, 7, 255, rng.integers(256)], len(places))
        path.write_bytes(wrong.tobytes())
        try:
            image_files.read_image(path, page=0, max_pixels=100_000)
        except InputError:  # any other error fails the test
            named += 1
    assert named > 5


@pytest.mark.parametrize(
    ("name", "tag", "value", "dtype", "expected"),
    [
        ("upright.tif", "Orientation", "one", "s", "a tag does not hold a number"),
        ("rgba.tif", "ExtraSamples", (1,) * 5, "H", "more extra samples than samples"),
        ("palette.tif", "ColorMap", (0,) * 3, "H", "indices that its palette lacks"),
    ],
)
def test_a_tag_that_makes_no_sense_is_named(
    tmp_path, name, tag, value, dtype, expected
):
    path = tmp_path / name
    if name == "upright.tif":
        save(path, GREY8, tiffinfo={274: 1})
    else:
        IMAGES[name][0](path)
    image_files.read_image(path)
    with tifffile.TiffFile(path, mode="r+b") as file:
        file.pages.first.tags[tag].overwrite(value, dtype=dtype)
    message = refused(path)
    assert message.startswith("unreadable or truncated (")
    assert expected in message


@pytest.mark.parametrize("error", [AttributeError, TypeError, ValueError, KeyError])
@pytest.mark.parametrize(
    "name", ["grey8.png", "grey.jpg", "grey8.tif", "lzw8.tif", "grey.npy", "one.npz"]
)
def test_an_error_of_our_code_is_not_called_a_bad_file(
    tmp_path, monkeypatch, name, error
):
    def broken(*args):
        raise error("ours")

    path = IMAGES[name][0](tmp_path / name)
    monkeypatch.setattr(samples, "finish", broken)
    with pytest.raises(error, match="ours"):
        image_files.read_image(path)


@pytest.mark.parametrize("attribute", ["axes", "asarray"])
def test_a_name_that_a_library_lacks_is_not_called_a_bad_file(
    tmp_path, monkeypatch, attribute
):
    path = PAGES["imagej_first_only.tif"][0](tmp_path / "a.tif")
    image_files.read_image(path, page=0)
    monkeypatch.delattr(tifffile.TiffPageSeries, attribute)
    with pytest.raises(AttributeError, match=attribute):
        image_files.read_image(path, page=0)


def test_only_what_a_library_raises_is_an_error_of_the_decoder():
    number, missing = 1, "no such file"
    with (
        pytest.raises(samples.DamagedError, match="TypeError"),
        samples.decoder_errors(),
    ):
        json.loads(number)  # raised inside the library
    with pytest.raises(TypeError), samples.decoder_errors():
        json.loads()
    with pytest.raises(AttributeError), samples.decoder_errors():
        json.no_such_name(number)
    with pytest.raises(TypeError), samples.decoder_errors():
        samples.some(number)  # raised in a function of ours
    with pytest.raises(FileNotFoundError), samples.decoder_errors():
        os.stat(missing)


def test_a_chain_of_planes_that_leads_back_is_named(tmp_path):
    path = PAGES["plain.tif"][0](tmp_path / "a.tif")
    with tifffile.TiffFile(path) as file:
        first, last = file.pages[0].offset, file.pages[-1]
        end = last.offset + 2 + 12 * len(last.tags)
    data = bytearray(path.read_bytes())
    data[end : end + 4] = struct.pack("<I", first)
    path.write_bytes(data)
    assert "is not where it should be" in refused(path, page=0)


def test_damaged_pixels_of_a_tiff_are_reported_once(tmp_path, capfd):
    path = IMAGES["lzw8.tif"][0](tmp_path / "a.tif")
    with tifffile.TiffFile(path) as file:
        start = file.pages.first.dataoffsets[0]
    data = bytearray(path.read_bytes())
    data[start + 2 : start + 9] = b"\xff" * 7
    path.write_bytes(data)
    refused(path)
    assert capfd.readouterr() == ("", "")


def test_a_flipped_bit_in_a_png_is_named(tmp_path):
    path = save(tmp_path / "a.png", GREY8)
    data = bytearray(path.read_bytes())
    data[-14] ^= 1  # in the checksum of the pixels
    path.write_bytes(data)
    assert "checksum" in refused(path)


def test_an_animation_is_named(tmp_path):
    frames = [Image.fromarray(frame) for frame in COLOURS]
    frames[0].save(tmp_path / "a.png", save_all=True, append_images=frames[1:])
    assert refused(tmp_path / "a.png").startswith("an animation of 4 frames")


def exif(orientation):
    tags = Image.Exif()
    tags[271] = "maker"
    tags[274] = orientation
    return tags


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("a.png", {"exif": exif(6)}),
        ("a.jpg", {"exif": exif(6)}),
        ("a.tif", {"tiffinfo": {274: 6}}),
    ],
)
def test_a_rotated_image_is_named(tmp_path, name, options):
    assert refused(save(tmp_path / name, GREY8, **options)).startswith(
        "orientation tag 6"
    )


@pytest.mark.parametrize("suffix", [".png", ".jpg"])
def test_an_upright_or_damaged_orientation_is_no_obstacle(tmp_path, suffix):
    path = tmp_path / f"a{suffix}"
    damaged = b"Exif\0\0II*\0\x08\0\0\0\x02\0\x0f\x01"
    for tags in (exif(1), damaged):
        save(path, BLOCKS, quality=100, exif=tags)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            image_files.read_image(path)
        np.testing.assert_array_equal(image_files.read_image(path)[..., 0], BLOCKS)


def save_npy_header(path, shape, dtype="|u1"):
    with path.open("wb") as stream:
        fields = {"descr": dtype, "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(stream, fields)
    return path


def save_tiff_bomb(path):
    save_tiff(path, GREY8)
    with tifffile.TiffFile(path, mode="r+b") as file:
        for name in ("ImageWidth", "ImageLength"):
            file.pages.first.tags[name].overwrite(60_000)
    return path


def save_npz_bomb(path):
    member = save_npy_header(path.with_suffix(".npy"), (60_000, 60_000))
    with zipfile.ZipFile(path, "w") as archive:
        archive.write(member, "a.npy")
    return path


def save_jpeg_bomb(path):
    save_jpeg(path, BLOCKS)
    size, large = (struct.pack(">HH", *s) for s in (BLOCKS.shape, (60_000, 60_000)))
    path.write_bytes(path.read_bytes().replace(size, large))
    return path


BOMBS = {
    "a.png": lambda p: save_raw_png(p, [b"\0"], 60_000, 8, 0, height=60_000),
    "a.jpg": save_jpeg_bomb,
    "a.tif": save_tiff_bomb,
    "a.npy": lambda p: save_npy_header(p, (60_000, 60_000)),
    "a.npz": save_npz_bomb,
}


@pytest.mark.parametrize("name", BOMBS)
def test_a_header_that_promises_too_many_pixels_is_named(tmp_path, name):
    path = BOMBS[name](tmp_path / name)
    message = failure(image_files.read_image, path)
    assert message.startswith(str(path))
    assert "60000 x 60000 pixels" in message
    assert "at most 500,000,000" in message


@pytest.mark.parametrize("name", ["grey8.png", "grey.jpg", "lzw8.tif"])
def test_images_up_to_max_pixels_are_read_without_a_warning(
    tmp_path, monkeypatch, name
):
    write, expected = IMAGES[name]
    path = write(tmp_path / name)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)  # pillow refuses twice as many
    image = image_files.read_image(path, max_pixels=expected.size)
    np.testing.assert_array_equal(image[..., 0], expected)
    assert "at most" in refused(path, max_pixels=expected.size - 1)


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("suffix", [".tif", ".npy"])
def test_an_image_with_nan_or_infinity_is_named(tmp_path, value, suffix):
    path = tmp_path / f"a{suffix}"
    pixels = np.array([[0, value]], np.float32)
    (save_tiff if suffix == ".tif" else save_npy)(path, pixels)
    assert refused(path).startswith("1 values are NaN or infinite")
    assert str(path) in failure(image_files.read_label, path, 2)


@pytest.mark.parametrize("suffix", [".jpg", ".tif"])
def test_other_colours_than_rgb_are_named(tmp_path, suffix):
    image = Image.fromarray(RGB8).convert("CMYK")
    image.save(tmp_path / f"a{suffix}")
    assert refused(tmp_path / f"a{suffix}").startswith("colour mode")


def test_a_compression_that_would_lose_bits_is_named(tmp_path):
    write = {"photometric": "rgb", "compression": "zlib"}
    path = save_tiff(tmp_path / "a.tif", RGB16, **write)
    with tifffile.TiffFile(path, mode="r+b") as file:
        file.pages.first.tags["Compression"].overwrite(tifffile.COMPRESSION.LZW)
    refused(path)


@pytest.mark.parametrize("value", ["text", None, 1j])
@pytest.mark.parametrize("write", [save_npy, save_npz])
def test_an_array_of_other_things_than_numbers_is_named(tmp_path, write, value):
    suffix = ".npy" if write is save_npy else ".npz"
    path = write(tmp_path / f"a{suffix}", np.array([[value]]))
    assert "an array of" in failure(image_files.read_image, path)


@pytest.mark.parametrize("shape", [(), (5,), (2, 2, 2, 2, 2), (0, 3), (3, 0)])
def test_an_array_of_another_shape_is_named(tmp_path, shape):
    path = save_npy(tmp_path / "a.npy", np.zeros(shape, np.uint8))
    assert "expected [H, W]" in refused(path)


@pytest.mark.parametrize("name", ["two\nlines", "two words", "\u7ec6\u80de \u00fc"])
def test_any_name_is_read_and_named_on_one_line(tmp_path, name):
    path = save(tmp_path / f"{name}.png", GREY8)
    np.testing.assert_array_equal(image_files.read_image(path)[..., 0], GREY8)
    path.write_bytes(b"")
    message = failure(image_files.read_image, path)
    assert str(path).replace("\n", "\\n") in message


# Labels


@pytest.mark.parametrize("name", ["a.jpg", "a.tif"])
def test_a_label_with_lossy_compression_is_named(tmp_path, name):
    options = {"compression": "jpeg"} if name == "a.tif" else {}
    path = save(tmp_path / name, BINARY, **options)
    assert "invents class ids" in failure(image_files.read_label, path, 2)


@pytest.mark.parametrize("suffix", [".npy", ".npz", ".tif"])
def test_a_label_of_floats_is_read_as_stored(tmp_path, suffix):
    write = {".npy": save_npy, ".npz": save_npz, ".tif": save_tiff}[suffix]
    values = image_files.read_label_values(write(tmp_path / f"a{suffix}", FLOAT))
    assert values.dtype == np.float32
    np.testing.assert_array_equal(values, FLOAT)


def test_a_label_with_fractions_is_named(tmp_path):
    path = save_tiff(tmp_path / "a.tif", np.array([[0, 0.5]], np.float32))
    assert str(path) in failure(image_files.read_label, path, 2)


def test_a_label_with_colours_is_named(tmp_path):
    path = save(tmp_path / "a.png", RGB8)
    np.testing.assert_array_equal(image_files.read_label_values(path), RGB8)
    assert "colours" in failure(image_files.read_label, path, 2)


def test_a_negative_class_id_is_named(tmp_path):
    path = save_tiff(tmp_path / "a.tif", np.array([[-1, 0]], np.int16))
    assert f"{path}: class id -1" in failure(image_files.read_label, path, 3)


def test_a_binary_label_with_both_1_and_255_is_named(tmp_path):
    path = save(tmp_path / "a.png", np.array([[0, 1, 255]], np.uint8))
    assert f"{path}: both 1 and 255" in failure(image_files.read_label, path, 2)
