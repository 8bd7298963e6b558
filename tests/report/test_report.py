"""The page of a run: complete, self-contained, escaped, with correct pictures."""

import base64
import io
import json
import re
import subprocess
import sys
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from metaseg import report
from metaseg.report import figures, pictures, wording

RULES = ("argmax", "analytic", "validation", "oracle")


def _panel(name="a", iou=0.5, shape=(12, 16), num_classes=2, seed=0, **arrays):
    rng = np.random.default_rng(seed)

    def ids():
        return rng.integers(0, num_classes, shape).astype(np.uint8)

    fields = {
        "image": rng.normal(size=(*shape, 1)).astype(np.float32),
        "clean": ids(),
        "noisy": ids(),
        "score": rng.random(shape),
        "prediction": ids(),
    }
    return report.Panel(name=name, iou=iou, **{**fields, **arrays})


def _results():
    metric = dict.fromkeys(RULES, 0.9071)
    return {
        "command": "python experiments/main.py --config=configs/cell_flip.py",
        "noise": {
            "name": "flip",
            "rate": 0.4,
            "matrix": [[0.6, 0.4], [0.4, 0.6]],
            "changed_pixels": 0.4,
        },
        "data": {
            "name": "cells",
            "num_classes": 2,
            "class_names": None,
            "train": 256,
            "val": 32,
            "test": 64,
            "image_shape": [128, 128, 1],
        },
        "model": {"name": "unet", "parameters": 488_361},
        "thresholds": {
            **dict.fromkeys(RULES, 0.5),
            "inverted": dict.fromkeys(RULES, False),
        },
        "validation": {"iou": metric, "auc": 0.98},
        "test": {"iou": metric, "dice": {**metric, "oracle": None}, "auc": 0.9912},
        "time": {"train_seconds": 98.3, "total_seconds": 131, "images_per_second": 160},
        "memory": {"peak_bytes": 1_460_000_000},
    }


def _histogram():
    edges = [0.0, 0.5, 1.0]
    return {"edges": edges, "background": [9, 1], "foreground": [2, 8]}


def _history():
    rows = []
    for step in (100, 200):
        rows.append({"step": step, "split": "train", "loss": 0.7 - step / 1000})
        rows.append({"step": step, "split": "val", "loss": 0.6, "iou": step / 250})
    return rows


def _write(path, **changes):
    arguments = {
        "title": "cell_flip",
        "config": {"noise": {"name": "flip", "rate": 0.4}},
        "environment": {"python": "3.11"},
        "history": [],
        "results": _results(),
        "panels": [_panel()],
        "num_classes": 2,
    }
    report.write_run(path, **{**arguments, **changes})
    return path.read_text(encoding="utf-8")


class _Page(HTMLParser):
    """Collects images by alternative text, references, and tags left open."""

    void = frozenset({"meta", "img", "input", "br", "link"})

    def __init__(self, text):
        super().__init__()
        self.images, self.references, self.tags, self.open = {}, [], set(), []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        values = dict(attributes)
        self.tags.add(tag)
        self.references += [values[k] for k in ("src", "href") if k in values]
        if tag == "img":
            self.images[values["alt"]] = values["src"]
        if tag not in self.void:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def _decode(uri):
    head, code = uri.split(",")
    assert head == "data:image/png;base64"
    return Image.open(io.BytesIO(base64.b64decode(code)))


def _rgb(uri):
    return np.asarray(_decode(uri).convert("RGB"))


def test_page_needs_no_other_file_and_no_network(tmp_path):
    results = {**_results(), "score_histogram": _histogram()}
    text = _write(tmp_path / "report.html", results=results, history=_history())
    page = _Page(text)
    assert page.open == []
    assert len(page.images) == 6 + 3
    assert page.references
    assert all(r.startswith("data:image/") for r in page.references)
    assert page.tags.isdisjoint({"script", "link", "iframe", "object"})
    assert not re.search(r"https?://|@import|url\(", text)
    assert "default-src 'none'" in text


def test_the_package_imports_neither_jax_nor_matplotlib():
    code = "import sys, metaseg.report; print([m for m in sys.modules])"
    modules = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout
    for name in ("'jax'", "'flax'", "'matplotlib'"):
        assert name not in modules


