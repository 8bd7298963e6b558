"""TIFF files of every kind, compared with the array that was written."""

import logging

import imagecodecs
import numpy as np
import pytest
import tifffile
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from PIL import Image

from metaseg.data import image_files
from metaseg.data.file_options import FileOptions
from metaseg.data.image_files import tiff_plain
from metaseg.errors import InputError

RNG = np.random.default_rng(0)
GREY8 = RNG.integers(0, 256, (9, 12), dtype=np.uint8)
GREY16 = RNG.integers(0, 65_536, (9, 12), dtype=np.uint16)
RGB8 = RNG.integers(0, 256, (9, 12, 3), dtype=np.uint8)
BINARY = RNG.integers(0, 2, (9, 12)).astype(bool)


def save(path, array, **options):
    tifffile.imwrite(path, array, **{"photometric": "minisblack"} | options)
    return path


def refused(call, path, **options):
    """What reading says, less the path it must start with."""
    with pytest.raises(InputError) as caught:
        call(path, **options)
    assert str(caught.value).startswith(f"{path}: ")
    assert "expected" in str(caught.value)
    return str(caught.value).removeprefix(f"{path}: ")


def set_tags(path, **values):
    with tifffile.TiffFile(path, mode="r+b") as file:
        for name, value in values.items():
            file.pages.first.tags[name].overwrite(value)
    return path


# Everything that tifffile writes

DTYPES = ["?", "u1", "i1", "u2", "i2", "u4", "i4", "u8", "i8", "f2", "f4", "f8"]
WRITERS = {  # how it is compressed, and for which samples without loss
    "none": ({}, "all"),
    "lzw": ({"compression": "lzw"}, "all"),
    "deflate": ({"compression": "deflate"}, "all"),
    "zstd": ({"compression": "zstd"}, "all"),
    "lzma": ({"compression": "lzma"}, "all"),
    "packbits": ({"compression": "packbits"}, "all"),
    "lerc": ({"compression": "lerc"}, "all"),
    "png": ({"compression": "png"}, "all"),
    "webp": ({"compression": "webp", "compressionargs": {"lossless": True}}, "all"),
    "jpegxl": ({"compression": "jpegxl"}, "all"),
    "jpegxr": ({"compression": "jpegxr", "compressionargs": {"level": 1.0}}, "biu"),
    # tifffile 2026.3 stores the numbers of big-endian files in it with swapped bytes.
    "jpeg2000": ({"compression": "jpeg2000", "compressionargs": {"level": 0}}, "<"),
}
LAYOUTS = {"grey": (), "rgb": (3,), "two": (2,), "five": (5,), "rgba": (4,)}


@st.composite
def tiffs(draw):
    """An array, and the options that tifffile writes it with."""
    dtype = np.dtype(draw(st.sampled_from(DTYPES)))
    layout = draw(st.sampled_from(list(LAYOUTS)))
    height, width = draw(st.integers(1, 40)), draw(st.integers(1, 40))
    shape = (height, width, *LAYOUTS[layout])
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    if dtype.kind == "f":
        pixels = rng.normal(size=shape).astype(dtype)
    elif dtype.kind == "b":
        pixels = rng.integers(0, 2, shape).astype(dtype)
    else:
        limits = np.iinfo(dtype)
        pixels = rng.integers(limits.min, limits.max, shape, dtype, endpoint=True)
    compression = draw(st.sampled_from(list(WRITERS)))
    options, kinds = WRITERS[compression]
    byteorder = draw(st.sampled_from("<>"))
    assume(kinds == "all" or dtype.kind in kinds or byteorder == kinds)
    options = options | {
        "photometric": "rgb" if layout.startswith("rgb") else "minisblack",
        "byteorder": byteorder,
        "bigtiff": draw(st.booleans()),
        "predictor": draw(st.sampled_from([None, 2, 3])),
        "tile": draw(st.sampled_from([None, (16, 16), (32, 16)])),
    }
    if layout == "grey" and draw(st.booleans()):
        del options["photometric"]  # tifffile says WhiteIsZero of bool
    if not options["tile"]:
        options["rowsperstrip"] = draw(st.integers(1, 40))
    if pixels.ndim == 3 and draw(st.booleans()):
        options["planarconfig"] = "separate"
    elif pixels.ndim == 3:
        options["planarconfig"] = "contig"
    return pixels, options, draw(st.booleans())


