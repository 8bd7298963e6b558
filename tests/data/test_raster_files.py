"""PNG, JPEG, BMP and GIF: palettes, alpha, orientation, frames; files not read."""

import io
import struct
import zlib

import numpy as np
import pytest
import tifffile
from PIL import Image, ImageOps

from metaseg.data import image_files
from metaseg.data.file_options import FileOptions
from metaseg.errors import InputError

RNG = np.random.default_rng(0)
GREY8 = RNG.integers(0, 256, (9, 12), dtype=np.uint8)
GREY16 = RNG.integers(0, 65_536, (9, 12), dtype=np.uint16)
RGB8 = RNG.integers(0, 256, (9, 12, 3), dtype=np.uint8)
BINARY = RNG.integers(0, 2, (9, 12), dtype=np.uint8)
IDS = RNG.integers(0, 4, (9, 12), dtype=np.uint8)
VOC = np.array([[0, 0, 0], [128, 0, 0], [0, 128, 0], [128, 128, 0]], np.uint8)
WHITE_BLACK = np.array([[255] * 3, [0] * 3], np.uint8)
FROM_ALPHA = FileOptions(from_alpha=True)
TURNED = FileOptions(apply_orientation=True)


def with_palette(indices, table):
    image = Image.frombytes("P", indices.shape[::-1], indices.tobytes())
    image.putpalette(np.asarray(table, np.uint8).ravel().tolist())
    return image


def save(path, image, **options):
    if isinstance(image, np.ndarray):
        image = Image.fromarray(image)
    image.save(path, **options)
    return path


def refused(call, path, **options):
    """What reading says, less the path it must start with."""
    with pytest.raises(InputError) as caught:
        call(path, **options)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)
    return str(caught.value).removeprefix(f"{path}: ")


def values(path, **options):
    return image_files.read_label_values(path, options=FileOptions(**options))


# BMP and GIF


@pytest.mark.parametrize("suffix", [".bmp", ".gif"])
def test_grey_bmp_and_gif_files_are_read(tmp_path, suffix):
    path = save(tmp_path / f"a{suffix}", GREY8)
    np.testing.assert_array_equal(image_files.read_image(path)[..., 0], GREY8)
    np.testing.assert_array_equal(values(path), GREY8)
    assert image_files.count_pages(path) == 1


def test_colours_of_a_bmp_are_read(tmp_path):
    path = save(tmp_path / "a.bmp", RGB8)
    np.testing.assert_array_equal(image_files.read_image(path), RGB8)
    np.testing.assert_array_equal(values(path), RGB8)


def test_bits_of_a_bmp_are_black_and_white(tmp_path):
    path = save(tmp_path / "a.bmp", BINARY.astype(bool))
    np.testing.assert_array_equal(image_files.read_image(path)[..., 0], BINARY * 255)
    np.testing.assert_array_equal(values(path), BINARY * 255)


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".tif"])
def test_a_palette_is_read_by_its_indices_in_a_label(tmp_path, suffix):
    path = save(tmp_path / f"a{suffix}", with_palette(IDS, VOC))
    np.testing.assert_array_equal(values(path), IDS)
    np.testing.assert_array_equal(image_files.read_image(path), VOC[IDS])


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".gif", ".tif"])
def test_a_palette_of_white_and_black_is_read_by_colour(tmp_path, suffix):
    path = save(tmp_path / f"a{suffix}", with_palette(BINARY, WHITE_BLACK))
    expected = np.where(BINARY, 0, 255)
    np.testing.assert_array_equal(values(path), expected)
    np.testing.assert_array_equal(image_files.read_image(path)[..., 0], expected)


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".gif", ".tif"])
def test_a_palette_of_greys_is_read_by_colour(tmp_path, suffix):
    greys = np.array([[0] * 3, [7] * 3, [2] * 3, [1] * 3], np.uint8)  # renumbered ids
    path = save(tmp_path / f"a{suffix}", with_palette(IDS, greys))
    np.testing.assert_array_equal(values(path), greys[IDS, 0])


def test_a_palette_of_black_and_white_in_which_ids_share_a_colour(tmp_path):
    table = [[0] * 3, [255] * 3, [255] * 3, [255] * 3]
    path = save(tmp_path / "a.png", with_palette(IDS, table))
    np.testing.assert_array_equal(values(path), IDS)


@pytest.mark.parametrize("palette", [VOC, WHITE_BLACK])
def test_each_frame_of_a_gif_is_a_page(tmp_path, palette):
    frames = [IDS % len(palette), (IDS[::-1] + 1) % len(palette)]
    first, second = (with_palette(frame, palette) for frame in frames)
    path = save(tmp_path / "a.gif", first, save_all=True, append_images=[second])
    assert image_files.count_pages(path) == 2
    for page, frame in enumerate(frames):
        image = image_files.read_image(path, page=page)
        colours = palette[frame]
        np.testing.assert_array_equal(
            image, colours if palette is VOC else colours[..., :1]
        )
        label = image_files.read_label_values(path, page=page)
        np.testing.assert_array_equal(
            label, colours if palette is VOC else colours[..., 0]
        )
    assert refused(image_files.read_image, path).startswith("2 pages")