def test_every_panel_appears_worst_first_and_undefined_last(tmp_path):
    ious = {"good": 0.91, "bad": 0.12, "void": float("nan"), "zero": 0.0, "b2": 0.12}
    panels = [_panel(name, iou) for name, iou in ious.items()]
    text = _write(tmp_path / "report.html", panels=panels)
    heads = re.findall(r"<code>(\w+)</code> <span>IoU ([^<]+)</span>", text)
    assert heads == [
        ("zero", "0.000"),
        ("b2", "0.120"),
        ("bad", "0.120"),
        ("good", "0.910"),
        ("void", wording.DASH),
    ]
    assert len(_Page(text).images) == 6 * len(panels)


def test_hostile_names_are_escaped(tmp_path):
    evil = "<script>alert('x')</script>\"><img src=x>&"
    results = _results()
    results["noise"]["name"] = results["data"]["name"] = results["command"] = evil
    results["data"]["class_names"] = [evil, evil]
    text = _write(
        tmp_path / "report.html",
        title=evil,
        panels=[_panel(evil)],
        results=results,
        config={evil: {evil: evil}},
        environment={evil: [evil]},
    )
    page = _Page(text)
    assert "script" not in page.tags
    assert f"Image of {evil}" in page.images
    assert "x" not in page.references
    assert page.open == []


def test_pictures_show_the_classes_scores_and_errors(tmp_path):
    clean = np.array([[0, 0, 1, 1, 255, 255]], np.uint8).repeat(2, 0)
    said = np.array([[0, 1, 0, 1, 0, 1]], np.uint8).repeat(2, 0)
    score = np.array([[0, 0.2, 0.4, 0.6, 0.8, 1]]).repeat(2, 0)
    image = np.array([[5.0, 5, 5, 9, 9, 9]]).repeat(2, 0)
    panel = _panel(
        clean=clean, noisy=said, prediction=said, score=score, image=image, iou=1 / 3
    )
    images = _Page(_write(tmp_path / "report.html", panels=[panel])).images
    dark, light, grey = pictures.DARK, pictures.LIGHT, pictures.VOID_COLOUR

    def row(kind):
        return [tuple(map(int, pixel)) for pixel in _rgb(images[f"{kind} of a"])[0]]

    assert row("Clean label") == [dark, dark, light, light, grey, grey]
    assert row("Noisy label") == row("Prediction") == [dark, light] * 3
    false_positive, false_negative = pictures.VERMILION, pictures.SKY
    assert row("Errors") == [dark, false_positive, false_negative, light, grey, grey]
    assert row("Image") == [(0, 0, 0)] * 3 + [(255, 255, 255)] * 3
    assert row("Score")[0] == pictures.score_colours()[0]
    assert row("Score")[5] == pictures.score_colours()[-1]
    assert _decode(images["Clean label of a"]).mode == "P"
    assert _decode(images["Image of a"]).mode == "L"


@pytest.mark.parametrize("num_classes", [2, 5])
def test_error_picture_agrees_with_pixelwise_comparison(num_classes):
    rng = np.random.default_rng(3)
    clean, said = rng.integers(0, num_classes, (2, 20, 30)).astype(np.uint8)
    clean[rng.random(clean.shape) < 0.1] = 255
    drawn = _rgb(pictures.error_picture(clean, said, num_classes).uri)
    colours = dict(enumerate(pictures.ERROR_COLOURS[num_classes == 2]))
    for (y, x), truth in np.ndenumerate(clean):
        if truth == 255:
            expected = pictures.VOID_COLOUR
        elif num_classes > 2:
            expected = colours[0 if truth == said[y, x] else 1]
        else:
            kind = {(0, 0): 0, (1, 1): 1, (0, 1): 2, (1, 0): 3}[truth, said[y, x]]
            expected = colours[kind]
        assert tuple(drawn[y, x]) == expected


@pytest.mark.parametrize("num_classes", [2, 3, 24, 40, 255])
def test_class_colours_differ_from_each_other_and_from_void(num_classes):
    colours = pictures.class_colours(num_classes)
    assert len(colours) == num_classes
    assert len({*colours, pictures.VOID_COLOUR}) == num_classes + 1


def test_all_class_ids_keep_their_colour():
    labels = np.append(np.arange(24), 255).astype(np.uint8)[None]
    drawn = _rgb(pictures.label_picture(labels, 24).uri)[0]
    expected = [*pictures.class_colours(24), pictures.VOID_COLOUR]
    np.testing.assert_array_equal(drawn, expected)


