"""Arrays become a data set with the splits, labels and padding that were asked for."""

import numpy as np
import pytest

from metaseg import data, instances
from metaseg.data import from_arrays
from metaseg.data.dataset import example_ids
from metaseg.errors import InputError

RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (20, 6, 8), dtype=np.uint8)
LABELS = RNG.integers(0, 2, (20, 6, 8), dtype=np.uint8)


def test_every_example_is_in_one_split_with_its_own_label():
    found = from_arrays(IMAGES, LABELS, normalize="none")
    assert [len(split) for _, split in found.splits()] == [14, 2, 4]
    rows = np.concatenate([list(map(int, s.names)) for _, s in found.splits()])
    np.testing.assert_array_equal(np.sort(rows), np.arange(20))
    for name, split in found.splits():
        own = [int(x) for x in split.names]
        np.testing.assert_array_equal(split.images[..., 0], IMAGES[own])
        np.testing.assert_array_equal(split.labels, LABELS[own])
        np.testing.assert_array_equal(split.ids, example_ids(name, split.names))
        assert split.images.dtype == np.float32
        assert split.labels.dtype == np.uint8


def test_the_seed_alone_draws_the_splits():
    first, same, other = (
        from_arrays(images, LABELS, seed=seed, normalize="none").test.names
        for images, seed in ((IMAGES, 3), (IMAGES + 1, 3), (IMAGES, 4))
    )
    assert first == same != other


def test_a_split_that_is_given_is_taken_whole():
    given = IMAGES[:3], LABELS[:3]
    found = from_arrays(
        IMAGES[3:], LABELS[3:], val=given, test=(IMAGES[:1], LABELS[:1])
    )
    assert [len(split) for _, split in found.splits()] == [17, 3, 1]
    np.testing.assert_array_equal(found.val.labels, LABELS[:3])
    part = from_arrays(IMAGES, LABELS, val=given)
    assert [len(split) for _, split in part.splits()] == [16, 3, 4]


@pytest.mark.parametrize("foreground", [1, 255, True])
def test_two_classes_are_0_and_1_however_masks_are_stored(foreground):
    masks = np.where(LABELS == 1, foreground, 0).astype(type(foreground))
    masks = masks.astype(np.uint8) if foreground == 255 else masks
    found = from_arrays(IMAGES, masks)
    assert found.num_classes == 2
    own = [int(x) for x in found.train.names]
    np.testing.assert_array_equal(found.train.labels, LABELS[own])


@pytest.mark.parametrize("top", [1, 4])
def test_255_is_void_beside_class_ids(top):
    labels = LABELS.astype(np.int64) * RNG.integers(1, top + 1, LABELS.shape)
    labels[:, 0, 0] = 255
    found = from_arrays(IMAGES, labels, class_names=[f"c{i}" for i in range(top + 1)])
    assert found.num_classes == top + 1
    assert found.class_names[-1] == f"c{top}"
    assert (found.train.labels[:, 0, 0] == 255).all()
    assert set(np.unique(found.train.labels)) == {*range(top + 1), 255}


@pytest.mark.parametrize(
    ("stored", "options"),
    [
        (LABELS.astype(np.float64), {}),
        (LABELS * np.uint16(65535), {}),
        (LABELS * 0.75, {"label_threshold": 0.5}),
        (np.where(LABELS == 1, np.arange(48).reshape(6, 8) + 1, 0),
         {"instances": "union"}),
        (LABELS * 7, {"label_values": "1-9=1"}),
        (np.uint8([[0, 0, 0], [220, 20, 60]])[LABELS],
         {"label_colors": "#000000=0,#dc143c=1"}),
    ],
)  # fmt: skip
def test_labels_are_read_as_those_of_files(stored, options):
    found = from_arrays(IMAGES, stored, test=(IMAGES, stored), **options)
    np.testing.assert_array_equal(found.test.labels, LABELS)
    assert found.num_classes == 2
    if options:
        with pytest.raises(InputError, match=r"labels\[\d+\]: .*`\w+="):
            from_arrays(IMAGES, stored)


def test_the_encoding_is_that_of_all_splits_together():
    with pytest.raises(InputError, match=r"labels\[0\]: mixed .*\(test\.labels\[0\]"):
        from_arrays(IMAGES, LABELS, val=0.1, test=(IMAGES, LABELS * 255))


def test_images_of_different_sizes_and_channels_are_padded_and_repeated():
    images = [IMAGES[0], RNG.random((4, 9, 3)), IMAGES[1, :5] > 99]
    labels = [LABELS[0], LABELS[1, :4, :1] * np.ones((1, 9), int), LABELS[1, :5]]
    one = images[:1], labels[:1]
    found = from_arrays(images, labels, val=one, test=one, normalize="none").train
    assert found.shape == (6, 9, 3)
    np.testing.assert_array_equal(found.valid_size, [[6, 8], [4, 9], [5, 8]])
    np.testing.assert_array_equal(found.images[0, :, :8, 2], images[0])
    np.testing.assert_array_equal(found.images[1, :4], images[1].astype(np.float32))
    assert (found.images[1, 4:] == 0).all()
    assert (found.labels[1, 4:] == 255).all()


