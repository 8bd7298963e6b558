"""Which files are found below a folder, what they are called, and which are pairs."""

import os

import numpy as np
import pytest

from metaseg.data.file_options import FileOptions
from metaseg.data.image_files import finding
from metaseg.errors import InputError


def touch(root, *names):
    for name in names:
        path = root / name
        path.parent.mkdir(exist_ok=True, parents=True)
        path.touch()
    return root


def below(root, paths):
    return [path.relative_to(root).as_posix() for path in paths]


def paired(found):
    """Names of pairs with the names of their two files."""
    return {name: (a.name, b.name) for name, (a, b) in found.both.items()}


def test_files_are_found_in_the_order_of_their_relative_paths(tmp_path):
    names = ("b/a.png", "a.PNG", "b.bmp", "b/c/d.tif", "a-b.npz", "deep/a b\n.png")
    touch(tmp_path, *names, ".hidden.png", ".hidden/a.png", "a.txt", "b/.c.png")
    (tmp_path / "folder.png").mkdir()
    found = finding.listing(tmp_path)
    assert list(found.files) == sorted(tmp_path / name for name in names)
    assert found.left_out == {".txt": 1}


def test_links_are_followed_and_no_folder_is_entered_twice(tmp_path):
    touch(tmp_path, "root/real/a.png", "elsewhere/a.png")
    root = tmp_path / "root"
    (root / "again").symlink_to(root / "real")
    (root / "real" / "loop").symlink_to(root)
    (root / "link").symlink_to(tmp_path / "elsewhere")
    (root / "itself.png").symlink_to(root / "itself.png")
    (root / "file.png").symlink_to(root / "real" / "a.png")
    found = below(root, finding.listing(root).files)
    assert found == ["file.png", "link/a.png", "real/a.png"]


def test_a_folder_that_is_not_there_is_named(tmp_path):
    with pytest.raises(InputError) as caught:
        finding.listing(tmp_path / "none")
    assert str(caught.value).startswith(f"{tmp_path / 'none'}: ")


def test_an_excluded_folder_is_not_entered_even_if_it_is_the_root(tmp_path):
    touch(tmp_path, "a.png", "out/b.png")
    found = finding.listing(tmp_path, exclude=tmp_path / "out")
    assert below(tmp_path, found.files) == ["a.png"]
    assert not finding.listing(tmp_path / "out", exclude=tmp_path).files


def test_what_is_left_out_is_counted_in_a_line_with_what_helps(tmp_path):
    touch(tmp_path, "a.png", "a.txt", "b.TXT", "c.xml", "README", "scan.nii.gz")
    touch(tmp_path, "slide.zarr/0/0.0", "slide.zarr/a.png")
    np.save(tmp_path / "a_seg.npy", {"masks": 1}, allow_pickle=True)
    np.save(tmp_path / "b_seg.npy", np.zeros((3, 3)))
    found = finding.listing(tmp_path)
    assert below(tmp_path, found.files) == ["a.png", "b_seg.npy"]
    line = finding.describe_left_out(found.left_out)
    assert "4 files of other endings (no ending, .txt, .xml)" in line
    for kind, cure in (
        (".npy", "Save masks as PNG"),
        (".gz", "nibabel"),
        (".zarr", "zarr.open"),
    ):
        assert f"1 file {kind}: " in line
        assert cure in line
    assert not finding.describe_left_out({})
    with pytest.raises(InputError, match="a Zarr array"):
        finding.listing(tmp_path / "slide.zarr")


@pytest.mark.parametrize(
    ("file", "name"),
    [
        ("a.ome.tif", "a"),
        ("a.OME.TIFF", "a"),
        ("sub/a.b.png", "sub/a.b"),
        ("Zelle u\u0308.png", "Zelle \u00fc"),
        ("two\nlines.png", "two\\nlines"),
        (os.fsdecode(b"Zelle_\xfc.png"), "Zelle_\\xfc"),
    ],
)
def test_names_have_no_ending_and_can_be_shown(tmp_path, file, name):
    found = finding.name_of(tmp_path / file, tmp_path)
    assert found == name
    found.encode()


@pytest.mark.parametrize("suffix", finding.KNOWN_SUFFIXES)
def test_a_known_suffix_pairs_label_maps_in_their_own_folder_and_beside(
    tmp_path, suffix
):
    touch(tmp_path / "images", "a.ome.tif", "s/b.tif")
    touch(tmp_path / "labels", f"a{suffix}.png", f"s/b{suffix}.png")
    pairs = {"a": ("a.ome.tif", f"a{suffix}.png"), "s/b": ("b.tif", f"b{suffix}.png")}
    found = finding.pair(tmp_path / "images", tmp_path / "labels")
    assert paired(found) == pairs
    assert found.suffix == suffix
    both = touch(tmp_path / "both", "a.ome.tif", f"a{suffix}.png")
    touch(both, "s/b.tif", f"s/b{suffix}.png")
    found = finding.pair(both, both)
    assert paired(found) == pairs
    assert [found.no_label, found.no_image, found.left_out] == [{}, {}, {}]