@settings(
    max_examples=300,
    deadline=None,
    suppress_health_check=[
        HealthCheck.function_scoped_fixture,
        HealthCheck.filter_too_much,
    ],
)
@given(tiffs())
def test_any_tiff_is_read_as_written_or_refused_by_what_it_is(tmp_path, case):
    pixels, options, described = case
    path = tmp_path / "a.tif"
    stored = pixels
    if options.get("planarconfig") == "separate":
        stored = np.ascontiguousarray(np.moveaxis(pixels, -1, 0))
    metadata = {} if described else {"metadata": None}
    try:
        tifffile.imwrite(path, stored, **options, **metadata)
    except (ValueError, KeyError, NotImplementedError, RuntimeError):
        assume(False)  # tifffile does not write it
    expected = np.atleast_3d(pixels)
    if options.get("photometric") == "rgb":
        expected = expected[..., :3]  # without alpha
    if pixels.dtype.kind == "f":
        expected = expected.astype(np.float32)
    if expected.shape[-1] == 3 and (expected == expected[..., :1]).all():
        expected = expected[..., :1]
    choice = FileOptions()
    if options.get("photometric") == "rgb" and pixels.shape[-1] == 4:
        choice = FileOptions(channels=(0, 1, 2))
    try:
        image = image_files.read_image(path, options=choice)
    except InputError:
        message = refused(image_files.read_image, path)
        assert "which cannot be read" in message or "a strip [" in message
        return
    np.testing.assert_array_equal(image, expected)
    assert image.dtype == (np.uint8 if pixels.dtype == bool else expected.dtype)


@pytest.mark.parametrize("compression", ["none", "lzw", "deflate", "zstd", "lzma"])
@pytest.mark.parametrize("dtype", [one for one in DTYPES if one != "?"])
def test_common_tiffs_are_not_refused(tmp_path, dtype, compression):
    pixels = (GREY16 >> 9).astype(dtype)
    options = WRITERS[compression][0] | {"byteorder": ">"}
    predicts = compression != "none" and pixels.dtype.kind != "f"
    path = save(
        tmp_path / "a.tif", pixels, predictor=2 if predicts else None, **options
    )
    np.testing.assert_array_equal(image_files.read_image(path)[..., 0], pixels)


def packed(values, bits):
    """Rows of unsigned integers, the highest bit first, each row in whole bytes."""
    places = np.arange(bits - 1, -1, -1)
    ones = (values.reshape(len(values), -1, 1) >> places & 1).astype(np.uint8)
    return np.packbits(ones.reshape(len(values), -1), axis=-1).tobytes()


@pytest.mark.parametrize("byteorder", ["<", ">"])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("bits", [*range(2, 8), *range(9, 16), 20, 31])
def test_packed_bits_are_read(tmp_path, bits, channels, byteorder):
    dtype = "u1" if bits < 9 else "u2" if bits < 17 else "u4"
    pixels = RNG.integers(0, 2**bits, (9, 13, channels), dtype=dtype)
    kind = "rgb" if channels == 3 else "minisblack"
    path = save(
        tmp_path / "a.tif",
        pixels if channels == 3 else pixels[..., 0],
        photometric=kind,
        bitspersample=bits,
        byteorder=byteorder,
    )
    with tifffile.TiffFile(path) as file:
        (offset,), (count,) = (
            file.pages.first.dataoffsets,
            file.pages.first.databytecounts,
        )
    data = packed(pixels, bits)
    assert len(data) == count
    with path.open("r+b") as stream:  # tifffile swaps bytes of big-endian ones
        stream.seek(offset)
        stream.write(data)
    np.testing.assert_array_equal(image_files.read_image(path), pixels)


