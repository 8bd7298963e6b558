"""What data leave undefined is said before training; nothing to learn is refused."""

import dataclasses
import json
import math
from itertools import pairwise

import numpy as np
import pytest
import tiny

import metaseg
from metaseg.data import from_arrays
from metaseg.data.dataset import VOID
from metaseg.errors import InputError
from metaseg.runs import defaults, labelled
from metaseg.runs.igtt.run import segment
from metaseg.runs.training.run import train

RNG = np.random.default_rng(0)
IMAGES = RNG.normal(size=(8, 16, 16)).astype(np.float32)
LABELS = np.zeros((8, 16, 16), np.uint8)
LABELS[:, 4:10, 5:12] = 1
IMAGES += LABELS
SHAPE = (2, 16, 16)
KINDS = {
    "ordinary": (IMAGES[:2], LABELS[:2]),
    "missing": None,
    "unlabelled": (IMAGES[:2], None),
    "background": (IMAGES[:2], np.zeros(SHAPE, np.uint8)),
    "foreground": (IMAGES[:2], np.ones(SHAPE, np.uint8)),
}


def dataset(val="ordinary", test="ordinary", labels=LABELS):
    data = from_arrays(IMAGES, LABELS, val=KINDS[val], test=KINDS[test], num_classes=2)
    return dataclasses.replace(
        data, train=dataclasses.replace(data.train, labels=labels)
    )


class OnDisk:
    """A split that is not in memory; counts the examples that are read."""

    def __init__(self, labels):
        self._split = from_arrays(np.zeros(labels.shape), labels, val=0, test=0).train
        self.read = 0

    def __len__(self):
        return len(self._split)

    def take(self, rows):
        self.read += len(rows)
        return self._split.take(rows)


def test_classes_are_counted_and_void_is_not():
    labels = RNG.integers(0, 3, (70, 5, 6)).astype(np.uint8)
    labels[labels == 2] = VOID
    split = from_arrays(np.zeros(labels.shape), labels, val=0, test=0).train
    found = labelled.count("val", split, 2)
    assert found.pixels == ((labels == 0).sum(), (labels == 1).sum())
    assert (found.split, found.images, found.complete) == ("validation", 70, True)
    assert found.lack() == ""


def test_of_a_split_on_disk_no_more_is_read_than_tells():
    labels = np.zeros((600, 2, 2), np.uint8)
    plain = OnDisk(labels)
    found = labelled.count("train", plain, 2)
    assert (found.complete, plain.read) == (True, 600)  # foreground might come last
    labels[0, 0, 0] = 1
    mixed = OnDisk(labels)
    found = labelled.count("train", mixed, 3)
    assert (found.complete, mixed.read) == (False, 256)
    assert found.absent == ()  # class 2 may be in the rest


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (np.full_like(LABELS, VOID), "got no labelled pixel in the 8 training images"),
        (np.zeros_like(LABELS), "got no foreground in the 8 training images"),
    ],
)
def test_a_training_split_without_labels_or_foreground_is_refused(labels, message):
    with pytest.raises(InputError, match=f"^config.data: {message}.*expected labels"):
        train(tiny.config(), dataset(labels=labels), quiet=True)


def test_arrays_are_named_by_their_argument():
    with pytest.raises(InputError, match=r"^labels: got no foreground in the 8 train"):
        metaseg.train(IMAGES, np.zeros_like(LABELS), val=0, test=0, quiet=True)


def of(split, images, *pixels):
    return {split: labelled.SplitLabels(labelled.NAMES[split], images, pixels)}


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (of("train", 9, 5, 5), []),
        (of("train", 9, 0, 5), ["the training labels hold foreground alone: the netw"]),
        (of("train", 1, 5, 5), ["there is one training image: "]),
        (of("train", 9, 5, 5, 0), ["no training label holds class 2: it cannot be"]),
        (
            of("train", 9, 5, 0, 0, 1),
            ["no training label holds the classes 1 and 2: t"],
        ),
        (of("val", 0, 0, 0), ["there are no validation images: validation has no "]),
        (of("val", 3, 0, 0), ["the validation images have no labels: validation has "]),
        (
            of("val", 3, 7, 0),
            ["the validation labels hold background alone: its IoU s"],
        ),
        (of("val", 3, 1, 2, 0), ["no validation label holds class 2"]),
        (of("test", 0, 0, 0), ["there are no test images: all test measures are null"]),
        (of("test", 3, 0, 0), ["the test images have no labels: all test measures ar"]),
        (of("test", 3, 7, 0), ["the test labels hold background alone: AUC, recall a"]),
        (of("test", 3, 0, 7), ["the test labels hold foreground alone: AUC and the o"]),
        (of("test", 1, 1, 7), ["there is one test image: its measures say little"]),
        (
            of("test", 3, 1, 0, 7),
            ["no test label holds class 1: IoU is 0 where the ne"],
        ),
    ],
)
def test_each_lack_is_said_in_a_sentence(found, expected):
    said = labelled.warnings(found)
    assert len(said) == len(expected)
    for text, start in zip(said, expected, strict=True):
        assert text.startswith(start)
    choosing = labelled.warnings(found, chooses="training.weights='best'")
    if "val" in found and found["val"].lack():
        assert choosing[0].endswith("training.weights='best' takes the last weights")
    else:
        assert choosing == said


