import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import expit, log_softmax

from metaseg import losses
from metaseg.errors import InputError


def test_binary_cross_entropy_equals_its_formula_on_labelled_pixels():
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(2, 5, 7, 1)).astype(np.float32)
    labels = rng.choice([0, 1, 255], (2, 5, 7)).astype(np.uint8)
    p = expit(logits[..., 0].astype(np.float64))
    each = np.where(labels == 1, -np.log(p), -np.log1p(-p))[labels != 255]
    np.testing.assert_allclose(
        losses.cross_entropy(logits, labels), each.mean(), rtol=1e-5
    )


def test_multiclass_cross_entropy_equals_its_formula_on_labelled_pixels():
    rng = np.random.default_rng(1)
    logits = rng.normal(size=(2, 5, 7, 4)).astype(np.float32)
    labels = rng.choice([0, 1, 2, 3, 255], (2, 5, 7)).astype(np.uint8)
    keep = labels != 255
    log_p = log_softmax(logits.astype(np.float64), axis=-1)[keep]
    expected = -np.mean(log_p[np.arange(keep.sum()), labels[keep]])
    np.testing.assert_allclose(
        losses.cross_entropy(logits, labels), expected, rtol=1e-5
    )


@pytest.mark.parametrize("channels", [1, 3])
def test_void_pixels_have_no_gradient(channels):
    logits = jnp.ones((1, 2, 2, channels))
    labels = jnp.array([[[255, 1], [0, 255]]], jnp.uint8)
    gradient = jax.grad(losses.cross_entropy)(logits, labels)
    changed = np.asarray(jnp.any(gradient != 0, axis=-1))
    np.testing.assert_array_equal(changed, labels != 255)


def test_all_void_is_zero_and_not_nan():
    labels = jnp.full((1, 3, 3), 255, jnp.uint8)
    assert losses.cross_entropy(jnp.ones((1, 3, 3, 1)), labels) == 0.0


def test_unknown_loss_lists_the_known():
    with pytest.raises(InputError, match=r"config.loss: .*'dise'.*cross_entropy"):
        losses.build("dise")
