"""Segmentation without labels: what is read, what a round does, how a run goes on."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
from functools import partial

import jax
import numpy as np
import pytest
import tiny
from PIL import Image

from metaseg import igtt, prediction, training, unsupervised
from metaseg.batch import Batch
from metaseg.data import pipeline
from metaseg.data.dataset import Split
from metaseg.errors import InputError
from metaseg.runs import defaults, signals, sources
from metaseg.runs.igtt import baselines as igtt_baselines
from metaseg.runs.igtt import images as igtt_data
from metaseg.runs.igtt import programs as igtt_programs
from metaseg.runs.igtt import run as igtt_run
from metaseg.runs.igtt.rounds import Rounds
from metaseg.runs.training import setup, steps
from metaseg.runs.training.run import train

FIELDS = {
    "data.height": 16,
    "data.width": 16,
    "data.train_size": 5,
    "data.val_size": 2,
    "data.test_size": 3,
    "augment.crop": 16,
    "model.width": 2,
    "model.depth": 1,
    "parallel.devices": 1,
    "training.batch_size": 4,
    "training.eval_batch_size": 2,
    "igtt.sigma_coarse": 4.0,
    "igtt.num_thresholds": 12,
    "igtt.rounds": 3,
    "igtt.steps_per_round": 2,
}


def config(**changes):
    found = defaults.get_igtt_config()
    found.update_from_flattened_dict(FIELDS | changes)
    return found


def masks(workdir):
    paths = sorted(workdir.glob("masks/**/*.png"))
    return {p.relative_to(workdir / "masks").as_posix(): read(p) for p in paths}


def read(path):
    with Image.open(path) as file:
        return np.asarray(file)


def outcome(workdir):
    """All of a run that does not tell the time."""
    rows = [json.loads(x) for x in (workdir / "metrics.jsonl").read_text().splitlines()]
    for row in rows:
        del row["seconds"], row["update_share"]
    steps = [p for p in (workdir / "checkpoints").iterdir() if p.name.isdecimal()]
    newest = max(steps, key=lambda p: int(p.name))
    saved = json.loads((newest / "progress" / "metadata").read_text())
    table = json.loads((workdir / "results.json").read_text())["table"]
    pictures = {p.name: read(p).tobytes() for p in workdir.glob("evolution/*.png")}
    found = {name: mask.tobytes() for name, mask in masks(workdir).items()}
    return rows, table, int(newest.name), saved["digest"], pictures, found


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The run that nothing happens to."""
    path = tmp_path_factory.mktemp("whole") / "run"
    igtt_run.segment(config(), workdir=path, baselines=True)
    return path


def rows_of_steps(seed, count):
    """The rows of five images in batches of four."""
    return pipeline.batch_indices(
        seed=seed, start=0, num_steps=count, batch_size=4, num_examples=5
    )


@pytest.mark.parametrize("step", [3, 4])
def test_a_run_stopped_within_or_between_rounds_ends_bit_equal(whole, tmp_path, step):
    with pytest.raises(
        signals.StoppedError, match=f"by SIGTERM after step {step} of 6,"
    ):
        igtt_run.segment(config(), workdir=tmp_path, watch=tiny.StopAfter(step))
    assert not (tmp_path / "results.json").exists()
    igtt_run.segment(config(), workdir=tmp_path, resume="must")
    found, expected = outcome(tmp_path), outcome(whole)
    assert found[1] == expected[1][:1]
    assert found[:1] + found[2:] == expected[:1] + expected[2:]


def test_a_finished_run_goes_on_with_baselines_and_no_other_config(
    whole, tmp_path, monkeypatch
):
    said = []
    monkeypatch.setattr(igtt_run.progress_lib, "say", said.append)
    igtt_run.segment(config(), workdir=whole, resume="must", baselines=True)
    assert said == [f"{whole} holds this run, finished"]
    with pytest.raises(InputError, match=r"config.igtt.radius was 1, is 2"):
        igtt_run.segment(config(**{"igtt.radius": 2}), workdir=whole)