def strict(path):
    """The content of a JSON file without NaN or infinity, which JSON does not have."""

    def refuse(name):
        raise AssertionError(f"{path} holds {name}")

    return json.loads(path.read_text(), parse_constant=refuse)


def nulls(value, path=()):
    if value is None:
        return {".".join(path)}
    if isinstance(value, dict):
        return {p for k, v in value.items() for p in nulls(v, (*path, k))}
    if isinstance(value, list):
        return {p for i, v in enumerate(value) for p in nulls(v, (*path, str(i)))}
    return set()


def check_reasons(results):
    """Every null among the measures has a reason, and nothing else has one."""
    sections = ("test", "validation", "thresholds", "best")
    expected = {p for s in sections if s in results for p in nulls(results[s], (s,))}
    assert set(results["why_null"]) == expected
    assert all(results["why_null"].values())


@pytest.mark.parametrize("kind", ["missing", "unlabelled", "background", "foreground"])
def test_a_run_on_degenerate_splits_ends_and_says_what_is_undefined(
    tmp_path, capsys, kind
):
    config = tiny.config(**{"training.weights": "best", "training.steps": 8})
    run = train(config, dataset(val=kind, test=kind), workdir=tmp_path)
    said = capsys.readouterr().err
    results = strict(tmp_path / "results.json")
    check_reasons(results)
    assert (
        results["why_null"]["test.auc"]
        == labelled.count("test", dataset(test=kind).test, 2).lack()
    )
    assert results["thresholds"]["validation"] is None
    assert results["test"]["iou"]["validation"] is None
    assert results["test"]["iou"]["oracle"] is None
    if kind in ("missing", "unlabelled"):
        assert nulls(results["test"]) == nulls(results["validation"]) | {"loss"}
        assert results["test"]["iou"]["analytic"] is None
    else:
        assert results["test"]["accuracy"]["analytic"] >= 0
    # The warnings stand before the first step, in results.json and on the page.
    lines = said.splitlines()
    warned = [line.removeprefix("warning: ") for line in lines if "warning: " in line]
    assert results["warnings"] == warned[:2]
    assert lines.index(f"warning: {warned[0]}") < lines.index(
        "compiling the training step"
    )
    page = (tmp_path / "report.html").read_text()
    for text in results["warnings"]:
        assert f"{text[:1].upper()}{text[1:]}." in page.replace("&#39;", "'")
    # The scores choose nothing, so that the last weights are taken.
    assert results["weights"]["step"] == 8
    assert results["best"]["step"] is None
    lack = labelled.count("val", dataset(val=kind).val, 2).lack()
    assert results["weights"]["note"] == f"{lack}: the last weights are taken"
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").open()]
    validated = [row for row in rows if row["split"] == "val"]
    assert bool(validated) == (kind in ("background", "foreground"))
    for row in validated:
        assert set(row.get("why_null", ())) == nulls(row)
    # What the network finds is shown in place of measures.
    written = sorted(p.name for p in (tmp_path / "predictions").glob("*"))
    assert written == (["000000.png"] if kind == "unlabelled" else [])
    assert ("Clean label" in page) == (kind in ("background", "foreground"))
    assert ("Prediction" in page) == (kind != "missing")
    found = run.predict(IMAGES[:1])
    assert found[0].labels.shape == (16, 16)
    with pytest.raises(InputError, match="no threshold tuned on its validation split"):
        run.predict(IMAGES[:1], decision_rule="validation")