@pytest.mark.parametrize("compression", ["group3", "group4", "tiff_ccitt"])
def test_fax_compressions_of_one_bit_are_read(tmp_path, compression):
    path = tmp_path / "a.tif"
    Image.fromarray(BINARY).save(path, compression=compression)
    np.testing.assert_array_equal(image_files.read_image(path)[..., 0], BINARY)
    np.testing.assert_array_equal(image_files.read_label_values(path), BINARY)


@pytest.mark.parametrize("tags", [{}, {262: 0}])
@pytest.mark.parametrize("fillorder", [1, 2])
def test_the_order_of_bits_in_a_byte_is_that_of_the_file(tmp_path, fillorder, tags):
    path = tmp_path / "a.tif"
    Image.fromarray(BINARY).save(path, tiffinfo=tags | {266: fillorder})
    with tifffile.TiffFile(path) as file:
        stored = file.pages.first.fillorder
    assert stored == fillorder
    with Image.open(path) as image:  # as libtiff reads it
        expected = np.array(image)
    np.testing.assert_array_equal(image_files.read_image(path)[..., 0], expected)


@pytest.mark.parametrize(
    ("code", "name"), [(9, "JBIG_BW"), (34713, "NIKON_NEF"), (12345, "12345")]
)
def test_a_compression_without_a_decoder_is_named(tmp_path, code, name):
    path = set_tags(
        save(tmp_path / "a.tif", GREY16, compression="lzw"), Compression=code
    )
    message = refused(image_files.read_image, path)
    assert message.startswith(f"compression {name} of 16-bit samples")


def test_samples_of_another_kind_are_named(tmp_path):
    path = save(tmp_path / "a.tif", GREY16.astype(np.complex64))
    assert "complex64" in refused(image_files.read_image, path)
    for bits in (24, 48):
        path = set_tags(save(tmp_path / "b.tif", GREY16), BitsPerSample=bits)
        assert f"{bits}-bit samples" in refused(image_files.read_image, path)


@pytest.mark.parametrize("compression", [None, "lzw", "deflate"])
@pytest.mark.parametrize("byteorder", ["<", ">"])
@pytest.mark.parametrize("dtype", ["u1", "u2", "i4", "f4"])
def test_plain_files_are_read_the_same_without_the_short_cut(
    tmp_path, monkeypatch, dtype, byteorder, compression
):
    pixels = np.dstack([GREY16 >> 8] * 2 + [GREY16 >> 9]).astype(dtype)
    options = {"byteorder": byteorder, "compression": compression, "rowsperstrip": 4}
    path = save(tmp_path / "a.tif", pixels, photometric="rgb", **options)
    taken = []
    decode = tiff_plain.decode

    def counted(stream, want):
        taken.append(decode(stream, want))
        return taken[-1]

    monkeypatch.setattr(tiff_plain, "decode", counted)
    short = image_files.read_image(path)
    assert taken[-1] is not None
    monkeypatch.setattr(tiff_plain, "decode", lambda *_: None)
    full = image_files.read_image(path)
    np.testing.assert_array_equal(short, full)
    np.testing.assert_array_equal(short, pixels)
    assert short.dtype == full.dtype == dtype