class Unread(Split):
    """A split whose labels must not be looked at."""

    def __getattribute__(self, name):
        if name == "labels":
            raise AssertionError("a label was read")
        return super().__getattribute__(name)


def test_no_label_is_read_without_leave(whole, tmp_path, monkeypatch):
    """Of all splits with "none", of the training split with "measure"."""
    load = sources.SOURCES["cells"]

    def hidden(names, c):
        data = load(c)
        kept = {n: Unread(**vars(split)) for n, split in data.splits() if n in names}
        return dataclasses.replace(data, **kept)

    every = partial(hidden, ("train", "val", "test"))
    monkeypatch.setitem(sources.SOURCES, "cells", every)
    igtt_run.segment(config(**{"igtt.labels": "none"}), workdir=tmp_path / "none")
    for name, mask in masks(tmp_path / "none").items():
        np.testing.assert_array_equal(mask, masks(whole)[name])
    assert json.loads((tmp_path / "none" / "results.json").read_text())["table"] == []
    monkeypatch.setitem(sources.SOURCES, "cells", partial(hidden, ("train",)))
    igtt_run.segment(config(**{"igtt.rounds": 1}), workdir=tmp_path / "measure")
    with pytest.raises(AssertionError, match="a label was read"):
        sources.load(config()).train.take([0])


def test_one_round_equals_the_pure_functions_called_by_hand(tmp_path, monkeypatch):
    c = config(
        **{
            "igtt.target": "sample",
            "igtt.fraction": 0.5,
            "igtt.rounds": 1,
            "igtt.polarity": "brighter",
            "igtt.criterion": "dmi",
        }
    )
    found = final_labels(c, tmp_path, monkeypatch)
    data = sources.load(c).train
    key = jax.random.split(jax.random.key(c.seed), 3)[2]
    relabel = partial(
        igtt.update_labels,
        keep=igtt.target("sample", fraction=0.5),
        polarity="brighter",
    )
    labels = jax.jit(partial(relabel, criterion="otsu", num_thresholds=256))(
        jax.random.fold_in(key, 0),
        jax.jit(partial(igtt.local_contrast, sigma_coarse=4.0))(data.images),
        data.ids,
        data.images,
    )
    parts = steps.build(c)
    weights, light = jax.random.split(jax.random.key(c.seed))
    state = training.create_state(
        weights, parts.model, parts.optimizer, (16, 16, 1), ema=True
    )
    step = jax.jit(partial(training.train_step, parts))
    for rows in rows_of_steps(c.seed, 2):
        batch = Batch(data.images, labels, data.ids, data.valid_size)
        batch = jax.tree.map(lambda x, rows=rows: x[rows], batch)
        state, _ = step(state, batch, weights, jax.random.fold_in(light, 0))
    score = jax.jit(partial(parts.model.apply, train=False))
    scores = jax.nn.sigmoid(score(state.variables(), data.images)[..., 0])
    expected = jax.jit(partial(relabel, criterion="dmi", num_thresholds=12))(
        jax.random.fold_in(key, 1), scores, data.ids, data.images
    )
    np.testing.assert_array_equal(found, expected)


def final_labels(c, workdir, monkeypatch):
    """The labels that a run ends with."""
    seen = []
    report = Rounds.report

    def looking(self, *args):
        found = report(self, *args)
        seen.append(found.state.labels)
        return found

    monkeypatch.setattr(Rounds, "report", looking)
    igtt_run.segment(c, workdir=workdir)
    return seen[-1]


def test_labels_are_the_same_on_two_devices(tmp_path, monkeypatch):
    own = {"igtt.target": "sample", "igtt.rounds": 1, "optimizer.name": "sgd"}
    found = [
        final_labels(
            config(**own, **{"parallel.devices": count}),
            tmp_path / str(count),
            monkeypatch,
        )
        for count in (1, 2)
    ]
    assert found[0].any()
    # Scores differ by rounding: a pixel next to the cut may change sides, no more.
    assert (found[0] != found[1]).sum() <= 4


