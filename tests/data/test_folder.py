"""Files written by the test, read back; every bad input is named in one line."""

import struct
import zlib
from types import SimpleNamespace

import numpy as np
import pytest
import tifffile
from ml_collections import ConfigDict
from PIL import Image

from metaseg.data import folder, image_files
from metaseg.data.dataset import example_ids
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


def save(path, array, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path, **options)
    return path


def save_tiff(path, array, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    tifffile.imwrite(path, array, **options)
    return path


def save_palette(path, indices, **options):
    image = Image.frombytes("P", indices.shape[::-1], indices.tobytes())
    image.putpalette(PALETTE.ravel().tolist())
    image.save(path, **options)
    return path


def save_raw_png(path, rows, width, depth, colour_type):
    """Writes what pillow does not: packed ids and 16-bit colour."""

    def chunk(kind, data):
        body = kind + data
        return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))

    header = struct.pack(">IIBBBBB", width, len(rows), depth, colour_type, 0, 0, 0)
    data = zlib.compress(b"".join(b"\0" + row for row in rows))
    chunks = chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunks)
    return path


def save_png16(path, pixels, colour_type):
    rows = [row.astype(">u2").tobytes() for row in pixels]
    return save_raw_png(path, rows, pixels.shape[1], 16, colour_type)


@pytest.fixture
def root(tmp_path):
    """A good data set: two pairs in each split, sizes 9 x 12."""
    for split in ("train", "val", "test"):
        for name in ("a", "b"):
            save(tmp_path / "set" / split / "images" / f"{name}.png", GREY8)
            save(tmp_path / "set" / split / "labels" / f"{name}.png", BINARY)
    return tmp_path / "set"


def load(root, **fields):
    return folder.load(SimpleNamespace(dir=str(root), **fields))


def failure(call, *args, **options):
    with pytest.raises(InputError) as caught:
        call(*args, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


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
    "white0.tif": (lambda p: save_tiff(p, GREY8, photometric="miniswhite"), GREY8),
    "lzw_white0.tif": (  # pillow inverts what it writes so
        lambda p: save(p, ~GREY8, compression="tiff_lzw", tiffinfo={262: 0}),
        GREY8,
    ),
    "group4.tif": (
        lambda p: save(p, BINARY.astype(bool), compression="group4"),
        BINARY,
    ),
}


@pytest.mark.parametrize("name", IMAGES)
def test_image_is_read_as_written(tmp_path, name):
    write, expected = IMAGES[name]
    image = image_files.read_image(write(tmp_path / name))
    np.testing.assert_array_equal(image, expected.reshape(9, 12, -1))


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


@pytest.mark.parametrize("foreground", [1, 255])
def test_binary_foreground_becomes_one(root, foreground):
    for path in root.glob("*/labels/*.png"):
        save(path, BINARY * np.uint8(foreground))
    save(root / "train/labels/b.png", np.zeros_like(BINARY))
    train = load(root).train
    np.testing.assert_array_equal(train.labels, [BINARY, np.zeros_like(BINARY)])


def test_void_stays_255_with_more_than_two_classes(root):
    for path in root.glob("*/labels/*.png"):
        save(path, IDS)
    dataset = load(root, num_classes=4)
    assert dataset.num_classes == 4
    np.testing.assert_array_equal(dataset.test.labels, [IDS, IDS])


def test_a_data_set_has_what_was_written_and_is_named_like_its_folder(root):
    (root / "train/images/Thumbs.db").write_text("ignored")
    (root / "train/images/.hidden.png").write_text("ignored")
    (root / "train/labels/notes.txt").write_text("ignored")
    (root / "train/labels/more.png").mkdir()
    dataset = folder.load(
        ConfigDict({"dir": str(root), "num_classes": 2, "normalize": "none"})
    )
    assert dataset.name == "set"
    assert dataset.channels == 1
    for name, split in dataset.splits():
        assert split.names == ("a", "b")
        np.testing.assert_array_equal(split.ids, example_ids(name, ["a", "b"]))
        np.testing.assert_array_equal(split.images[..., 0], [GREY8, GREY8])
        assert split.images.dtype == np.float32


