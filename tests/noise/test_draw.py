import itertools
from fractions import Fraction

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from metaseg.noise import draw

KEY = jax.random.key(0)
exact_counts = jax.jit(draw.exact_counts)
smallest = jax.jit(draw.smallest)


def assert_uniform(counts):
    """Chi-square along the first axis, of every column by itself."""
    assert np.min(scipy.stats.chisquare(counts).pvalue) > 1e-7


def assert_independent(first, second):
    """Chi-square of two arrays of numbers below 16, each uniform."""
    assert_uniform(np.bincount(first.ravel() * 16 + second.ravel(), minlength=256))


@pytest.mark.parametrize("shape", [(), (5,), (1, 7), (2, 3, 3, 11)])
def test_bits_of_any_shape_are_uniform_at_every_place(shape):
    keys = jax.random.split(KEY, 2000)
    drawn = np.asarray(jax.jit(jax.vmap(lambda key: draw.bits(key, shape)))(keys))
    assert drawn.shape == (2000, *shape)
    assert drawn.max() < 1 << 24
    drawn = drawn.reshape(2000, -1)
    for low_bit in (20, 10, 0):
        digits = (drawn >> low_bit) % 16
        counts = (digits == np.arange(16)[:, None, None]).sum(1)
        assert_uniform(counts)
        assert_uniform(counts.sum(1))


MAPS = np.asarray(jax.jit(draw.bits, static_argnums=1)(KEY, (2, 256, 255)))


def test_quarters_of_a_map_that_share_bits_are_independent():
    quarters = MAPS[0].reshape(4, -1)
    for first, second in itertools.combinations(quarters, 2):
        assert_independent(first >> 20, second >> 20)
        assert_independent(first % 16, second % 16)
        assert abs(np.corrcoef(first, second)[0, 1]) < 5 / np.sqrt(first.size)
        assert (first == second).sum() <= 1


def test_neighbours_are_independent():
    for axis in (1, 2):
        for step in (1, 2, 4):
            moved = np.roll(MAPS, step, axis)
            assert_independent(MAPS >> 20, moved >> 20)


def test_maps_of_a_batch_share_nothing():
    first, second = MAPS
    assert_independent(first >> 20, second >> 20)
    assert_independent(first % 16, second % 16)
    n = first.size
    same = np.isin(first, second).sum()  # by chance: so many draws, so many values
    assert abs(same - n * n / draw.ONE) < 5 * np.sqrt(n * n / draw.ONE)


def test_integers_are_the_floor_of_the_exact_product():
    count = np.array([1, 2, 3, 7, 10, 1000, 4095, 4096, 4097, 65_534, 65_535])
    ends = [0, 1, 4095, 4096, draw.ONE - 4097, draw.ONE - 1]
    bits = np.concatenate([ends, MAPS[0, :20].ravel()]).astype(np.uint32)[:, None]
    got = jax.jit(draw.integers)(bits, count)
    np.testing.assert_array_equal(got, (bits.astype(np.int64) * count) >> 24)


@pytest.mark.parametrize("count", [3, 7, 100])
def test_integers_are_uniform(count):
    drawn = np.asarray(draw.integers(MAPS, count))
    assert_uniform(np.bincount(drawn.ravel(), minlength=count))


@pytest.mark.parametrize("below", [3, 1 << 24])  # many equal bits, and hardly any
def test_smallest_takes_each_class_s_lowest_bits_then_the_first(below):
    rng = np.random.default_rng(below)
    ids, drawn = rng.integers(0, 256, 700), rng.integers(0, below, 700)
    quota = rng.integers(0, np.bincount(ids, minlength=256) + 1)
    expected = np.zeros(700, bool)
    for class_id in range(256):
        (place,) = np.nonzero(ids == class_id)
        order = np.argsort(drawn[place], kind="stable")
        expected[place[order[: quota[class_id]]]] = True
    got = smallest(ids.astype(np.int32), drawn.astype(np.uint32), jnp.array(quota))
    np.testing.assert_array_equal(got, expected)


def test_cuts_of_0_and_1_are_never_and_always():
    assert draw.to_threshold(0.0) == 0
    assert draw.to_threshold(1.0) == 1 << 24


@pytest.mark.parametrize("num_classes", [2, 3, 4, 5, 8, 19])
def test_categorical_draws_every_class_with_its_probability(num_classes):
    rng = np.random.default_rng(num_classes)
    matrix = rng.dirichlet(np.ones(num_classes), size=3).astype(np.float32)
    matrix[1, num_classes - 1] = 0
    matrix[2, 0] = 0
    matrix /= matrix.sum(1, keepdims=True)
    n = 20_000
    rows = jnp.repeat(jnp.arange(3), n)
    drawn = np.asarray(jax.jit(draw.categorical)(KEY, rows, matrix)).reshape(3, n)
    counts = np.stack([np.bincount(row, minlength=num_classes) for row in drawn])
    spread = np.sqrt(n * matrix * (1 - matrix))
    assert (abs(counts - n * matrix) <= 5 * spread).all()


def test_categorical_never_draws_a_class_of_probability_zero():
    tenths = np.zeros((1, 12), np.float32)
    tenths[0, 1:11] = 0.1  # in float32 their running sum is not 1
    thresholds = np.asarray(draw._cumulative_thresholds(jnp.asarray(tenths)))[0]
    assert thresholds[0] == 0
    assert thresholds[10] == thresholds[11] == 1 << 24


@pytest.mark.parametrize("fraction", ["0.1", "0.07", "0.3", "0.45", "0.9", "1", "0"])
def test_ceil_share_is_the_ceiling_of_the_decimal_product(fraction):
    counts = np.concatenate([np.arange(2000), np.arange(65_000, 65_600)])
    exact = [int(-((-n * Fraction(fraction)) // 1)) for n in counts.tolist()]
    share = jax.jit(draw._ceil_share)(counts, float(fraction))
    np.testing.assert_array_equal(share, exact)


def test_ceil_share_keeps_one_of_any_at_a_tiny_fraction():
    share = draw._ceil_share(jnp.array([0, 1, 9]), 1e-12)
    np.testing.assert_array_equal(share, [0, 1, 1])


def test_exact_counts_settles_equal_bits_by_place(monkeypatch):
    monkeypatch.setattr(draw, "bits", lambda _, shape: jnp.full(shape, 7, jnp.uint32))
    labels = jnp.arange(600).reshape(1, 20, 30) % 3
    fractions = jnp.array([0.1, 0.5, 1.0])
    chosen = jax.jit(draw.exact_counts)(KEY, labels, fractions)
    for class_id, count in enumerate([20, 100, 200]):
        of_class = np.asarray(chosen[labels == class_id])
        np.testing.assert_array_equal(of_class, np.arange(200) < count)


@pytest.mark.parametrize("ids", [[0], [255], [3, 7, 8, 9, 254], range(256)])
def test_pixels_of_classes_are_counted_for_all_ids(ids):
    pixels = np.random.default_rng(1).choice(np.array(ids), 900).astype(np.int32)
    counts = jax.jit(draw._pixels_of_classes)(pixels)
    np.testing.assert_array_equal(counts, np.bincount(pixels, minlength=256))


def test_exact_counts_chooses_every_pixel_alike():
    maps = 400
    labels = jnp.ones((maps, 3, 4), jnp.uint8)
    chosen = np.asarray(exact_counts(KEY, labels, jnp.array(0.25)))
    np.testing.assert_array_equal(chosen.sum((1, 2)), 3)
    assert (abs(chosen.sum(0) - maps / 4) < 5 * np.sqrt(maps * 3 / 16)).all()
