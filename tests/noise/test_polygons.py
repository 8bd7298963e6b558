from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import references
import scipy.ndimage as ndi
import scipy.stats
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from metaseg import noise
from metaseg.labels import VOID
from metaseg.noise import polygons

KEY = jax.random.key(0)


@cache
def blobs(count, size=64):
    """Smooth random masks, bool `[count, size, size]`."""
    rng = np.random.default_rng(size)
    fields = ndi.gaussian_filter(rng.random((count, size, size)), (0, 5, 5))
    return fields > np.quantile(fields, 0.6)


def speckle(share, dtype, num_classes=2):
    """Classes and void drawn pixel by pixel: full of saddles and holes."""
    rng = np.random.default_rng(num_classes)
    classes = rng.integers(1, num_classes, (4, 30, 41))
    labels = np.where(rng.random(classes.shape) < share, classes, 0).astype(dtype)
    labels[:, 9:12, 20:] = VOID
    return labels


@pytest.mark.parametrize("dtype", [np.uint8, np.int32])
@pytest.mark.parametrize("share", [0, 0.5, 0.9, 1])
def test_outlines_left_as_they_are_give_the_labels_back(share, dtype):
    labels = speckle(share, dtype, num_classes=4)
    for redrawn in (
        polygons.simplify(KEY, labels, tolerance=0),
        polygons.jitter_vertices(KEY, labels, sigma=0, tolerance=0),
    ):
        assert redrawn.dtype == dtype
        np.testing.assert_array_equal(redrawn, labels)


@pytest.mark.parametrize("tolerance", [1, 3])
def test_simplify_equals_the_reference(tolerance):
    rough = np.random.default_rng(0).random((2, 64, 64)) < 0.5
    masks = np.concatenate([blobs(10), rough])
    got = polygons.simplify(KEY, masks.astype(np.uint8), tolerance=tolerance)
    expected = [references.simplify(mask, tolerance) for mask in masks]
    np.testing.assert_array_equal(got, expected)
    assert np.any(masks != expected)


def test_simplify_is_jitter_without_a_move():
    labels = blobs(4).astype(np.uint8)
    jittered = polygons.jitter_vertices(KEY, labels, sigma=0, tolerance=2)
    np.testing.assert_array_equal(jittered, polygons.simplify(KEY, labels, tolerance=2))


def bands(count, size=40):
    """Bars along a diagonal: moves along it, the same on both axes, change little."""
    rows, columns = np.indices((size, size))
    bar = (abs(rows - columns) < 6) & (abs(rows + columns - size) < size // 2)
    return np.repeat(bar[None], count, axis=0)


@pytest.mark.parametrize(
    ("masks", "sigma", "tolerance"),
    [(blobs(200), 1, 1), (blobs(200), 3, 2), (bands(200), 2, 1)],
)
def test_jitter_moves_vertices_as_the_reference_does(masks, sigma, tolerance):
    labels, rng = masks.astype(np.uint8), np.random.default_rng(1)
    jitter = partial(polygons.jitter_vertices, sigma=sigma, tolerance=tolerance)
    ours = np.asarray(jitter(KEY, labels)).astype(bool)
    theirs = [references.jitter_vertices(rng, mask, sigma, tolerance) for mask in masks]

    def growth(redrawn, mask):
        return redrawn.mean() - mask.mean()

    for measure in (references.dice, growth):
        got = np.array(list(map(measure, ours, masks)))
        expected = np.array(list(map(measure, theirs, masks)))
        difference = got - expected
        assert abs(difference.mean()) < 4 * scipy.stats.sem(difference)
        assert scipy.stats.ks_2samp(got, expected).pvalue > 1e-3


def test_the_highest_class_wins_and_what_none_claims_is_background():
    labels = np.zeros((40, 40), np.uint8)
    labels[5:20, 5:35] = 2
    labels[20:35, 5:35] = 3
    labels[22:30, 10:30] = 1
    labels[10:30, 15:18] = VOID
    got = np.asarray(polygons.simplify(KEY, labels, tolerance=6))
    expected = np.zeros_like(labels)
    for class_id in (1, 2, 3):
        expected[references.simplify(labels == class_id, 6)] = class_id
    expected[labels == VOID] = VOID
    np.testing.assert_array_equal(got, expected)
    assert np.any((labels == 3) & (got == 0))
    assert np.any((labels < 3) & (got == 3))


def test_void_stays_and_is_no_class():
    labels = speckle(0.5, np.uint8)
    got = polygons.jitter_vertices(KEY, labels, sigma=3)
    np.testing.assert_array_equal(got == VOID, labels == VOID)
    without = polygons.jitter_vertices(
        KEY, np.where(labels == VOID, 0, labels), sigma=3
    )
    np.testing.assert_array_equal(got, np.where(labels == VOID, VOID, without))


@cache
def jittered_one_by_one():
    jitter = partial(polygons.jitter_vertices, sigma=2)
    keys = [jax.random.fold_in(KEY, example) for example in range(16)]
    pairs = zip(keys, blobs(16, 96).astype(np.uint8), strict=True)
    return np.stack([jitter(key, labels) for key, labels in pairs])


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("ids", [range(16), [3, 12, 5], [7]])
def test_an_examples_bits_depend_on_its_key_alone(ids, compiled):
    ids = np.array(ids)
    noise_fn = noise.per_example(partial(polygons.jitter_vertices, sigma=2))
    noise_fn = jax.jit(noise_fn) if compiled else noise_fn
    got = noise_fn(KEY, blobs(16, 96)[ids].astype(np.uint8), ids)
    np.testing.assert_array_equal(got, jittered_one_by_one()[ids])


def test_sigma_and_tolerance_may_be_traced_and_differ_within_a_batch():
    labels = blobs(3).astype(np.uint8)
    keys = jax.random.split(KEY, 3)
    sigmas, tolerances = jnp.array([0.5, 2, 4]), jnp.array([1.0, 2, 0])

    def one(key, labels, sigma, tolerance):
        return polygons.jitter_vertices(key, labels, sigma=sigma, tolerance=tolerance)

    got = jax.jit(jax.vmap(one))(keys, labels, sigmas, tolerances)
    for index in range(3):
        expected = one(keys[index], labels[index], sigmas[index], tolerances[index])
        np.testing.assert_array_equal(got[index], expected)


def test_maps_of_a_batch_draw_differently():
    labels = np.repeat(blobs(1).astype(np.uint8), 3, axis=0)
    first, second, third = polygons.jitter_vertices(KEY, labels, sigma=2)
    assert np.any(first != second)
    assert np.any(second != third)


@pytest.mark.parametrize("compiled", [False, True])
def test_sharded_over_eight_devices_the_bits_are_the_same(compiled):
    # Over 100 KiB with a sum over the devices to follow: as one operand of the callback
    # the labels would hang it (see `polygons._PIECE`).
    over_data = NamedSharding(Mesh(jax.devices(), ("data",)), PartitionSpec("data"))
    labels = jax.device_put(blobs(16, 96).astype(np.uint8), over_data)
    ids = jax.device_put(np.arange(16), over_data)
    jitter = noise.per_example(partial(polygons.jitter_vertices, sigma=2))

    def noisy_and_total(labels, ids):
        noisy = jitter(KEY, labels, ids)
        return noisy, jnp.sum(noisy, dtype=jnp.int32)

    noisy, total = (jax.jit(noisy_and_total) if compiled else noisy_and_total)(
        labels, ids
    )
    np.testing.assert_array_equal(noisy, jittered_one_by_one())
    assert total == jittered_one_by_one().sum()
