"""However a run is laid out, it is the same run."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from metaseg import checkpoint, losses, models, noise, parallel, training
from metaseg.batch import Batch
from metaseg.errors import InputError

SIZE, EXAMPLES, BATCH, STEPS = 16, 24, 16, 20
LAYOUTS = [("jit", 2), ("jit", 8), ("pmap", 2), ("pmap", 8)]


def turn(key, image, label, valid_size):
    """An augmentation that does depend on its key."""
    del valid_size
    turned = jax.random.bernoulli(key)
    return tuple(jnp.where(turned, x.swapaxes(0, 1), x) for x in (image, label))


def parts(norm="batch", **changes):
    step = training.Step(
        model=models.UNet(width=2, depth=1, norm=norm),
        optimizer=optax.sgd(0.05, momentum=0.9),
        loss=losses.cross_entropy_sums,
        noise=partial(noise.flip, rate=0.2),
        augment=turn,
    )
    return step._replace(**changes)


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(0)
    label = rng.integers(0, 2, (EXAMPLES, SIZE, SIZE)).astype(np.uint8)
    image = label[..., None] + rng.normal(size=(*label.shape, 1))
    # Void is where the mean of the parts' means is not the mean.
    label[rng.random(label.shape) < np.linspace(0, 0.8, EXAMPLES)[:, None, None]] = 255
    ids = rng.integers(0, 2**32, EXAMPLES, dtype=np.uint32)
    valid_size = np.full((EXAMPLES, 2), SIZE, np.int32)
    return Batch(image.astype(np.float32), label, ids, valid_size)


def layout(partitioner="jit", devices=1, members=1):
    return parallel.build(partitioner, devices=jax.devices()[:devices], members=members)


def rows(seed=0):
    rng = np.random.default_rng(seed)
    return rng.integers(0, EXAMPLES, (STEPS, BATCH)).astype(np.int32)


def settings(seed=0):
    keys = jax.random.split(jax.random.key(seed))
    return tuple(np.asarray(jax.random.key_data(key)) for key in keys)


def initial(step, seed=0):
    shape = (SIZE, SIZE, 1)
    return training.create_state(
        jax.random.key(seed), step.model, step.optimizer, shape
    )


def run(where, step, data, taken=STEPS, *, seeds=(0,), program=None):
    """Losses `[steps]` or `[steps, members]`, the final state, and the program."""
    model = step.model.clone(axis_name=where.axis_name)
    local = step._replace(model=model, axis_name=where.axis_name)

    def train(settings, state, data, rows, count):
        keys = map(jax.random.wrap_key_data, settings)
        return training.train_steps(local, state, data, rows, count, *keys)

    def stacked(values, axis=0):
        return jax.tree.map(lambda *x: np.stack(x, axis), *values)

    states = [initial(step, seed) for seed in seeds]
    told, order = [settings(s) for s in seeds], [rows(s) for s in seeds]
    if where.members > 1:
        states, told, order = stacked(states), stacked(told), stacked(order, 1)
    else:
        (states,), (told,), (order,) = states, told, order
    state, told = where.put_state(states), where.put_settings(told)
    here = where.put_data(data)
    if program is None:
        program = where.train(train, told, state, here, where.put_rows(order[:1]), 1)
    found = []
    for i in range(taken):
        part = where.put_rows(order[i : i + 1])
        state, losses_ = program(told, state, here, part, 1)
        found.append(where.to_host(losses_)[0])
    return np.array(found), where.get_state(state), program


@pytest.fixture(scope="module")
def alone(data):
    return run(layout(), parts(), data)


@pytest.mark.parametrize(("partitioner", "devices"), LAYOUTS)
def test_losses_over_20_steps_do_not_depend_on_partitioner_and_devices(
    alone, data, partitioner, devices
):
    found, state, _ = run(layout(partitioner, devices), parts(), data)
    assert len(set(alone[0])) == STEPS
    np.testing.assert_allclose(found, alone[0], rtol=1e-5)
    for a, b in zip(*map(jax.tree.leaves, (state, alone[1])), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)


@pytest.mark.parametrize(("partitioner", "devices"), LAYOUTS)
def test_noisy_labels_are_the_same_bits_on_any_layout(data, partitioner, devices):
    def corrupt(settings, state, batch):
        del state
        noisy = noise.per_example(parts().noise)(
            jax.random.wrap_key_data(settings[0]), batch.labels, batch.ids
        )
        return noisy, noisy

    def labels(where):
        told, state = where.put_settings(settings()), where.put_state(jnp.zeros(1))
        batch = where.put_batch(data)
        program = where.evaluate(corrupt, told, state, batch)
        return where.to_host(program(told, state, batch)[0])

    expected = labels(layout())
    assert 0.1 < np.mean(expected != data.labels) < 0.2  # 20 % of what is labelled
    np.testing.assert_array_equal(labels(layout(partitioner, devices)), expected)


def test_accumulated_gradients_are_those_of_the_whole_batch(data):
    whole, *_ = run(layout(), parts("group"), data, 5)
    found, *_ = run(layout("pmap", 2), parts("group", grad_accum_steps=2), data, 5)
    np.testing.assert_allclose(found, whole, rtol=1e-5)


def test_parts_of_a_batch_are_the_same_on_any_number_of_devices(alone, data):
    """Batch norm, which sees each part by itself, would show it."""
    one, *_ = run(layout(), parts(grad_accum_steps=2), data, 5)
    assert np.abs(one / alone[0][:5] - 1).max() > 1e-4
    found, *_ = run(layout("jit", 8), parts(grad_accum_steps=2), data, 5)
    np.testing.assert_allclose(found, one, rtol=1e-5)


@pytest.fixture(scope="module")
def separate(alone, data):
    where, program = layout(), alone[2]
    runs = [
        run(where, parts(), data, 10, seeds=(seed,), program=program)[0]
        for seed in range(4)
    ]
    return np.stack(runs, axis=1)


@pytest.mark.parametrize(
    "where",
    [
        lambda: layout("jit", 1, 4),  # vmapped
        lambda: layout("jit", 2, 4),  # two members on each device
        lambda: layout("jit", 8, 4),  # two devices for each member
        lambda: layout("pmap", 2, 4),
        lambda: parallel.in_turns(layout("jit", 2), 4),
    ],
    ids=["vmap", "split", "both", "pmap", "turns"],
)
def test_members_of_an_ensemble_are_the_separate_runs(data, separate, where):
    found, state, _ = run(where(), parts(), data, 10, seeds=range(4))
    np.testing.assert_allclose(found, separate, rtol=1e-5)
    assert np.ptp(found[-1]) > 1e-3  # members do differ
    assert {x.shape[0] for x in jax.tree.leaves(state)} == {4}


@pytest.mark.parametrize("members", [1, 3])
def test_evaluation_brings_examples_in_order_and_members_first(data, members):
    def look(settings, state, batch):
        del settings
        return batch.ids + state.astype(jnp.uint32), batch.images * state

    batch = jax.tree.map(lambda x: x[:8], data)
    state = np.arange(members) * 100 if members > 1 else np.array(100)
    expected = np.add.outer(state, batch.ids)
    ways = [layout("jit", 2, members), layout("pmap", 4, members)]
    if members > 1:
        ways.append(parallel.in_turns(layout("jit", 4), members))
    for where in ways:
        args = where.put_settings(state), where.put_state(state), where.put_batch(batch)
        ids, image = where.evaluate(look, *args)(*args)
        np.testing.assert_array_equal(where.to_host(ids), expected)
        assert where.to_host(image).shape == (*np.shape(state), 8, SIZE, SIZE, 1)


def test_a_checkpoint_comes_back_onto_any_other_layout(alone, tmp_path):
    kept = checkpoint.Checkpoints(tmp_path)
    eight = layout("jit", 8)
    kept.save(1, eight.get_state(eight.put_state(alone[1])), {})
    kept.wait()
    for where in (layout(), layout("jit", 2), layout("pmap", 4)):
        like = where.get_state(where.put_state(jax.tree.map(np.zeros_like, alone[1])))
        found = where.put_state(kept.restore(1, like).state)
        back = where.get_state(found)
        jax.tree.map(np.testing.assert_array_equal, back, alone[1])
    kept.close()


def test_batch_sizes_are_rounded_up_to_what_can_be_spread():
    assert layout("jit", 8).round_up(3) == 8
    assert layout("pmap", 4).round_up(8) == 8
    assert layout("jit", 8, members=4).round_up(3) == 4


def test_an_unknown_partitioner_is_named():
    with pytest.raises(InputError, match=r"^parallel\.partitioner: got 'xmap'.*pm"):
        parallel.build("xmap")


def test_the_memory_that_a_step_needs_grows_with_its_batch():
    where = layout()

    def step(settings, state, data, rows, count):
        del settings, count
        return state, jnp.tanh(data[rows]).sum((0, 1))

    def need(size):
        args = (), jnp.zeros(1), jnp.zeros((64, 1000)), np.zeros((1, size), int), 1
        return where.train(step, *args).device_bytes()

    assert need(64) >= need(8) > 4 * 64 * 1000
