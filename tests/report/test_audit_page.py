"""The audit page: self-contained, escaped, valid without parts, and cut if long."""

import base64
import io
import math
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from metaseg import report
from metaseg.report import pictures, wording
from metaseg.report.pages import audit


def _comparison(K=2):
    matrix = 0.2 * np.eye(K) + 0.8 / K
    return {
        "maps": 3,
        "labelled": 1_234_567,
        "disagreement": 0.4,
        "matrix": matrix.tolist(),
        "low": (matrix - 0.01).tolist(),
        "high": (matrix + 0.01).tolist(),
        "rank": K,
        "singular_values": [1.0] + [0.2] * (K - 1),
        "condition_number": 5.0,
        "semantic_information": 0.02,
        "prior_entropy": 0.5,
        "effective": 48_123.4,
        "effective_worst": 12_000.0,
        "sentence": "All classes can be distinguished.",
        "profile": {
            "distance": [-1.5, -0.5, 0.5, 1.5],
            "classes": {f"c{k}": [0.6, None, 0.4, 0.4] for k in range(K)},
        },
        "split": {"independent": 0.9, "boundary": 0.1, "objects": 0.0},
        "verdict": {
            "family": "randomised",
            "sentences": ["40.0 % of the labelled pixels are wrong."],
            "evidence": {"disagreement": 0.4, "step_contrast": math.nan, "new_one": 1},
        },
    }


def _summary(K=2, **changes):
    overview = {
        "class_shares": [1 / K] * K,
        "void_share": 0.01,
        "information": 0.1,
        "roughness": 0.2,
        "objects": [0] + [12] * (K - 1),
        "empty": ["e"],
        "one_class": [],
        "wrong_ids": {"7": 2},
    }
    return {
        "labels": "data/labels",
        "reference": "data/clean",
        "images": None,
        "num_classes": K,
        "class_names": [f"c{k}" for k in range(K)],
        "maps": 4,
        "bad": [{"name": "broken.png", "reason": "truncated"}],
        "overview": overview,
        "outliers": [{"name": "odd", "feature": "share of class 1", "score": -7.2}],
        "duplicates": {"exact": [["a", "b"]], "near": []},
        "position": np.full((4, 4, K), 1 / K).tolist(),
        "comparison": _comparison(K),
        **changes,
    }


def _row(name="a", K=2, **changes):
    return {
        "name": name,
        "height": 8,
        "width": 9,
        "labelled": 72,
        "void_share": 0.0,
        "shares": [1 / K] * K,
        "information": 0.1,
        "roughness": 0.3,
        "objects": 4,
        "flags": ["one class"],
        "score": 1.5,
        "disagreement": 0.4,
        "independent": 0.9,
        "boundary": 0.1,
        "objects_share": 0.0,
        **changes,
    }


def _labels(shape=(40, 60)):
    labels = np.zeros(shape, np.uint8)
    labels[10:30, 10:30] = 1
    return labels


def _write(path, summary=None, rows=None, thumbnails=()):
    report.write_audit(
        path,
        summary=_summary() if summary is None else summary,
        rows=[_row()] if rows is None else rows,
        thumbnails=thumbnails,
    )
    return path.read_text(encoding="utf-8")


def _normal(text):
    return re.sub(r"\s+", " ", text.replace("\N{NO-BREAK SPACE}", " "))


class _Page(HTMLParser):
    void = frozenset({"meta", "img", "path", "br", "link"})

    def __init__(self, text):
        super().__init__()
        self.images, self.references, self.tags, self.open = {}, [], set(), []
        self.heads = []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        values = dict(attributes)
        self.tags.add(tag)
        self.references += [values[k] for k in ("src", "href") if k in values]
        assert not [name for name in values if name.startswith("on")]
        if tag == "img":
            self.images[values["alt"]] = values["src"]
        if tag not in self.void:
            self.open.append(tag)

    def handle_endtag(self, tag):
        if tag not in self.void:
            assert self.open.pop() == tag

    def handle_data(self, text):
        if self.open and self.open[-1] == "h2":
            self.heads.append(text)


def _rgb(uri):
    code = uri.split(",")[1]
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(code))).convert("RGB"))


