import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict
from scipy import ndimage
from scipy.spatial import cKDTree
from skimage.filters import threshold_otsu
from skimage.morphology import skeletonize

from metaseg.data import synthetic
from metaseg.data.synthetic import optics
from metaseg.data.synthetic.network import _nearest
from metaseg.data.synthetic.tissue import _Nuclei, _strew
from metaseg.data.synthetic.tubes import _Arcs, _distance
from metaseg.errors import InputError

# Share of the pixels that are not class 0, over the images of a split.
SHARES = {
    "cells": (0.1, 0.35),
    "network": (0.15, 0.35),
    "tissue": (0.45, 0.85),
    "tubes": (0.1, 0.3),
}
each_family = pytest.mark.parametrize("family", sorted(synthetic.FAMILIES))


COUNT, SIZE = 10, {"height": 96, "width": 128}


def _config(**changes):
    fields = {
        "name": "cells",
        "seed": 0,
        "height": 24,
        "width": 20,
        "train_size": 17,
        "val_size": 1,
        "test_size": 3,
    }
    return ConfigDict(fields | changes)


@functools.cache
def _rendered(family):
    """Images and labels of the ids 0 to 9."""
    ids = np.arange(COUNT, dtype=np.uint32)
    return jax.device_get(synthetic.examples(0, ids, family=family, **SIZE))


def _thickness(mask):
    """Width in pixels along the middle line of a mask."""
    inside = ndimage.distance_transform_edt(np.pad(mask, 1, mode="edge"))[1:-1, 1:-1]
    return 2 * inside[skeletonize(mask)]


@each_family
def test_shapes_and_dtypes(family):
    images, labels = _rendered(family)
    assert images.shape == (COUNT, 96, 128, 3 if family == "tissue" else 1)
    assert labels.shape == (COUNT, 96, 128)
    assert images.dtype == np.float32
    assert labels.dtype == np.uint8


@each_family
def test_all_classes_occur_and_no_other(family):
    labels = _rendered(family)[1]
    assert len(synthetic.CLASS_NAMES[family]) == synthetic.num_classes(family)
    assert set(np.unique(labels)) == set(range(synthetic.num_classes(family)))
    low, high = SHARES[family]
    assert low < (labels > 0).mean() < high
    assert np.bincount(labels.ravel()).min() > 0.04 * labels.size


@each_family
def test_images_are_standardised(family):
    images, _ = _rendered(family)
    np.testing.assert_allclose(images.mean((1, 2, 3)), 0, atol=1e-4)
    np.testing.assert_allclose(images.std((1, 2, 3)), 1, atol=1e-3)


@each_family
def test_an_example_does_not_depend_on_the_rest_of_its_batch(family):
    images, labels = _rendered(family)
    ids = np.array([7, 7, 901, 3, 902, 903, 0, 904, 905, 906], np.uint32)
    again, labels_again = synthetic.examples(0, ids, family=family, **SIZE)
    np.testing.assert_array_equal(again[np.array([0, 1, 3, 6])], images[[7, 7, 3, 0]])
    np.testing.assert_array_equal(
        labels_again[np.array([0, 1, 3, 6])], labels[[7, 7, 3, 0]]
    )
    assert (labels_again[2] != labels_again[4]).any()


def test_a_compiled_step_renders_the_same_bits_from_traced_ids():
    @jax.jit
    def step(seed, first):
        ids = first + jnp.arange(2, dtype=jnp.uint32)
        return synthetic.examples(seed, ids, family="network", **SIZE)

    images, labels = _rendered("network")
    found = step(jnp.uint32(0), jnp.uint32(4))
    np.testing.assert_array_equal(found[0], images[4:6])
    np.testing.assert_array_equal(found[1], labels[4:6])
    assert (step(jnp.uint32(1), jnp.uint32(4))[1] != labels[4:6]).any()


@each_family
def test_any_size_can_be_rendered(family):
    draw = functools.partial(synthetic.FAMILIES[family], height=3, width=300)
    image, label = jax.eval_shape(draw, jax.random.key(0))
    assert image.shape[:2] == label.shape == (3, 300)


