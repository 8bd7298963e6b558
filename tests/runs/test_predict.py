"""Folders written by the test, predicted by a tiny untrained network."""

import base64
import csv
import errno
import hashlib
import json
import os
import re
import subprocess
import sys
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tifffile
from ml_collections import ConfigDict
from PIL import Image
from scipy import ndimage

from metaseg import (
    checkpoint,
    decoding,
    files,
    instances,
    metrics,
    models,
    optimizers,
    prediction,
    report,
    training,
)
from metaseg.data import collect
from metaseg.errors import InputError
from metaseg.runs import predict as predict_run
from metaseg.runs import prediction_labels, prediction_output

ROOT = Path(__file__).resolve().parents[2]
RNG = np.random.default_rng(0)
NAMES = ["a b", "größe", "unter/細胞", "z"]
SMOOTH = ndimage.gaussian_filter(RNG.normal(size=(4, 60, 70)), (0, 2, 2))
IMAGES = np.uint8(np.clip(128 + 500 * SMOOTH, 0, 255))
LABELS = np.uint8(SMOOTH > 0.02)
CONFIG = {
    "data": {"name": "folder", "normalize": "zscore", "mean": None, "std": None},
    "noise": {"name": "flip"},
    "model": {
        "name": "unet",
        "width": 2,
        "depth": 1,
        "norm": "batch",
        "dtype": "float32",
        "init": "he",
    },
    "optimizer": {
        "name": "sgd",
        "learning_rate": 0.1,
        "momentum": 0.0,
        "nesterov": False,
        "weight_decay": 0.0,
        "clip": 0.0,
        "schedule": "constant",
        "warmup": 0,
        "ema_decay": 0.5,
    },
    "training": {"steps": 7},
}


def variables_of(model, channels, seed):
    init = partial(model.init, train=False)
    shapes = jax.eval_shape(
        init, jax.random.key(0), jnp.zeros((1, 4, 4, channels), jnp.float32)
    )
    rng = np.random.default_rng(seed)

    def draw(path, leaf):  # kernels of He's variance; else near 0 or 1
        kernel = leaf.ndim > 1
        scale = np.sqrt(2 * leaf.shape[-1] / leaf.size) if kernel else 0.1
        middle = float(path[-1].key in ("scale", "var"))
        return jnp.asarray(rng.normal(middle, scale, leaf.shape), jnp.float32)

    return jax.tree_util.tree_map_with_path(draw, shapes)


def write_run(workdir, num_classes=2, channels=1, names=("sky", "sea", "soil")):
    """What training leaves of a run, with weights drawn at random."""
    model = models.build(ConfigDict(CONFIG["model"]), num_classes)
    results = {
        "data": {
            "name": "set",
            "num_classes": num_classes,
            "class_names": None if num_classes == 2 else names,
            "image_shape": [64, 64, channels],
        },
        "noise": {"matrix": (0.5 + 0.5 * np.eye(num_classes)).tolist()},
    }
    matrix = np.array(results["noise"]["matrix"])
    results["noise"]["matrix"] = (matrix / matrix.sum(axis=1)).tolist()
    if num_classes == 2:
        results["thresholds"] = {"validation": 0.25, "inverted": {"validation": True}}
    workdir.mkdir(parents=True)
    (workdir / "config.json").write_text(json.dumps(CONFIG))
    (workdir / "results.json").write_text(json.dumps(results))
    best = variables_of(model, channels, seed=3)
    save_states(workdir, {3: (best, 0.9), 7: (variables_of(model, channels, 4), 0.8)})
    return workdir


def save_states(workdir, variables):
    """Checkpoints whose averages and scores are given, by step."""
    optimizer = optimizers.build(ConfigDict(CONFIG["optimizer"]), 7)
    checkpoints = checkpoint.Checkpoints(workdir / "checkpoints")
    for step, (average, score) in variables.items():
        zeros = jax.tree.map(jnp.zeros_like, average)
        state = training.TrainState(
            step=jnp.int32(step),
            opt_state=optimizer.init(zeros["params"]),
            ema_params=average,
            **zeros,
        )
        checkpoints.save(step, state, {}, score)
    checkpoints.close()