@pytest.mark.parametrize("K", [2, 7, 20])
def test_page_needs_no_other_file_and_no_network(tmp_path, K):
    thumbnail = report.Thumbnail("t", _labels(), _labels() * 1.0, _labels())
    rows = [_row(K=K)]
    text = _write(tmp_path / "a.html", _summary(K), rows, [thumbnail])
    page = _Page(text)
    assert page.open == []
    # Density maps, profile charts of five classes each, and the thumbnail.
    assert len(page.images) == K + math.ceil(K / 5) + 1
    assert all(r.startswith("data:image/") for r in page.references)
    assert page.tags.isdisjoint({"script", "link", "iframe", "object"})
    assert not re.search(r"https?://|@import|url\(", text)
    assert "default-src 'none'" in text


def test_hostile_names_are_escaped(tmp_path):
    evil = "<script>alert('$x$')</script>\"><img src=x onerror=y>&"

    def spoil(value):
        if isinstance(value, dict):
            return {k: spoil(v) for k, v in value.items()}
        if isinstance(value, list):
            return [spoil(v) for v in value]
        return evil if isinstance(value, str) else value

    summary = spoil(_summary())
    summary["comparison"]["profile"]["classes"] = {evil: [1, 1, 0, 0]}
    summary["comparison"]["verdict"]["evidence"][evil] = 1.0
    summary["overview"]["wrong_ids"] = {evil: 1}
    thumbnail = report.Thumbnail(evil, _labels(), caption=evil)
    page = _Page(_write(tmp_path / "a.html", summary, [spoil(_row())], [thumbnail]))
    assert "script" not in page.tags
    assert "x" not in page.references
    assert f"Labels of {evil}" in page.images
    assert page.open == []


def test_verdict_comes_first_and_effective_labels_are_round_numbers(tmp_path):
    text = _write(tmp_path / "a.html")
    heads = _Page(text).heads
    assert heads[0] == audit.FAMILIES["randomised"]
    assert heads.index("Effective labels") == 1
    said = "These 1.2 million labels are worth about 48 000 clean labels."
    assert said in _normal(text)
    assert "share of c1" in text  # the outlier's feature, by the class's name
    assert "3 of the 4 label maps have a reference" in _normal(text)


def test_without_a_reference_the_page_starts_with_the_statistics(tmp_path):
    summary = _summary(comparison=None, reference=None)
    page = _Page(text := _write(tmp_path / "a.html", summary))
    assert page.heads[0] == "Label statistics"
    assert "Comparison with a reference" in text
    assert "Effective labels" not in text


@pytest.mark.parametrize("lost", [None, []])
def test_missing_parts_are_left_out(tmp_path, lost):
    path = tmp_path / "a.html"
    whole = _summary()
    for name in whole.keys() - {"class_names"}:
        assert _Page(_write(path, {**whole, name: lost})).open == []
    for name in whole["overview"]:
        part = {**whole["overview"], name: None}
        assert _Page(_write(path, {**whole, "overview": part})).open == []
    for name in whole["comparison"]:
        part = {**whole["comparison"], name: None}
        assert _Page(_write(path, {**whole, "comparison": part})).open == []
    nothing = _write(path, {"class_names": ["a", "b"]}, rows=[])
    assert _Page(nothing).heads == ["Label statistics", "Warnings"]


def test_every_family_has_a_heading_and_every_number_an_explanation():
    from metaseg.auditing import FAMILIES, compare, evidence

    assert set(audit.FAMILIES) == set(audit.TELLING) == set(FAMILIES)
    assert set(evidence(compare(_labels(), _labels(), 2))) == set(audit.EVIDENCE)
    told = {name for names in audit.TELLING.values() for name in names}
    assert told <= set(audit.EVIDENCE)