def test_pairs_match_across_endings_and_unicode_forms(tmp_path):
    image = save_tiff(tmp_path / "images" / "Zelle u\u0308.TIFF", GREY8)
    label = save(tmp_path / "labels" / "Zelle \u00fc.png", BINARY)
    assert folder.match_pairs(tmp_path) == [("Zelle \u00fc", image, label)]


def test_ids_do_not_move_when_a_file_is_added(root):
    before = load(root).train
    save(root / "train/images/aa.png", GREY8)
    save(root / "train/labels/aa.png", BINARY)
    after = load(root).train
    assert after.names == ("a", "aa", "b")
    np.testing.assert_array_equal(after.ids[[0, 2]], before.ids)


# Normalisation, sizes, channels


def test_zscore_equals_the_closed_form(root):
    save(root / "train/images/a.png", GREY16)
    save(root / "train/images/b.png", np.full_like(GREY8, 7))
    first, constant = load(root).train.images[..., 0]
    exact = GREY16.astype(float)
    exact = (exact - exact.mean()) / exact.std()
    np.testing.assert_allclose(first, exact, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(constant, 0)


def test_zscore_is_over_all_channels_together(root):
    save(root / "train/images/a.png", RGB8)
    image = load(root).train.images[0]
    exact = (RGB8 - RGB8.mean()) / RGB8.std()
    np.testing.assert_allclose(image, exact, rtol=1e-5, atol=1e-6)


def test_percentile_maps_a_ramp_linearly(root):
    ramp = np.arange(1001, dtype=np.uint16)[None]  # its percentile q is 10 q
    for path in root.glob("train/*/a.png"):
        save(path, ramp if path.parent.name == "images" else np.zeros_like(ramp))
    save(root / "train/images/b.png", np.full_like(GREY8, 7))
    first, constant = load(root, normalize="percentile").train.images[..., 0]
    exact = (ramp[0] - 10.0) / (998.0 - 10.0)
    np.testing.assert_allclose(first[0], exact, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(constant, 0)


def test_percentile_of_a_nearly_constant_image_uses_its_range(root):
    sparse = np.full((40, 40), 3, np.uint8)
    sparse[5, 5] = 13
    for path in root.glob("train/*/a.png"):
        save(path, sparse if path.parent.name == "images" else sparse * 0)
    image = load(root, normalize="percentile").train.images[0, ..., 0]
    assert image[5, 5] == 1
    assert image.sum() == 1


def test_smaller_images_are_padded_at_the_bottom_and_right(root):
    large, label = np.ones((11, 10), np.uint8), np.ones((11, 10), np.uint8)
    save(root / "test/images/b.png", large)
    save(root / "test/labels/b.png", label)
    dataset = load(root, normalize="none")
    assert dataset.train.images.shape == (2, 11, 12, 1)
    test = dataset.test
    np.testing.assert_array_equal(test.sizes, [[9, 12], [11, 10]])
    np.testing.assert_array_equal(test.images[0, :9, :, 0], GREY8)
    np.testing.assert_array_equal(test.labels[1, :, :10], 1)
    assert not test.images[0, 9:].any()
    assert not test.images[1, :, 10:].any()
    assert (test.labels[0, 9:] == 255).all()
    assert (test.labels[1, :, 10:] == 255).all()


def test_one_colour_image_makes_all_splits_colour(root):
    save(root / "val/images/a.png", RGB8)
    dataset = load(root, normalize="none")
    assert {split.images.shape[-1] for _, split in dataset.splits()} == {3}
    np.testing.assert_array_equal(dataset.val.images[0], RGB8)
    np.testing.assert_array_equal(dataset.train.images[0], np.dstack([GREY8] * 3))


def test_grey_stored_as_colour_counts_as_grey(root):
    save(root / "val/images/a.png", np.dstack([GREY8] * 3))
    assert load(root).channels == 1


# What is refused


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"num_classes": 1}, "config.data.num_classes"),
        ({"num_classes": 256}, "config.data.num_classes"),
        ({"num_classes": 2.5}, "config.data.num_classes"),
        ({"num_classes": True}, "config.data.num_classes"),
        ({"normalize": "minmax"}, "config.data.normalize"),
    ],
)
def test_a_wrong_field_is_named(root, fields, field):
    assert failure(load, root, **fields).startswith(field)


