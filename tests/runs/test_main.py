"""The command line, end to end, in a process of its own."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from metaseg.runs import signals

ROOT = Path(__file__).resolve().parents[2]
TINY = (
    "--config.data.height=32",
    "--config.data.width=32",
    "--config.data.train_size=16",
    "--config.data.val_size=4",
    "--config.data.test_size=5",
    "--config.augment.crop=32",
    "--config.model.width=2",
    "--config.model.depth=1",
    "--config.training.steps=30",
    "--config.parallel.devices=1",
    "--config.training.batch_size=4",
    "--config.training.eval_batch_size=4",
    "--config.training.eval_every=10",
    "--config.training.log_every=5",
)


def _main(*arguments, cwd=ROOT):
    return subprocess.run(
        [sys.executable, str(ROOT / "experiments" / "main.py"), *arguments],
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=300,
    )


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    path = tmp_path_factory.mktemp("run") / "out"
    done = _main(
        "--config=configs/cell_flip.py",
        "--config.noise.rate=0.2",
        f"--workdir={path}",
        *TINY,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == f"report: {path / 'report.html'}"
    (path / "stderr").write_text(done.stderr)
    return path


def test_everything_a_run_leaves_is_there(workdir):
    names = {p.name.split(".")[0] for p in workdir.iterdir()}
    assert {
        "checkpoints",
        "config",
        "environment",
        "events",
        "metrics",
        "report",
        "results",
    } <= names
    assert (workdir / "checkpoints" / "30").is_dir()
    assert "<html" in (workdir / "report.html").read_text()


def test_plain_progress_lines_when_not_a_terminal(workdir):
    lines = (workdir / "stderr").read_text().splitlines()
    assert any(
        line.startswith("step 30/30") and "val iou" in line and "img/s" in line
        for line in lines
    )
    assert not any("Traceback" in line for line in lines)


def test_results_hold_every_measure_under_every_reading(workdir):
    results = json.loads((workdir / "results.json").read_text())
    for measure in ("iou", "dice", "accuracy", "precision", "recall", "mean_image_iou"):
        rules = results["test"][measure]
        assert set(rules) == {"argmax", "analytic", "validation", "oracle"}
    assert results["test"]["iou"]["oracle"] >= results["test"]["iou"]["validation"]
    assert 0 <= results["test"]["auc"] <= 1
    assert results["noise"]["changed_pixels"] == pytest.approx(0.2, abs=0.02)
    assert results["noise"]["matrix"][0] == pytest.approx([0.8, 0.2])
    assert results["data"]["test"] == 5
    assert {"compile_seconds", "train_seconds", "images_per_second"} <= set(
        results["time"]
    )


def test_metrics_lines_run_to_the_last_step_and_the_loss_falls(workdir):
    rows = [json.loads(x) for x in (workdir / "metrics.jsonl").read_text().splitlines()]
    train = [r for r in rows if r["split"] == "train"]
    assert train[-1]["step"] == 30
    assert train[-1]["loss"] < train[0]["loss"]
    assert [r["step"] for r in rows if r["split"] == "val"] == [10, 20, 30]


def test_config_on_disk_is_the_resolved_one(workdir):
    config = json.loads((workdir / "config.json").read_text())
    assert config["noise"]["rate"] == 0.2
    assert config["training"]["steps"] == 30


@pytest.fixture(scope="module")
def three_classes(tmp_path_factory):
    """A folder of K = 3 with void, sides no multiple of the stride, of two sizes."""
    root = tmp_path_factory.mktemp("folder")
    rng = np.random.default_rng(0)
    for split, count in (("train", 4), ("val", 2), ("test", 2)):
        for kind in ("images", "labels"):
            (root / split / kind).mkdir(parents=True)
        for i in range(count):
            size = (37, 41) if i % 2 else (45, 39)
            label = rng.choice([0, 1, 2, 255], size).astype(np.uint8)
            image = rng.integers(0, 255, (*size, 3)).astype(np.uint8)
            Image.fromarray(label).save(root / split / "labels" / f"{i}.png")
            Image.fromarray(image).save(root / split / "images" / f"{i}.png")
    return root


def test_a_folder_of_three_classes_with_another_noise(three_classes, tmp_path):
    done = _main(
        "--config=configs/nuclei.py:noise=flip,rate=0.4",
        f"--config.data.dir={three_classes}",
        "--config.data.num_classes=3",
        "--config.noise.name=transition",
        "--config.noise.matrix=[[0.8,0.1,0.1],[0.2,0.7,0.1],[0,0.5,0.5]]",
        f"--workdir={tmp_path / 'run'}",
        *(flag for flag in TINY if not flag.startswith("--config.training.steps=")),
        "--config.training.steps=4",
        "--config.training.steps_per_dispatch=3",
    )
    assert done.returncode == 0, done.stderr
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    assert set(results["test"]["miou"]) == {"argmax", "analytic"}
    assert len(results["test"]["class_iou"]["argmax"]) == 3
    assert results["noise"]["name"] == "transition"
    assert "rate" not in results["noise"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--config=configs/cell_flop.py"], "configs/cell_flop.py"),
        (["--config=configs/cell_flip.py", "--config.noise.rate=1.5"], "[0, 1]"),
        (["--config=configs/cell_flip.py", "cell"], "'cell'"),
    ],
)
def test_bad_command_lines_get_one_line_and_status_2(arguments, message, tmp_path):
    done = _main(*arguments, f"--workdir={tmp_path / 'run'}")
    assert done.returncode == 2
    (line,) = done.stderr.strip().splitlines()
    assert line.startswith("error: ")
    assert message in line
    assert not (tmp_path / "run").exists()


def test_help_tells_the_flags():
    done = _main("--help")
    assert "--workdir" in done.stdout
    assert "--config" in done.stdout


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_while_compiling_ends_the_command_with_a_line(tmp_path, number):
    arguments = ["--config=cell_flip", "--config.training.steps=100000"]
    sizes = [f"--config.data.{name}=32" for name in ("height", "width")]
    sizes += ["--config.augment.crop=32", f"--workdir={tmp_path / 'run'}"]
    run = subprocess.Popen(
        [sys.executable, "-m", "metaseg", "train", *arguments, *sizes],
        cwd=ROOT,
        env={**os.environ, "METASEG_CACHE": "off", "JAX_COMPILATION_CACHE_DIR": ""},
        stderr=subprocess.PIPE,
        text=True,
    )
    for line in run.stderr:
        if line.startswith("compiling"):
            break
    time.sleep(0.5)
    run.send_signal(number)
    _, said = run.communicate(timeout=300)
    assert run.returncode == signals.EXIT_STATUS
    where = "before the first step|after step"
    assert re.match(f"stopped by {number.name} ({where})", said.splitlines()[-1])
