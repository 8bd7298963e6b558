"""What is found, what it is called, and that it is read in order."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import tifffile
from PIL import Image

from metaseg.data import collect, label_files
from metaseg.data.file_options import FileOptions
from metaseg.errors import InputError

RNG = np.random.default_rng(0)
GREY = RNG.integers(0, 256, (7, 9), dtype=np.uint8)


def save(path, array=GREY):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path)
    return path


def names(source, **options):
    return [item.name for item in collect.find(source, field="images", **options)]


@pytest.fixture
def folder(tmp_path):
    save(tmp_path / "in" / "b.png")
    save(tmp_path / "in" / "a.png")
    save(tmp_path / "in" / "sub" / "a.png")
    save(tmp_path / "in" / "sub" / ".hidden.png")
    (tmp_path / "in" / "notes.txt").write_text("text")
    return tmp_path / "in"


def test_a_folder_a_file_a_pattern_and_a_list_of_files(folder):
    assert names(folder) == ["a", "b", "sub/a"]
    assert names(str(folder / "b.png")) == ["b"]
    assert names(folder / "**" / "a.png") == ["a", "sub/a"]
    assert names([folder / "b.png", str(folder / "sub" / "a.png")]) == ["b", "sub/a"]
    assert names(folder, exclude=folder / "sub") == ["a", "b"]


def test_files_that_differ_in_their_endings_alone_keep_them(folder):
    np.save(folder / "a.npy", GREY)
    assert names(folder) == ["a.npy", "a.png", "b", "sub/a"]
    with pytest.raises(InputError, match=r"^images: .*: a\.npy, a\.png have the same"):
        names(folder, unique=True)


def test_pages_and_arrays_of_one_file_are_items(tmp_path):
    stack = np.stack([GREY, GREY + 1, GREY + 2])
    tifffile.imwrite(tmp_path / "tiff.tif", stack, photometric="minisblack")
    np.save(tmp_path / "stack.npy", np.stack([stack] * 4).reshape(12, 7, 9))
    np.savez(tmp_path / "named.npz", first=GREY, second=GREY + 1)
    np.savez(tmp_path / "one.npz", GREY)
    np.savez(tmp_path / "outside.npz", **{"../a": GREY, "b": GREY})
    items = collect.find(tmp_path, field="images")
    assert [item.name for item in items] == [
        "named#first",
        "named#second",
        "one",
        "outside#0",
        "outside#1",
        *(f"stack#{i}" for i in range(12)),
        *(f"tiff#{i}" for i in range(3)),
    ]
    pixels = {
        item.name: loaded.content[..., 0]
        for item, loaded in zip(items, collect.stream(items), strict=True)
    }
    np.testing.assert_array_equal(pixels["named#second"], GREY + 1)
    np.testing.assert_array_equal(pixels["tiff#2"], GREY + 2)
    np.testing.assert_array_equal(pixels["stack#4"], GREY + 1)


def test_names_are_composed_letters(tmp_path):
    save(tmp_path / "Zelle u\u0308.png")
    assert names(tmp_path) == ["Zelle \u00fc"]


def test_damaged_files_and_names_are_told_when_they_are_read(tmp_path):
    (tmp_path / "a.tif").write_bytes(b"II*\0 nothing")
    save(tmp_path / "b.png")
    save(tmp_path / "c\n.png")
    items = collect.find(tmp_path, field="images")
    a, b, c = collect.stream(items)
    assert "a.tif" in a.error
    assert b.content is not None
    assert c.content is not None
    assert items[2].name == "c\\n"
    assert all(item.name.isprintable() for item in items)


def test_arrays_are_items_whose_stamp_follows_their_content():
    stack = np.stack([GREY, GREY, GREY + 1])
    a, b, c = collect.find(stack, field="images")
    assert [a.name, b.name, c.name] == ["000000", "000001", "000002"]
    assert a.stamp == b.stamp != c.stamp
    np.testing.assert_array_equal(collect.read_image(c)[..., 0], GREY + 1)
    colour = np.dstack([GREY, GREY + 1, GREY + 2])
    (item,) = collect.find([colour], field="images")
    np.testing.assert_array_equal(
        collect.read_image(item, FileOptions(channels=(2, 1))),
        np.dstack([GREY + 2, GREY + 1]),
    )
    with pytest.raises(InputError, match=r"^images\[0\]: 3 channels, .* channel 3"):
        collect.read_image(item, FileOptions(channels=(3,)))


@pytest.mark.parametrize(
    ("shape", "count"),
    [((7, 9), 1), ((7, 9, 3), 1), ((2, 7, 9), 2), ((2, 7, 9, 3), 2), ((100, 99, 5), 1)],
)
def test_the_last_of_three_axes_is_channels_only_if_it_is_short(shape, count):
    assert len(collect.unstacked(np.zeros(shape))) == count


def test_label_maps_are_a_stack_however_narrow_they_are():
    items = collect.find(np.zeros((6, 20, 3), np.uint8), field="labels", labels=True)
    assert [label_files.read_values(item).shape for item in items] == [(20, 3)] * 6


def test_partners_have_equal_names_and_arrays_equal_places(folder, tmp_path):
    items = collect.find(folder, field="images")
    save(tmp_path / "labels" / "sub" / "a.png")
    save(tmp_path / "labels" / "c.png")
    found = collect.find_partners(tmp_path / "labels", items, field="labels")
    assert {k: v.path.name for k, v in found.items()} == {"sub/a": "a.png"}
    found = collect.find_partners([GREY, GREY + 1, GREY], items, field="labels")
    np.testing.assert_array_equal(found["b"].pixels, GREY + 1)


@pytest.mark.parametrize("pages", [(1, 2), (2, 1), (2, 3)])
def test_a_label_map_of_other_pages_than_its_image_is_named(tmp_path, pages):
    for part, count in zip(("images", "labels"), pages, strict=True):
        (tmp_path / part).mkdir()
        tifffile.imwrite(
            tmp_path / part / "a.tif",
            np.zeros((count, 8, 8), np.uint8),
            photometric="minisblack",
        )
    items = collect.find(tmp_path / "images", field="images")
    found = collect.find_partners(tmp_path / "labels", items, field="labels")
    assert len(items) == pages[0]
    for item in items:
        with pytest.raises(InputError, match=rf"expected {pages[0]}, as a\.tif has"):
            label_files.read_values(found[item.name])


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("/nowhere", "labels: no label map at '/nowhere'; expected a folder, file"),
        (["/nowhere/a.png"], "labels: no file '/nowhere/a.png'"),
        ([], "labels: no label map; expected files or arrays"),
        ([GREY], "labels: got 1 array, expected one for each of 3"),
        ([np.zeros(3)], r"labels\[0\]: float64 of shape \(3,\)"),
    ],
)
def test_what_is_wrong_is_said_in_a_line(folder, source, message):
    items = collect.find(folder, field="images")
    with pytest.raises(InputError, match=f"^{message}"):
        collect.find_partners(source, items, field="labels")


def test_results_come_in_order_and_no_more_are_computed_than_may_wait():
    started = []

    def double(x):
        started.append(x)
        return 2 * x

    with ThreadPoolExecutor(2) as pool:
        tasks = ((x,) for x in range(50))
        results = collect.read_ahead(pool, double, tasks, lambda last: 3)
        for index, result in enumerate(results):
            assert result == 2 * index
            assert len(started) <= index + 3
    assert sorted(started) == list(range(50))
