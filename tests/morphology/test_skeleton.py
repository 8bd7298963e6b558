import jax
import numpy as np
import pytest
from hypothesis import given
from masks import MASKS, SHAPE, assert_batch_safe, few, thin
from skimage import morphology as reference

from metaseg import morphology
from metaseg.errors import InputError

skeletonize = jax.jit(morphology.skeletonize)
skeletonize_classes = jax.jit(morphology.skeletonize_classes)


def expected_skeletons(masks):
    return np.stack([reference.skeletonize(mask) for mask in masks])


def some_classes(dtype):
    """Blobs, noise and a picture's parts laid over each other."""
    classes = np.zeros(SHAPE, dtype)
    for class_id, mask in zip((1, 2, 254, 3), MASKS[[13, 14, 25, 3]], strict=True):
        classes[mask] = class_id
    return classes


def test_skeleton_equals_scikit_image_pixel_for_pixel():
    np.testing.assert_array_equal(skeletonize(MASKS), expected_skeletons(MASKS))


@few
@given(thin)
def test_skeletons_of_thin_images_equal_scikit_image(masks):
    np.testing.assert_array_equal(skeletonize(masks), expected_skeletons(masks))


def test_skeleton_equals_scikit_image_on_every_neighbourhood():
    codes = np.arange(512)[:, None] >> np.arange(9) & 1
    masks = codes.reshape(512, 3, 3).astype(bool)
    np.testing.assert_array_equal(skeletonize(masks), expected_skeletons(masks))


@pytest.mark.parametrize("dtype", [np.uint8, np.int32])
def test_skeleton_of_classes_thins_each_class_by_itself(dtype):
    classes = some_classes(dtype)
    alone = [reference.skeletonize(classes == k) for k in np.unique(classes) if k]
    assert len(alone) == 4
    got = skeletonize_classes(classes)
    np.testing.assert_array_equal(got, np.any(alone, axis=0))


def test_skeletons_are_batch_safe():
    assert_batch_safe(morphology.skeletonize, MASKS[4:8, :33, :20])
    classes = some_classes(np.uint8)[:66, :40].reshape(4, 33, 20)
    assert_batch_safe(morphology.skeletonize_classes, classes)


@pytest.mark.parametrize(
    "mask", [np.ones((4, 4), np.uint8), np.ones(4, bool), [[True]]]
)
def test_wrong_masks_are_named(mask):
    with pytest.raises(InputError, match=r"^mask: .* expected [^\n]*$"):
        morphology.skeletonize(mask)


@pytest.mark.parametrize(
    "classes", [np.ones((4, 4)), np.ones(4, int), np.ones((4, 4), bool)]
)
def test_wrong_classes_are_named(classes):
    with pytest.raises(InputError, match=r"^classes: .* expected [^\n]*$"):
        morphology.skeletonize_classes(classes)
