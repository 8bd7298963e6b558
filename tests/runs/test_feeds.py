"""A run is the same wherever its examples come from."""

import json

import jax
import numpy as np
import pytest
import stored

from metaseg import checkpoint
from metaseg.data import synthetic
from metaseg.runs import config as config_lib
from metaseg.runs import defaults, sources
from metaseg.runs.training import evaluation, feeds, setup
from metaseg.runs.training import run as run_lib
from metaseg.runs.training.run import train


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    path = tmp_path_factory.mktemp("data")
    rng = np.random.default_rng(0)
    counts = {"train": 7, "val": 3, "test": 3}
    stored.write(
        path, {s: stored.random_examples(rng, n, low=8) for s, n in counts.items()}
    )
    return path


def config(data_dir, **changes):
    config = defaults.get_config()
    config.update_from_flattened_dict(
        {
            "data.name": "prepared",
            "data.dir": str(data_dir),
            "data.dataset": "tiny/plain",
            "noise.name": "flip",
            "noise.rate": 0.2,
            "augment.crop": 8,
            "model.width": 2,
            "model.depth": 1,
            "training.steps": 6,
            "parallel.devices": 1,
            "training.batch_size": 4,
            "training.eval_batch_size": 2,
            "training.log_every": 1,
            "training.eval_every": 3,
        }
        | changes
    )
    return config


@pytest.fixture(scope="module")
def runs(data_dir, tmp_path_factory):
    """The same run on device and from disk."""
    path = tmp_path_factory.mktemp("runs")
    for name, memory_gb in (("memory", 1.0), ("disk", 0.0)):
        train(config(data_dir, **{"data.memory_gb": memory_gb}), workdir=path / name)
    return path


def results(workdir):
    return json.loads((workdir / "results.json").read_text())


def test_a_run_from_disk_is_the_run_from_memory_bit_for_bit(runs):
    rows = []
    for name in ("memory", "disk"):
        lines = (runs / name / "metrics.jsonl").read_text().splitlines()
        rows.append([json.loads(line) for line in lines])
        for row in rows[-1]:
            row.pop("images_per_second", None)
    assert rows[0] == rows[1]
    assert results(runs / "memory")["test"] == results(runs / "disk")["test"]
    assert results(runs / "memory")["noise"] == results(runs / "disk")["noise"]


def test_the_share_of_time_spent_waiting_for_data_is_reported(runs):
    assert results(runs / "memory")["time"]["data_wait_share"] == 0
    assert 0 < results(runs / "disk")["time"]["data_wait_share"] < 1


def test_the_best_validated_weights_are_kept(runs, data_dir):
    best = results(runs / "memory")["best"]
    rows = (runs / "memory" / "metrics.jsonl").read_text().splitlines()
    val = {
        row["step"]: row["iou"]
        for row in map(json.loads, rows)
        if row["split"] == "val"
    }
    assert best["iou"] == val[best["step"]] == max(val.values())
    c = config(data_dir)
    layout = setup.build_layout(c)
    made = setup.build(config_lib.resolve(c), runs, sources.load(c), layout)
    batches = setup.in_order(made.config, made.data, made.layout, made.data.val)
    state = layout.put_state(made.initial_state())
    programs = run_lib._compile(made.config, made.data, layout, {})
    kept = checkpoint.Checkpoints(runs / "memory" / "checkpoints", read_only=True)
    assert best["step"] in kept.steps()
    state = kept.restore(best["step"], state).state
    (values,) = evaluation.validate(programs, state, batches, len(made.data.val))
    assert values["iou"] == best["iou"]


def test_lengths_in_epochs_become_steps(data_dir):
    c = config(data_dir, **{"training.epochs": 8.0, "optimizer.step_epochs": 2.0})
    found = config_lib.resolve(c, sources.load(c))
    assert found.training.steps == 14  # 8 epochs of 7 examples, 4 a step
    assert found.optimizer.step_every == 4  # 3.5, rounded to even
    assert (c.training.steps, c.optimizer.step_every) != (14, 4)  # left as given


def test_an_endless_feed_renders_new_examples_that_no_other_split_has(tmp_path):
    c = defaults.get_config()
    c.update_from_flattened_dict(
        {
            "data.endless": True,
            "data.height": 16,
            "data.width": 16,
            "data.train_size": 2,
            "data.val_size": 2,
            "data.test_size": 2,
            "augment.crop": 16,
            "model.width": 2,
            "model.depth": 1,
            "training.steps": 3,
            "parallel.devices": 1,
            "training.batch_size": 4,
            "training.log_every": 1,
        }
    )
    data = sources.load(c)
    feed = feeds.build([c], data.train, setup.build_layout(c))
    rows = np.concatenate([np.ravel(r) for _, r, _ in feed.dispatches(0, 3)])
    np.testing.assert_array_equal(rows, np.arange(12))
    gather = jax.jit(feeds.renderer(c))
    batch = gather((), rows.reshape(3, 4)[1])
    same = synthetic.examples(
        np.uint32(0), rows[4:8], family="cells", height=16, width=16
    )
    assert batch.images.shape == (4, 16, 16, 1)
    assert not np.array_equal(batch.images, same[0])  # drawn from another seed
    np.testing.assert_array_equal(gather((), rows[4:8]).labels, batch.labels)
    train(c, workdir=tmp_path / "run")
    assert results(tmp_path / "run")["data"]["train"] == "endless"