def test_the_table_has_every_baseline_measured_on_the_same_images(whole):
    results = json.loads((whole / "results.json").read_text())
    table = {row["name"]: row for row in results["table"]}
    assert list(table) == [
        "iGTT, mask",
        "local contrast",
        *("Otsu", "Li", "triangle", "k-means", "Chan-Vese"),
        *(f"iGTT, {name}" for name in ("ems", "sample", "random")),
        "supervised network",
    ]
    test = sources.load(config()).test
    truth, found = test.labels == 1, masks(whole)
    own = np.stack([found[f"{name}.png"] > 0 for name in test.names])
    otsu = np.stack([unsupervised.segment(x, "otsu") for x in test.images])
    for name, mask in (("iGTT, mask", own), ("Otsu", otsu)):
        shared = (mask & truth).sum((1, 2))
        either = (mask | truth).sum((1, 2))
        row = table[name]
        assert row["iou"] == pytest.approx(shared.sum() / either.sum())
        assert row["mean_image_iou"] == pytest.approx((shared / either).mean())
    assert results["time"]["update_share"] < 1


def test_the_supervised_ceiling_is_training_on_true_labels_read_at_one_half(whole):
    c = config()
    c.training.steps = 6
    data = sources.load(c)
    parts = steps.build(c)
    weights, light = jax.random.split(jax.random.key(c.seed))
    state = training.create_state(
        weights, parts.model, parts.optimizer, (16, 16, 1), ema=True
    )
    step = jax.jit(partial(training.train_step, parts))
    split = data.train
    for i, rows in enumerate(rows_of_steps(c.seed, 6)):
        own = split.take(rows)
        batch = Batch(own.images, own.labels, own.ids, own.valid_size)
        state, _ = step(state, batch, weights, jax.random.fold_in(light, i // 2))
    score = jax.jit(partial(parts.model.apply, train=False))
    found = score(state.variables(), data.test.images)[..., 0] > 0
    found, truth = np.asarray(found), data.test.labels == 1
    table = json.loads((whole / "results.json").read_text())["table"]
    expected = (found & truth).sum() / (found | truth).sum()
    assert table[-1]["iou"] == pytest.approx(expected)


def test_the_network_is_kept_with_the_median_threshold_of_the_training_images(whole):
    run = prediction.load(whole)
    c = config()
    images = sources.load(c).train.images
    scores = jax.nn.sigmoid(run.model.apply(run.variables, images, train=False)[..., 0])
    cuts = igtt.best_threshold(scores, criterion="otsu", num_thresholds=12)
    assert run.final_threshold.value == pytest.approx(float(np.median(cuts)), rel=1e-4)
    above = prediction.decoder(run, "analytic")(np.asarray(scores[0])[..., None])
    np.testing.assert_array_equal(above, scores[0] >= run.final_threshold.value)


def test_validation_labels_choose_the_round_with_the_best_dice(tmp_path):
    igtt_run.segment(
        config(**{"igtt.labels": "choose", "igtt.rounds": 2}), workdir=tmp_path
    )
    lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
    best = max(map(json.loads, lines), key=lambda row: row["val_dice"])["round"]
    results = json.loads((tmp_path / "results.json").read_text())
    assert results["igtt"]["round"] == best


def test_masks_that_have_settled_stop_the_run(tmp_path):
    igtt_run.segment(config(**{"igtt.stop_stability": 1e-6}), workdir=tmp_path)
    results = json.loads((tmp_path / "results.json").read_text())
    rows = (tmp_path / "metrics.jsonl").read_text().splitlines()
    assert len(rows) == results["igtt"]["rounds"] < 3
    assert results["igtt"]["stability"] >= 1e-6


@pytest.fixture
def folder(tmp_path):
    """Images of several sizes and formats, one constant, one saturated."""
    rng = np.random.default_rng(0)
    images = {
        "a/first.png": rng.integers(0, 255, (20, 17)).astype(np.uint8),
        "a/second.tif": rng.integers(0, 60_000, (16, 24)).astype(np.uint16),
        "b.npy": np.full((16, 16), 7.0, np.float32),
        "c.png": np.full((18, 16, 3), 255, np.uint8),
    }
    for name, image in images.items():
        path = tmp_path / "images" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if name.endswith("npy"):
            np.save(path, image)
        else:
            Image.fromarray(image).save(path)
    return tmp_path / "images"


EXTRAS = {
    "igtt.start": "black",
    "igtt.target_sigma": 2.0,
    "igtt.ema_decay": 0.5,
    "igtt.reinitialise": True,
    "igtt.min_radius": 1,
    "igtt.boundary_sigma": 2.0,
}


def test_a_folder_of_images_alone_gives_a_mask_of_each(folder, tmp_path):
    own = {"data.name": "images", "data.dir": str(folder), "igtt.labels": "none"}
    igtt_run.segment(config(**own, **EXTRAS), workdir=tmp_path / "run")
    found = masks(tmp_path / "run")
    shapes = {name: mask.shape for name, mask in found.items()}
    assert shapes == {
        "a/first.png": (20, 17),
        "a/second.png": (16, 24),
        "b.png": (16, 16),
        "c.png": (18, 16),
    }
    assert (tmp_path / "run" / "overlays" / "a" / "first.png").is_file()
    rows = (tmp_path / "run" / "metrics.jsonl").read_text()
    assert "null" not in rows
    assert all(set(np.unique(mask)) <= {0, 255} for mask in found.values())
    page = (tmp_path / "run" / "report.html").read_text()
    assert "a/second" in page
    assert "Against the labels" not in page


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"igtt.start": "white"}, "config.igtt.start: .*'white'"),
        ({"igtt.target": "spots"}, "config.igtt.target: .*'spots'"),
        ({"igtt.criterion": "dice"}, "config.igtt.criterion: .*'dice'"),
        ({"igtt.polarity": "larger"}, "config.igtt.polarity: .*'larger'"),
        ({"igtt.labels": "all"}, "config.igtt.labels: .*'all'"),
        ({"igtt.radius": -1}, "config.igtt.radius: got -1"),
        ({"igtt.min_radius": -1}, "config.igtt.min_radius: got -1"),
        ({"igtt.boundary_sigma": -1.0}, "config.igtt.boundary_sigma: got -1"),
        ({"igtt.num_thresholds": 2}, "config.igtt.num_thresholds: got 2"),
        ({"igtt.rounds": 0}, "config.igtt.rounds: got 0"),
        ({"igtt.steps_per_round": 0}, "config.igtt.steps_per_round: got 0"),
        ({"igtt.fraction": 1.5}, r"config.igtt.fraction: got 1\.5"),
        ({"igtt.target_sigma": -1.0}, "config.igtt.target_sigma: got -1"),
        ({"igtt.ema_decay": 2.0}, "config.igtt.ema_decay: got 2"),
        ({"igtt.stop_stability": 2.0}, "config.igtt.stop_stability: got 2"),
        ({"igtt.sigma_coarse": 1.0}, "config.igtt.sigma_coarse: got 1"),
        ({"data.name": "images"}, "config.igtt.labels: got 'measure'"),
        ({"data.name": "photos"}, "config.data.name: got 'photos'"),
        ({"data.name": "tissue", "data.num_classes": 4}, "config.data.num_classes: "),
        ({"data.endless": True}, "config.data.endless: got True"),
        ({"noise.name": "flip"}, "config.noise.name: got 'flip'"),
        ({"parallel.ensemble": 2}, "config.parallel.ensemble: got 2"),
        ({"training.epochs": 3.0}, r"config.training.epochs: got 3\.0"),
        ({"augment.illumination": -1.0}, r"config.augment.illumination: got -1"),
    ],
)
def test_each_wrong_field_is_named_in_one_line(tmp_path, changes, said):
    with pytest.raises(InputError, match=said) as caught:
        igtt_run.segment(config(**changes), workdir=tmp_path / "run")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "run").exists()


