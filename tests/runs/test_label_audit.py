import csv
import json
import os
import subprocess
import sys
from functools import partial
from pathlib import Path

import jax
import numpy as np
import pytest
from PIL import Image

from metaseg import auditing, noise
from metaseg.data import label_files, synthetic
from metaseg.errors import InputError
from metaseg.runs import audit as label_audit

ROOT = Path(__file__).resolve().parents[2]
COUNT = 6


@pytest.fixture(scope="module")
def clean():
    keys = jax.random.split(jax.random.key(0), COUNT)
    return np.asarray(jax.lax.map(lambda key: synthetic.cells(key)[1], keys))


def save(folder, maps, scale=255):
    folder.mkdir(parents=True)
    for index, labels in enumerate(np.asarray(maps)):
        Image.fromarray(np.uint8(labels * scale)).save(folder / f"map{index}.png")
    return folder


@pytest.fixture(scope="module")
def folders(clean, tmp_path_factory):
    root = tmp_path_factory.mktemp("audit")
    flipped = noise.flip(jax.random.key(1), clean, rate=0.4)
    save(root / "clean", clean)
    save(root / "flipped", flipped)
    save(root / "images", 100 * clean, scale=1)
    return root


def audit_of(root, output, labels="flipped", **more):
    """The exit status of the command with the arguments."""
    fields = {
        "labels": root / labels,
        "reference": root / "clean",
        "images": root / "images",
        "output": output,
        "num_classes": 0,
        "class_names": (),
        "workers": 0,
        "seed": 0,
    }
    found = label_audit.audit(**(fields | more))
    return int(bool(found.summary["bad"]))


@pytest.fixture(scope="module")
def audited(folders, tmp_path_factory):
    output = tmp_path_factory.mktemp("out")
    assert audit_of(folders, output) == 0
    return output


def summary_of(output):
    return json.loads((output / "audit.json").read_text())


def rows_of(output):
    with (output / "audit.csv").open(newline="") as lines:
        return list(csv.DictReader(lines))


def test_the_matrix_of_the_flips_is_found_within_its_interval(audited):
    found = summary_of(audited)["comparison"]
    expected = np.array([[0.6, 0.4], [0.4, 0.6]])
    assert (np.array(found["low"]) <= expected).all()
    assert (expected <= np.array(found["high"])).all()
    assert found["verdict"]["family"] == "randomised"
    assert found["rank"] == 2


def test_there_is_a_row_for_each_map_worst_first(audited):
    rows = rows_of(audited)
    assert sorted(row["name"] for row in rows) == [f"map{i}" for i in range(COUNT)]
    wrong = [float(row["disagreement"]) for row in rows]
    assert wrong == sorted(wrong, reverse=True)


def test_the_page_is_there_and_needs_nothing_else(audited):
    page = (audited / "audit.html").read_text()
    assert "map0" in page
    assert "http" not in page.replace("http-equiv", "").replace("http://www.w3", "")


def test_a_second_run_reads_only_what_changed(folders, audited, monkeypatch, clean):
    read = []
    load = label_files.load

    def counting(item, *rest, **stored):
        read.append(item.name)
        return load(item, *rest, **stored)

    before = (audited / "audit.csv").read_text()
    monkeypatch.setattr(label_files, "load", counting)
    monkeypatch.setattr(label_audit, "SHOWN", 0)
    assert audit_of(folders, audited) == 0
    assert read == []
    assert (audited / "audit.csv").read_text() == before
    records = audited / label_audit.RECORDS
    lines = records.read_text().splitlines(keepends=True)
    records.write_text("".join(lines[:-1]) + lines[-1][:50])  # killed while writing
    assert audit_of(folders, audited) == 0
    assert read == [json.loads(lines[-1])["name"]]
    assert (audited / "audit.csv").read_text() == before
    assert records.read_text() == "".join(lines)


def test_without_a_reference_there_is_no_comparison(folders, tmp_path):
    given = partial(audit_of, folders, tmp_path, "clean", reference=None, images=None)
    assert given() == 0
    summary = summary_of(tmp_path)
    assert summary["comparison"] is None
    assert "disagreement" not in rows_of(tmp_path)[0]
    shares = summary["overview"]["class_shares"]
    np.testing.assert_allclose(sum(shares), 1)


def test_bad_files_are_listed_and_do_not_stop_the_audit(clean, tmp_path):
    labels = save(tmp_path / "labels", clean[:2])
    (labels / "broken.png").write_bytes(b"\x89PNG nothing")
    (labels / "cut.npy").write_bytes((labels / "map0.png").read_bytes())
    np.savez(labels / "more.npz", first=clean[2] * 255, second=clean[3] * 255.0)
    np.save(labels / "single.npy", clean[4] * 255)
    given = partial(
        audit_of, tmp_path, tmp_path / "out", "labels", reference=None, images=None
    )
    assert given() == 1
    summary = summary_of(tmp_path / "out")
    assert {bad["name"] for bad in summary["bad"]} == {"broken", "cut"}
    assert summary["maps"] == 5


def test_worker_processes_give_what_one_process_gives(
    folders, audited, tmp_path, monkeypatch
):
    monkeypatch.setattr(label_files, "_MANY_BYTES", 0)
    assert audit_of(folders, tmp_path, workers=2) == 0
    assert (tmp_path / "audit.csv").read_text() == (audited / "audit.csv").read_text()