def test_equal_names_pair_even_if_they_end_with_a_known_suffix(tmp_path):
    touch(tmp_path / "images", "a_mask.png", "b.png")
    touch(tmp_path / "labels", "a_mask.png", "b.png")
    found = finding.pair(tmp_path / "images", tmp_path / "labels")
    assert list(found.both) == ["a_mask", "b"]
    assert found.suffix == ""


def test_a_file_beside_one_with_a_suffix_is_no_label_map(tmp_path):
    both = touch(tmp_path / "both", "a.png", "a_mask.png", "b.png", "b_mask.png")
    touch(both, "c.png")
    files = finding.listing(both)
    for images in None, ["a", "b", "c"]:
        found = finding.labels_of(files, images)
        assert sorted(found.files) == ["a", "b"]
        assert {len(paths) for paths in found.files.values()} == {1}
        assert found.suffix == "_mask"
        assert found.left_out == {"without the suffix _mask": 3}
    # An image that is called like a label map does not make others label maps.
    found = finding.labels_of(files, ["a", "a_mask", "b", "b_mask", "c"])
    assert found.suffix == ""
    assert len(found.files) == 5


def test_two_suffixes_that_suit_equally_well_are_ambiguous(tmp_path):
    both = touch(tmp_path / "both", "a_mask.png", "a_seg.png")
    with pytest.raises(
        InputError, match=r"`label_suffix=_mask` or `label_suffix=_seg`"
    ):
        finding.labels_of(finding.listing(both), ["a"])
    options = FileOptions(label_suffix="_seg")
    found = finding.labels_of(finding.listing(both), ["a"], options=options)
    assert [path.name for path in found.files["a"]] == ["a_seg.png"]


def test_suffixes_that_the_user_gives_pair_files_and_leave_out_others(tmp_path):
    names = ("a_img.png", "a_nuclei.png", "a_other.png", "b_img.png", "b_nuclei.png")
    touch(tmp_path, *names)
    options = FileOptions(image_suffix="_img", label_suffix="_nuclei")
    found = finding.pair(tmp_path, tmp_path, options=options)
    assert paired(found) == {
        "a": ("a_img.png", "a_nuclei.png"),
        "b": ("b_img.png", "b_nuclei.png"),
    }
    assert sum(found.left_out.values()) == 1
    assert found.suffix == ""  # nothing that the user did not say


def test_files_without_a_partner_are_returned_by_name(tmp_path):
    touch(tmp_path / "images", "a.png", "b.png")
    touch(tmp_path / "labels", "b.tif", "c.tif")
    found = finding.pair(tmp_path / "images", tmp_path / "labels")
    assert list(found.both) == ["b"]
    assert below(tmp_path, found.no_label.values()) == ["images/a.png"]
    assert below(tmp_path, found.no_image.values()) == ["labels/c.tif"]


def test_a_jpeg_beside_a_label_map_of_the_same_name_is_no_label_map(tmp_path):
    touch(tmp_path, "a.jpg", "a.png", "b.jpg")
    found = finding.labels_of(finding.listing(tmp_path))
    files = {name: below(tmp_path, paths) for name, paths in found.files.items()}
    assert files == {"a": ["a.png"], "b": ["b.jpg"]}
    assert sum(found.left_out.values()) == 1


def test_images_alone_are_told_from_label_maps_beside_them(tmp_path):
    touch(tmp_path, "a.png", "a_cp_masks.png", "b_mask.png")
    files = finding.listing(tmp_path)
    assert list(finding.images_of(files, beside=True).files) == ["a", "b_mask"]
    every = finding.images_of(files, options=FileOptions(label_suffix=""), beside=True)
    assert len(every.files) == 3
    assert list(finding.labels_of(files).files) == ["a"]


@pytest.mark.parametrize(
    ("images", "labels", "text"),
    [
        (["1", "2"], ["1_fg", "2_fg"], "; or `label_suffix=_fg`"),
        (["1_im", "2_im"], ["1", "2"], "; or `image_suffix=_im`"),
        (
            ["1_im", "2_im"],
            ["1_l", "2_l"],
            "; or `image_suffix=_im` and `label_suffix=_l`",
        ),
        (["1", "2"], ["1_fg", "2_bg"], ""),
        (["a"], ["b"], ""),
        (["a"], [], ""),
    ],
)
def test_the_hint_is_what_names_differ_in(images, labels, text):
    assert finding.hint(images, labels) == text
