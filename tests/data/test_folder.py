"""Files written by the test, read back; every bad input is named in one line."""

from types import SimpleNamespace

import numpy as np
import pytest
from ml_collections import ConfigDict
from PIL import Image

from metaseg import instances
from metaseg.data import folder
from metaseg.data.dataset import example_ids
from metaseg.data.file_options import FileOptions
from metaseg.errors import InputError

RNG = np.random.default_rng(0)
GREY8 = RNG.integers(0, 256, (9, 12), dtype=np.uint8)
GREY16 = RNG.integers(0, 65_536, (9, 12), dtype=np.uint16)
RGB8 = RNG.integers(0, 256, (9, 12, 3), dtype=np.uint8)
BINARY = RNG.integers(0, 2, (9, 12), dtype=np.uint8)
IDS = RNG.integers(0, 4, (9, 12), dtype=np.uint8)
IDS[0, 0] = 255


def save(path, array, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path, **options)
    return path


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


def test_the_class_of_borders_between_objects_has_a_name(root):
    ids = np.zeros((9, 12), np.uint16)
    ids[2:7, 1:5], ids[2:7, 5:9], ids[8, 11] = 3, 900, 40
    for path in root.glob("*/labels/*.png"):
        save(path, ids)
    options = FileOptions(instances="border")
    config = SimpleNamespace(dir=str(root), num_classes=3)
    dataset = folder.load(config, options=options)
    assert dataset.class_names == ("background", "inside", "border")
    expected = np.uint8(ids > 0) + instances.borders(ids)
    np.testing.assert_array_equal(dataset.train.labels[0], expected)


def test_a_data_set_has_what_was_written_and_is_named_like_its_folder(root):
    (root / "train/images/Thumbs.db").write_text("ignored")
    (root / "train/images/.hidden.png").write_text("ignored")
    (root / "train/labels/notes.txt").write_text("ignored")
    (root / "train/labels/more.png").mkdir()
    (root / "train/labels/.more").mkdir()
    save(root / "train/labels/.more/c.png", BINARY)
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
    image = save(tmp_path / "images" / "Zelle u\u0308.TIFF", GREY8)
    label = save(tmp_path / "labels" / "Zelle \u00fc.png", BINARY)
    ((name, *items),) = folder.match_pairs(tmp_path)
    assert name == "Zelle \u00fc"
    assert [item.path for item in items] == [image, label]


def test_jpeg_and_numpy_images_are_taken_and_a_jpeg_label_is_refused(root):
    for split in ("train", "val", "test"):
        for path in (root / split / "images").iterdir():
            pixels = np.array(Image.open(path))
            path.unlink()
            np.save(path.with_suffix(".npy"), pixels)
    load(root)
    label = next((root / "val" / "labels").iterdir())
    Image.open(label).save(label.with_suffix(".jpg"))
    label.unlink()
    assert f"{label.with_suffix('.jpg')}: a label map as JPEG" in failure(load, root)


def test_ids_do_not_move_when_a_file_is_added(root):
    before = load(root).train
    save(root / "train/images/aa.png", GREY8)
    save(root / "train/labels/aa.png", BINARY)
    after = load(root).train
    assert after.names == ("a", "aa", "b")
    np.testing.assert_array_equal(after.ids[[0, 2]], before.ids)


def test_training_images_without_labels_are_refused_where_labels_are_needed(root):
    (root / "train/labels").rename(root / "elsewhere")
    message = failure(load, root)
    assert message.startswith(f"{root / 'train'}: 2 images without label maps")
    config = SimpleNamespace(dir=str(root))
    data = folder.load(config, need_labels=False)
    assert (data.train.labels == 255).all()


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
    np.testing.assert_array_equal(test.valid_size, [[9, 12], [11, 10]])
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
        ({"num_classes": 1}, "data.num_classes"),
        ({"num_classes": 256}, "data.num_classes"),
        ({"num_classes": 2.5}, "data.num_classes"),
        ({"num_classes": True}, "data.num_classes"),
        ({"normalize": "minmax"}, "data.normalize"),
    ],
)
def test_a_wrong_field_is_named(root, fields, field):
    assert failure(load, root, **fields).startswith(field)


def test_a_wrong_dir_is_named(root):
    for wrong in ("", None, "/no/such/folder", str(root / "train/images/a.png")):
        message = failure(folder.load, SimpleNamespace(dir=wrong))
        assert message.startswith("data.dir")
        assert (wrong or "not given") in message


@pytest.mark.parametrize("missing", ["train", "val/images"])
def test_a_missing_folder_is_named(root, missing):
    (root / missing).rename(root / "elsewhere")
    assert str(root / missing) in failure(load, root)


@pytest.mark.parametrize("split", ["val", "test"])
def test_a_split_other_than_train_may_be_missing_or_without_labels(root, split):
    (root / split / "labels").rename(root / "elsewhere")
    found = dict(load(root).splits())
    assert found[split].names == ("a", "b")
    assert (found[split].labels == 255).all()
    assert found["train"].labels.max() == 1
    (root / split).rename(root / "more")
    found = dict(load(root).splits())
    assert len(found[split]) == 0
    assert found[split].images.shape == (0, 9, 12, 1)


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
    nouns = {"image": "an image", "label": "a label map"}
    kinds = {"image": "images", "label": "label maps"}
    assert f"5 {kinds[kind]} without {nouns[other]}" in message
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


def test_a_damaged_tiff_is_reported_once(root, capsys, caplog):
    path = root / "train/images/a.png"
    path.unlink()
    path = save(path.with_suffix(".tif"), GREY8, compression="tiff_deflate")
    path.write_bytes(path.read_bytes()[:20])
    assert str(path) in failure(load, root)
    assert not caplog.records
    assert capsys.readouterr() == ("", "")


def test_a_name_that_breaks_the_line_is_escaped(root):
    save(root / "train/images" / "two\nlines.png", GREY8)
    assert "two\\nlines.png" in failure(load, root)


def test_a_label_with_colours_is_named(root):
    path = save(root / "train/labels/a.png", RGB8)
    message = failure(load, root)
    assert message.startswith(str(path))
    assert "colours" in message


@pytest.mark.parametrize(
    ("num_classes", "wrong"),
    [(2, 2), (4, 4), (4, 254)],
)
def test_a_class_id_out_of_range_is_named(root, num_classes, wrong):
    label = BINARY.copy()
    label[3, 3:5] = wrong
    path = save(root / "train/labels/b.png", label)
    message = failure(load, root, num_classes=num_classes)
    assert message.startswith(f"{path}: ")
    assert f"{wrong} (2 pixels)" in message
    assert "expected" in message


def test_two_ways_to_write_foreground_in_one_data_set_are_named(root):
    path = save(root / "test/labels/b.png", BINARY * np.uint8(255))
    message = failure(load, root)
    assert message.startswith(str(path))
    assert "a.png" in message
    assert "`label_values=" in message
