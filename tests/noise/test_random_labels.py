"""Random labels: their distribution, and that nothing else of the labels is left."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from metaseg import noise
from metaseg.errors import InputError
from metaseg.labels import VOID

CLEAN = np.random.default_rng(0).choice([0, 1, 2, VOID], size=(200, 210))
CLEAN = CLEAN.astype(np.uint8)
KEY = jax.random.key(2)


@jax.jit
def random(key, labels, prior):
    return noise.random(key, labels, prior=prior)


@jax.jit
def shuffle(labels):
    return noise.shuffle(KEY, labels, num_classes=3)


@pytest.mark.parametrize("prior", [0.0, 0.3, 1.0, (0.2, 0.0, 0.8), (1 / 7,) * 7])
def test_random_follows_the_prior_whatever_the_clean_class(prior):
    noisy = random(KEY, CLEAN, jnp.array(prior))
    row = np.array(prior if np.ndim(prior) else (1 - prior, prior))
    np.testing.assert_array_equal(noisy == VOID, CLEAN == VOID)
    for class_id in (0, 1, 2):
        drawn = np.bincount(noisy[class_id == CLEAN], minlength=len(row))
        n = drawn.sum()
        assert (abs(drawn - n * row) <= 5 * np.sqrt(n * row * (1 - row))).all()


MAPS = 500
DEALT = CLEAN[:4, :5].copy()
DEALT[2, 3] = 7  # no class of the three


def test_shuffle_keeps_the_counts_of_each_map_and_the_places_of_the_rest():
    labels = np.stack([np.roll(DEALT, i, 1) for i in range(MAPS)])
    labels[::2][labels[::2] == 1] = 2
    noisy = np.asarray(shuffle(labels))
    np.testing.assert_array_equal(noisy == VOID, labels > 2)
    for class_id in (0, 1, 2):
        counts = ((which == class_id).sum((1, 2)) for which in (noisy, labels))
        np.testing.assert_array_equal(*counts)


def test_shuffle_gives_every_pixel_a_class_with_its_share_of_the_map():
    noisy = np.asarray(shuffle(np.broadcast_to(DEALT, (MAPS, *DEALT.shape))))
    for class_id in (0, 1, 2):
        share = (class_id == DEALT).sum() / (DEALT < 3).sum()
        seen = (noisy == class_id).sum(0)[DEALT < 3]
        spread = np.sqrt(MAPS * share * (1 - share))
        assert (abs(seen - MAPS * share) <= 5 * spread).all()


def test_shuffle_deals_every_arrangement_alike():
    labels = np.full_like(DEALT, VOID)
    labels[1, :4] = 0, 1, 2, 2
    noisy = np.asarray(shuffle(np.broadcast_to(labels, (MAPS, *labels.shape))))
    seen, counts = np.unique(noisy[:, 1, :4], axis=0, return_counts=True)
    assert set(map(tuple, seen)) == set(itertools.permutations((0, 1, 2, 2)))
    assert scipy.stats.chisquare(counts).pvalue > 1e-6


@pytest.mark.parametrize("fill", [0, 2])
def test_constant_is_one_class_but_for_void(fill):
    got = noise.constant(KEY, jnp.asarray(CLEAN), fill=fill)
    np.testing.assert_array_equal(got, np.where(CLEAN == VOID, VOID, fill))


@pytest.mark.parametrize(
    ("fn", "name", "value"),
    [
        (noise.random, "prior", 1.1),
        (noise.random, "prior", (0.5, 0.6)),
        (noise.random, "prior", (-0.5, 1.5)),
        (noise.shuffle, "num_classes", 1),
        (noise.shuffle, "num_classes", 256),
        (noise.shuffle, "num_classes", 2.0),
        (noise.constant, "fill", -1),
        (noise.constant, "fill", 256),
        (noise.constant, "fill", 1.0),
    ],
)
def test_an_invalid_parameter_is_named(fn, name, value):
    with pytest.raises(InputError, match=f"^{name}: .+$"):
        fn(KEY, jnp.asarray(CLEAN), **{name: value})