def test_a_data_set_is_what_examples_renders_of_its_ids():
    data = synthetic.load(_config(name="network", num_classes=2))
    ids = np.concatenate([split.ids for _, split in data.splits()])
    assert len(set(ids)) == len(ids) == 17 + 1 + 3
    assert data.class_names == ("background", "network")
    images, labels = synthetic.examples(
        0, data.train.ids[:16], family="network", height=24, width=20
    )
    np.testing.assert_array_equal(data.train.images[:16], images)
    np.testing.assert_array_equal(data.train.labels[:16], labels)


def test_a_blank_data_set_is_that_of_load_but_for_its_pixels():
    config = _config(name="tissue", num_classes=4)
    blank, data = synthetic.blank(config), synthetic.load(config)
    assert (blank.name, blank.class_names) == (data.name, data.class_names)
    for (_, zeros), (_, split) in zip(blank.splits(), data.splits(), strict=True):
        assert zeros.names == split.names
        for field in ("ids", "valid_size"):
            np.testing.assert_array_equal(getattr(zeros, field), getattr(split, field))
        for field in ("images", "labels"):
            one, other = getattr(zeros, field), getattr(split, field)
            assert (one.shape, one.dtype) == (other.shape, other.dtype)
            assert not one.any()
            assert other.any()


# What the pictures show


@pytest.mark.parametrize(
    ("family", "low", "high"),
    [("cells", 0.4, 0.75), ("network", 0.3, 0.75), ("tubes", 0.3, 0.75)],
)
def test_otsu_is_not_enough(family, low, high):
    images, labels = _rendered(family)
    masks = [im > threshold_otsu(im) for im in images[..., 0]]
    truth = labels == 1
    iou = np.sum(masks & truth) / np.sum(masks | truth)
    assert low < iou <= high


def test_colour_alone_does_not_tell_tissues_apart():
    (x, test_x), (y, test_y) = (
        (a[:5].reshape(-1, *a.shape[3:]), a[5:].reshape(-1, *a.shape[3:]))
        for a in _rendered("tissue")
    )
    means = np.stack([x[y == k].mean(0) for k in range(4)])
    found = ((test_x[:, None] - means) ** 2).sum(-1).argmin(1)
    iou = [
        np.sum((found == k) & (test_y == k)) / np.sum((found == k) | (test_y == k))
        for k in range(4)
    ]
    assert np.mean(iou) < 0.5


def test_a_network_is_thin_and_mostly_one_piece():
    masks = _rendered("network")[1] == 1
    assert 2 <= np.median(np.concatenate([*map(_thickness, masks)])) <= 4
    largest = [
        np.bincount(ndimage.label(m, np.ones((3, 3)))[0][m]).max() for m in masks
    ]
    assert np.sum(largest) / masks.sum() > 0.75


def test_tubes_are_many_and_of_their_width():
    masks = _rendered("tubes")[1] == 1
    assert 5 <= np.median(np.concatenate([*map(_thickness, masks)])) <= 8
    counts = [ndimage.label(m)[1] for m in masks]
    assert min(counts) >= 5
    assert 10 < np.mean(counts) < 40


@pytest.mark.parametrize("axis", [1, 2])
def test_a_membrane_lies_between_any_two_tissues(axis):
    labels = np.moveaxis(_rendered("tissue")[1], axis, 0)
    differ = labels[1:] != labels[:-1]
    assert differ.any()
    assert ((labels[1:] == 3) | (labels[:-1] == 3))[differ].all()


def test_membranes_are_two_to_four_pixels_wide():
    masks = _rendered("tissue")[1] == 3
    width = np.concatenate([*map(_thickness, masks)])
    assert 2 <= np.median(width) <= 4
    assert np.quantile(width, 0.95) < 6


# The parts, against other ways to compute them


def test_blur_equals_scipy():
    x = np.random.default_rng(0).random((40, 31)).astype(np.float32)
    expected = ndimage.gaussian_filter(x, 1.1, mode="reflect", radius=3)
    np.testing.assert_allclose(optics.blur(x, 1.1), expected, atol=1e-6)


