"""One rule says which weights are measured, predict, and are exported.

Runs can start from the weights of others, be trained for longer, and predict before
they are finished.
"""

import json
import re
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest
import tiny
from PIL import Image
from tiny import StopAfter, outcome

import metaseg
from metaseg import cli, decoding, metrics, optimizers, prediction
from metaseg.data import from_arrays
from metaseg.errors import InputError
from metaseg.runs import signals
from metaseg.runs.predict import predict
from metaseg.runs.training import evaluation
from metaseg.runs.training import run as run_lib
from metaseg.runs.training.run import train

RNG = np.random.default_rng(0)
LABELS = np.zeros((11, 16, 16), np.uint8)
for one, (row, column) in zip(LABELS, RNG.integers(0, 8, (11, 2)), strict=True):
    one[row : row + 7, column : column + 7] = 1
IMAGES = np.uint8(np.clip(100 + 60 * LABELS + RNG.normal(0, 25, LABELS.shape), 0, 255))
DATA = from_arrays(
    IMAGES[:8],
    LABELS[:8],
    val=(IMAGES[6:8], LABELS[6:8]),
    test=(IMAGES[8:], LABELS[8:]),
)
SCORES = {4: 0.5, 8: 0.9, 12: 0.1}


def config(**changes):
    # The threshold of such noise is not 1/2, so that decision rules differ.
    return tiny.config(**{"noise.rate": (0.1, 0.4)} | changes)


def scored(monkeypatch, scores):
    """Validations that have the given IoU, in their order."""
    left = iter(scores.values() if isinstance(scores, dict) else scores)

    def validate(programs, state, batches, count):
        del state, batches, count
        score = next(left)
        return [{"loss": 0.5, "iou": score}] * programs.layout.members

    monkeypatch.setattr(evaluation, "validate", validate)


@pytest.mark.parametrize(
    ("rule", "scores", "step", "note"),
    [
        ("last", {4: 0.9, 8: 0.1}, 12, ""),
        ("best", {4: 0.9, 8: 0.1}, 4, ""),
        ("best", {4: 0.9, 8: 0.9, 12: 0.1}, 8, ""),
        ("best", {4: 0.0, 8: 0.0, 12: 0.0}, 12, "every validation score is 0.0000"),
        ("best", {4: np.nan}, 12, "every validation score is undefined"),
        ("best", {}, 12, "there was no validation"),
    ],
)
def test_the_rule_chooses(rule, scores, step, note):
    choice = evaluation.choose(rule, scores, 12)
    assert (choice.step, choice.rule) == (step, rule)
    assert choice.note == (f"{note}: the last weights are taken" if note else "")


def test_scores_of_an_ensemble_are_means_of_the_members_that_have_not_diverged():
    histories = [
        [{"step": s, "split": "val", "iou": v} for s, v in ((4, 0.2), (8, 0.4))],
        [{"step": s, "split": "val", "iou": v} for s, v in ((4, 0.6), (8, 1.0))],
    ]
    found = evaluation.validation_scores(histories, [0, 0])
    assert found == pytest.approx({4: 0.4, 8: 0.7})
    assert evaluation.validation_scores(histories, [0, 6]) == {4: 0.4, 8: 0.4}
    histories[0][0]["iou"] = None
    assert np.isnan(evaluation.validation_scores(histories, [0, 0])[4])


@pytest.fixture(scope="module")
def last(tmp_path_factory):
    path = tmp_path_factory.mktemp("last") / "run"
    return train(config(), DATA, workdir=path, quiet=True)


@pytest.fixture(scope="module")
def best(tmp_path_factory):
    """The same run, whose best validation is that of step 8."""
    path = tmp_path_factory.mktemp("best") / "run"
    with pytest.MonkeyPatch.context() as monkeypatch:
        scored(monkeypatch, SCORES)
        fields = {"training.weights": "best"}
        return train(config(**fields), DATA, workdir=path, quiet=True)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """The test images and their labels as files."""
    root = tmp_path_factory.mktemp("files")
    for kind, arrays in (("images", IMAGES[8:]), ("labels", 255 * LABELS[8:])):
        (root / kind).mkdir()
        for i, array in enumerate(arrays):
            Image.fromarray(array).save(root / kind / f"{i}.png")
    return root