def test_images_are_normalised_one_by_one():
    found = from_arrays(IMAGES, LABELS).train.images[..., 0].astype(np.float64)
    np.testing.assert_allclose(found.mean(axis=(1, 2)), 0, atol=1e-6)
    np.testing.assert_allclose(found.std(axis=(1, 2)), 1, rtol=1e-6)
    fixed = from_arrays(IMAGES, LABELS, normalize="fixed", std=255.0)
    assert 0 <= fixed.train.images.min() < fixed.train.images.max() <= 1


def test_names_set_the_ids():
    names = [f"cell {i}" for i in range(20)]
    found = from_arrays(IMAGES, LABELS, names=names, name="cells")
    assert found.name == "cells"
    assert set(found.test.names) <= set(names)
    np.testing.assert_array_equal(found.val.ids, example_ids("val", found.val.names))


def test_borders_of_instance_maps_are_a_class_with_a_name():
    ids = np.zeros((20, 6, 8), np.uint16)
    ids[:, 1:5, 1:4], ids[:, 1:5, 4:7] = 3, 70
    found = from_arrays(IMAGES, ids, instances="border")
    assert found.class_names == ("background", "inside", "border")
    expected = np.uint8(ids[0] > 0) + instances.borders(ids[0])
    np.testing.assert_array_equal(found.train.labels[0], expected)
    own = from_arrays(IMAGES, ids, instances="border", class_names=["a", "b", "c"])
    assert own.class_names == ("a", "b", "c")
    assert from_arrays(IMAGES, ids, instances="union").class_names is None


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"labels": LABELS[:5]}, r"labels: got 5 maps for 20 images"),
        ({"labels": LABELS[..., None]}, r"labels\[0\]: got uint8 of shape \[6, 8, 1\]"),
        ({"labels": LABELS.astype("datetime64[s]")}, r"labels\[0\]: got datetime64"),
        ({"labels": LABELS / 2}, r"labels\[0\]: fractions .*`label_threshold=0.25`"),
        ({"labels": LABELS[:, :5]}, r"labels\[0\]: got shape \[5, 8\], .*\[6, 8\]"),
        ({"labels": LABELS * 7, "num_classes": 3}, r"labels\[0\]: .* 7 \(.*es=3"),
        ({"labels": LABELS - 1.0}, r"labels\[0\]: negative values -1 .*`label_val"),
        ({"num_classes": 1}, r"num_classes: got 1, expected"),
        ({"images": IMAGES[0]}, r"labels: got 20 maps for 6 images"),
        ({"images": [np.full((6, 8), np.nan)] * 20}, r"images\[0\]: NaN"),
        ({"images": [*IMAGES[:18], *np.ones((1, 6, 8, 2)), *np.ones((1, 6, 8, 3))]},
         r"images: got 2 and 3 channels"),
        ({"val": 0.9}, r"images: got 20, of which validation and test split take 22"),
        ({"val": -0.1}, r"val: got -0.1, expected a number in \[0, 1\]"),
        ({"test": (IMAGES,)}, r"test: got 1 item, expected a share"),
        ({"test": (IMAGES, LABELS[:1])}, r"test\.labels: got 1 map for 20 images"),
        ({"names": ["a"] * 20}, r"names: got 20 names, 1 of them different"),
        ({"class_names": ["a"]}, r"class_names: got 1 name, expected 2"),
        ({"normalize": "max"}, r"normalize: got 'max', expected one of zscore"),
        ({"seed": -1}, r"seed: got -1"),
    ],
)  # fmt: skip
def test_a_wrong_argument_is_named(changes, message):
    arguments = {"images": IMAGES, "labels": LABELS} | changes
    with pytest.raises(InputError, match=f"^{message}") as caught:
        from_arrays(arguments.pop("images"), arguments.pop("labels"), **arguments)
    assert "\n" not in str(caught.value)


def test_the_package_offers_it():
    assert data.from_arrays is from_arrays


def test_validation_and_test_split_may_be_missing_or_without_labels():
    found = from_arrays(IMAGES, LABELS, val=0, test=None)
    sizes = [len(split) for _, split in found.splits()]
    assert sizes == [20, 0, 0]
    assert found.val.shape == found.train.shape
    masks = 255 * LABELS
    found = from_arrays(IMAGES, masks, val=(IMAGES[:2], None), test=(IMAGES[:3], None))
    assert (found.val.labels == 255).all()
    assert found.test.labels.shape == (3, *LABELS.shape[1:])
    assert (found.test.labels == 255).all()
    np.testing.assert_array_equal(found.train.labels, LABELS)
