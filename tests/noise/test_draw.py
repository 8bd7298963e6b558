from fractions import Fraction

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from metaseg.noise import draw

KEY = jax.random.key(0)
exact_counts = jax.jit(draw.exact_counts)


def test_words_are_uniform_24_bit_integers():
    drawn = np.asarray(draw.words(KEY, (1 << 16,)))
    counts = np.bincount(drawn >> 20, minlength=17)
    n, p = drawn.size, 1 / 16
    assert counts[16:].sum() == 0
    assert (abs(counts[:16] - n * p) < 5 * np.sqrt(n * p * (1 - p))).all()


def test_cuts_of_0_and_1_are_never_and_always():
    assert draw.to_cut(0.0) == 0
    assert draw.to_cut(1.0) == 1 << 24


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
    cuts = np.asarray(draw._cumulative_cuts(jnp.asarray(tenths)))[0]
    assert cuts[0] == 0
    assert cuts[10] == cuts[11] == 1 << 24


@pytest.mark.parametrize("fraction", ["0.1", "0.07", "0.3", "0.45", "0.9", "1", "0"])
def test_ceil_share_is_the_ceiling_of_the_decimal_product(fraction):
    counts = np.concatenate([np.arange(2000), np.arange(65_000, 65_600)])
    exact = [int(-((-n * Fraction(fraction)) // 1)) for n in counts.tolist()]
    share = jax.jit(draw._ceil_share)(counts, float(fraction))
    np.testing.assert_array_equal(share, exact)


def test_ceil_share_keeps_one_of_any_at_a_tiny_fraction():
    share = draw._ceil_share(jnp.array([0, 1, 9]), 1e-12)
    np.testing.assert_array_equal(share, [0, 1, 1])


def test_exact_counts_settles_equal_words_by_place(monkeypatch):
    monkeypatch.setattr(draw, "words", lambda _, shape: jnp.full(shape, 7, jnp.uint32))
    labels = jnp.arange(600).reshape(1, 20, 30) % 3
    fractions = jnp.array([0.1, 0.5, 1.0])
    chosen = jax.jit(draw.exact_counts)(KEY, labels, fractions)
    for class_id, count in enumerate([20, 100, 200]):
        of_class = np.asarray(chosen[labels == class_id])
        np.testing.assert_array_equal(of_class, np.arange(200) < count)


def test_exact_counts_chooses_every_pixel_alike():
    maps = 400
    labels = jnp.ones((maps, 3, 4), jnp.uint8)
    chosen = np.asarray(exact_counts(KEY, labels, jnp.array(0.25)))
    np.testing.assert_array_equal(chosen.sum((1, 2)), 3)
    assert (abs(chosen.sum(0) - maps / 4) < 5 * np.sqrt(maps * 3 / 16)).all()