def test_a_process_that_dies_is_reported_in_one_line():
    with pytest.raises(InputError, match=r"^workers: a process that reads") as caught:
        list(label_files._each(os._exit, [(1,)], 1))
    assert "\n" not in str(caught.value)


def test_maps_of_other_sizes_and_void_are_taken(clean, tmp_path):
    labels = tmp_path / "labels"
    labels.mkdir()
    for index, side in enumerate((40, 97, 128)):
        part = clean[index, :side, :120].copy()
        part[:5] = 255
        Image.fromarray(part).save(labels / f"{index}.png")
    given = partial(
        audit_of, tmp_path, tmp_path / "out", "labels", reference=None, images=None
    )
    assert given() == 0
    rows = rows_of(tmp_path / "out")
    assert {int(row["height"]) for row in rows} == {40, 97, 128}
    assert all(float(row["void_share"]) > 0 for row in rows)


def test_of_many_classes_the_profile_speaks_of_the_inside_alone(clean):
    labels = clean[0] + (clean[0] * (np.arange(128) > 64)).astype(np.uint8)
    profile = label_audit._profile(auditing.compare(labels, labels, 3), "abc")
    inside = np.array(profile["distance"]) < 0
    for shares in profile["classes"].values():
        said = np.array([share is not None for share in shares])
        assert said[inside].any()
        assert not said[~inside].any()
        assert {share for share in shares if share is not None} == {1.0}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"labels": Path("/nowhere")}, "labels: no label map at '/nowhere'"),
        ({"reference": Path("/nowhere")}, "reference: no label map at '/nowhere'"),
        ({"images": Path("/nowhere")}, "images: no image at '/nowhere'"),
        ({"class_names": ("a",)}, "class_names: got 1 name, expected 2"),
    ],
)
def test_wrong_settings_are_named(folders, tmp_path, change, message):
    with pytest.raises(InputError, match=f"^{message}"):
        audit_of(folders, tmp_path, **change)


def test_references_of_other_names_are_refused(folders, clean, tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    Image.fromarray(clean[0]).save(other / "unknown.png")
    with pytest.raises(InputError, match=r"^reference: no .* a name like 'map0'"):
        audit_of(folders, tmp_path / "out", reference=other)


def test_arrays_give_what_their_files_give(folders, audited, clean):
    flipped = [
        np.array(Image.open(folders / "flipped" / f"map{i}.png")) for i in range(COUNT)
    ]
    found = label_audit.audit_arrays(flipped, clean)
    expected = summary_of(audited)
    assert found["comparison"] == expected["comparison"]
    assert found["overview"] == expected["overview"]
    assert found["position"] == expected["position"]
    assert [one["score"] for one in found["outliers"]] == [
        one["score"] for one in expected["outliers"]
    ]


def test_numbers_that_are_not_defined_are_null_with_the_reason(clean):
    found = label_audit.audit_arrays(1 - clean * 0, clean, num_classes=2)["comparison"]
    assert found["condition_number"] is None
    assert found["verdict"]["evidence"]["step_contrast"] is None
    assert found["why_null"] == {
        "step_contrast": (
            "no class has a step at its boundary: far inside and far outside of each "
            "class are labelled alike"
        ),
        "step_error": found["why_null"]["step_contrast"],
        "condition_number": "infinite: the rank of the matrix is 1 of 2",
    }


def test_the_verdict_names_the_classes(clean):
    merged = np.where(np.arange(clean.shape[-1]) < 40, clean, 2 * clean)
    found = label_audit.audit_arrays(
        clean, merged, num_classes=3, class_names=("none", "cell", "scratch")
    )
    said = found["comparison"]["verdict"]["sentences"]
    assert "Cell and scratch are merged: all are labelled cell." in said


def test_arrays_that_are_no_label_maps_are_named(clean):
    with pytest.raises(InputError, match=r"^labels\[0\]: .*`label_threshold"):
        label_audit.audit_arrays(clean * 0.75)
    with pytest.raises(InputError, match=r"^reference: got 1 array, expected one"):
        label_audit.audit_arrays(clean, clean[:1])


def test_the_command_line_says_what_is_missing_in_one_line():
    script = ROOT / "experiments" / "audit.py"
    done = subprocess.run(
        [sys.executable, script, "--output=x"], capture_output=True, text=True
    )
    assert done.returncode == 2
    assert done.stderr == "error: --labels: not given, expected a folder\n"


@pytest.mark.parametrize("masks", ["labels", "reference"])
def test_masks_beside_more_than_two_classes_are_ambiguous(tmp_path, masks):
    ids = np.tile(np.arange(3).repeat(4), (12, 1))
    maps = {"labels": [ids], "reference": [ids], masks: [ids > 0]}
    for part, given in maps.items():
        save(tmp_path / part, given, scale=255 if part == masks else 1)
    with pytest.raises(InputError) as caught:
        audit_of(
            tmp_path,
            tmp_path / "out",
            "labels",
            reference=tmp_path / "reference",
            images=None,
        )
    assert "masks of two classes (num_classes=3)" in str(caught.value)
    for cure in ("255=1", "255=255"):
        assert f"`label_values='{cure}'`" in str(caught.value)