def test_members_of_an_ensemble_say_it_too(tmp_path):
    config = tiny.config(**{"parallel.ensemble": 2, "training.steps": 4})
    run = train(config, dataset(val="missing", test="unlabelled"), workdir=tmp_path)
    results = strict(tmp_path / "results.json")
    assert len(results["warnings"]) == 2
    for row, member in zip(results["members"], run.members, strict=True):
        assert row["test"]["iou"]["analytic"] is None
        assert row["why_null"]["test.auc"] == "the test images have no labels"
        check_reasons(member.results)
        assert (member.folder / "predictions" / "000000.png").is_file()
    assert "no labels" in (tmp_path / "report.html").read_text()


def test_a_class_that_no_test_label_holds_has_a_reason(tmp_path):
    labels = LABELS.copy()
    labels[:, 12:, 12:] = 2
    data = from_arrays(
        IMAGES, labels, val=KINDS["ordinary"], test=KINDS["ordinary"], num_classes=3
    )
    fields = {"data.num_classes": 3, "training.steps": 1, "noise.name": "none"}
    fields |= {"noise.rate": None, "data.name": "folder"}
    run = train(tiny.config(**fields), data, quiet=True)
    check_reasons(run.results)
    assert "no test label holds class 2" in run.results["warnings"][1]
    for path, reason in run.results["why_null"].items():
        assert path.endswith(".2")
        assert reason.startswith("class 2 is in no ")


def igtt_config(**changes):
    config = defaults.get_igtt_config()
    fields = {k: v for k, v in tiny.FIELDS.items() if not k.startswith("noise")}
    fields |= {"igtt.rounds": 3, "igtt.steps_per_round": 2, "igtt.sigma_coarse": 6.0}
    config.update_from_flattened_dict(fields | changes)
    return config


def test_igtt_without_labels_of_validation_and_test_takes_the_last_round(
    tmp_path, capsys
):
    config = igtt_config(**{"igtt.labels": "choose"})
    run = segment(config, dataset(val="missing", test="missing"), workdir=tmp_path)
    results = strict(tmp_path / "results.json")
    assert results["igtt"]["round"] == 3
    assert (results["weights"]["rule"], results["weights"]["step"]) == ("best", 6)
    assert results["warnings"][-1] == (
        "there are no test images: the training images are segmented"
    )
    assert len(run.masks) == 8
    said = capsys.readouterr().err
    assert "warning: there are no validation images" in said
    assert "igtt.labels='choose' takes the last weights" in said


def test_igtt_gives_reasons_for_measures_that_are_null(tmp_path):
    data = dataset(val="background", test="background")
    segment(igtt_config(), data, workdir=tmp_path, quiet=True)
    results = strict(tmp_path / "results.json")
    (row,) = results["table"]
    assert set(results["why_null"]) == {f"table.0.{p}" for p in nulls(row)}
    assert results["warnings"][0].startswith("the validation labels hold background")
    with pytest.raises(InputError, match=r"^baselines: the test images have no labels"):
        segment(igtt_config(), dataset(test="unlabelled"), baselines=True, quiet=True)


def test_losses_of_runs_on_degenerate_splits_are_those_of_ordinary_ones():
    """Validation and test split have no influence on training."""
    config = tiny.config(**{"training.steps": 4})
    runs = [
        train(config, dataset(val=kind, test=kind), quiet=True)
        for kind in ("ordinary", "missing", "unlabelled")
    ]
    losses = [
        [row["loss"] for row in run.history if row["split"] == "train"] for run in runs
    ]
    for one, other in pairwise(losses):
        assert one == other
    assert all(map(math.isfinite, losses[0]))


def test_a_finished_run_of_igtt_takes_more_rounds(tmp_path, capsys):
    data = dataset()
    segment(igtt_config(**{"igtt.rounds": 2}), data, workdir=tmp_path / "a", quiet=True)
    more = segment(igtt_config(), data, workdir=tmp_path / "a")
    assert "going on after step 4 of 6" in capsys.readouterr().err
    whole = segment(igtt_config(), data, quiet=True)
    assert [row["round"] for row in more.history] == [1, 2, 3]
    assert more.results["table"] == whole.results["table"]
    for name, mask in whole.masks.items():
        np.testing.assert_array_equal(more.masks[name], mask)
    assert (tmp_path / "a" / "results-4.json").is_file()
    found = more.predict(IMAGES[:2])
    for one, other in zip(found, whole.predict(IMAGES[:2]), strict=True):
        np.testing.assert_array_equal(one.labels, other.labels)
    with pytest.raises(
        InputError, match=r"igtt\.rounds was 3, is 1; a run can be trai"
    ):
        segment(igtt_config(**{"igtt.rounds": 1}), data, workdir=tmp_path / "a")
