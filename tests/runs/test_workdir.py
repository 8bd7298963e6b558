"""A work folder in a bucket holds what one on a disk does."""

import importlib.machinery
import json
import subprocess
import sys
import types
from pathlib import Path

import fsspec
import pytest
import tiny
from etils.epath import backend
from fsspec.implementations.memory import MemoryFileSystem

from metaseg import checkpoint, files
from metaseg.errors import InputError
from metaseg.runs import metrics_log
from metaseg.runs import workdir as workdir_lib
from metaseg.runs.training.run import train

ROOT = Path(__file__).resolve().parents[2]
ADDRESS = "gs://lab/runs/cells"
FEW = {"training.steps": 4, "training.log_every": 2, "training.eval_every": 2}
ROWS = [(1, "train", {"loss": 0.5}), (2, "val", {"iou": float("nan")})]


class Objects(MemoryFileSystem):
    """What a bucket can do: whole objects, whose names are all there is of folders."""

    cachable = False
    protocol = "objects"
    full = False

    def __init__(self):
        super().__init__()
        self.store, self.pseudo_dirs = {}, [""]

    def makedirs(self, path, exist_ok=False):
        pass

    def mv(self, *_, **__):
        raise NotImplementedError("an object cannot be moved")

    def _open(self, path, mode="rb", **options):
        if mode not in ("rb", "wb"):
            raise NotImplementedError(f"an object cannot be opened by '{mode}'")
        if mode == "wb" and self.full:
            raise ConnectionError("no route\nto the bucket")
        return super()._open(path, mode, **options)


@pytest.fixture
def objects(monkeypatch):
    """Takes the place of Google's servers."""
    bucket = Objects()
    gcsfs = types.ModuleType("gcsfs")
    gcsfs.__spec__ = importlib.machinery.ModuleSpec("gcsfs", None)
    monkeypatch.setitem(sys.modules, "gcsfs", gcsfs)
    monkeypatch.setitem(fsspec.config.conf, "gcs", {})
    for name in ("EPATH_USE_TF", "GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT"):
        monkeypatch.setenv(name, "0")
    monkeypatch.setattr(backend.fsspec_backend, "_get_filesystem", lambda _: bucket)
    return bucket


@pytest.mark.parametrize("address", ["s3://lab/runs", "gs://", "gs://lab/", "gs:///a"])
def test_an_address_that_is_no_folder_of_a_bucket_is_refused(address):
    with pytest.raises(InputError, match=f"^workdir: got '{address}', expected"):
        files.bucket(address)


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "gcsfs", None)
    with pytest.raises(InputError, match=r"^workdir: .* gcsfs.*'metaseg-jax\[gcs\]'"):
        files.bucket(ADDRESS)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--workdir=s3://lab/runs"], "--workdir: got 's3://lab/runs'"),
        ([f"--workdir={ADDRESS}", "--profile=1:2"], "--profile: traces go to a disk"),
    ],
)
def test_the_command_line_refuses_in_one_line(flags, message):
    script = str(ROOT / "experiments" / "main.py")
    done = subprocess.run(
        [sys.executable, script, "--config=configs/default.py", *flags],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 2
    assert done.stderr.startswith(f"error: {message}")
    assert done.stderr.count("\n") == 1


def test_an_address_stays_one_whatever_is_done_to_it(objects):
    workdir = files.bucket(ADDRESS)
    paths = [
        workdir.absolute(),
        (workdir / "a").absolute().parent,
        workdir / "a" / "..",
    ]
    assert [str(path) for path in paths] == [ADDRESS, ADDRESS, f"{ADDRESS}/a/.."]


def test_a_bucket_out_of_reach_is_said_in_one_line(objects):
    objects.full = True
    with pytest.raises(InputError, match=f"workdir: .*'{ADDRESS}'.*no route") as told:
        workdir_lib.check(files.bucket(ADDRESS), "auto")
    assert "\n" not in str(told.value)


def test_a_folder_in_a_bucket_is_resumed_as_one_on_a_disk(objects):
    workdir = files.bucket(ADDRESS)
    assert not workdir_lib.check(workdir, "auto")
    assert objects.store == {}  # the trial has been removed
    files.write_json(workdir / "config.json", {"seed": 1})
    assert workdir_lib.check(workdir, "must")
    assert not workdir_lib.check_config(workdir, {"seed": 1})
    with pytest.raises(InputError, match=r"config\.seed was 1, is 2"):
        workdir_lib.check_config(workdir, {"seed": 2})
    with pytest.raises(InputError, match="not empty"):
        workdir_lib.check(workdir, "never")
    for name in ("results.json", "report.html"):
        files.write_text(workdir / name, "")
    assert workdir_lib.check_config(workdir, {"seed": 1})


def test_what_was_there_stays_if_the_bucket_is_lost(objects):
    path = files.bucket(ADDRESS) / "results.json"
    files.write_json(path, [1])
    objects.full = True
    with pytest.raises(OSError, match=r"ConnectionError: no route to the bucket.*gs:"):
        files.write_json(path, [2])
    assert json.loads(path.read_text()) == [1]


def lines(folder):
    return (folder / "metrics.jsonl").read_text().splitlines()


def test_metrics_in_a_bucket_are_those_on_a_disk(objects, tmp_path):
    before = [{"step": 0, "split": "val", "iou": 0.25}]
    folders = (tmp_path, files.bucket(ADDRESS))
    for folder in folders:
        record = metrics_log.MetricsLog(folder, before, first_step=0)
        for row in ROWS:
            record.write(*row)
        record.close()
    assert lines(folders[0]) == lines(folders[1])
    events = [next(p for p in f.iterdir() if "events" in p.name) for f in folders]
    sizes = [len(path.read_bytes()) for path in events]
    assert sizes[0] == sizes[1] > 100


@pytest.mark.parametrize(("seconds", "seen"), [(0, [0, 1, 2]), (3600, [0, 0, 0])])
def test_metrics_are_sent_now_and_then(objects, monkeypatch, seconds, seen):
    monkeypatch.setattr(metrics_log, "SEND_SECONDS", seconds)
    record = metrics_log.MetricsLog(files.bucket(ADDRESS))
    counts = [len(lines(files.bucket(ADDRESS)))]
    for row in ROWS:
        record.write(*row)
        counts.append(len(lines(files.bucket(ADDRESS))))
    record.close()
    assert counts == seen
    assert len(lines(files.bucket(ADDRESS))) == 2


def test_a_run_in_a_bucket_leaves_all_that_a_run_leaves(objects, tmp_path, monkeypatch):
    # But for checkpoints: Orbax sends arrays to Google by a way of its own.
    kept = checkpoint.Checkpoints
    monkeypatch.setattr(checkpoint, "Checkpoints", lambda _: kept(tmp_path))
    workdir, config = files.bucket(ADDRESS), tiny.config(**FEW)
    train(config, workdir=workdir)
    names = {path.name.split(".")[0] for path in workdir.iterdir()}
    written = {"config", "environment", "events", "metrics", "report", "results"}
    assert names == written
    history = kept(tmp_path, read_only=True).progress(4)["history"]
    assert [json.loads(line) for line in lines(workdir)] == history[0]
    objects.full = True
    with pytest.raises(InputError, match="cannot write"):
        train(config, workdir=workdir)
    objects.full = False
    assert train(config, workdir=workdir).results["test"]  # finished