def test_large_pictures_are_scaled_down_and_labels_keep_pure_colours():
    labels = np.zeros((600, 800), np.uint8)
    labels[200:400, 300:500] = 1
    picture = pictures.label_picture(labels, 2)
    assert (picture.width, picture.height) == (384, 288)
    found = set(map(tuple, _rgb(picture.uri).reshape(-1, 3).tolist()))
    assert found == {pictures.DARK, pictures.LIGHT}
    assert pictures.score_picture(np.ones((600, 800))).width == 384


@pytest.mark.parametrize(
    ("image", "mode"),
    [
        (np.zeros((8, 8)), "L"),
        (np.full((8, 8, 1), np.nan), "L"),
        (np.random.default_rng(0).normal(size=(8, 8, 2)), "L"),
        (np.random.default_rng(0).integers(0, 65535, (8, 8, 3)), "RGB"),
        (np.random.default_rng(0).random((8, 8, 4)), "RGB"),
    ],
)
def test_any_image_can_be_shown(image, mode):
    assert _decode(pictures.image_picture(image).uri).mode == mode


def test_one_outlier_does_not_darken_an_image():
    image = np.tile([0.0, 1.0], (64, 32))
    image[0, 0] = 1e6
    drawn = _rgb(pictures.image_picture(image).uri)
    assert (drawn[1:, 0::2].max(), drawn[1:, 1::2].min()) == (0, 255)


def test_scores_that_are_not_finite_are_grey():
    drawn = _rgb(pictures.score_picture(np.array([[0.5, np.nan, np.inf]])).uri)[0]
    assert tuple(drawn[1]) == tuple(drawn[2]) == pictures.VOID_COLOUR
    assert tuple(drawn[0]) != pictures.VOID_COLOUR


def test_decision_rules_thresholds_and_summary_are_written(tmp_path):
    results = _results()
    results["thresholds"]["inverted"]["oracle"] = True
    text = _write(tmp_path / "report.html", results=results)
    sentence = (
        "U-Net trained on cells with 40 % of the label pixels flipped: "
        "test IoU 0.91 (noise-aware decision rule), AUC 0.991."
    )
    assert sentence in text.replace("\N{NO-BREAK SPACE}", " ")
    assert text.count('<span class="tag">inverted</span>') == 1
    assert f"<td>{wording.DASH}</td>" in text  # Dice of the oracle is None
    assert "needs the test labels" in re.sub(r"\s+", " ", text)
    assert "Rank 2 of 2" in text
    assert "noise.rate" in text


@pytest.mark.parametrize("missing", [*_results(), "everything"])
def test_parts_of_missing_results_are_left_out(tmp_path, missing):
    results = {k: v for k, v in _results().items() if missing not in (k, "everything")}
    assert _Page(_write(tmp_path / "a.html", results=results)).open == []
    nulls = dict.fromkeys(_results()) if missing == "everything" else {missing: None}
    assert _Page(_write(tmp_path / "b.html", results={**results, **nulls})).open == []


def test_missing_fields_of_results_leave_the_page_valid(tmp_path):
    for part, fields in _results().items():
        for field in fields if isinstance(fields, dict) else ():
            for lost in (None, float("nan")):
                results = _results()
                results[part][field] = lost
                arguments = {"history": [], "panels": [], "results": results}
                assert _Page(_write(tmp_path / "a.html", **arguments)).open == []


@pytest.mark.parametrize("lost", [None, float("nan"), []])
@pytest.mark.parametrize("field", ["edges", "background", "foreground"])
def test_incomplete_histogram_is_left_out(field, lost):
    assert figures.score_histogram({**_histogram(), field: lost}, {}) is None


def test_no_history_panels_config_or_environment(tmp_path):
    nothing = {"history": [], "panels": [], "config": {}, "environment": {}}
    text = _write(tmp_path / "report.html", results={}, **nothing)
    assert "<section>" not in text
    assert "Network trained." in text