def save(path, array):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("predict")
    write_run(root / "run")
    write_run(root / "run3", num_classes=3, channels=3)
    write_run(root / "bordered", 3, names=["background", "cell", "border"])
    for name, image, label in zip(NAMES, IMAGES, LABELS, strict=True):
        save(root / "images" / f"{name}.png", image)
        save(root / "labels" / f"{name}.png", 255 * label)
    return root


def predict(root, output, **more):
    """The exit status of the command with the arguments."""
    fields = {
        "run": root / "run",
        "images": str(root / "images"),
        "output": output,
        "labels": root / "labels",
        "scores": True,
    } | more
    return int(bool(predict_run.predict(**fields).bad))


@pytest.fixture(scope="module")
def predicted(root, tmp_path_factory):
    output = tmp_path_factory.mktemp("out")
    assert predict(root, output) == 0
    return output


@pytest.fixture(scope="module")
def expected(root):
    paths = [root / "images" / f"{name}.png" for name in NAMES]
    return prediction.predict(root / "run", paths)


def rows_of(output):
    with (output / "predictions.csv").open(newline="", encoding="utf-8") as lines:
        return list(csv.DictReader(lines))


def label_of(output, name):
    return np.array(Image.open(output / "labels" / f"{name}.png"))


def test_the_command_writes_what_the_function_returns(predicted, expected):
    for name, (labels, scores) in zip(NAMES, expected, strict=True):
        assert 0.01 < labels.mean() < 0.99
        np.testing.assert_array_equal(label_of(predicted, name), labels)
        written = tifffile.imread(predicted / "scores" / f"{name}.tif")
        np.testing.assert_allclose(written, scores[..., 1], atol=1e-6)
        with Image.open(predicted / "overlays" / f"{name}.png") as overlay:
            assert (overlay.mode, overlay.size) == ("RGB", labels.shape[::-1])


def test_a_row_holds_the_areas_and_objects_of_the_label_map(predicted):
    rows = rows_of(predicted)
    assert [row["name"] for row in rows] == NAMES
    for row in rows:
        labels = label_of(predicted, row["name"])
        assert [int(row["height"]), int(row["width"])] == list(labels.shape)
        assert int(row["pixels foreground"]) == labels.sum()
        assert float(row["share background"]) == pytest.approx(1 - labels.mean(), 1e-4)
        assert (
            int(row["objects foreground"]) == ndimage.label(labels, np.ones((3, 3)))[1]
        )


def test_measures_are_those_of_the_readings(predicted, expected):
    found = json.loads((predicted / "metrics.json").read_text(encoding="utf-8"))
    guess = np.stack([each.labels for each in expected])
    matrices = metrics.confusion_matrix(jnp.asarray(guess), jnp.asarray(LABELS), 2)
    assert found["pooled"] == pytest.approx(decoding.measure(matrices))
    for row, matrix in zip(rows_of(predicted), matrices, strict=True):
        each = decoding.measure(matrix[None])
        assert found["per_image"][row["name"]] == pytest.approx(each)
        assert float(row["iou"]) == pytest.approx(each["iou"], rel=1e-5)


def test_void_does_not_count_with_three_classes():
    labels = RNG.integers(0, 3, (9, 11), dtype=np.uint8)
    true = np.where(RNG.random((9, 11)) < 0.2, 255, labels[::-1]).astype(np.uint8)
    np.testing.assert_array_equal(
        prediction_labels.confusion(labels, true, 3),
        metrics.confusion_matrix(jnp.asarray(labels), jnp.asarray(true), 3),
    )


