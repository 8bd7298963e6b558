import jax
import numpy as np
import pytest
import scipy.ndimage as ndi
from hypothesis import given
from masks import MASKS, assert_batch_safe, few, thin

from metaseg import morphology
from metaseg.errors import InputError

distance = jax.jit(morphology.distance)
LONGEST = 11_000  # as documented


def expected_distance(mask):
    without = np.full(mask.shape, np.inf)  # SciPy does not define it
    return without if mask.all() else ndi.distance_transform_edt(mask)


def test_distance_equals_scipy():
    got = distance(MASKS)
    assert got.dtype == np.float32
    expected = [expected_distance(mask) for mask in MASKS]
    np.testing.assert_allclose(got, expected, rtol=0, atol=1e-4)


@few
@given(thin)
def test_distances_in_thin_images_equal_scipy(masks):
    expected = [expected_distance(mask) for mask in masks]
    np.testing.assert_allclose(distance(masks), expected, rtol=0, atol=1e-4)


def test_distance_is_infinite_only_in_the_image_without_background():
    masks = np.ones((2, *MASKS.shape[1:]), bool)
    masks[1, -1, -1] = False
    got = np.asarray(distance(masks))
    assert np.isposinf(got[0]).all()
    rows, cols = np.indices(masks.shape[1:])
    far = np.hypot(rows - rows.max(), cols - cols.max())
    np.testing.assert_allclose(got[1], far, rtol=0, atol=1e-4)


@pytest.mark.parametrize("shape", [(1, LONGEST), (LONGEST, 1)])
def test_distance_is_exact_along_the_longest_line(shape):
    mask = np.ones(shape, bool)
    mask[0, 0] = False
    got = distance(mask).ravel()
    np.testing.assert_array_equal(got, np.arange(LONGEST))


def test_distance_is_batch_safe():
    full = np.ones((1, 33, 20), bool)
    masks = np.concatenate([full, MASKS[5:8, :33, :20]])
    assert_batch_safe(morphology.distance, masks)


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        (np.ones((4, 4)), "mask: got dtype float64, expected an array of booleans"),
        (np.ones(4, bool), r"mask: got shape \(4,\), expected \[..., H, W\]"),
        ([[True]], "mask: got list, expected an array of booleans"),
        (np.ones((1, LONGEST + 1), bool), r"mask: got shape \(1, 11001\), expected .*"),
        (np.ones((LONGEST + 1, 1), bool), r"mask: got shape \(11001, 1\), expected .*"),
    ],
)
def test_wrong_masks_are_named(mask, message):
    with pytest.raises(InputError, match=f"^{message}$"):
        morphology.distance(mask)
