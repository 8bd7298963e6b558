"""The noise layer: probabilities of labels under noise, and what a network learns."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict

from metaseg import decoding, models, ntm
from metaseg.models import noise_layer

MATRICES = {
    "flip": [[0.6, 0.4], [0.4, 0.6]],
    "sample": [[1.0, 0.0], [0.9, 0.1]],
    "void": [[0.5, 0.0], [0.1, 0.2]],  # the other pixels are void
    "symmetric": np.full((4, 4), 0.1) + 0.6 * np.eye(4),
}


def logits_of(matrix, seed=0):
    num_classes = len(matrix)
    channels = 1 if num_classes == 2 else num_classes
    return 5 * jax.random.normal(jax.random.key(seed), (3, 5, 7, channels))


@pytest.mark.parametrize("name", MATRICES)
def test_probabilities_are_those_of_the_clean_class_times_the_matrix(name):
    matrix = np.asarray(MATRICES[name])
    logits = logits_of(matrix)
    noisy = np.asarray(decoding.probabilities(noise_layer.apply(logits, matrix)))
    expected = np.asarray(decoding.probabilities(logits), np.float64) @ matrix
    expected /= expected.sum(-1, keepdims=True)
    np.testing.assert_allclose(noisy, expected, atol=1e-6)


@pytest.mark.parametrize("name", ["flip", "sample", "symmetric"])
def test_the_noise_aware_rule_finds_the_most_probable_clean_class(name):
    matrix = np.asarray(MATRICES[name])
    logits = logits_of(matrix)
    clean = decoding.predict(decoding.probabilities(logits))
    scores = decoding.probabilities(noise_layer.apply(logits, matrix))
    # Where two clean classes are about equally probable, rounding decides.
    top = np.sort(decoding.probabilities(logits), -1)
    clear = top[..., -1] - top[..., -2] > 1e-3
    found = decoding.predict(scores, matrix)
    np.testing.assert_array_equal(np.asarray(found)[clear], np.asarray(clean)[clear])


def test_an_identity_matrix_changes_no_logit_of_two_classes():
    logits = jnp.linspace(-60.0, 60.0, 25)[:, None]
    found = noise_layer.apply(logits, ntm.symmetric(2, 0.0))
    np.testing.assert_allclose(found, logits, rtol=1e-5, atol=1e-5)


def test_gradients_are_finite_for_extreme_logits_and_a_class_without_labels():
    matrix = [[1.0, 0.0], [1.0, 0.0]]  # no label is foreground

    def total(logits):
        return noise_layer.apply(logits, matrix).sum()

    gradient = jax.grad(total)(jnp.array([[-200.0], [0.0], [200.0]]))
    assert np.isfinite(gradient).all()


def test_a_built_network_bounds_its_logits_by_those_of_the_matrix():
    config = ConfigDict(
        {"name": "unet", "norm": "batch", "dtype": "float32", "init": "he"}
        | {"width": 2, "depth": 1}
    )
    images = 9 * jax.random.normal(jax.random.key(1), (2, 8, 8, 1))
    plain = models.build(config, 2)
    layered = models.build(config, 2, transition=ntm.symmetric(2, 0.4))
    variables = jax.jit(lambda key: plain.init(key, images, train=False))(
        jax.random.key(0)
    )
    before = jax.jit(lambda v: plain.apply(v, images, train=False))(variables)
    after = jax.jit(lambda v: layered.apply(v, images, train=False))(variables)
    assert np.abs(after).max() <= np.log(0.6 / 0.4) + 1e-5
    np.testing.assert_array_equal(np.sign(after), np.sign(before))

    @jax.jit
    def traced(matrix):  # members of an ensemble differ in it
        return models.build(config, 2, transition=matrix).apply(
            variables, images, train=False
        )

    np.testing.assert_allclose(traced(ntm.symmetric(2, 0.4)), after, atol=1e-5)