def test_waves_equal_the_sum_of_cosines():
    normal = np.random.default_rng(0).normal(size=(2, optics.WAVES, 3))
    rows, cols = np.mgrid[:9, :14]
    down, across, phase = np.moveaxis(normal, -1, 0)[..., None, None]
    angle = (down * rows + across * cols) / 5 + 2 * np.pi * phase
    expected = np.sqrt(2 / optics.WAVES) * np.cos(angle).sum(1)
    actual = jax.jit(lambda z: optics.waves(z, 5.0, 9, 14))(normal)
    np.testing.assert_allclose(actual, expected, atol=1e-4)


def test_exposure_has_the_variance_of_shot_and_read_noise():
    n, photons = 40_000, 50.0
    noisy = jax.jit(optics.expose)(jax.random.key(0), np.full(n, photons, np.float32))
    noisy = np.asarray(noisy)
    variance = photons + 2.0**2
    assert abs(noisy.mean() - photons) < 5 * np.sqrt(variance / n)
    assert abs(noisy.var() - variance) < 5 * variance * np.sqrt(2 / n)


def test_nearest_points_equal_those_of_a_tree():
    rng = np.random.default_rng(0)
    points, position = rng.random((30, 2)), rng.random((2, 8, 9))
    distance, index = cKDTree(points).query(np.moveaxis(position, 0, -1), k=3)
    near = jax.jit(_nearest)(points, position)
    np.testing.assert_allclose(np.stack(near.squared, -1), distance**2, atol=1e-5)
    np.testing.assert_array_equal(np.stack(near.which, -1), index)


@pytest.mark.parametrize("half", [0.05, 1.0, 2.2])
def test_distance_to_an_arc_equals_that_to_its_points(half):
    angle, bend, middle = 0.7, 15.0, np.array([4.0, -3.0])
    normal = np.array([np.sin(angle), np.cos(angle)])
    turn = angle + np.linspace(-half, half, 4001)
    curve = middle + bend * (np.stack([np.sin(turn), np.cos(turn)], -1) - normal)
    arc = _Arcs(middle, normal, bend, half, *[None] * 4)
    position = np.random.default_rng(0).uniform(-40, 40, (200, 2))
    expected, _ = cKDTree(curve).query(position)
    actual = jax.jit(lambda p: _distance(arc, *p))(position.T)
    np.testing.assert_allclose(actual, expected, atol=1e-2)


def test_strewn_ellipses_equal_a_search_through_all():
    kind, (height, width), angle = _Nuclei(7, 2.7, 1.3, 0.8), (20, 31), 0.6
    uniform = np.random.default_rng(0).random((*kind.grid(height, width), 5))
    rows, cols = np.mgrid[:height, :width] + 0.5
    expected = np.full((height, width), np.inf)
    for i, j in itertools.product(*map(range, uniform.shape[:2])):
        down, across, size, chance, _ = uniform[i, j]
        y = rows - 7 * (i - 1 + 0.5 + 0.55 * (down - 0.5))
        x = cols - 7 * (j - 1 + 0.5 + 0.55 * (across - 0.5))
        along = np.cos(angle) * x + np.sin(angle) * y
        beside = np.cos(angle) * y - np.sin(angle) * x
        radius = 2.7 * (0.85 + 0.3 * size) if chance < 0.8 else 1e-3
        level = np.hypot(along / np.sqrt(1.3), beside * np.sqrt(1.3)) / radius
        expected = np.minimum(expected, level)
    strew = jax.jit(lambda u: _strew(kind, u, angle, height, width)[0])
    actual = strew(uniform)
    inside = expected < 1
    assert inside.any()
    np.testing.assert_allclose(actual[inside], expected[inside], atol=1e-4)
    assert (actual[~inside] >= 1).all()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"name": "sells"}, r"^data.name: .*'sells'.*cells"),
        ({"test_size": 0}, r"^data.test_size: got 0, expected at least 1"),
        (
            {"name": "tissue", "num_classes": 2},
            r"^data.num_classes: got 2, but 'tissue' has 4 classes \(stroma, .*",
        ),
    ],
)
def test_wrong_values_are_named(changes, message):
    with pytest.raises(InputError, match=message):
        synthetic.load(_config(**changes))