@pytest.mark.parametrize("compression", ["lzw", "deflate", "zstd", "jpeg2000", "png"])
def test_damaged_pixels_are_unreadable_and_not_unknown(tmp_path, capfd, compression):
    path = save(tmp_path / "a.tif", GREY16, compression=compression)
    with tifffile.TiffFile(path) as file:
        start = file.pages.first.dataoffsets[0]
        length = file.pages.first.databytecounts[0]
    data = bytearray(path.read_bytes())
    data[start : start + length] = b"\xff" * length
    path.write_bytes(data)
    assert refused(image_files.read_image, path).startswith("unreadable or truncated (")
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("tile", [None, (16, 16)])
@pytest.mark.parametrize("side", [9, 200])
def test_a_code_that_the_table_of_lzw_lacks_is_named(tmp_path, side, tile):
    pixels = RNG.integers(0, 256, (side, 12), dtype=np.uint8)
    path = save(tmp_path / "a.tif", pixels, compression="lzw", tile=tile)
    np.testing.assert_array_equal(image_files.read_image(path)[..., 0], pixels)
    with tifffile.TiffFile(path) as file:
        start = file.pages.first.dataoffsets[0]
    data = bytearray(path.read_bytes())
    data[start + 3 : start + 6] = b"\xff" * 3
    path.write_bytes(data)
    message = refused(image_files.read_image, path)
    assert message.startswith("unreadable or truncated (")


@pytest.mark.parametrize("name", ["TileWidth", "TileLength"])
def test_a_side_of_tiles_that_is_no_number_is_named(tmp_path, name):
    path = save(tmp_path / "a.tif", GREY16, tile=(16, 16))
    with tifffile.TiffFile(path, mode="r+b") as file:
        file.pages.first.tags[name].overwrite((16, 16), dtype="H")
    message = refused(image_files.read_image, path)
    assert "a tag does not hold a number" in message


@pytest.mark.parametrize("byteorder", ["<", ">"])
@pytest.mark.parametrize("bigtiff", [False, True])
@pytest.mark.parametrize(
    "options", [{"metadata": {"axes": "ZYX"}}, {"metadata": None}, {"imagej": True}]
)
def test_each_plane_of_a_stack_is_read_by_its_own_tags(
    tmp_path, options, bigtiff, byteorder
):
    bigtiff = bigtiff and "imagej" not in options  # ImageJ has none
    pixels = RNG.integers(0, 256, (40, 9, 12), dtype=np.uint8)
    path = tmp_path / "a.tif"
    axes = {"metadata": {"axes": "ZYX"}} if "imagej" in options else {}
    options = options | axes | {"photometric": "minisblack", "byteorder": byteorder}
    tifffile.imwrite(path, pixels, bigtiff=bigtiff, **options)
    with tifffile.TiffFile(path, mode="r+b") as file:
        file.pages[30].tags["ImageWidth"].overwrite(6)
        start = file.pages[3].dataoffsets[0]
        file.pages[20].tags["StripOffsets"].overwrite(start)
    for page in (0, 1, 2, 19, 21, 29, 31, 39):
        found = image_files.read_image(path, page=page)[..., 0]
        np.testing.assert_array_equal(found, pixels[page])
    moved = image_files.read_image(path, page=20)[..., 0]
    np.testing.assert_array_equal(moved, pixels[3])
    narrow = image_files.read_image(path, page=30)[..., 0]
    np.testing.assert_array_equal(narrow, pixels[30].ravel()[:54].reshape(9, 6))


# Labels: lossy or not


@pytest.mark.parametrize(
    ("compression", "options", "lossless"),
    [
        ("jpeg", {"level": 100}, False),
        ("webp", {"lossless": True}, True),
        ("webp", {"lossless": False}, False),
        ("jpeg2000", {"reversible": True}, True),
        ("jpeg2000", {"reversible": False, "level": 40}, False),
        ("png", {}, True),
        ("jpegxr", {"level": 1.0}, False),  # perhaps: its header does not say
        ("jpegxl", {}, False),
        ("lerc", {}, False),
    ],
)
def test_a_label_that_may_have_lost_ids_is_named(
    tmp_path, compression, options, lossless
):
    colours = np.dstack([GREY8 % 4] * 3)
    path = tmp_path / "a.tif"
    save(
        path,
        colours,
        photometric="rgb",
        compression=compression,
        compressionargs=options,
    )
    if lossless:
        values = image_files.read_label_values(path)
        np.testing.assert_array_equal(values, GREY8 % 4)
        return
    message = refused(image_files.read_label_values, path)
    assert f"{compression.upper()} compression" in message


