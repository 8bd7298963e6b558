"""The smallest run that has everything a run has."""

import json
import multiprocessing
import os
import subprocess
import sys
from pathlib import Path

import jax
import pytest

from metaseg import cli
from metaseg.runs import defaults, signals

ROOT = Path(__file__).resolve().parents[2]
FIELDS = {
    "data.height": 16,
    "data.width": 16,
    "data.train_size": 8,
    "data.val_size": 2,
    "data.test_size": 2,
    "noise.name": "flip",
    "noise.rate": 0.2,
    "augment.crop": 16,
    "model.width": 2,
    "model.depth": 1,
    "optimizer.name": "adam",  # Muon takes longer to compile
    "parallel.devices": 1,
    "training.steps": 12,
    "training.batch_size": 4,
    "training.eval_batch_size": 2,
    "training.log_every": 3,
    "training.eval_every": 4,
    "training.checkpoint_every": 12,
    "report.images": 1,
}


class StopAfter(signals.Watch):
    """Sees a signal at the given step, as if it had come from outside."""

    def __init__(self, step):
        super().__init__(handle=False)
        self._step = step

    def asked(self, step):
        if step >= self._step:
            self.signal = "SIGTERM"
        return super().asked(step)


def config(**changes):
    """The config of the run, with some fields changed."""
    config = defaults.get_config()
    config.update_from_flattened_dict(FIELDS | changes)
    return config


def outcome(workdir):
    """All of a run that does not tell the time."""
    results = json.loads((workdir / "results.json").read_text())
    steps = [p for p in (workdir / "checkpoints").iterdir() if p.name.isdecimal()]
    newest = max(steps, key=lambda p: int(p.name))
    saved = json.loads((newest / "progress" / "metadata").read_text())
    found = results.get("test") or [row["test"] for row in results["members"]]
    return history(workdir), found, int(newest.name), saved["digest"]


def history(workdir):
    """The rows of metrics.jsonl, of all members, without times."""
    rows = []
    for path in sorted(workdir.glob("**/metrics.jsonl")):
        rows += [json.loads(line) for line in path.read_text().splitlines()]
    for row in rows:
        row.pop("images_per_second", None)
    return rows


def assert_close(rows, expected):
    """Rows of two histories tell the same, but for rounding."""
    for row, other in zip(rows, expected, strict=True):
        assert row.pop("split") == other.pop("split")
        assert row == pytest.approx(other, rel=1e-5)


def command(workdir, *flags, **changes):
    """The command line of the run."""
    fields = [f"--config.{name}={value}" for name, value in (FIELDS | changes).items()]
    script = str(ROOT / "experiments" / "main.py")
    file = f"--config={ROOT / 'configs' / 'default.py'}"
    return [sys.executable, script, file, f"--workdir={workdir}", *fields, *flags]


def start(cache, command):
    """Starts a process that keeps what it compiles on disk."""
    return subprocess.Popen(
        command,
        cwd=ROOT,
        env=os.environ | {"JAX_COMPILATION_CACHE_DIR": str(cache)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


def fork(cache, command):
    """Starts the same, but as a fork of a process that has imported what a run needs.

    Python, jax and metaseg take longer to start than the run takes.
    """
    context = multiprocessing.get_context("forkserver")
    run = "metaseg.runs.training"
    context.set_forkserver_preload(["pytest", "metaseg.cli.train", f"{run}.run"])
    process = context.Process(target=_main, args=(str(cache), command[2:]))
    process.start()
    return process


def _main(cache, arguments):
    jax.config.update("jax_compilation_cache_dir", cache)
    with open(os.devnull, "w") as nowhere:
        os.dup2(nowhere.fileno(), 1)
        os.dup2(nowhere.fileno(), 2)
    sys.exit(cli.main(["train", *arguments]))