def test_stored_values_of_labels_are_mapped_and_unknown_ones_named(
    root, predicted, tmp_path
):
    void = RNG.random(LABELS.shape) < 0.2
    stored = np.where(void, 9, 7 * LABELS).astype(np.uint8)
    stored[3, 0, 0] = 8
    for name, label in zip(NAMES, stored, strict=True):
        save(tmp_path / "labels" / f"{name}.png", label)
    given = partial(
        predict, root, tmp_path / "out", labels=tmp_path / "labels", scores=False
    )
    assert given(label_values={7: 1, 9: 255}) == 1
    measures = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert set(measures["per_image"]) == set(NAMES[:3])
    matrices = [
        metrics.confusion_matrix(
            jnp.asarray(label_of(predicted, name)),
            jnp.asarray(np.where(void[i], 255, LABELS[i]).astype(np.uint8)),
            2,
        )
        for i, name in enumerate(NAMES[:3])
    ]
    expected = decoding.measure(np.stack(matrices))
    assert measures["pooled"]["iou"] == pytest.approx(expected["iou"])
    rows = (tmp_path / "out" / prediction_output.RECORDS).read_text()
    assert "8 (1 pixel)" in rows


def test_the_page_holds_every_image_and_allows_its_own_script_alone(predicted):
    page = (predicted / "index.html").read_text(encoding="utf-8")
    assert "http" not in page.replace("http-equiv", "")
    data = json.loads(re.search(r'id="data">(.*?)</script>', page)[1])
    assert [row[0] for row in data["rows"]] == NAMES
    assert len(data["thumbnails"]) == len(NAMES)
    assert "overlays/a%20b.png" in data["links"]
    script = re.search(r"<script>(.*?)</script>", page, re.DOTALL)[1]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in page


def test_a_second_run_reads_only_what_changed(root, tmp_path, monkeypatch):
    for name, image in zip("abc", IMAGES, strict=False):
        save(tmp_path / "images" / f"{name}.png", image)
    output = tmp_path / "out"
    given = partial(predict, root, output, images=str(tmp_path / "images"), labels=None)
    assert given() == 0
    read = []
    load = collect._load

    def counting(item, options):
        read.append(item.name)
        return load(item, options)

    monkeypatch.setattr(collect, "_load", counting)
    before = rows_of(output)
    assert given() == 0
    assert read == []
    assert rows_of(output) == before
    lines = (output / prediction_output.RECORDS).read_text().splitlines(keepends=True)
    cut_short = "".join(lines[:-1]) + lines[-1][:50]  # killed while writing
    (output / prediction_output.RECORDS).write_text(cut_short)
    (output / "labels" / "a.png").unlink()
    assert given() == 0
    assert read == ["a", "c"]
    (tmp_path / "images" / "b.png").unlink()
    assert given() == 0
    assert read == ["a", "c"]
    assert sorted(path.stem for path in (output / "labels").iterdir()) == ["a", "c"]
    assert given(decision_rule="argmax") == 0
    assert read == ["a", "c", "a", "c"]


def test_a_full_disk_is_named_and_a_second_run_goes_on(
    root, predicted, tmp_path, monkeypatch
):
    write = files.write_png

    def full(path, pixels):
        if path.stem == "z":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        write(path, pixels)

    monkeypatch.setattr(files, "write_png", full)
    with pytest.raises(InputError, match=r"^output: cannot write '.*z\.png' \(No sp"):
        predict(root, tmp_path)
    assert not (tmp_path / "index.html").exists()
    monkeypatch.undo()
    assert predict(root, tmp_path) == 0
    for name in NAMES:
        np.testing.assert_array_equal(
            label_of(tmp_path, name), label_of(predicted, name)
        )


def test_bad_files_are_listed_and_the_others_predicted(root, tmp_path, capsys):
    images = tmp_path / "images"
    save(images / "good.png", IMAGES[0])
    save(images / "colour.png", RNG.integers(0, 256, (60, 70, 3), dtype=np.uint8))
    (images / "broken.tif").write_bytes(b"II*\0 nothing")
    save(tmp_path / "labels" / "good.png", LABELS[0][:50])
    given = partial(
        predict,
        root,
        output=tmp_path / "out",
        images=str(images),
        labels=tmp_path / "labels",
    )
    assert given() == 1
    said = capsys.readouterr().err
    assert f"{images / 'colour.png'}: 3 channels; expected grey" in said
    assert "or a choice, such as `channels=0`" in said
    assert str(images / "broken.tif") in said
    assert "labels/good.png: 50 x 70, expected 60 x 70" in said
    assert [row["name"] for row in rows_of(tmp_path / "out")] == ["good"]
    assert given() == 1  # also where nothing is left to do
    one = partial(given, channels=0, output=tmp_path / "one", labels=None)
    assert one() == 1
    assert len(rows_of(tmp_path / "one")) == 2


