"""The page of an ensemble: links to every run, and means of the right runs."""

import base64
import json
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from matplotlib import colors

from metaseg import report
from metaseg.report import figures

RULES = ("argmax", "analytic", "validation", "oracle")


def _history(end, key="iou"):
    rows = [{"step": 10 * i, "split": "val", key: end * i / 4} for i in range(1, 5)]
    return [{"step": 5, "split": "train", "loss": 0.5}, *rows]


def _member(i, differs, score, **changes):
    measures = dict.fromkeys(RULES, score)
    member = report.Member(f"members/{i}", differs, measures, _history(score or 0.1))
    return member._replace(**changes)


def _seeds(scores, **changes):
    return [
        _member(i, {"seed": i, "noise.seed": 7 + i}, score, **changes)
        for i, score in enumerate(scores)
    ]


def _write(path, members, **changes):
    arguments = {
        "title": "cells, flip",
        "config": {"parallel": {"ensemble": 8}},
        "environment": {"python": "3.11"},
        "num_classes": 2,
        "command": "python experiments/main.py --config.parallel.ensemble=8",
        "time": {"train_seconds": 98.3, "total_seconds": 131},
    }
    report.write_ensemble(path, members=members, **{**arguments, **changes})
    return path.read_text(encoding="utf-8")


class _Page(HTMLParser):
    """Collects links, images, tags left open, and the rows of tables as their text."""

    void = frozenset({"meta", "img"})

    def __init__(self, text):
        super().__init__()
        self.links, self.images, self.tags, self.open = [], {}, set(), []
        self.rows, self.bold = [], []
        self.feed(text)
        self.rows = [[" ".join(cell.split()) for cell in row] for row in self.rows]

    def handle_starttag(self, tag, attributes):
        values = dict(attributes)
        self.tags.add(tag)
        if tag == "a":
            self.links.append(values["href"])
        if tag == "img":
            self.images[values["alt"]] = values["src"]
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")
            if "best" in values.get("class", "").split():
                self.bold.append((len(self.rows) - 1, len(self.rows[-1]) - 1))
        if tag not in self.void:
            self.open.append(tag)

    def handle_data(self, data):
        if {"td", "th"} & set(self.open):
            self.rows[-1][-1] += data

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def _svg(chart):
    return base64.b64decode(chart.uri.split(",")[1]).decode()


def _charts(members, varied):
    return figures.member_charts(
        [each.history for each in members],
        [each.measures["analytic"] for each in members],
        diverged=[each.diverged > 0 for each in members],
        varied=varied,
        overlap="IoU",
        rule="noise-aware",
    )


def test_page_links_each_run_and_needs_no_network(tmp_path):
    text = _write(tmp_path / "report.html", _seeds([0.9, 0.8, 0.7]))
    page = _Page(text)
    assert page.open == []
    assert page.links == [f"members/{i}/report.html" for i in range(3)]
    assert all(uri.startswith("data:image/") for uri in page.images.values())
    assert page.tags.isdisjoint({"script", "link", "iframe", "object"})
    assert not re.search(r"https?://|@import|url\(", text)
    assert "The runs differ in seed and noise.seed only." in text
    assert [row[0] for row in page.rows[1:4]] == ["members/0", "members/1", "members/2"]
    assert page.rows[2][1:4] == ["1", "8", "0.800"]


def test_mean_and_deviation_are_of_the_runs_that_did_not_diverge(tmp_path):
    scores = np.array([0.91, 0.84, 0.77, 0.5])
    members = _seeds(scores.tolist())
    members[3] = members[3]._replace(diverged=120)
    text = _write(tmp_path / "a.html", members)
    rows = _Page(text).rows
    expected = f"{scores[:3].mean():.3f} ± {scores[:3].std(ddof=1):.3f}"
    assert rows[5] == ["Mean of 3 of 4", "", "", *[expected] * 4]
    assert rows[4][0] == "members/3 diverged at step 120"
    assert f"<dd>{expected}</dd>" in text


