from functools import partial

import jax
import numpy as np
import pytest
import scipy.ndimage as ndi
from hypothesis import given
from masks import MASKS, SHAPE, assert_batch_safe, few, thin
from skimage import morphology as reference

from metaseg import morphology
from metaseg.errors import InputError

SHAPES = ("disk", "square", "cross")
FILTERS = ("dilate", "erode", "opening", "closing")


def footprint(radius, shape):
    if shape == "disk":
        return reference.disk(radius)
    side = np.abs(np.arange(-radius, radius + 1))
    rows, cols = np.meshgrid(side, side)
    return np.maximum(rows, cols) <= radius if shape == "square" else rows * cols == 0


@partial(jax.jit, static_argnums=(1, 2))
def filtered(masks, radius, shape):
    return {
        name: getattr(morphology, name)(masks, radius, shape=shape) for name in FILTERS
    }


maximum = jax.jit(morphology.maximum, static_argnums=1, static_argnames="shape")


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("radius", [0, 1, 4])
def test_dilate_and_erode_equal_scipy(radius, shape):
    window = footprint(radius, shape)
    got = filtered(MASKS, radius, shape)
    dilated = [ndi.binary_dilation(mask, window) for mask in MASKS]
    eroded = [ndi.binary_erosion(mask, window, border_value=1) for mask in MASKS]
    np.testing.assert_array_equal(got["dilate"], dilated)
    np.testing.assert_array_equal(got["erode"], eroded)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("radius", [1, 4])
def test_filters_equal_scikit_image(radius, shape):
    window = footprint(radius, shape)
    got = filtered(MASKS, radius, shape)
    names = ("dilation", "erosion", "opening", "closing")
    for ours, theirs in zip(FILTERS, names, strict=True):
        function = getattr(reference, theirs)
        expected = [function(mask, window, mode="ignore") for mask in MASKS]
        np.testing.assert_array_equal(got[ours], expected, ours)


@few
@given(thin)
def test_thin_images_equal_scipy_though_the_footprint_is_larger(masks):
    window = footprint(4, "disk")[None]
    got = filtered(masks, 4, "disk")
    dilated = ndi.binary_dilation(masks, window)
    opened = ndi.binary_erosion(masks, window, border_value=1)
    np.testing.assert_array_equal(got["dilate"], dilated)
    np.testing.assert_array_equal(got["erode"], opened)
    np.testing.assert_array_equal(got["opening"], ndi.binary_dilation(opened, window))
    closed = ndi.binary_erosion(dilated, window, border_value=1)
    np.testing.assert_array_equal(got["closing"], closed)


@pytest.mark.parametrize("dtype", [np.uint8, np.int32])
@pytest.mark.parametrize("shape", SHAPES)
def test_maximum_equals_scipy_maximum_filter(shape, dtype):
    highest = np.iinfo(dtype).max
    values = np.random.default_rng(0).integers(0, highest, (2, *SHAPE), dtype)
    window = footprint(4, shape)[None]
    expected = ndi.maximum_filter(values, footprint=window, mode="constant")
    got = maximum(values, 4, shape=shape)
    assert got.dtype == dtype
    np.testing.assert_array_equal(got, expected)


@pytest.mark.parametrize("name", FILTERS)
def test_filters_are_batch_safe(name):
    function = partial(getattr(morphology, name), radius=2)
    assert_batch_safe(function, MASKS[4:8, :33, :20])


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("radius", [16, 24, 40, 10**6])
def test_maximum_of_a_large_neighbourhood_equals_scipy(radius, shape):
    rng = np.random.default_rng(radius)
    drawn = rng.random((2, 19, 31)) < 0.01
    values = (drawn * rng.integers(1, 6, drawn.shape)).astype(np.uint8)
    reach = min(radius, 31)  # beyond this, any footprint holds the whole line
    y, x = np.mgrid[-reach : reach + 1, -reach : reach + 1]
    nearby = {
        "disk": y**2 + x**2 <= radius**2,
        "square": np.ones_like(y, bool),
        "cross": (y == 0) | (x == 0),
    }[shape]
    expected = [
        ndi.maximum_filter(each, footprint=nearby, mode="constant") for each in values
    ]
    found = morphology.maximum(values, radius, shape=shape)
    np.testing.assert_array_equal(found, expected)


def test_maximum_is_batch_safe():
    values = np.random.default_rng(0).integers(0, 9, (4, 33, 20), np.uint8)
    assert_batch_safe(partial(morphology.maximum, radius=2), values)


@pytest.mark.parametrize("name", FILTERS)
@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"mask": np.ones((4, 4))}, "mask: got dtype float64, expected .* booleans"),
        ({"mask": np.ones((4, 4), int)}, "mask: got dtype int64, expected .* booleans"),
        ({"mask": np.ones(4, bool)}, r"mask: got shape \(4,\), expected \[..., H, W\]"),
        ({"mask": [[True]]}, "mask: got list, expected an array"),
        ({"radius": -1}, "radius: got -1, expected an integer >= 0"),
        ({"radius": 1.0}, "radius: got 1.0, expected an integer >= 0"),
        ({"radius": True}, "radius: got True, expected an integer >= 0"),
        ({"shape": "ball"}, "shape: got 'ball', expected one of disk, square, cross"),
        ({"shape": None}, "shape: got None, expected one of disk, square, cross"),
    ],
)
def test_wrong_arguments_are_named(name, wrong, message):
    arguments = {"mask": np.ones((4, 4), bool), "radius": 1, "shape": "disk", **wrong}
    with pytest.raises(InputError, match=f"^{message}.*$") as caught:
        getattr(morphology, name)(**arguments)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "values", [np.ones((4, 4)), np.ones(4, int), np.ones((4, 4), bool)]
)
def test_wrong_values_of_maximum_are_named(values):
    with pytest.raises(InputError, match=r"^values: .* expected [^\n]*$"):
        morphology.maximum(values, 1)