def test_three_classes_have_ids_three_planes_of_scores_and_names(root, tmp_path):
    stack = np.stack([IMAGES[0], IMAGES[1]])
    (tmp_path / "images").mkdir()
    path = tmp_path / "images" / "stack.tif"
    tifffile.imwrite(path, stack, photometric="minisblack")
    output = tmp_path / "out"
    given = partial(
        predict, root, output, run=root / "run3", images=str(path), labels=None
    )
    assert given() == 0
    for page, found in enumerate(prediction.predict(root / "run3", list(stack))):
        name = f"stack#{page}"
        np.testing.assert_array_equal(label_of(output, name), found.labels)
        scores = tifffile.imread(output / "scores" / f"{name}.tif")
        np.testing.assert_allclose(scores, np.moveaxis(found.scores, -1, 0), atol=1e-6)
    assert {"pixels sky", "objects sea", "objects soil"} <= set(rows_of(output)[0])
    with pytest.raises(InputError, match=r"^values: got mask, but the run has 3 cl"):
        given(values="mask")
    with pytest.raises(InputError, match=r"^values: got instances, but the run has 3"):
        given(values="instances")


def test_tiles_masks_and_the_tuned_threshold_come_out_of_the_command(root, tmp_path):
    given = partial(
        predict,
        root,
        tmp_path,
        images=str(root / "images" / "[a-z]*.png"),
        labels=None,
        decision_rule="validation",
        values="mask",
        tile=64,
    )
    assert given() == 0
    assert [row["name"] for row in rows_of(tmp_path)] == ["a b", "größe", "z"]
    images = [
        image for name, image in zip(NAMES, IMAGES, strict=True) if "/" not in name
    ]
    found, *_ = prediction.predict(
        root / "run", images, decision_rule="validation", tile=64
    )
    np.testing.assert_array_equal(label_of(tmp_path, "a b"), 255 * found.labels)
    scores = tifffile.imread(tmp_path / "scores" / "a b.tif")
    np.testing.assert_allclose(scores, found.scores[..., 1], atol=1e-6)


def test_instance_maps_number_the_components_of_the_whole_map(root, expected, tmp_path):
    middle = float(np.median(expected[0].scores[..., 1]))
    run = prediction.load(root / "run")
    run = run._replace(final_threshold=decoding.Threshold(middle, False))
    given = partial(predict, root, run=run, scores=False, tile=32)
    ids, output = tmp_path / "ids", tmp_path / "instances"
    assert given(output=ids) == given(output=output, values="instances") == 0
    for name, row in zip(NAMES, rows_of(output), strict=True):
        found, plain = label_of(output, name), label_of(ids, name)
        expected, number = ndimage.label(plain, np.ones((3, 3)))
        assert found.dtype == np.uint16
        np.testing.assert_array_equal(found, expected)
        assert int(row["objects foreground"]) == number > 1


def test_a_run_with_borders_gives_each_border_pixel_to_an_object(
    root, tmp_path, monkeypatch
):
    run = prediction.load(root / "bordered")
    assert run.border == 2
    (first,) = prediction.predict(run, IMAGES[0])
    edges = np.quantile(first.scores[..., 0], [0.4, 0.9])
    monkeypatch.setattr(
        prediction,
        "decoder",
        lambda *_: lambda scores: np.uint8(np.digitize(scores[..., 0], edges)),
    )
    given = partial(predict, root, run=root / "bordered", labels=None, scores=False)
    assert given(output=tmp_path / "ids") == 0
    assert given(output=tmp_path / "instances", values="instances") == 0
    labels = np.stack([label_of(tmp_path / "ids", name) for name in NAMES])
    found = np.stack([label_of(tmp_path / "instances", name) for name in NAMES])
    assert set(np.unique(labels)) == {0, 1, 2}
    for a, b in zip(labels, found, strict=True):
        np.testing.assert_array_equal(b, instances.join_borders(a))
        assert b.max() == ndimage.label(a == 1, np.ones((3, 3)))[1]