def test_means_are_taken_only_over_runs_that_differ_in_seeds_only(tmp_path):
    def means(fields):
        members = [_member(i, each, 0.5 + i / 10) for i, each in enumerate(fields)]
        rows = _Page(_write(tmp_path / "a.html", members)).rows
        return [row for row in rows if row[0].startswith("Mean of")]

    rate = "noise.rate"
    assert means([{rate: 0.1}, {rate: 0.2}]) == []
    assert means([{rate: 0.1, "seed": 0}, {rate: 0.2, "seed": 1}]) == []
    assert means([{rate: 0.1, "seed": 3}, {rate: 0.1, "seed": 3}]) == []  # the same run
    pairs = [{rate: r, "seed": s} for r in (0.1, 0.2) for s in (0, 1)]
    spread = f"{np.std([0.5, 0.6], ddof=1):.3f}"
    assert [row[:4] for row in means(pairs)] == [
        ["Mean of 2", "0.1", "", f"0.550 ± {spread}"],
        ["Mean of 2", "0.2", "", f"0.750 ± {spread}"],
    ]


def test_best_run_is_bold_with_its_ties_and_diverged_runs_are_not(tmp_path):
    members = _seeds([0.9, 0.90004, 0.7, 0.95])
    members[3] = members[3]._replace(diverged=9)
    bold = _Page(_write(tmp_path / "a.html", members)).bold
    assert bold == [(row, column) for row in (1, 2) for column in (3, 4, 5, 6)]


def test_one_varied_number_gets_a_chart_of_test_iou_with_the_mean_of_each_value():
    rates = [0.1, 0.1, 0.2, 0.2, 0.4]
    members = [
        _member(i, {"noise.rate": rate}, 0.9 - i / 10) for i, rate in enumerate(rates)
    ]
    members[4] = members[4]._replace(diverged=30)
    validation, test = _charts(members, ("noise.rate", rates))
    assert validation.title == "Validation IoU"
    assert "0.850 at 0.1, 0.650 at 0.2." in test.alt
    assert "at 0.4" not in test.alt


@pytest.mark.parametrize(
    ("fields", "charts"),
    [
        ([{"noise.rate": 0.1, "seed": 0}, {"noise.rate": 0.2, "seed": 1}], 2),
        ([{"seed": 0}, {"seed": 1}], 1),
        ([{"noise.rate": 0.1, "noise.theta1": 1}, {"noise.rate": 0.2}], 1),
        ([{"noise.rate": (0.1, 0.2)}, {"noise.rate": 0.2}], 1),
        ([{"noise.rate": 0.1}, {"noise.rate": 0.1}], 1),
    ],
)
def test_test_iou_is_drawn_against_the_only_number_varied(tmp_path, fields, charts):
    members = [_member(i, each, 0.6) for i, each in enumerate(fields)]
    assert len(_Page(_write(tmp_path / "a.html", members)).images) == charts


def test_curves_of_a_varied_number_go_from_dark_to_light():
    values = [0.4, 0.1, 0.3, 0.1, 0.2]
    looks = dict(zip(values, figures._by_value(values), strict=True))
    assert [looks[v][1] for v in sorted(looks)] == ["0.1", "0.2", "0.3", "0.4"]
    weights = (0.2126, 0.7152, 0.0722)
    light = [np.dot(colors.to_rgb(looks[v][0]), weights) for v in sorted(looks)]
    assert np.all(np.diff(light) > 0)
    svg = _svg(_charts(_seeds([0.6] * 5), ("noise.rate", values))[0])
    drawn = re.findall(r"stroke: (#\w{6}); stroke-width: 1.4", svg)
    assert drawn[:5] == [looks[v][0] for v in values]