# Polarity


@pytest.mark.parametrize("compression", [None, "group4"])
def test_bits_for_which_0_is_white_are_1_where_they_are_white(tmp_path, compression):
    path = tmp_path / "a.tif"
    Image.fromarray(BINARY).save(path, compression=compression, tiffinfo={262: 0})
    with tifffile.TiffFile(path) as file:
        np.testing.assert_array_equal(file.asarray(), ~BINARY)  # what is stored
    np.testing.assert_array_equal(image_files.read_image(path)[..., 0], BINARY)
    np.testing.assert_array_equal(image_files.read_label_values(path), BINARY)


@pytest.mark.parametrize("dtype", ["u1", "u2", "u4"])
def test_integers_for_which_0_is_white_are_inverted(tmp_path, dtype):
    shown = GREY16.astype(dtype)
    path = save(tmp_path / "a.tif", ~shown, photometric="miniswhite")
    np.testing.assert_array_equal(image_files.read_image(path)[..., 0], shown)
    np.testing.assert_array_equal(image_files.read_label_values(path), shown)


def test_packed_bits_for_which_0_is_white_are_inverted(tmp_path):
    shown = GREY16 >> 4
    path = save(
        tmp_path / "a.tif", 4095 - shown, photometric="miniswhite", bitspersample=12
    )
    np.testing.assert_array_equal(image_files.read_image(path)[..., 0], shown)


def test_an_inverting_table_of_imagej_leaves_values_as_they_are_measured(tmp_path):
    mask = BINARY.astype(np.uint8) * 255
    path = save(tmp_path / "a.tif", mask, photometric="miniswhite", imagej=True)
    np.testing.assert_array_equal(image_files.read_image(path)[..., 0], mask)
    np.testing.assert_array_equal(image_files.read_label_values(path), mask)


@pytest.mark.parametrize(
    "options", [{}, {"metadata": None}, {"software": "mine"}, {"compression": "lzw"}]
)
def test_bool_arrays_of_tifffile_are_read_as_written(tmp_path, options):
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, BINARY, **options)
    with tifffile.TiffFile(path) as file:
        assert file.pages.first.photometric == tifffile.PHOTOMETRIC.MINISWHITE
    np.testing.assert_array_equal(image_files.read_image(path)[..., 0], BINARY)
    np.testing.assert_array_equal(image_files.read_label_values(path), BINARY)


def test_each_page_of_a_bool_stack_of_tifffile_is_read_as_written(tmp_path):
    stack = np.stack([BINARY, ~BINARY, BINARY])
    for metadata in ({}, {"metadata": None}):
        tifffile.imwrite(tmp_path / "a.tif", stack, **metadata)
        for page, expected in enumerate(stack):
            label = image_files.read_label_values(tmp_path / "a.tif", page=page)
            np.testing.assert_array_equal(label, expected)


@pytest.mark.parametrize("dtype", ["f4", "i2"])
def test_white_is_zero_of_samples_without_a_largest_is_named(tmp_path, dtype):
    path = save(tmp_path / "a.tif", GREY8.astype(dtype), photometric="miniswhite")
    assert "WhiteIsZero" in refused(image_files.read_image, path)
    assert "WhiteIsZero" in refused(image_files.read_label_values, path)