def test_more_than_two_classes(tmp_path):
    names = ["sky", "road", "car"]
    results = {
        **_results(),
        "noise": {"name": "transition", "matrix": np.full((3, 3), 1 / 3).tolist()},
        "data": {"name": "street", "num_classes": 3, "class_names": names},
        "test": {
            "miou": {"argmax": 0.61, "analytic": 0.634},
            "class_iou": {"argmax": [0.1, 0.2, 0.3], "analytic": [0.4, 0.5, None]},
            "accuracy": {"argmax": 0.8, "analytic": 0.85},
        },
    }
    for key in ("thresholds", "validation"):
        del results[key]
    history = [{"step": 5, "split": "val", "loss": 1.0, "miou": 0.5}]
    shapes = {"image": np.ones((12, 16, 3))}
    text = _write(
        tmp_path / "report.html",
        results=results,
        history=history,
        panels=[_panel(num_classes=3, **shapes)],
        num_classes=3,
    )
    assert "test mean IoU 0.63 (noise-aware decision rule)" in text
    assert "Validation mean IoU" in text
    assert "Rank 1 of 3" in text
    assert "mIoU 0.500" in text
    assert all(name in text for name in (*names, "right", "wrong"))
    assert "AUC" not in text


def test_a_failed_write_keeps_the_old_page_and_leaves_no_draft(tmp_path, monkeypatch):
    path = tmp_path / "report.html"
    _write(path)
    before = path.read_bytes()
    with pytest.raises(ValueError, match=r"'a'.*score has shape \(3, 3\)"):
        _write(path, panels=[_panel(score=np.zeros((3, 3)))])

    def full_disk(self, target):
        raise OSError("no space left on device")

    monkeypatch.setattr("pathlib.Path.replace", full_disk)
    with pytest.raises(OSError, match="no space"):
        _write(path, title="new")
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["report.html"]


def test_class_ids_out_of_range_are_named(tmp_path):
    clean = np.full((12, 16), 7, np.uint8)
    with pytest.raises(ValueError, match=r"clean holds class ids \[7\], expected 0 to"):
        _write(tmp_path / "report.html", panels=[_panel(clean=clean)])


def test_charts_start_at_zero_and_accept_incomplete_histories():
    odd = [
        {"step": 1, "split": "train", "loss": float("nan")},
        {"step": 2, "split": "train", "loss": None},
        {"step": 3, "split": "train", "loss": 0.5},
        {"step": 3, "split": "val", "iou": 0.25},
        {"step": 4, "split": "other"},
        {"split": "train", "loss": 1},
    ]
    loss, overlap = figures.learning_curves(odd)
    assert loss.note == "2 values that are not finite are left out."
    assert "0.250 at its only point" in overlap.alt
    svg = base64.b64decode(overlap.uri.split(",")[1]).decode()
    ticks = re.findall(r">(\d\.\d)</text>", svg)
    assert (ticks[0], ticks[-1]) == ("0.0", "1.0")
    assert "<use " in svg  # a marker: the only point can be seen


def test_history_read_back_from_json_gives_the_same_charts():
    history = _history()
    again = [json.loads(json.dumps(row)) for row in history]
    assert figures.learning_curves(history) == figures.learning_curves(again)


@pytest.mark.parametrize(
    ("noise", "phrase"),
    [
        ({"name": None}, "with clean labels"),
        ({"name": "flip", "rate": 0.025}, "with 2.5 % of the label pixels flipped"),
        ({"name": "flip", "rate": [0.1, 0.2]}, "with flipped labels"),
        ({"name": "sample", "fraction": 0.1}, "with 10 % of the labelled pixels kept"),
        ({"name": "random", "changed_pixels": 0.5}, "with random labels"),
        (
            {"name": "dilate", "radius": 3, "changed_pixels": 0.2},
            "with labels dilated by 3 pixels (20 % of the pixels)",
        ),
        (
            {"name": "elastic", "changed_pixels": 0.2},
            "with elastic label noise (20 % of the pixels)",
        ),
    ],
)
def test_noise_is_described(noise, phrase):
    said = wording.noise_phrase(noise).replace("\N{NO-BREAK SPACE}", " ")
    assert said == phrase


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.42, "0.4 s"), (9.97, "10 s"), (59.7, "1 min 0 s"), (131, "2 min 11 s"),
     (11_100, "3 h 5 min"), (None, wording.DASH)],
)  # fmt: skip
def test_durations_are_formatted(seconds, text):
    assert wording.duration(seconds).replace("\N{NO-BREAK SPACE}", " ") == text
