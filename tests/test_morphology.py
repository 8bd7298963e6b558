from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.ndimage as ndi
from skimage import morphology as reference

from metaseg import morphology

RNG = np.random.default_rng(0)
SHAPE = (65, 70)  # neither is a multiple of a word's 32 bits


def blobs(sigma, shape=SHAPE):
    smooth = ndi.gaussian_filter(RNG.random(shape), sigma)
    return smooth > np.median(smooth)


def line(angle, shape=SHAPE):
    rows, cols = np.indices(shape)
    offset = (rows - 30) * np.cos(angle) - (cols - 30) * np.sin(angle)
    return np.abs(offset) < 0.6


MASKS = np.stack(
    [RNG.random(SHAPE) < density for density in (0.05, 0.3, 0.5, 0.7, 0.9, 0.97, 0.995)]
    + [np.zeros(SHAPE, bool), np.ones(SHAPE, bool)]
    + [blobs(sigma) for sigma in (1, 2, 4, 8)]
    + [line(angle) for angle in (0, 0.3, np.pi / 4, np.pi / 2)]
)
SMALL = [
    RNG.random(shape) < 0.6 for shape in [(1, 1), (1, 40), (40, 1), (2, 33), (33, 2)]
] + [np.ones((1, 40), bool), np.ones((4, 4), bool)]

dilate = jax.jit(morphology.dilate, static_argnums=1)
erode = jax.jit(morphology.erode, static_argnums=1)
disk_maximum = jax.jit(morphology.disk_maximum, static_argnums=1)
skeletonize = jax.jit(morphology.skeletonize)


@pytest.mark.parametrize("radius", [0, 1, 4])
def test_dilate_and_erode_equal_scipy_with_a_disk(radius):
    disk = reference.disk(radius)
    dilated = [ndi.binary_dilation(mask, disk) for mask in MASKS]
    eroded = [ndi.binary_erosion(mask, disk, border_value=1) for mask in MASKS]
    np.testing.assert_array_equal(dilate(MASKS, radius), dilated)
    np.testing.assert_array_equal(erode(MASKS, radius), eroded)


def test_dilate_and_erode_equal_scikit_image():
    disk = reference.disk(4)
    dilated = [reference.dilation(mask, disk, mode="ignore") for mask in MASKS]
    eroded = [reference.erosion(mask, disk, mode="ignore") for mask in MASKS]
    np.testing.assert_array_equal(dilate(MASKS, 4), dilated)
    np.testing.assert_array_equal(erode(MASKS, 4), eroded)


@pytest.mark.parametrize("mask", SMALL, ids=lambda mask: str(mask.shape))
def test_small_images_equal_the_references(mask):
    disk = reference.disk(1)
    np.testing.assert_array_equal(dilate(mask, 1), ndi.binary_dilation(mask, disk))
    np.testing.assert_array_equal(skeletonize(mask), reference.skeletonize(mask))


def test_disk_maximum_equals_scipy_maximum_filter():
    values = RNG.integers(0, 200, size=(2, *SHAPE)).astype(np.uint8)
    footprint = reference.disk(4)
    expected = [
        ndi.maximum_filter(v, footprint=footprint, mode="constant") for v in values
    ]
    np.testing.assert_array_equal(disk_maximum(values, 4), expected)


def test_skeleton_equals_scikit_image_pixel_for_pixel():
    expected = np.stack([reference.skeletonize(mask) for mask in MASKS])
    np.testing.assert_array_equal(skeletonize(MASKS), expected)


def test_skeleton_equals_scikit_image_on_every_neighbourhood():
    codes = np.arange(512)[:, None] >> np.arange(9) & 1
    masks = codes.reshape(512, 3, 3).astype(bool)
    expected = np.stack([reference.skeletonize(mask) for mask in masks])
    np.testing.assert_array_equal(skeletonize(masks), expected)


def test_skeleton_of_classes_thins_each_class_by_itself():
    classes = np.zeros(SHAPE, np.uint8)
    for class_id in (1, 2, 3):
        classes[blobs(3)] = class_id
    expected = np.zeros(SHAPE, bool)
    for class_id in (1, 2, 3):
        expected |= reference.skeletonize(classes == class_id)
    got = jax.jit(morphology.skeletonize_classes)(classes)
    np.testing.assert_array_equal(got, expected)


@pytest.mark.parametrize(
    "function",
    [partial(morphology.dilate, radius=1), morphology.skeletonize],
    ids=["dilate", "skeletonize"],
)
def test_vmap_and_leading_axes_agree_with_eager(function):
    masks = jnp.asarray(MASKS[2:14])
    eager = function(masks.reshape(3, 4, *SHAPE)).reshape(masks.shape)
    assert eager.dtype == bool
    np.testing.assert_array_equal(jax.jit(jax.vmap(function))(masks), eager)