def test_a_wrong_dir_is_named(root):
    for wrong in ("", None, "/no/such/folder", str(root / "train/images/a.png")):
        message = failure(folder.load, SimpleNamespace(dir=wrong))
        assert message.startswith("config.data.dir")
        assert (wrong or "not given") in message


@pytest.mark.parametrize("missing", ["val", "val/images", "val/labels"])
def test_a_missing_folder_is_named(root, missing):
    (root / missing).rename(root / "elsewhere")
    assert str(root / missing) in failure(load, root)


def test_an_empty_split_is_named(root):
    for path in root.glob("test/*/*.png"):
        path.rename(path.with_suffix(".jpg"))
    message = failure(load, root)
    assert str(root / "test/images") in message
    assert "a.jpg" in message


@pytest.mark.parametrize(("kind", "other"), [("image", "label"), ("label", "image")])
def test_files_without_a_partner_are_counted_and_named(root, kind, other):
    for i in range(5):
        save(root / f"train/{kind}s/extra{i}.png", BINARY)
    message = failure(load, root)
    assert f"5 without a {other}" in message
    assert "extra0.png, extra1.png, extra2.png, ..." in message
    assert str(root / "train") in message


def test_two_files_of_one_name_are_named(root):
    save(root / "train/images/a.tif", GREY8)
    message = failure(load, root)
    assert "a.png" in message
    assert "a.tif" in message


def test_a_size_mismatch_is_named_with_both_sizes(root):
    path = save(root / "val/labels/b.png", np.zeros((12, 9), np.uint8))
    message = failure(load, root)
    assert message.startswith(str(path))
    assert "12 x 9" in message
    assert "9 x 12" in message


def test_the_first_of_many_wrong_files_is_named_and_the_others_counted(root):
    for path in root.glob("*/images/*.png"):
        path.write_bytes(b"")
    message = failure(load, root)
    assert str(root / "train/images/a.png") in message
    assert message.endswith("(and 5 more files)")


NOT_IMAGES = {
    "empty.png": b"",
    "empty.tif": b"",
    "text.png": b"not an image\n" * 9,
    "text.tiff": b"not an image\n" * 9,
}


@pytest.mark.parametrize("name", NOT_IMAGES)
def test_a_file_that_is_no_image_is_named(tmp_path, name):
    path = tmp_path / name
    path.write_bytes(NOT_IMAGES[name])
    assert str(path) in failure(image_files.read_image, path)


def test_a_jpeg_called_png_is_named(tmp_path):
    path = save(tmp_path / "a.png", GREY8, format="JPEG")
    assert "expected an intact PNG" in failure(image_files.read_label, path, 2)


@pytest.mark.parametrize("name", ["grey8.png", "rgb16.png", "grey16.TIFF", "lzw8.tif"])
@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_a_truncated_file_is_named(tmp_path, name, share):
    path = IMAGES[name][0](tmp_path / name)
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    assert str(path) in failure(image_files.read_image, path)


def test_a_flipped_bit_in_a_png_is_named(tmp_path):
    path = save(tmp_path / "a.png", GREY8)
    data = bytearray(path.read_bytes())
    data[-14] ^= 1  # in the checksum of the pixels
    path.write_bytes(data)
    assert str(path) in failure(image_files.read_image, path)