def test_training_with_labels_refuses_a_config_without():
    with pytest.raises(InputError, match=r"config: has a section igtt, .*igtt.py"):
        train(config())


def test_large_images_are_scored_in_smaller_batches(monkeypatch):
    c = config(**{"training.eval_batch_size": 4})
    images = igtt_data.images_of(sources.load(c).train)
    layout = setup.build_layout(c)
    monkeypatch.setattr(igtt_programs, "PIXELS", 2 * 16 * 16)
    placed = igtt_programs.place(c, layout, images)
    assert [len(each.images.ids) for each in placed] == [2, 2, 2]


def test_folders_that_cannot_be_segmented_are_named(folder, tmp_path):
    own = {"data.name": "images", "igtt.labels": "none"}

    def fails(said, **changes):
        with pytest.raises(InputError, match=said):
            igtt_run.segment(config(**own, **changes), workdir=tmp_path / "run")

    fails(r"config.data.dir: no folder ''")
    (tmp_path / "empty").mkdir()
    fails(r"config.data.dir: no image at", **{"data.dir": str(tmp_path / "empty")})
    here = {"data.dir": str(folder)}
    fails("config.data.memory_gb: got 1e-06", **here, **{"data.memory_gb": 1e-6})
    fails(
        r"config.augment.crop: .*'a/second' is 16 x 24", **here, **{"augment.crop": 17}
    )
    (folder / "d.png").write_bytes(b"no image")
    (folder / "e.png").write_bytes(b"none either")
    fails(r"d\.png.*and 1 more file\)", **here)
    with pytest.raises(InputError, match=r"baselines: config.igtt.labels is 'none'"):
        igtt_run.segment(
            config(**own, **here), workdir=tmp_path / "run", baselines=True
        )