def test_more_objects_than_16_bits_count_are_written_as_32_bit_tiff(tmp_path):
    ids = np.arange(70_000, dtype=np.int32).reshape(200, 350)
    path = prediction_output.paths(tmp_path, "a.b", scores=False)["labels"]
    assert prediction_output.write_labels(path, ids) == ".tif"
    written = prediction_output.paths(tmp_path, "a.b", scores=False, labels=".tif")
    found = tifffile.imread(written["labels"])
    assert found.dtype == np.uint32
    np.testing.assert_array_equal(found, ids)
    assert prediction_output.write_labels(path, np.minimum(ids, 65535)) == ".png"
    np.testing.assert_array_equal(np.array(Image.open(path)), np.minimum(ids, 65535))


def save_ids(folder, stored=".png"):
    """True instance maps: components of LABELS, cut in two so that objects touch."""
    every = []
    for name, label in zip(NAMES, LABELS, strict=True):
        ids = instances.label_objects(label).astype(np.uint16)
        ids[:, 35:][ids[:, 35:] > 0] += 500
        path = folder / f"{name}{stored}"
        path.parent.mkdir(parents=True, exist_ok=True)
        if stored == ".png":
            save(path, ids)
        else:
            tifffile.imwrite(path, ids.astype(np.int32))
        every.append(ids)
    return every


def predicting(maps, monkeypatch):
    """Lets predictions be given maps, one for each image."""

    def decoder(*_):
        following = iter(np.uint8(maps))
        return lambda scores: next(following)

    monkeypatch.setattr(prediction, "decoder", decoder)


@pytest.mark.parametrize("stored", [".png", ".tif"])
def test_true_instance_maps_give_scores_of_objects(root, tmp_path, stored, monkeypatch):
    true = save_ids(tmp_path / "ids", stored)
    predicting(np.roll(LABELS, 1, axis=2), monkeypatch)
    given = partial(predict, root, scores=False, values="instances")
    output = tmp_path / "out"
    assert given(output=output, labels=tmp_path / "ids", instances="union") == 0
    measures = json.loads((output / "metrics.json").read_text(encoding="utf-8"))
    found = [label_of(output, name) for name in NAMES]
    counts = [instances.count(*pair) for pair in zip(true, found, strict=True)]
    scores = files.plain(instances.measure(counts))
    assert measures["pooled"]["objects"] == scores
    assert scores["true_objects"] == sum(len(np.unique(ids)) - 1 for ids in true)
    assert 0 < scores["ap50"] < 1
    for name, row, each in zip(NAMES, rows_of(output), counts, strict=True):
        own = instances.measure([each])
        assert measures["per_image"][name]["objects"]["ap"] == own["ap"]
        assert float(row["ap50"]) == pytest.approx(own["ap50"], rel=1e-5)
        assert int(row["true objects"]) == own["true_objects"]
    assert given(output=tmp_path / "masks") == 0  # the same as plain masks
    masks = json.loads((tmp_path / "masks" / "metrics.json").read_text())
    assert masks["pooled"].items() <= measures["pooled"].items()
    assert "objects" not in masks["pooled"]


def test_instance_maps_need_a_word_and_void_objects_do_not_count(root, tmp_path):
    true = save_ids(tmp_path / "ids")
    given = partial(predict, root, tmp_path / "out", labels=tmp_path / "ids")
    with pytest.raises(InputError, match="`instances=union`"):
        given()
    with pytest.raises(InputError, match=r"^instances: got border, but the run has no"):
        given(instances="border")
    assert given(instances="union", label_values="1=255") == 0
    measures = json.loads((tmp_path / "out" / "metrics.json").read_text())
    known = sum(np.count_nonzero(np.unique(ids) > 1) for ids in true)
    assert measures["pooled"]["objects"]["true_objects"] == known