def test_median_curve_is_the_median_where_all_curves_are_known():
    rng = np.random.default_rng(0)
    values = rng.random((5, 4))
    values[2, 1] = np.nan
    steps, medians = figures._median_curve([(np.arange(4.0), row) for row in values])
    np.testing.assert_array_equal(steps, [0, 2, 3])
    np.testing.assert_allclose(medians, np.median(values[:, [0, 2, 3]], axis=0))


@pytest.mark.parametrize(
    ("values", "by_factors"),
    [
        ([0.003, 0.01, 0.03, 0.1], True),
        ([0.1, 0.2, 0.3, 0.4], False),
        ([0.0, 0.01, 0.1], False),
    ],
)
def test_values_spaced_by_factors_get_a_logarithmic_axis(values, by_factors):
    assert figures._evenly_in_logarithm(values) == by_factors


def test_long_values_are_cut_where_they_differ_and_kept_whole_beside(tmp_path):
    def matrix(last):
        return np.array([[0.8, 0.1, 0.1], [0.05, 0.9, 0.05], [0.0, 1 - last, last]])

    members = [
        _member(i, {"noise.matrix": matrix(last)}, 0.5)
        for i, last in enumerate((0.75, 0.5))
    ]
    text = _write(tmp_path / "a.html", members)
    assert [row[1] for row in _Page(text).rows[1:3]] == ["…0.25, 0.75))", "…0.5, 0.5))"]
    whole = "((0.8, 0.1, 0.1), (0.05, 0.9, 0.05), (0, 0.25, 0.75))"
    assert f'title="{whole}"' in text


def test_members_read_back_from_json_give_the_same_page(tmp_path):
    members = [
        _member(i, {"noise.rate": (0.1, i / 10), "seed": i}, 0.5) for i in range(3)
    ]
    again = [report.Member(**json.loads(json.dumps(m._asdict()))) for m in members]
    assert _write(tmp_path / "a.html", members) == _write(tmp_path / "b.html", again)


def test_more_than_two_classes_have_a_mean_iou_and_two_decision_rules(tmp_path):
    measures = {"argmax": 0.61, "analytic": 0.634, "validation": None}
    members = _seeds([0.6, 0.6], measures=measures, history=_history(0.6, "miou"))
    text = _write(tmp_path / "a.html", members, num_classes=3)
    page = _Page(text)
    assert page.rows[0] == ["Run", "seed", "noise.seed", "Argmax", "Noise-aware"]
    assert "Test mean IoU (noise-aware)" in text
    assert any(alt.startswith("Validation mean IoU") for alt in page.images)
    assert "pictures" not in text.lower()


@pytest.mark.parametrize("lost", [None, float("nan")])
def test_page_is_valid_if_every_run_diverged(tmp_path, lost):
    members = _seeds([lost, lost], diverged=3, history=[])
    page = _Page(_write(tmp_path / "a.html", members, time={}, command=""))
    assert page.open == []
    assert page.images == {}
    assert [row[0] for row in page.rows[1:3]] == [
        f"members/{i} diverged at step 3" for i in range(2)
    ]


def test_hostile_names_are_escaped_in_texts_and_links(tmp_path):
    evil = "javascript:<script>alert('x')</script>\"><img src=x>&"
    member = _member(0, {evil: evil * 3, "seed": 1}, 0.5, folder=evil)
    page = _Page(_write(tmp_path / "a.html", [member], title=evil, command=evil))
    assert page.open == []
    assert "script" not in page.tags
    assert not page.links[0].startswith("javascript:")
    assert "x" not in page.images.values()


def test_a_single_run_has_no_deviation_and_no_best(tmp_path):
    text = _write(tmp_path / "a.html", _seeds([0.5]))
    assert "1 independent run, trained" in text
    assert "±" not in text
    assert _Page(text).bold == []


def test_no_member_is_an_error(tmp_path):
    with pytest.raises(ValueError, match="members: got none, expected at least one"):
        _write(tmp_path / "a.html", [])
    assert list(tmp_path.iterdir()) == []
