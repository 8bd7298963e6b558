import jax.numpy as jnp
import numpy as np
import optax
import pytest

from metaseg import optimizers
from metaseg.errors import InputError
from metaseg.runs import defaults


def _config(**changes):
    config = defaults.get_config().optimizer
    config.update(changes)
    return config


def test_cosine_starts_at_the_rate_and_ends_at_zero():
    rate = optimizers.schedule(_config(schedule="cosine", learning_rate=0.2), 100)
    steps = np.array([0, 50, 100])
    expected = 0.1 * (1 + np.cos(np.pi * steps / 100))
    np.testing.assert_allclose([rate(s) for s in steps], expected, atol=1e-7)


def test_step_schedule_is_a_staircase():
    config = _config(schedule="step", learning_rate=1.0, step_every=10, step_factor=0.1)
    rate = optimizers.schedule(config, 100)
    np.testing.assert_allclose(
        [rate(s) for s in (0, 9, 10, 25)], [1, 1, 0.1, 0.01], rtol=1e-5
    )


def test_warmup_rises_linearly_to_the_schedule():
    config = _config(schedule="constant", learning_rate=0.4, warmup=4)
    rate = optimizers.schedule(config, 100)
    np.testing.assert_allclose(
        [rate(s) for s in (0, 1, 2, 4, 50)], [0, 0.1, 0.2, 0.4, 0.4], rtol=1e-5
    )


def test_sgd_adds_weight_decay_before_momentum():
    config = _config(
        name="sgd",
        learning_rate=0.1,
        momentum=0.9,
        weight_decay=0.01,
        schedule="constant",
    )
    optimizer = optimizers.build(config, 10)
    weight, gradient = jnp.array([2.0]), jnp.array([1.0])
    state, velocity, expected = optimizer.init(weight), 0.0, 2.0
    for _ in range(3):
        updates, state = optimizer.update(gradient, state, weight)
        weight = optax.apply_updates(weight, updates)
        velocity = 0.9 * velocity + (1.0 + 0.01 * expected)
        expected -= 0.1 * velocity
        np.testing.assert_allclose(weight, [expected], rtol=1e-5)


def test_clip_bounds_the_gradient_norm():
    config = _config(
        name="sgd", learning_rate=1.0, momentum=0.0, schedule="constant", clip=0.5
    )
    optimizer = optimizers.build(config, 10)
    weight = jnp.array([0.0, 0.0])
    updates, _ = optimizer.update(jnp.array([3.0, 4.0]), optimizer.init(weight), weight)
    np.testing.assert_allclose(updates, [-0.3, -0.4], rtol=1e-5)


def _one_update(name, params, gradients):
    config = _config(name=name, learning_rate=0.05, schedule="constant")
    optimizer = optimizers.build(config, 10)
    return optimizer.update(gradients, optimizer.init(params), params)[0]


@pytest.mark.parametrize("size", [1.0, 1e-4])
def test_muon_moves_a_kernel_along_all_singular_vectors_of_its_gradient(size):
    rng = np.random.default_rng(0)
    gradient = size * rng.normal(size=(3, 3, 4, 8)).astype(np.float32)
    kernel = jnp.zeros_like(gradient)
    update = _one_update("muon", {"kernel": kernel}, {"kernel": gradient})["kernel"]
    # Rows are inputs: the window and its channels; columns are outputs.
    left, _, right = np.linalg.svd(gradient.reshape(36, 8), full_matrices=False)
    along = left.T @ np.asarray(update).reshape(36, 8) @ right.T
    # The iteration of the source ends between 0.68 and 1.14 (Jordan et al., 2024).
    lengths = -np.diag(along) / 0.05
    assert lengths.min() > 0.6
    assert lengths.max() < 1.25
    np.testing.assert_allclose(along - np.diag(np.diag(along)), 0, atol=1e-4)


def test_muon_leaves_all_but_kernels_of_convolutions_to_adam():
    rng = np.random.default_rng(1)
    params = {
        "head": rng.normal(size=(8, 1)).astype(np.float32),
        "scale": rng.normal(size=8).astype(np.float32),
    }
    gradients = {name: np.ones_like(x) for name, x in params.items()}
    found = _one_update("muon", params, gradients)
    adam = optax.nadam(0.05)
    expected, _ = adam.update(gradients, adam.init(params), params)
    for name in params:
        np.testing.assert_allclose(found[name], expected[name], rtol=1e-6)


@pytest.mark.parametrize("name", sorted(optimizers.METHODS))
def test_every_method_goes_downhill(name):
    optimizer = optimizers.build(_config(name=name, learning_rate=0.05), 50)
    weight = jnp.array([1.0])
    state = optimizer.init(weight)
    for _ in range(30):
        updates, state = optimizer.update(2 * weight, state, weight)
        weight = optax.apply_updates(weight, updates)
    assert abs(float(weight[0])) < 0.5


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"name": "sdg"}, r"^optimizer.name: got 'sdg', expected one of sgd, adam"),
        ({"schedule": "cos"}, r"^optimizer.schedule: got 'cos', expected .*cosine"),
        ({"learning_rate": 0.0}, r"^optimizer.learning_rate: got 0.0, .* number > 0$"),
        ({"momentum": -0.1}, r"^optimizer.momentum: got -0.1, .* number >= 0$"),
        ({"warmup": 100}, r"^optimizer.warmup: got 100, .*fewer than the 100 steps"),
        ({"warmup": -1}, r"^optimizer.warmup: got -1, .*>= 0 \(steps\)$"),
        (
            {"schedule": "step", "step_every": 0},
            r"^optimizer.step_every: got 0",
        ),
    ],
)
def test_wrong_values_are_named(changes, message):
    with pytest.raises(InputError, match=message):
        optimizers.build(_config(**changes), 100)
