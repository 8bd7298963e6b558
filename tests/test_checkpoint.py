"""What was saved comes back whole, or the one before it does."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from metaseg import checkpoint
from metaseg.errors import InputError
from metaseg.runs import loop


def tree(offset=0.0):
    params = {"a": jnp.arange(2000.0) + offset, "b": {"c": jnp.ones((2, 3), jnp.int32)}}
    return {"params": params, "opt_state": optax.sgd(0.1, 0.9).init(params)}


def save_all(folder, scores):
    checkpoints = checkpoint.Checkpoints(folder)
    for step, score in scores.items():
        checkpoints.save(step, tree(step), {"history": [{"step": step}]}, score)
    checkpoints.wait()
    return checkpoints


def test_state_and_progress_come_back(tmp_path):
    save_all(tmp_path, {1: 0.5}).close()
    found = checkpoint.Checkpoints(tmp_path).restore_newest(tree())
    assert (found.step, found.progress) == (1, {"history": [{"step": 1}]})
    for a, b in zip(
        jax.tree.leaves(found.state), jax.tree.leaves(tree(1)), strict=True
    ):
        np.testing.assert_array_equal(a, b)
        assert a.dtype == b.dtype
    assert jax.tree.structure(found.state) == jax.tree.structure(tree())


def test_the_two_newest_and_the_best_are_kept_of_equals_the_latest(tmp_path):
    scores = {1: 0.1, 2: 0.9, 3: 0.9, 4: 0.3, 5: None, 6: 0.2}
    checkpoints = save_all(tmp_path, scores)
    assert checkpoints.steps() == [3, 5, 6]
    checkpoints.close()
    known = {step: score for step, score in scores.items() if score is not None}
    assert checkpoint.best_step(known) == 3


def test_scores_that_are_equal_or_undefined_choose_no_step():
    nan = float("nan")
    assert checkpoint.best_step({}) is None
    assert checkpoint.best_step({1: nan}) is None
    assert checkpoint.best_step({1: 0.0, 2: 0.0, 3: nan}) is None
    assert checkpoint.best_step({1: nan, 2: 0.3}) == 2
    assert checkpoint.best_step({1: 0.5, 2: 0.5, 3: 0.1}) == 2


def test_without_a_checkpoint_nothing_is_restored(tmp_path):
    assert checkpoint.Checkpoints(tmp_path / "empty").restore_newest(tree()) is None


def test_what_is_saved_may_be_donated_at_once(tmp_path):
    overwrite = jax.jit(lambda x: jax.tree.map(lambda a: a * 0, x), donate_argnums=0)
    state = jax.tree.map(jnp.copy, tree(7))
    checkpoints = checkpoint.Checkpoints(tmp_path)
    checkpoints.save(1, state, {})
    for _ in range(20):
        state = overwrite(state)
    found = checkpoints.restore_newest(tree())
    np.testing.assert_array_equal(found.state["params"]["a"], tree(7)["params"]["a"])


def test_progress_may_grow_at_once(tmp_path):
    checkpoints = checkpoint.Checkpoints(tmp_path)
    for step in range(1, 11):
        history = [{"step": step}]
        checkpoints.save(step, tree(step), {"history": history})
        history.extend({"step": later} for later in range(1000))
    checkpoints.wait()
    for step in checkpoints.steps():
        assert checkpoints.progress(step) == {"history": [{"step": step}]}


def test_a_state_goes_to_other_devices_than_it_came_from(tmp_path):
    save_all(tmp_path, {1: None}).close()
    mesh = jax.sharding.Mesh(np.array(jax.devices()), "data")
    everywhere = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())
    like = jax.device_put(tree(), everywhere)
    found = checkpoint.Checkpoints(tmp_path).restore_newest(like)
    assert found.state["params"]["a"].sharding == everywhere
    np.testing.assert_array_equal(found.state["params"]["a"], tree(1)["params"]["a"])


def largest(folder):
    return max(
        (p for p in folder.rglob("*") if p.is_file()), key=lambda p: p.stat().st_size
    )


def cut(folder):
    path = largest(folder / "state")
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def remove_arrays(folder):
    largest(folder / "state").unlink()


def garble_progress(folder):
    (folder / "progress" / "metadata").write_text("{")


@pytest.mark.parametrize("damage", [cut, remove_arrays, garble_progress])
def test_a_damaged_checkpoint_is_reported_and_the_one_before_is_used(tmp_path, damage):
    save_all(tmp_path, {1: 0.1, 2: 0.2}).close()
    damage(tmp_path / "2")
    said = []
    found = checkpoint.Checkpoints(tmp_path).restore_newest(tree(), said.append)
    assert found.step == 1
    (line,) = said
    assert str(tmp_path / "2") in line
    assert "damaged" in line
    assert "\n" not in line


def test_an_error_of_the_program_is_not_taken_for_damage(tmp_path, monkeypatch):
    save_all(tmp_path, {1: 0.1, 2: 0.2}).close()

    def wrong(tree):
        return tree.no_such_attribute

    monkeypatch.setattr(checkpoint, "digest", wrong)
    said = []
    with pytest.raises(AttributeError, match="no_such_attribute"):
        checkpoint.Checkpoints(tmp_path).restore_newest(tree(), said.append)
    assert said == []


@pytest.mark.parametrize("error", [AttributeError, TypeError, NameError])
def test_an_error_of_the_program_is_not_taken_for_a_full_disk(tmp_path, error):
    def write():
        raise error("a slip")

    with pytest.raises(error, match="a slip"):
        loop.guard(checkpoint.Checkpoints(tmp_path), 1, write)


def test_if_none_can_be_read_all_are_named(tmp_path):
    save_all(tmp_path, {1: None, 2: None}).close()
    for step in "12":
        cut(tmp_path / step)
    with pytest.raises(InputError, match="steps 1, 2 can be read"):
        checkpoint.Checkpoints(tmp_path).restore_newest(tree(), lambda line: None)


def test_a_changed_value_is_told_by_the_digest():
    one, other = tree(), tree()
    other["params"]["b"]["c"] = other["params"]["b"]["c"].at[0, 0].set(2)
    assert checkpoint.digest(one) == checkpoint.digest(tree())
    assert checkpoint.digest(one) != checkpoint.digest(other)
