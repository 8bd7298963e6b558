from functools import partial

import jax
import numpy as np
import pytest
import scipy.ndimage as ndi
from skimage.morphology import disk
from skimage.morphology import skeletonize as reference_skeleton

from metaseg import noise
from metaseg.labels import VOID

KEY = jax.random.key(0)


def shapes(num_classes, void):
    """Smooth random class regions, some of it void."""
    rng = np.random.default_rng(num_classes)
    fields = [ndi.gaussian_filter(rng.random((60, 75)), 4) for _ in range(num_classes)]
    labels = np.argmax(fields, axis=0).astype(np.uint8)
    if void:
        labels[20:30, 40:60] = VOID
    return labels


@pytest.mark.parametrize("labels", [shapes(2, False), shapes(4, True)])
def test_dilate_gives_background_to_the_highest_class_in_reach(labels):
    expected = labels.copy()
    for class_id in (1, 2, 3):
        reached = ndi.binary_dilation(labels == class_id, disk(2))
        expected[(labels == 0) & reached] = class_id
    got = jax.jit(partial(noise.dilate, radius=2))(KEY, labels)
    np.testing.assert_array_equal(got, expected)


@pytest.mark.parametrize("labels", [shapes(2, False), shapes(4, True)])
def test_erode_turns_what_background_reaches_into_background(labels):
    expected = labels.copy()
    expected[ndi.binary_dilation(labels == 0, disk(2)) & (labels != VOID)] = 0
    got = jax.jit(partial(noise.erode, radius=2))(KEY, labels)
    np.testing.assert_array_equal(got, expected)


@pytest.mark.parametrize("labels", [shapes(2, False), shapes(4, True)])
def test_skeletonize_leaves_the_skeleton_of_each_class(labels):
    expected = np.where(labels == VOID, VOID, 0)
    for class_id in (1, 2, 3):
        expected[reference_skeleton(labels == class_id)] = class_id
    got = jax.jit(noise.skeletonize)(KEY, labels)
    np.testing.assert_array_equal(got, expected)