@pytest.mark.parametrize("name", ["last", "best"])
@pytest.mark.parametrize("rule", ["analytic", "argmax", "validation"])
def test_results_and_prediction_have_the_same_numbers(
    request, files, tmp_path, capsys, name, rule
):
    run = request.getfixturevalue(name)
    step, which = {"last": (12, "last"), "best": (8, "best validated")}[name]
    assert run.results["weights"] == {
        "rule": name,
        "step": step,
        "described": f"step {step}, the {which}",
    }
    status = cli.main(
        [
            "predict",
            f"--run={run.folder}",
            f"--images={files / 'images'}",
            f"--labels={files / 'labels'}",
            f"--output={tmp_path}",
            f"--decision_rule={rule}",
        ]
    )
    assert status == 0
    found = json.loads((tmp_path / "metrics.json").read_text())["pooled"]
    for measure, value in found.items():
        assert value == run.results["test"][measure][rule], measure
    said = capsys.readouterr().out.splitlines()
    (line,) = (line for line in said if "images at" in line)
    assert f"weights: step {step}, the {which}; decision rule: {rule}" in line
    assert f"step {step}, the {which}" in (tmp_path / "index.html").read_text()
    assert f"step {step}, the {which}" in (run.folder / "report.html").read_text()


@pytest.mark.parametrize("num_classes", [2, 3])
def test_images_of_any_size_have_the_same_numbers_too(num_classes):
    """Neither side of these is a multiple of what prediction extends images to."""
    sizes = [(24, 33), (17, 40), (24, 33), (40, 20), (17, 40), (24, 33)]
    draws = [np.random.default_rng(i) for i in range(len(sizes))]
    labels = [
        rng.integers(0, num_classes, [-(-side // 8) for side in size])
        .repeat(8, 0)
        .repeat(8, 1)[: size[0], : size[1]]
        .astype(np.uint8)
        for rng, size in zip(draws, sizes, strict=True)
    ]
    images = [
        np.uint8(np.clip(60 + 60 * label + rng.normal(0, 20, label.shape), 0, 255))
        for rng, label in zip(draws, labels, strict=True)
    ]
    data = from_arrays(
        images, labels, val=(images[:3], labels[:3]), test=(images, labels)
    )
    fields = {"augment.crop": 16, "report.images": 5, "data.num_classes": num_classes}
    fields |= {"data.name": "folder", "noise.rate": 0.2, "training.steps": 4}
    run = train(config(**fields), data, quiet=True)
    true = dict(zip(data.test.names, labels, strict=True))
    for rule in ("analytic", "argmax", "validation")[: 4 - num_classes + 1]:
        found = run.predict(images, decision_rule=rule)
        matrices = [
            metrics.confusion_matrix(p.labels[None], label[None], num_classes)[0]
            for p, label in zip(found, labels, strict=True)
        ]
        for measure, value in decoding.measure(np.array(matrices)).items():
            assert value == run.results["test"][measure][rule], (measure, rule)
    for panel in run.panels:
        (found,) = run.predict([images[int(panel.name)]])
        np.testing.assert_array_equal(panel.clean, true[panel.name])
        np.testing.assert_array_equal(panel.prediction, found.labels)
    assert len(run.panels) == 5


def test_the_two_rules_measure_other_weights_of_the_same_run(last, best):
    assert best.results["best"] == {"step": 8, "iou": 0.9}
    losses = [
        [row["loss"] for row in run.history if row["split"] == "train"]
        for run in (last, best)
    ]
    assert losses[0] == losses[1]
    assert last.results["test"]["loss"] != best.results["test"]["loss"]


def test_library_export_and_memory_take_the_same_weights(best, tmp_path, monkeypatch):
    scored(monkeypatch, SCORES)
    memory = train(config(**{"training.weights": "best"}), DATA, quiet=True)
    assert memory.results["test"] == best.results["test"]
    saved = metaseg.load(memory.save(tmp_path / "saved"))
    path = tmp_path / "best.stablehlo"
    best.export(path, platforms=("cpu",))
    exported = prediction.load_export(path)(IMAGES[8:, ..., None].astype(np.float32))
    expected = best.predict(IMAGES[8:])
    for found in (memory, saved, metaseg.load(best.folder)):
        assert found.results["weights"]["step"] == 8
        assert found.predictor.weights == "step 8, the best validated"
        for one, other in zip(found.predict(IMAGES[8:]), expected, strict=True):
            np.testing.assert_array_equal(one.scores, other.scores)
    for labels, scores, other in zip(*exported, expected, strict=True):
        np.testing.assert_allclose(scores[..., 0], other.scores[..., 1], atol=1e-5)
        assert (labels != other.labels).mean() < 0.01
    with pytest.raises(InputError, match="overwrite=True to replace the run in it"):
        memory.save(tmp_path / "saved")
    (tmp_path / "saved" / "mine.txt").write_text("of an older run")
    memory.save(tmp_path / "saved", overwrite=True)
    assert not (tmp_path / "saved" / "mine.txt").exists()
    assert metaseg.load(tmp_path / "saved").results == memory.results
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "mine.txt").write_text("precious")
    with pytest.raises(InputError, match=r"expected a new or empty folder$"):
        memory.save(tmp_path / "notes", overwrite=True)
    assert (tmp_path / "notes" / "mine.txt").read_text() == "precious"


def test_a_constant_score_ships_the_last_weights_and_says_so(
    tmp_path, monkeypatch, capsys
):
    scored(monkeypatch, [0.0, 0.0, 0.0])
    fields = {"training.weights": "best", "training.checkpoint_every": 0}
    run = train(config(**fields), DATA, workdir=tmp_path)
    assert run.results["weights"]["step"] == 12
    note = "every validation score is 0.0000: the last weights are taken"
    assert run.results["weights"]["note"] == note
    assert f"warning: training.weights is 'best', but {note}" in capsys.readouterr().err
    assert run.results["best"] == {"step": None, "iou": None}


def test_a_stopped_run_chooses_the_same_weights(best, tmp_path, monkeypatch):
    fields = {"training.weights": "best", "training.checkpoint_every": 1}
    scored(monkeypatch, SCORES)
    with pytest.raises(signals.StoppedError):
        train(config(**fields), DATA, workdir=tmp_path, watch=StopAfter(10))
    run = train(config(**fields), DATA, workdir=tmp_path, quiet=True)
    assert run.results["test"] == best.results["test"]
    assert run.results["weights"] == best.results["weights"]


def test_an_ensemble_takes_one_step_for_all_members(tmp_path, monkeypatch):
    scored(monkeypatch, SCORES)
    fields = {"training.weights": "best", "parallel.ensemble": 2}
    run = train(config(**fields), DATA, workdir=tmp_path, quiet=True)
    for member in run.members:
        assert member.results["weights"]["step"] == 8
        assert prediction.load(member.folder).weights == "step 8, the best validated"
        confusion = LABELS[8:] == [p.labels for p in member.predict(IMAGES[8:])]
        accuracy = member.results["test"]["accuracy"]["analytic"]
        assert confusion.mean() == pytest.approx(accuracy, abs=1e-12)


def test_an_unfinished_run_predicts_with_its_newest_or_best_weights(
    tmp_path, monkeypatch, files, capsys
):
    for name, step, which in (("last", 10, "newest"), ("best", 8, "best so far")):
        workdir = tmp_path / name
        scored(monkeypatch, SCORES)
        with pytest.raises(signals.StoppedError):
            train(
                config(**{"training.weights": name}),
                DATA,
                workdir=workdir,
                watch=StopAfter(10),
                quiet=True,
            )
        predict(workdir, files / "images", tmp_path / f"{name}-out")
        expected = f"step {step} of 12, the {which} of an unfinished run"
        assert f"weights: {expected};" in capsys.readouterr().out.splitlines()[0]
    shutil.rmtree(workdir / "checkpoints")
    with pytest.raises(InputError, match=r"neither results\.json nor a checkpoint"):
        prediction.load(workdir)


def test_a_finished_run_is_trained_for_longer(last, tmp_path, capsys):
    """With a constant rate it is the run that had this length from the start."""
    fields = {"optimizer.schedule": "constant", "training.steps": 8}
    train(config(**fields), DATA, workdir=tmp_path / "a", quiet=True)
    longer = fields | {"training.steps": 12, "training.log_every": 4}
    run = train(config(**longer), DATA, workdir=tmp_path / "a")
    said = capsys.readouterr().err
    assert "going on after step 8 of 12; learning rate 0.03 (constant)" in said
    assert (tmp_path / "a" / "results-8.json").is_file()
    assert (tmp_path / "a" / "report-8.html").is_file()
    whole = train(config(**longer), DATA, workdir=tmp_path / "b", quiet=True)
    assert run.results["test"] == whole.results["test"]
    assert outcome(tmp_path / "a")[1:] == outcome(tmp_path / "b")[1:]
    assert run.config.training.steps == 12
    again = train(config(**longer), DATA, workdir=tmp_path / "a", quiet=True)
    assert again.results == run.results
    for changes, said in (
        (
            {"training.steps": 4},
            r"training\.steps was 12, is 4; a run can be trained f",
        ),
        ({"training.steps": 16, "seed": 1}, r"config\.seed was 0, is 1"),
        (
            {"training.steps": 16, "training.batch_size": 8},
            r"config\.training\.batch_size was 4, is 8\)",
        ),
    ):
        with pytest.raises(InputError, match=said):
            train(config(**longer | changes), DATA, workdir=tmp_path / "a", quiet=True)
    assert last.config.optimizer.schedule == "cosine"
    there = tmp_path / "cosine"
    shutil.copytree(last.folder, there)
    train(config(**{"training.steps": 16}), DATA, workdir=there)
    rate = optimizers.schedule(last.config.optimizer, 16)(12)
    expected = f"going on after step 12 of 16; learning rate {rate:.3g} (cosine over 16"
    assert expected in capsys.readouterr().err


def leaves(tree):
    return {
        jax.tree_util.keystr(path, simple=True, separator="/"): np.asarray(leaf)
        for path, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]
    }


def test_training_starts_from_the_weights_of_another_run(
    best, tmp_path, monkeypatch, capsys
):
    seen = {}
    take = run_lib.TrainTask.take

    def noting(self, state, step, *rest):
        if step == 0:
            seen["state"] = jax.tree.map(np.array, state)
        return take(self, state, step, *rest)

    monkeypatch.setattr(run_lib.TrainTask, "take", noting)
    fields = {"training.init_from": str(best.folder), "training.steps": 1, "seed": 5}
    run = train(config(**fields), DATA)
    weights = leaves(dict(best.predictor.variables))
    started = {"params": seen["state"].params, "batch_stats": seen["state"].batch_stats}
    for found in (leaves(started), leaves(seen["state"].ema_params)):
        assert found.keys() == weights.keys()
        for name, leaf in found.items():
            np.testing.assert_array_equal(leaf, weights[name])
    text = f"starting from {best.folder}, weights of step 8, the best validated"
    assert text in capsys.readouterr().err
    assert run.results["init_from"]["folder"] == str(best.folder)
    with pytest.raises(
        InputError, match=r"init_from: .*has shape \[4\] for params/bottom"
    ):
        train(config(**fields | {"model.width": 3}), DATA, quiet=True)
    gone = {"training.init_from": str(tmp_path / "nowhere")}
    with pytest.raises(
        InputError, match=r"^config\.training\.init_from: .*nowhere: no"
    ):
        train(config(**fields | gone), DATA, quiet=True)


def test_with_another_number_of_classes_the_last_layer_starts_anew(best, monkeypatch):
    seen = {}

    def stop(self, state, step, *rest):
        seen["state"] = jax.tree.map(np.array, state)
        raise RuntimeError("enough")

    monkeypatch.setattr(run_lib.TrainTask, "take", stop)
    labels = LABELS.copy()
    labels[:, :2] = 2
    data = from_arrays(IMAGES, labels, val=0.1, test=0.1)
    fields = {"data.num_classes": 3, "data.name": "folder", "noise.rate": 0.1}
    for start in ("", str(best.folder)):
        with pytest.raises(RuntimeError, match="enough"):
            train(config(**fields | {"training.init_from": start}), data, quiet=True)
        seen[start] = leaves(seen["state"].params)
    weights = leaves(best.predictor.variables["params"])
    same = {
        n for n, x in seen[str(best.folder)].items() if np.array_equal(x, weights[n])
    }
    fresh = seen[""].keys() - same
    assert len(same) > len(fresh) > 0
    assert all(seen[""][name].shape != weights[name].shape for name in fresh)
    for name in fresh:
        np.testing.assert_array_equal(seen[""][name], seen[str(best.folder)][name])


def test_a_folder_in_the_home_folder_is_found_there(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "home").mkdir()
    fields = {"training.steps": 1}
    run = train(config(**fields), DATA, workdir=Path("~/a"), quiet=True)
    assert run.folder == tmp_path / "home" / "a"
    memory = train(config(**fields), DATA, quiet=True)
    assert memory.save("~/b") == tmp_path / "home" / "b"
    assert metaseg.load("~/b").results == memory.results
    memory.export("~/c.stablehlo", platforms=("cpu",))
    assert prediction.load_export("~/c.stablehlo").facts["num_classes"] == 2
    predict("~/a", IMAGES[:1], "~/d")
    started = train(config(**fields | {"training.init_from": "~/b"}), DATA, quiet=True)
    assert started.results["init_from"]["folder"] == str(tmp_path / "home" / "b")
    assert not (tmp_path / "~").exists()


def test_a_folder_that_a_run_uses_is_refused(tmp_path, monkeypatch):
    inside = {}
    take = run_lib.TrainTask.take

    def other(self, *arguments):
        if not inside:
            inside["tried"] = True
            with pytest.raises(InputError, match="in use by another run") as told:
                train(config(seed=7), DATA, workdir=tmp_path, quiet=True)
            inside["said"] = str(told.value)
        return take(self, *arguments)

    monkeypatch.setattr(run_lib.TrainTask, "take", other)
    train(config(**{"training.steps": 2}), DATA, workdir=tmp_path, quiet=True)
    assert re.match(
        rf"workdir: '{tmp_path}' is in use .*process \d+ on", inside["said"]
    )
    assert not (tmp_path / ".lock").exists()