@pytest.mark.parametrize("suffix", [".bmp", ".gif"])
@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_a_bmp_or_gif_cut_short_is_named(tmp_path, suffix, share):
    path = save(tmp_path / f"a{suffix}", RNG.integers(0, 256, (40, 50), np.uint8))
    data = path.read_bytes()
    path.write_bytes(data[: int(share * len(data))])
    message = refused(image_files.read_image, path)
    assert message.startswith("unreadable or truncated (")


def test_bmp_and_gif_headers_that_promise_too_much_are_named(tmp_path):
    bmp = save(tmp_path / "a.bmp", GREY8)
    data = bytearray(bmp.read_bytes())
    data[18:26] = struct.pack("<ii", 60_000, 60_000)
    bmp.write_bytes(data)
    gif = save(tmp_path / "a.gif", GREY8)
    data = bytearray(gif.read_bytes())
    data[6:10] = struct.pack("<HH", 60_000, 60_000)
    gif.write_bytes(data)
    for path in (bmp, gif):
        assert "60000 x 60000" in refused(image_files.read_image, path)


# 16 bits and interlace of PNG


def raw_png(path, rows, width, depth, colour_type, extra=b""):
    def chunk(kind, data):
        body = kind + data
        return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))

    header = struct.pack(">IIBBBBB", width, len(rows), depth, colour_type, 0, 0, 0)
    data = zlib.compress(b"".join(b"\0" + row for row in rows))
    parts = [chunk(b"IHDR", header), extra, chunk(b"IDAT", data), chunk(b"IEND", b"")]
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(parts))
    return path


def transparent(*samples):
    body = b"tRNS" + struct.pack(f">{len(samples)}H", *samples)
    return struct.pack(">I", len(body) - 4) + body + struct.pack(">I", zlib.crc32(body))


@pytest.mark.parametrize("depth", [8, 16])
def test_a_transparent_value_is_a_value_and_alpha_on_request(tmp_path, depth):
    grey = GREY8 if depth == 8 else GREY16
    rows = [row.astype(f">u{depth // 8}").tobytes() for row in grey]
    key = int(grey[0, 0])
    path = raw_png(tmp_path / "a.png", rows, 12, depth, 0, transparent(key))
    np.testing.assert_array_equal(image_files.read_image(path)[..., 0], grey)
    np.testing.assert_array_equal(values(path), grey)
    expected = np.where(grey == key, 0, 255)
    np.testing.assert_array_equal(values(path, from_alpha=True), expected)


def test_a_transparent_index_is_a_class_and_alpha_on_request(tmp_path):
    path = save(tmp_path / "a.png", with_palette(IDS, VOC), transparency=b"\0\x80")
    np.testing.assert_array_equal(values(path), IDS)
    expected = np.array([0, 128, 255, 255])[IDS]
    np.testing.assert_array_equal(values(path, from_alpha=True), expected)


# Alpha of labels


def with_alpha(colours, alpha):
    return np.dstack([colours, alpha])


@pytest.mark.parametrize("colours", [np.zeros_like(RGB8), np.zeros_like(GREY8)])
@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_a_mask_in_the_alpha_channel_is_named_and_read_on_request(
    tmp_path, suffix, colours
):
    mask = BINARY * 255
    path = save(tmp_path / f"a{suffix}", with_alpha(colours, mask))
    message = refused(image_files.read_label_values, path)
    assert message.startswith("alpha of 0 to 255 in a label map")
    assert "`from_alpha=True`" in message
    np.testing.assert_array_equal(values(path, from_alpha=True), mask)


@pytest.mark.parametrize("alpha", [0, 128, 255])
def test_constant_alpha_of_a_label_is_left_out(tmp_path, alpha):
    grey = np.dstack([GREY8] * 3)
    path = save(tmp_path / "a.png", with_alpha(grey, np.full_like(GREY8, alpha)))
    np.testing.assert_array_equal(values(path), GREY8)


def test_alpha_of_16_bits_is_read(tmp_path):
    pixels = np.dstack([GREY16] * 3 + [~GREY16])
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, pixels, photometric="rgb")
    np.testing.assert_array_equal(values(path, from_alpha=True), ~GREY16)
    rows = [row.astype(">u2").tobytes() for row in pixels]
    path = raw_png(tmp_path / "a.png", rows, 12, 16, 6)
    np.testing.assert_array_equal(values(path, from_alpha=True), ~GREY16)


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".gif", ".tif"])
def test_a_file_without_alpha_is_named_where_alpha_is_wanted(tmp_path, suffix):
    path = save(tmp_path / f"a{suffix}", GREY8)
    message = refused(image_files.read_label_values, path, options=FROM_ALPHA)
    assert message.startswith("no alpha channel")


