import jax
import jax.numpy as jnp
import numpy as np
import pytest

from metaseg import noise
from metaseg.labels import VOID

CLEAN = np.random.default_rng(0).choice([0, 1, 2, VOID], size=(200, 210))
CLEAN = CLEAN.astype(np.uint8)


@jax.jit
def random(key, labels, prior):
    return noise.random(key, labels, prior=prior)


@pytest.mark.parametrize("prior", [0.0, 0.3, 1.0, (0.2, 0.0, 0.8), (1 / 7,) * 7])
def test_random_follows_the_prior_whatever_the_clean_class(prior):
    noisy = random(jax.random.key(2), CLEAN, jnp.array(prior))
    row = np.array(prior if np.ndim(prior) else (1 - prior, prior))
    np.testing.assert_array_equal(noisy == VOID, CLEAN == VOID)
    for class_id in (0, 1, 2):
        drawn = np.bincount(noisy[class_id == CLEAN], minlength=len(row))
        n = drawn.sum()
        assert (abs(drawn - n * row) <= 5 * np.sqrt(n * row * (1 - row))).all()
