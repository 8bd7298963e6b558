from functools import partial

import jax
import numpy as np
import pytest
import scipy.ndimage as ndi
from hypothesis import given
from masks import MASKS, SHAPE, assert_batch_safe, few, thin

from metaseg import morphology
from metaseg.errors import InputError

components = jax.jit(morphology.components, static_argnames="connectivity")
fill_holes = jax.jit(morphology.fill_holes)
roots = jax.jit(morphology.roots, static_argnames="connectivity")
connectivities = pytest.mark.parametrize("connectivity", [1, 2])


def first_pixels(mask, connectivity):
    """First pixel, in raster order, of each pixel's component; -1 outside."""
    structure = ndi.generate_binary_structure(2, connectivity)
    numbers, _ = ndi.label(mask, structure)
    _, first, component = np.unique(numbers, return_index=True, return_inverse=True)
    return np.where(mask, first[component].reshape(mask.shape), -1)


def expected_components(mask, connectivity):
    first = first_pixels(mask, connectivity)
    return np.where(mask, np.searchsorted(np.unique(first[mask]), first) + 1, 0)


@connectivities
def test_components_equal_scipy_in_raster_order(connectivity):
    got = components(MASKS, connectivity=connectivity)
    assert got.dtype == np.int32
    expected = [expected_components(mask, connectivity) for mask in MASKS]
    np.testing.assert_array_equal(got, expected)


@few
@given(thin)
def test_components_of_thin_images_equal_scipy(masks):
    expected = [expected_components(mask, 2) for mask in masks]
    np.testing.assert_array_equal(components(masks, connectivity=2), expected)


@pytest.mark.parametrize(("dtype", "connectivity"), [(np.uint8, 1), (np.int32, 2)])
def test_roots_are_the_first_pixels_of_each_class_components(dtype, connectivity):
    rng = np.random.default_rng(0)
    void = 255 if dtype == np.uint8 else -1
    ids = np.array([0, 1, 2, void], dtype)
    # One noise class by class, one of coherent patches.
    noise, patches = rng.integers(0, 4, SHAPE), MASKS[13] + 2 * MASKS[14].astype(int)
    classes = ids[np.stack([noise, patches])]
    expected = np.full(classes.shape, -1)
    for image, first in zip(classes, expected, strict=True):
        for class_id in (1, 2):
            own = image == class_id
            first[own] = first_pixels(own, connectivity)[own]
    got = roots(classes, connectivity=connectivity)
    assert got.dtype == np.int32
    np.testing.assert_array_equal(got, expected)


def _path(shape):
    """Random walls between the cells of a grid: a maze without loops."""
    rng, height, width = np.random.default_rng(3), *shape
    mask, seen, stack = np.zeros(shape, bool), {(0, 0)}, [(0, 0)]
    mask[0, 0] = True
    while stack:
        row, col = stack[-1]
        steps = [(row + dy, col + dx) for dy, dx in ((2, 0), (-2, 0), (0, 2), (0, -2))]
        steps = [
            (y, x)
            for y, x in steps
            if 0 <= y < height and 0 <= x < width and (y, x) not in seen
        ]
        if not steps:
            stack.pop()
            continue
        y, x = steps[rng.integers(len(steps))]
        mask[(row + y) // 2, (col + x) // 2] = mask[y, x] = True
        seen.add((y, x))
        stack.append((y, x))
    return mask


@connectivities
def test_components_of_maps_of_few_and_of_many_runs_equal_scipy(connectivity):
    maze, sparse = _path((131, 130)), np.zeros((131, 130), bool)
    sparse[3:9, 4:90] = sparse[40:90:2, 50:60] = True
    for batch in (np.stack([sparse, ~sparse]), np.stack([sparse, maze, ~maze])):
        expected = [expected_components(mask, connectivity) for mask in batch]
        got = components(batch, connectivity=connectivity)
        np.testing.assert_array_equal(got, expected)
        filled = [ndi.binary_fill_holes(mask) for mask in batch]
        np.testing.assert_array_equal(fill_holes(batch), filled)


def test_fill_holes_equals_scipy():
    expected = [ndi.binary_fill_holes(mask) for mask in MASKS]
    np.testing.assert_array_equal(fill_holes(MASKS), expected)


@few
@given(thin)
def test_filled_thin_images_equal_scipy(masks):
    expected = [ndi.binary_fill_holes(mask) for mask in masks]
    np.testing.assert_array_equal(fill_holes(masks), expected)


@pytest.mark.parametrize("function", [morphology.components, morphology.fill_holes])
def test_components_and_filled_masks_are_batch_safe(function):
    assert_batch_safe(function, MASKS[4:8, :33, :20])


def test_roots_are_batch_safe():
    classes = np.random.default_rng(0).integers(0, 3, (4, 33, 20), np.uint8)
    assert_batch_safe(morphology.roots, classes)


@pytest.mark.parametrize("function", [morphology.components, morphology.fill_holes])
@pytest.mark.parametrize(
    "mask", [np.ones((4, 4), np.uint8), np.ones(4, bool), [[True]]]
)
def test_wrong_masks_are_named(function, mask):
    with pytest.raises(InputError, match=r"^mask: .* expected [^\n]*$"):
        function(mask)


@pytest.mark.parametrize(
    "classes", [np.ones((4, 4)), np.ones(4, int), np.ones((4, 4), bool)]
)
def test_wrong_classes_are_named(classes):
    with pytest.raises(InputError, match=r"^classes: .* expected [^\n]*$"):
        morphology.roots(classes)


@pytest.mark.parametrize("connectivity", [0, 3, 1.0, True, "1", None])
def test_wrong_connectivity_is_named(connectivity):
    message = f"^connectivity: got {connectivity!r}, expected 1 or 2$"
    with pytest.raises(InputError, match=message):
        morphology.components(np.ones((4, 4), bool), connectivity=connectivity)
    with pytest.raises(InputError, match=message):
        morphology.roots(np.ones((4, 4), np.uint8), connectivity=connectivity)


@pytest.mark.parametrize("shape", [(0, 6, 7), (2, 0, 7), (2, 6, 0)])
def test_maps_without_pixels_stay(shape):
    mask = np.zeros(shape, bool)
    for fn in (
        morphology.components,
        morphology.distance,
        morphology.fill_holes,
        morphology.skeletonize,
        partial(morphology.dilate, radius=20),
        partial(morphology.erode, radius=2),
    ):
        assert fn(mask).shape == shape
    assert morphology.roots(mask.astype(np.uint8)).shape == shape