def test_other_samples_than_the_grey_one_are_not_inverted(tmp_path):
    pixels = np.dstack([GREY8, GREY8 // 2])
    path = save(
        tmp_path / "a.tif",
        pixels,
        photometric="miniswhite",
        planarconfig="contig",
        extrasamples=["unspecified"],
    )
    expected = np.dstack([~GREY8, GREY8 // 2])
    np.testing.assert_array_equal(image_files.read_image(path), expected)


# Pages


def save_pyramid(path, subfiletype, **options):
    with tifffile.TiffWriter(path) as file:
        for size, kind in ((1, 0), (2, subfiletype), (4, subfiletype)):
            plane = BINARY if kind & 4 else GREY8
            file.write(
                plane[::size, ::size],
                photometric="minisblack",
                subfiletype=kind,
                **options,
            )
    return path


@pytest.mark.parametrize("options", [{"metadata": None}, {}])
@pytest.mark.parametrize("subfiletype", [1, 4, 5])
def test_reduced_planes_and_masks_are_no_pages(tmp_path, subfiletype, options):
    path = save_pyramid(tmp_path / "a.tif", subfiletype, **options)
    assert image_files.count_pages(path) == 1
    np.testing.assert_array_equal(image_files.read_image(path)[..., 0], GREY8)
    np.testing.assert_array_equal(image_files.read_label_values(path), GREY8)


@pytest.mark.parametrize("byteorder", ["<", ">"])
def test_the_older_tag_names_reduced_planes_too(tmp_path, byteorder):
    path = tmp_path / "a.tif"
    with tifffile.TiffWriter(path, byteorder=byteorder) as file:
        options = {"photometric": "minisblack", "metadata": None}
        file.write(GREY8, **options)
        file.write(GREY8[::2], extratags=[(255, 3, 1, 2, True)], **options)
        file.write(~GREY8, extratags=[(255, 3, 1, 1, True)], **options)
    assert image_files.count_pages(path) == 2
    np.testing.assert_array_equal(image_files.read_image(path, page=1)[..., 0], ~GREY8)


def test_levels_below_a_plane_are_no_pages(tmp_path):
    path = tmp_path / "a.ome.tif"
    with tifffile.TiffWriter(path) as file:
        file.write(GREY8, photometric="minisblack", subifds=1)
        file.write(GREY8[::2, ::2], photometric="minisblack", subfiletype=1)
    assert image_files.count_pages(path) == 1
    np.testing.assert_array_equal(image_files.read_image(path)[..., 0], GREY8)


def test_planes_that_are_all_reduced_are_pages(tmp_path):
    path = tmp_path / "a.tif"
    with tifffile.TiffWriter(path) as file:
        for plane in (GREY8, ~GREY8):
            file.write(plane, photometric="minisblack", subfiletype=1, metadata=None)
    assert image_files.count_pages(path) == 2


# Channels


def test_red_green_blue_and_infrared_are_four_channels(tmp_path):
    pixels = np.dstack([RGB8, GREY8])
    options = {"photometric": "rgb", "extrasamples": ["unspecified"]}
    path = save(tmp_path / "a.tif", pixels, **options)
    np.testing.assert_array_equal(image_files.read_image(path), pixels)


NAMES = ("DAPI", "actin, 2", "GFP")
CHANNELS = RNG.integers(0, 65_536, (3, 9, 12), dtype=np.uint16)


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
def test_a_fourth_channel_that_tifffile_calls_alpha_is_not_dropped(tmp_path, dtype):
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 200, (9, 8, 4)).astype(dtype)
    path = save(tmp_path / "a.tif", pixels, photometric=None)
    message = refused(image_files.read_image, path)
    assert message.startswith("channel 3 is called alpha")
    for channels in (0, 1, 2, 3), (0, 1, 2):
        assert f"`channels={','.join(map(str, channels))}`" in message
        options = FileOptions(channels=channels)
        taken = image_files.read_image(path, options=options)
        np.testing.assert_array_equal(taken, pixels[..., list(channels)])
    pixels[..., 3] = 200
    save(path, pixels, photometric=None)
    np.testing.assert_array_equal(image_files.read_image(path), pixels[..., :3])


def save_named(path):
    if path.name.endswith(".ome.tif"):
        metadata = {"axes": "CYX", "Channel": {"Name": NAMES}}
        return save(path, CHANNELS, metadata=metadata)
    metadata = {"axes": "CYX", "Labels": list(NAMES)}
    return save(path, CHANNELS, imagej=True, metadata=metadata)


@pytest.mark.parametrize("name", ["a.ome.tif", "a.tif"])
def test_channels_are_taken_by_their_names(tmp_path, name):
    path = save_named(tmp_path / name)
    assert image_files.channel_names(path) == NAMES
    options = FileOptions(channels=("GFP", 0))
    image = image_files.read_image(path, options=options)
    np.testing.assert_array_equal(image, np.moveaxis(CHANNELS[[2, 0]], 0, -1))
    message = refused(
        image_files.read_image, path, options=FileOptions(channels=("RFP",))
    )
    assert message.startswith("channel 'RFP' does not exist")
    assert "DAPI, actin, 2, GFP" in message


def test_names_are_of_the_channels_of_each_page(tmp_path):
    planes = RNG.integers(0, 65_536, (2, 3, 9, 12), dtype=np.uint16)
    labels = [f"{name}" for _ in planes for name in NAMES]
    path = save(
        tmp_path / "a.tif",
        planes,
        imagej=True,
        metadata={"axes": "ZCYX", "Labels": labels},
    )
    assert image_files.channel_names(path, page=1) == NAMES
    options = FileOptions(channels=("GFP",))
    image = image_files.read_image(path, page=1, options=options)
    np.testing.assert_array_equal(image[..., 0], planes[1, 2])


def test_names_of_a_file_that_has_none(tmp_path):
    path = save(tmp_path / "a.tif", CHANNELS, planarconfig="separate")
    assert image_files.channel_names(path) is None
    message = refused(
        image_files.read_image, path, options=FileOptions(channels=("DAPI",))
    )
    assert "expected 0 to 2, because the file names none" in message


def test_channels_of_a_label_map_are_not_chosen(tmp_path):
    path = save_named(tmp_path / "a.tif")
    save(path, CHANNELS[:2], planarconfig="separate")
    options = FileOptions(channels=(0,))
    message = refused(image_files.read_label_values, path, options=options)
    assert message.startswith("2 channels in a label map")


# Palettes


def save_palette(path, indices, table):
    colours = np.zeros((3, 256), np.uint16)
    colours[:, : len(table)] = np.array(table, np.uint16).T
    return save(path, indices, photometric="palette", colormap=colours)


def test_a_palette_of_8_bit_colours_is_read(tmp_path):
    table = np.array([[0, 0, 0], [200, 100, 7]])
    path = save_palette(tmp_path / "a.tif", BINARY.astype(np.uint8), table)
    np.testing.assert_array_equal(
        image_files.read_image(path), table[BINARY.astype(int)]
    )
    path = save_palette(tmp_path / "b.tif", BINARY.astype(np.uint8), table * 257)
    np.testing.assert_array_equal(
        image_files.read_image(path), table[BINARY.astype(int)]
    )


def test_a_black_and_white_palette_of_a_label_is_read_by_colour(tmp_path):
    table = [[65_535] * 3, [0] * 3]
    path = save_palette(tmp_path / "a.tif", BINARY.astype(np.uint8), table)
    expected = np.where(BINARY, 0, 255)
    np.testing.assert_array_equal(image_files.read_label_values(path), expected)
    np.testing.assert_array_equal(image_files.read_image(path)[..., 0], expected)


def test_the_package_that_decodes_has_the_codecs_that_files_need():
    needed = ("LZW", "DEFLATE", "ZSTD", "LZMA", "PACKBITS", "JPEG2K", "JPEGXL", "WEBP")
    for name in needed:
        assert getattr(imagecodecs, name).available, name


def test_tifffile_is_silent_about_files_that_are_read(tmp_path, caplog):
    path = save(tmp_path / "a.tif", GREY8, metadata=None)
    with caplog.at_level(logging.WARNING):
        image_files.read_image(path)
    assert not caplog.records