def test_a_run_with_borders_is_measured_on_borders_of_the_true_objects(
    root, tmp_path, monkeypatch
):
    true = save_ids(tmp_path / "ids")
    predicting([(ids > 0) + 1 * instances.borders(ids) for ids in true], monkeypatch)
    output = tmp_path / "out"
    bordered = {"run": root / "bordered", "scores": False, "values": "instances"}
    labels = tmp_path / "ids"
    assert predict(root, output, labels=labels, instances="union", **bordered) == 0
    pooled = json.loads((output / "metrics.json").read_text())["pooled"]
    assert pooled["class_iou"] == [1, 1, 1]
    found = [label_of(output, name) for name in NAMES]
    counts = [instances.count(*pair) for pair in zip(true, found, strict=True)]
    assert pooled["objects"] == files.plain(instances.measure(counts))
    assert pooled["objects"]["ap50"] > 0.9


def row_of(true, predicted):
    """A row of the journal, as it is read back."""
    a, b = (np.array([ids]) for ids in (true, predicted))
    counts = files.plain(instances.count(a, b)._asdict())
    matrix = prediction_labels.confusion(np.uint8(b > 0), np.uint8(a > 0), 2)
    return json.loads(
        json.dumps({"confusion": matrix.tolist(), "object_counts": counts})
    )


def test_scores_of_objects_are_those_of_the_pooled_counts():
    pairs = [([1, 1, 1, 0, 2], [1, 1, 0, 0, 0]), ([7, 7, 0, 8, 8], [3, 3, 0, 4, 4])]
    found = prediction_labels.measures([row_of(*pair) for pair in pairs])
    maps = [[np.array([side]) for side in sides] for sides in zip(*pairs, strict=True)]
    assert list(found["objects"]["curve"].values()) == pytest.approx(
        instances.average_precision(*maps)
    )
    assert found["objects"]["pq"] == instances.panoptic_quality(*maps).pq
    assert found["objects"]["true_objects"] == 4
    assert found["iou"] == 6 / 8
    assert prediction_labels.why_null(found) == {}


def test_each_measure_without_a_value_has_its_reason():
    nothing = [0, 0, 0]
    empty = prediction_labels.measures([row_of(nothing, nothing)])
    reasons = prediction_labels.why_null(empty)
    plain = files.plain(empty)
    null = {name for name, value in plain.items() if value is None}
    null |= {f"objects.{n}" for n, v in plain["objects"].items() if v is None}
    assert set(reasons) == null | {"objects.curve"}
    assert reasons["objects.ap"] == "there is no object, true or predicted"
    missed = prediction_labels.measures([row_of([1, 1, 0], nothing)])
    assert prediction_labels.why_null(missed) == {
        "precision": "no pixel is predicted as foreground",
        "objects.sq": "no predicted object matches a true one",
    }


def test_the_page_shows_scores_and_a_curve_of_objects(root, tmp_path, predicted):
    (tmp_path / "overlays").mkdir()
    (tmp_path / "overlays" / "a.png").write_bytes(
        (predicted / "overlays" / "z.png").read_bytes()
    )
    measures = prediction_labels.measures([row_of([1, 1, 0, 2], [1, 1, 0, 0])])
    row = {"name": "a", "height": 1, "width": 4, "pixels": [2, 2], "objects": [1]}
    row = prediction_output.columns(row | {"seconds": 1}, ["no", "yes"], measures)
    assert (row["true objects"], row["found objects"], row["ap"]) == (2, 1, 0.5)
    report.write_predictions(
        tmp_path / "index.html",
        images="x",
        run="y",
        rule="argmax",
        aware=False,
        class_names=["no", "yes"],
        rows=[row],
        pooled=measures,
        bad=[],
        seconds=1.0,
        rate="",
    )
    page = (tmp_path / "index.html").read_text(encoding="utf-8")
    assert "Panoptic quality (PQ)</th><td>0.667<" in page
    assert "0.500 to 0.500 in 10 points" in page  # of the curve


