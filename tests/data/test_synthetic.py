import jax
import numpy as np
import pytest
from ml_collections import ConfigDict
from scipy.ndimage import gaussian_filter
from skimage.filters import threshold_otsu

from metaseg.data import synthetic
from metaseg.errors import InputError


def _config(**changes):
    fields = {
        "name": "cells",
        "seed": 0,
        "height": 128,
        "width": 128,
        "train_size": 20,
        "val_size": 1,
        "test_size": 3,
    }
    return ConfigDict(fields | changes)


@pytest.fixture(scope="module")
def cells():
    return synthetic.load(_config())


def test_shapes_and_dtypes(cells):
    assert cells.train.images.shape == (20, 128, 128, 1)
    assert cells.train.images.dtype == np.float32
    assert cells.train.labels.dtype == np.uint8
    assert len(cells.val) == 1
    assert len(cells.test) == 3
    assert cells.num_classes == 2


def test_labels_are_binary_and_neither_class_is_rare(cells):
    assert set(np.unique(cells.train.labels)) == {0, 1}
    assert 0.1 < cells.train.labels.mean() < 0.35


def test_images_are_standardised(cells):
    np.testing.assert_allclose(cells.train.images.mean((1, 2, 3)), 0, atol=1e-4)
    np.testing.assert_allclose(cells.train.images.std((1, 2, 3)), 1, atol=1e-3)


def test_an_image_depends_on_its_id_and_the_seed_alone(cells):
    key = jax.random.fold_in(jax.random.key(0), cells.train.ids[17])
    image, label = jax.jit(synthetic.cells)(key)
    np.testing.assert_array_equal(label, cells.train.labels[17])
    standard = (image - image.mean()) / image.std()
    np.testing.assert_allclose(standard, cells.train.images[17], atol=1e-4)


def test_splits_share_no_image(cells):
    ids = np.concatenate([split.ids for _, split in cells.splits()])
    assert len(set(ids)) == len(ids)
    assert (cells.train.labels[0] != cells.test.labels[0]).any()


def test_otsu_is_not_enough(cells):
    masks = [im > threshold_otsu(im) for im in cells.train.images[..., 0]]
    truth = cells.train.labels == 1
    iou = np.sum(masks & truth) / np.sum(masks | truth)
    assert 0.4 < iou <= 0.75


def test_blur_equals_scipy():
    x = np.random.default_rng(0).random((40, 31)).astype(np.float32)
    expected = gaussian_filter(x, 1.1, mode="reflect", radius=3)
    np.testing.assert_allclose(synthetic._blur(x, 1.1), expected, atol=1e-6)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"name": "sells"}, r"config.data.name: .*'sells'.*cells"),
        ({"test_size": 0}, r"config.data.test_size: got 0, expected at least 1"),
    ],
)
def test_wrong_values_are_named(changes, message):
    with pytest.raises(InputError, match=message):
        synthetic.load(_config(**changes))
