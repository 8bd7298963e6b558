from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from metaseg import losses, models, noise, training
from metaseg.batch import Batch


class _Pixelwise(nn.Module):
    """The smallest network: one weight per channel."""

    channels: int = 1

    @nn.compact
    def __call__(self, images, train):
        return nn.Dense(self.channels)(images)


def _keep(key, image, label, valid_size):
    del key, valid_size
    return image, label


@pytest.fixture(scope="module")
def parts():
    return training.Step(
        model=_Pixelwise(),
        optimizer=optax.sgd(0.5),
        loss=losses.cross_entropy_sums,
        noise=partial(noise.flip, rate=0.3),
        augment=_keep,
    )


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(0)
    label = (rng.random((6, 8, 8)) < 0.4).astype(np.uint8)
    image = (label[..., None] + 0.1 * rng.normal(size=(6, 8, 8, 1))).astype(np.float32)
    ids = np.array([11, 5, 7, 3, 900, 2**31], np.uint32)
    return Batch(image, label, ids, np.full((6, 2), 8, np.int32))


def _state(parts, **kwargs):
    return training.create_state(
        jax.random.key(0), parts.model, parts.optimizer, (8, 8, 1), **kwargs
    )


def _keys():
    return jax.random.key(1), jax.random.key(2)


train = jax.jit(training.train_step, static_argnums=0)


@pytest.mark.parametrize("ema", [False, True])
def test_the_shapes_of_a_state_are_those_of_the_drawn_state(parts, ema):
    adam = parts._replace(optimizer=optax.adam(1e-3))
    shapes = training.state_shapes(adam.model, adam.optimizer, (8, 8, 1), ema=ema)
    state = _state(adam, ema=ema)
    assert jax.tree.structure(shapes) == jax.tree.structure(state)
    described = [
        [(x.shape, x.dtype) for x in jax.tree.leaves(t)] for t in (shapes, state)
    ]
    assert described[0] == described[1]
    assert not any(x.weak_type for x in jax.tree.leaves(state))


def test_a_step_is_one_gradient_step_on_the_noisy_labels(parts, data):
    state = _state(parts)
    noise_key, augment_key = _keys()
    after, loss = train(parts, state, data, noise_key, augment_key)
    noisy = np.stack(
        [
            noise.flip(jax.random.fold_in(noise_key, i), jnp.asarray(y), rate=0.3)
            for i, y in zip(data.ids, data.labels, strict=True)
        ]
    )
    w = float(state.params["Dense_0"]["kernel"][0, 0])
    p = 1 / (1 + np.exp(-w * data.images[..., 0]))
    expected = -np.mean(np.where(noisy == 1, np.log(p), np.log1p(-p)))
    np.testing.assert_allclose(loss, expected, rtol=1e-5)
    gradient = np.mean((p - noisy) * data.images[..., 0])
    np.testing.assert_allclose(
        after.params["Dense_0"]["kernel"], [[w - 0.5 * gradient]], rtol=1e-5
    )
    assert after.step == 1


def test_many_steps_in_one_dispatch_equal_single_steps(parts, data):
    rows = np.array([[0, 1], [2, 3], [4, 5], [1, 0]], np.int32)
    keys = _keys()
    data = jax.device_put(data)
    single, losses_ = _state(parts), []
    for row in rows[:3]:
        batch = jax.tree.map(lambda x, row=row: x[row], data)
        single, loss = train(parts, single, batch, *keys)
        losses_.append(float(loss))
    many = jax.jit(partial(training.train_steps, parts))
    first, alone = many(_state(parts), data, rows[:1], 1, *keys)
    assert first.step == 1
    assert alone[0] == pytest.approx(losses_[0])
    joint, found = many(_state(parts), data, rows, 3, *keys)
    assert joint.step == 3
    np.testing.assert_allclose(found, [*losses_, 0.0], rtol=1e-6)
    np.testing.assert_allclose(
        joint.params["Dense_0"]["kernel"],
        single.params["Dense_0"]["kernel"],
        rtol=1e-6,
    )