def test_the_alpha_of_an_image_is_the_last_channel_on_request_alone(tmp_path):
    path = save(tmp_path / "a.png", with_alpha(RGB8, GREY8))
    np.testing.assert_array_equal(image_files.read_image(path), RGB8)
    options = FileOptions(channels=(3, 0))
    taken = image_files.read_image(path, options=options)
    np.testing.assert_array_equal(taken, np.dstack([GREY8, RGB8[..., 0]]))
    options = FileOptions(channels=(4,))
    assert "channel 4 of 4" in refused(image_files.read_image, path, options=options)


# Orientation


def oriented(path, pixels, tag):
    """Writes pixels with a tag, and returns how viewers show them."""
    exif = Image.Exif()
    exif[274] = tag
    image = Image.fromarray(pixels)
    image.save(path.with_suffix(".png"), exif=exif)
    shown = ImageOps.exif_transpose(Image.open(path.with_suffix(".png")))
    if path.suffix == ".tif":
        image.save(path, tiffinfo={274: tag})
    elif path.suffix == ".jpg":
        image.save(path, exif=exif, quality=100, keep_rgb=True)
    return np.array(shown)


@pytest.mark.parametrize("tag", range(1, 9))
@pytest.mark.parametrize("suffix", [".png", ".jpg", ".tif"])
def test_an_image_is_turned_upright_on_request(tmp_path, suffix, tag):
    path = tmp_path / f"a{suffix}"
    # JPEG at its best quality keeps blocks of one value exactly.
    blocks = np.kron(RGB8[:2, :3], np.ones((8, 8, 1), np.uint8))
    shown = oriented(path, blocks, tag)
    image = image_files.read_image(path, options=TURNED)
    np.testing.assert_array_equal(image, shown)
    assert image.flags.c_contiguous
    if tag > 1:
        message = refused(image_files.read_image, path)
        assert message.startswith(f"orientation tag {tag}")
        assert "`apply_orientation=True`" in message


@pytest.mark.parametrize("tag", range(2, 9))
@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_a_label_is_turned_upright_on_request(tmp_path, suffix, tag):
    path = tmp_path / f"a{suffix}"
    shown = oriented(path, IDS, tag)
    np.testing.assert_array_equal(values(path, apply_orientation=True), shown)
    assert "`apply_orientation=True`" in refused(image_files.read_label_values, path)


# Labels of other shapes and kinds


@pytest.mark.parametrize("channels", [2, 4, 5])
def test_a_label_of_several_channels_is_named(tmp_path, channels):
    path = tmp_path / "a.npy"
    np.save(path, np.zeros((40, 40, channels), np.uint8))
    message = refused(image_files.read_label_values, path)
    assert message.startswith(f"{channels} channels in a label map")


@pytest.mark.parametrize("page", [0, 1])
def test_the_page_of_the_options_is_taken_unless_one_is_given(tmp_path, page):
    stack = np.stack([GREY8, ~GREY8, GREY8 // 2, GREY8 // 3, GREY8 // 4])
    path = tmp_path / "a.npy"
    np.save(path, stack)
    options = FileOptions(page=page)
    image = image_files.read_image(path, options=options)
    np.testing.assert_array_equal(image[..., 0], stack[page])
    image = image_files.read_image(path, page=4, options=options)
    np.testing.assert_array_equal(image[..., 0], stack[4])


# Known kinds that are not read


class Bomb:
    """Says so if it is unpickled."""

    def __reduce__(self):
        return (pytest.fail, ("unpickled",))


def test_a_pickle_is_never_opened_and_its_export_is_named(tmp_path):
    path = tmp_path / "a_seg.npy"
    np.save(path, np.array({"masks": Bomb()}, dtype=object), allow_pickle=True)
    assert "Save masks as PNG" in refused(image_files.read_label_values, path)
    assert "Save masks as PNG" in refused(image_files.read_image, path)
    assert "Save masks as PNG" in image_files.unsupported(path)


def test_numbers_in_a_file_with_the_name_of_a_pickle_are_read(tmp_path):
    path = tmp_path / "a_seg.npy"
    np.save(path, IDS)
    assert image_files.unsupported(path) is None
    np.testing.assert_array_equal(values(path), IDS)


@pytest.mark.parametrize(
    ("name", "word"),
    [
        ("brain.nii", "nibabel"),
        ("brain.NII.gz", "nibabel"),
        ("plate.ome.zarr", "Zarr"),
        ("cells.czi", "Bio-Formats"),
        ("cells.h5", "HDF5"),
    ],
)
def test_a_known_kind_that_is_not_read_is_named_with_its_export(tmp_path, name, word):
    path = tmp_path / name
    path.write_bytes(b"x")
    assert word in image_files.unsupported(path)
    assert word in refused(image_files.read_image, path)


@pytest.mark.parametrize("name", ["a.png", "a.txt", ".nii", "a.ome.tif", "a_seg.npy"])
def test_other_names_are_of_no_known_kind(tmp_path, name):
    assert image_files.unsupported(tmp_path / name) is None


def test_memory_that_is_missing_is_not_called_a_damaged_file(tmp_path, monkeypatch):
    def full(*args):
        raise MemoryError

    path = save(tmp_path / "a.jpg", GREY8)
    monkeypatch.setattr(io, "BytesIO", full)
    with pytest.raises(MemoryError):
        image_files.read_image(path)