def test_the_weights_are_those_that_results_name_else_the_newest(root, tmp_path):
    first = prediction.load(root / "run")
    zeros = jax.tree.map(jnp.zeros_like, first.variables)
    run = tmp_path / "run"
    run.mkdir()
    for name in ("config.json", "results.json"):
        (run / name).write_text((root / "run" / name).read_text())
    save_states(run, {2: (zeros, 0.9), 7: (first.variables, 0.1)})
    found = prediction.load(run)
    assert prediction.fingerprint(found) == prediction.fingerprint(first)
    results = json.loads((run / "results.json").read_text())
    weights = {"rule": "best", "step": 2, "described": "step 2, the best validated"}
    (run / "results.json").write_text(json.dumps(results | {"weights": weights}))
    found = prediction.load(run)
    assert found.weights == "step 2, the best validated"
    assert not any(leaf.any() for leaf in jax.tree.leaves(found.variables))
    weights["step"] = 5
    (run / "results.json").write_text(json.dumps(results | {"weights": weights}))
    with pytest.raises(InputError, match="no checkpoint of step 5"):
        prediction.load(run)


def test_a_picture_of_a_large_image_is_reduced_to_means():
    image = RNG.integers(0, 256, (30, 4100, 1), dtype=np.uint8)
    drawn = report.overlay(image, np.zeros((30, 4100), np.uint8), 2)
    means = image[:30, :4098, 0].reshape(10, 3, 1366, 3).mean(axis=(1, 3))
    assert drawn.shape == (10, 1366, 3)
    assert np.corrcoef(drawn[..., 0].ravel(), means.ravel())[0, 1] > 0.99


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"run": Path("/nowhere")}, "/nowhere: no config.json"),
        ({"images": "/nowhere/*.png"}, "images: no image at '/nowhere/"),
        ({"labels": Path("/nowhere")}, "labels: no label map at '/nowhere'"),
        ({"tile": -1}, "tile: got -1"),
        (
            {"run": "run3", "decision_rule": "validation"},
            "decision_rule: got 'validation'",
        ),
    ],
)
def test_wrong_settings_are_named(root, tmp_path, change, message):
    change = {k: root / v if v == "run3" else v for k, v in change.items()}
    with pytest.raises(InputError, match=re.escape(message)):
        predict(root, tmp_path, **change)


def test_an_empty_folder_and_a_foreign_output_are_refused(root, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"^images: no image at"):
        predict(root, tmp_path / "out", images=str(tmp_path / "empty"))
    (tmp_path / "precious.txt").write_text("mine")
    with pytest.raises(InputError, match=r"^output: .* is not empty"):
        predict(root, tmp_path)
    assert [path.name for path in sorted(tmp_path.iterdir())] == [
        "empty",
        "precious.txt",
    ]


def test_arrays_give_what_their_files_give(root, predicted, tmp_path):
    done = predict_run.predict(
        prediction.load(root / "run"), IMAGES, tmp_path, labels=LABELS
    )
    assert [row["name"] for row in done.rows] == [f"{i:06d}" for i in range(4)]
    for index, name in enumerate(NAMES):
        found = label_of(tmp_path, f"{index:06d}")
        np.testing.assert_array_equal(found, label_of(predicted, name))
    measures = json.loads((predicted / "metrics.json").read_text(encoding="utf-8"))
    assert done.measures == pytest.approx(measures["pooled"])
    assert done.report.is_file()


def test_the_command_line_says_what_is_missing_in_one_line():
    script = ROOT / "experiments" / "predict.py"
    done = subprocess.run(
        [sys.executable, script, "--output=x"], capture_output=True, text=True
    )
    assert done.returncode == 2
    assert done.stderr == "error: --run: not given, expected the work folder of a run\n"