def test_fixed_noise_does_not_depend_on_the_batch_and_online_noise_on_the_step(
    parts, data
):
    keys = _keys()
    look = jax.jit(training._corrupt_and_augment, static_argnums=0)
    both = training._Keys(*keys)
    _, whole = look(parts, data, np.arange(6), both)
    order = np.array([3, 0, 5])
    _, part = look(parts, jax.tree.map(lambda x: x[order], data), np.arange(3), both)
    np.testing.assert_array_equal(part, np.asarray(whole)[order])
    assert (np.asarray(whole) != data.labels).mean() == pytest.approx(0.3, abs=0.12)

    def loss(online, step):
        state = _state(parts).replace(step=jnp.asarray(step))
        return float(train(parts._replace(online=online), state, data, *keys)[1])

    assert loss(False, 0) == loss(False, 1)
    assert loss(True, 0) != loss(True, 1)


def test_the_average_is_that_of_the_recurrence_and_is_evaluated(parts, data):
    parts = parts._replace(ema_decay=0.5)
    state = _state(parts, ema=True)
    expected = float(state.params["Dense_0"]["kernel"][0, 0])
    for step in range(12):
        state, _ = train(parts, state, data, *_keys())
        decay = min(0.5, (step + 1) / (step + 10))
        new = float(state.params["Dense_0"]["kernel"][0, 0])
        expected = decay * expected + (1 - decay) * new
    found = state.variables()["params"]["Dense_0"]["kernel"]
    np.testing.assert_allclose(found, [[expected]], rtol=1e-5)


PLATFORMS = ("cpu", "cuda", "tpu")


@pytest.fixture(scope="module")
def small(parts, data):
    """A U-Net with every feature of a step, its state and two examples."""
    model = models.UNet(width=4, depth=1)
    parts = parts._replace(model=model, optimizer=optax.adam(0.1), ema_decay=0.9)
    batch = jax.tree.map(lambda x: x[:2], data)
    return parts, _state(parts, ema=True), batch


def test_the_evaluation_step_lowers_for_devices_that_are_not_there(small):
    parts, state, batch = small
    matrix = np.float32([[0.7, 0.3], [0.3, 0.7]])
    step = jax.jit(partial(training.eval_step, parts, matrix=matrix))
    exported = jax.export.export(step, platforms=PLATFORMS)(state.variables(), batch)
    assert exported.platforms == PLATFORMS
    found, probability = jax.jit(exported.call)(state.variables(), batch)
    expected, close = step(state.variables(), batch)
    np.testing.assert_array_equal(found.statistics.argmax, expected.statistics.argmax)
    np.testing.assert_allclose(probability, close, rtol=1e-5)


def _batches(data, size):
    """Consecutive batches, the last one filled up with void."""
    places = np.arange(-(-6 // size) * size).reshape(-1, size)
    for rows in places:
        batch = jax.tree.map(lambda x, rows=rows: x[np.minimum(rows, 5)], data)
        void = np.where(rows[:, None, None] < 6, batch.labels, 255)
        yield batch._replace(labels=void.astype(np.uint8))


def test_evaluation_does_not_depend_on_the_batch_size(parts, data):
    variables = _state(parts).variables()
    step = jax.jit(partial(training.eval_step, parts, matrix=None))
    results = [
        training.evaluate(step, variables, _batches(data, n), 6, keep=5)
        for n in (2, 4, 6)
    ]
    for found, probability in results:
        assert found.statistics.argmax.shape == (6, 2, 2)
        assert found.statistics.argmax.sum() == 6 * 64
        assert probability.shape == (5, 8, 8, 2)
        np.testing.assert_array_equal(
            found.statistics.histogram, results[0][0].statistics.histogram
        )
        np.testing.assert_allclose(found.loss, results[0][0].loss, rtol=1e-5)