def test_darker_objects_are_what_brighter_ones_are_in_the_negative():
    image = np.random.default_rng(0).normal(size=(16, 16, 1))
    image[4:9, 4:9] -= 6
    found = igtt_baselines.segment(image, "otsu", "darker")
    expected = igtt_baselines.segment(-image, "otsu", "brighter")
    np.testing.assert_array_equal(found, expected)
    assert found[5:8, 5:8].all()
    assert found.mean() < 0.2


def test_padding_is_not_valid_and_batches_hold_every_image_in_order():
    split = Split(
        images=np.zeros((3, 6, 5, 1), np.float32),
        labels=np.zeros((3, 6, 5), np.uint8),
        ids=np.arange(3, dtype=np.uint32),
        names=("a", "b", "c"),
        valid_size=np.array([[6, 5], [4, 5], [2, 3]], np.int32),
    )
    images = igtt_data.images_of(split)
    assert images.valid.sum((1, 2)).tolist() == [30, 20, 6]
    assert images.valid[2, :2, :3].all()
    batches = list(igtt_data.in_batches(images, 2))
    assert [batch.ids.tolist() for batch in batches] == [[0, 1], [2, 2]]


def test_the_command_stops_for_a_signal_and_says_what_is_wrong(tmp_path):
    values = FIELDS | {"igtt.rounds": 100_000}
    fields = [f"--config.{name}={value}" for name, value in values.items()]
    script = str(tiny.ROOT / "experiments" / "igtt.py")
    start = [sys.executable, script, f"--workdir={tmp_path / 'run'}"]
    cells = f"--config={tiny.ROOT / 'configs' / 'cell_igtt.py'}"
    wrong = subprocess.run(
        [*start, cells, "--config.igtt.round=3"],
        cwd=tiny.ROOT,
        capture_output=True,
        text=True,
    )
    assert wrong.returncode == 2
    assert wrong.stderr.startswith("error: --config.igtt.round: no such field")
    run = tiny.start(
        os.environ["JAX_COMPILATION_CACHE_DIR"],
        [*start, cells, *fields],
    )
    for line in run.stderr:
        if line.startswith("step"):
            break
    run.send_signal(signal.SIGTERM)
    _, said = run.communicate(timeout=300)
    assert run.returncode == signals.EXIT_STATUS, said
    assert said.splitlines()[-1].endswith(f"resume with --workdir={tmp_path / 'run'}")