def test_long_lists_are_cut_with_a_note(tmp_path):
    names = [f"map{i:05d}" for i in range(20_000)]
    overview = {**_summary()["overview"], "empty": names}
    bad = [{"name": name, "reason": "r"} for name in names]
    outliers = [{"name": name, "feature": "objects", "score": 9.0} for name in names]
    twins = {"exact": [names], "near": [[a, a] for a in names]}
    summary = _summary(overview=overview, bad=bad, outliers=outliers, duplicates=twins)
    text = _write(tmp_path / "a.html", summary, [_row(name) for name in names])
    said = _normal(text)
    assert text.count('<th scope="row" title="map') == audit.MOST_ROWS
    assert "The first 200 of 20 000 label maps; audit.csv lists all." in said
    assert "map00019</code> and 19 980 more" in said
    assert said.count("audit.json lists all") == 3
    assert len(text) < 500_000


def test_rows_without_intervals_and_pages_without_errors_say_so(tmp_path):
    comparison = _comparison()
    comparison.update(low=[[0, 0], [0.3, 0.5]], high=[[1, 1], [0.5, 0.7]])
    comparison.update(split=dict.fromkeys(audit.PARTS, 0.0), effective=0.0)
    text = _write(tmp_path / "a.html", _summary(comparison=comparison))
    assert text.count("<small>") == 2
    assert "too few label maps" in _normal(text)
    assert "worth no clean labels" in _normal(text)
    assert "Kinds of errors" not in _Page(text).heads


def test_outlines_lie_on_class_boundaries_and_the_references_are_dashed():
    labels = np.zeros((288, 288), np.uint8)
    labels[:, 100:] = 1
    reference = np.zeros_like(labels)
    reference[:, 200:] = 1
    image = np.random.default_rng(0).random(labels.shape)
    picture, over_image = pictures.outline_picture(
        labels, 2, image=image, reference=reference
    )
    drawn = _rgb(picture.uri)
    assert over_image
    assert (drawn[:, 100:102] == pictures.OUTLINE_COLOUR).all()
    assert (drawn[:, 99] == pictures.DARK).all()
    dashes = (drawn[:, 200] == pictures.REFERENCE_COLOUR).all(axis=-1)
    assert 0.4 < dashes.mean() < 0.6
    coloured = np.ptp(drawn.astype(int), axis=-1) > 10
    assert set(np.flatnonzero(coloured.any(axis=0))) == {100, 101, 199, 200}


@pytest.mark.parametrize("shape", [(100, 128), (1000, 400)])
def test_ragged_labels_are_shown_in_class_colours(shape):
    labels = np.random.default_rng(0).integers(0, 2, shape)
    image = np.zeros(shape)
    picture, over_image = pictures.outline_picture(labels, 2, image=image)
    assert not over_image
    found = set(map(tuple, _rgb(picture.uri).reshape(-1, 3).tolist()))
    assert found == {pictures.DARK, pictures.LIGHT}
    assert max(picture.width, picture.height) <= pictures.THUMB_SIDE


def test_thumbnails_show_ids_that_are_no_class_as_void():
    labels = np.array([[0, 1, 2, 255, -1, 300]])
    drawn = _rgb(pictures.outline_picture(labels, 3)[0].uri)[0]
    expected = [*pictures.class_colours(3), *[pictures.VOID_COLOUR] * 3]
    np.testing.assert_array_equal(drawn[:: len(drawn) // 6], expected)


def test_a_failed_write_keeps_the_old_page_and_leaves_no_draft(tmp_path, monkeypatch):
    path = tmp_path / "audit.html"
    _write(path)
    before = path.read_bytes()
    wrong = report.Thumbnail("t", _labels(), image=np.zeros((3, 3)))
    with pytest.raises(ValueError, match=r"'t'.*image has shape \(3, 3\)"):
        _write(path, thumbnails=[wrong])

    def full_disk(self, target):
        raise OSError("no space left on device")

    monkeypatch.setattr("pathlib.Path.replace", full_disk)
    with pytest.raises(OSError, match="no space"):
        _write(path, _summary(maps=5))
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["audit.html"]


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (0, "0"),
        (3.14, "3.1"),
        (48_123, "48 000"),
        (999_999, "1 million"),
        (1_234_567, "1.2 million"),
        (2.5e9, "2.5 billion"),
        (None, wording.DASH),
    ],
)
def test_counts_are_formatted_as_round_numbers(number, text):
    assert wording.about(number).replace(wording.SPACE, " ") == text