def test_a_damaged_tiff_is_reported_once(root, capsys, caplog):
    path = root / "train/images/a.png"
    path.unlink()
    path = save(path.with_suffix(".tif"), GREY8, compression="tiff_deflate")
    path.write_bytes(path.read_bytes()[:20])
    assert str(path) in failure(load, root)
    assert not caplog.records
    assert capsys.readouterr() == ("", "")


def test_a_multi_page_tiff_is_named(tmp_path):
    stack = np.stack([GREY8] * 4)
    path = save_tiff(tmp_path / "a.tif", stack, photometric="minisblack")
    assert f"{path}: 4 pages" in failure(image_files.read_image, path)


def test_more_channels_than_colour_are_named(tmp_path):
    planes = np.stack([GREY8] * 5, axis=-1)
    options = {"photometric": "minisblack", "planarconfig": "contig"}
    path = save_tiff(tmp_path / "a.tif", planes, **options)
    assert f"{path}: 5 channels" in failure(image_files.read_image, path)


def test_a_compression_that_would_lose_bits_is_named(tmp_path):
    write = {"photometric": "rgb", "compression": "zlib"}
    path = save_tiff(tmp_path / "a.tif", RGB16, **write)
    with tifffile.TiffFile(path, mode="r+b") as file:
        file.pages.first.tags["Compression"].overwrite(tifffile.COMPRESSION.LZW)
    assert str(path) in failure(image_files.read_image, path)


def test_a_rotated_image_is_named(tmp_path):
    exif = Image.Exif()
    exif[274] = 6
    path = save(tmp_path / "a.png", GREY8, exif=exif)
    assert f"{path}: orientation tag 6" in failure(image_files.read_image, path)
    path = save(tmp_path / "a.tif", GREY8, tiffinfo={274: 6})
    assert f"{path}: orientation tag 6" in failure(image_files.read_image, path)


def test_a_name_that_breaks_the_line_is_escaped(root):
    save(root / "train/images" / "two\nlines.png", GREY8)
    assert "two\\nlines.png" in failure(load, root)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_an_image_with_nan_or_infinity_is_named(tmp_path, value):
    path = save_tiff(tmp_path / "a.tif", np.array([[0, value]], np.float32))
    assert f"{path}: 1 values" in failure(image_files.read_image, path)
    assert str(path) in failure(image_files.read_label, path, 2)


def test_a_label_with_fractions_is_named(tmp_path):
    path = save_tiff(tmp_path / "a.tif", np.array([[0, 0.5]], np.float32))
    assert str(path) in failure(image_files.read_label, path, 2)


def test_a_label_with_colours_is_named(root):
    path = save(root / "train/labels/a.png", RGB8)
    message = failure(load, root)
    assert message.startswith(str(path))
    assert "colours" in message


@pytest.mark.parametrize(
    ("num_classes", "wrong", "expected"),
    [(2, 2, "0 and 1, or 0 and 255"), (4, 4, "0 to 3"), (4, 254, "0 to 3")],
)
def test_a_class_id_out_of_range_is_named(root, num_classes, wrong, expected):
    label = BINARY.copy()
    label[3, 3:5] = wrong
    path = save(root / "train/labels/b.png", label)
    message = failure(load, root, num_classes=num_classes)
    assert message.startswith(f"{path}: class id {wrong} in 2 pixels; expected")
    assert expected in message


def test_a_negative_class_id_is_named(tmp_path):
    path = save_tiff(tmp_path / "a.tif", np.array([[-1, 0]], np.int16))
    assert f"{path}: class id -1" in failure(image_files.read_label, path, 3)


def test_a_binary_label_with_both_1_and_255_is_named(tmp_path):
    path = save(tmp_path / "a.png", np.array([[0, 1, 255]], np.uint8))
    assert f"{path}: both 1 and 255" in failure(image_files.read_label, path, 2)


def test_two_ways_to_write_foreground_in_one_data_set_are_named(root):
    path = save(root / "test/labels/b.png", BINARY * np.uint8(255))
    message = failure(load, root)
    assert message.startswith(str(path))
    assert str(root / "train/labels/a.png") in message
