"""A run that was stopped, killed or damaged ends as if nothing had happened."""

import errno
import os
import random
import re
import shlex
import shutil
import signal
import subprocess
import time
from functools import partial

import numpy as np
import pytest
import tiny
from tiny import StopAfter, outcome

from metaseg import checkpoint
from metaseg.errors import InputError
from metaseg.runs import defaults, signals
from metaseg.runs.training.run import TrainTask, train

EVERY = {"training.checkpoint_every": 1}  # a checkpoint after every step
config = partial(tiny.config, **EVERY)
command = partial(tiny.command, **EVERY)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The run that nothing happens to."""
    path = tmp_path_factory.mktemp("whole") / "run"
    train(config(), workdir=path)
    return path


@pytest.mark.parametrize("step", [2, 7])
def test_a_stopped_run_goes_on_to_the_same_end(whole, tmp_path, step):
    with pytest.raises(signals.StoppedError, match="stopped by SIGTERM after step"):
        train(config(), workdir=tmp_path, watch=StopAfter(step))
    assert not (tmp_path / "results.json").exists()
    train(config(), workdir=tmp_path)
    assert outcome(tmp_path) == outcome(whole)


def test_checkpoints_are_made_at_their_own_interval_and_add_no_row(
    whole, tmp_path, monkeypatch
):
    saved = []
    save = checkpoint.Checkpoints.save

    def noting(self, step, *arguments):
        saved.append(step)
        save(self, step, *arguments)

    monkeypatch.setattr(checkpoint.Checkpoints, "save", noting)
    train(config(**{"training.checkpoint_every": 5}), workdir=tmp_path)
    assert saved == [4, 5, 8, 10, 12]  # validations are every 4
    assert outcome(tmp_path)[0] == outcome(whole)[0]


def test_a_run_goes_on_with_other_devices_and_backend(whole, tmp_path):
    with pytest.raises(signals.StoppedError):
        train(config(), workdir=tmp_path / "a", watch=StopAfter(6))
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    train(config(**{"parallel.devices": 4}), workdir=tmp_path / "a", resume="must")
    changes = {"parallel.devices": 2, "parallel.partitioner": "pmap"}
    train(config(**changes), workdir=tmp_path / "b", resume="must")
    for name in "ab":
        tiny.assert_close(tiny.history(tmp_path / name), tiny.history(whole))


def test_a_stopped_run_of_the_default_optimizer_goes_on_bit_for_bit(tmp_path):
    c = config(**{"optimizer.name": defaults.get_config().optimizer.name})
    train(c, workdir=tmp_path / "whole")
    with pytest.raises(signals.StoppedError):
        train(c, workdir=tmp_path / "parts", watch=StopAfter(6))
    train(c, workdir=tmp_path / "parts", resume="must")
    assert outcome(tmp_path / "parts")[0] == outcome(tmp_path / "whole")[0]


def test_a_checkpoint_of_another_config_is_refused(whole, tmp_path, monkeypatch):
    shutil.copytree(whole, tmp_path / "run")
    (tmp_path / "run" / "results.json").unlink()
    text = (tmp_path / "run" / "config.json").read_text()
    (tmp_path / "run" / "config.json").write_text(
        text.replace('"rate": 0.2', '"rate": 0.3')
    )
    with pytest.raises(InputError, match="checkpoint of step 12 is of another config"):
        train(config(**{"noise.rate": 0.3}), workdir=tmp_path / "run")


def test_a_finished_run_is_left_as_it_is(whole):
    before = {p: p.stat().st_mtime_ns for p in whole.rglob("*")}
    assert train(config(), workdir=whole).folder == whole
    assert {p: p.stat().st_mtime_ns for p in whole.rglob("*")} == before


def test_another_config_is_refused_and_names_what_differs(whole):
    with pytest.raises(InputError, match=r"config\.noise\.rate was 0\.2, is 0\.3"):
        train(config(**{"noise.rate": 0.3}), workdir=whole)


def test_modes_of_resuming(whole, tmp_path):
    with pytest.raises(InputError, match=r"workdir: .*not empty"):
        train(config(), workdir=whole, resume="never")
    with pytest.raises(InputError, match="resume: no run in"):
        train(config(), workdir=tmp_path / "new", resume="must")
    with pytest.raises(InputError, match="resume: got 'maybe'"):
        train(config(), workdir=tmp_path / "new", resume="maybe")


def test_a_damaged_newest_checkpoint_costs_only_its_own_steps(whole, tmp_path, capsys):
    with pytest.raises(signals.StoppedError):
        train(config(), workdir=tmp_path, watch=StopAfter(6))
    newest = max((tmp_path / "checkpoints").iterdir(), key=lambda p: int(p.name))
    for path in (newest / "state").rglob("*"):
        if path.is_file():
            path.write_bytes(path.read_bytes()[:10])
    train(config(), workdir=tmp_path)
    assert f"{newest} is damaged" in capsys.readouterr().err
    assert outcome(tmp_path) == outcome(whole)


def test_a_loss_that_is_not_finite_names_the_step_and_keeps_the_last_checkpoint(
    tmp_path, monkeypatch
):

    original = TrainTask.take

    def poisoned(self, state, step, count, asked):
        state, found = original(self, state, step, count, asked)
        if step <= 6 < step + count:
            found[6 - step] = np.nan
        return state, found

    monkeypatch.setattr(TrainTask, "take", poisoned)
    with pytest.raises(InputError, match=r"not finite at step 7 .*step 6 is kept"):
        train(config(), workdir=tmp_path)
    kept = checkpoint.Checkpoints(tmp_path / "checkpoints", read_only=True)
    assert kept.steps()[-1] == 6


def test_a_checkpoint_that_cannot_be_written_is_said_and_the_last_one_stays(
    whole, tmp_path, monkeypatch
):
    save = checkpoint.Checkpoints.save

    def full(self, step, *arguments):
        if step == 6:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        save(self, step, *arguments)

    monkeypatch.setattr(checkpoint.Checkpoints, "save", full)
    expected = r"workdir: the checkpoint of step 6 .*No space left.*step \d is kept"
    with pytest.raises(InputError, match=expected):
        train(config(), workdir=tmp_path)
    monkeypatch.undo()
    train(config(), workdir=tmp_path)
    assert outcome(tmp_path) == outcome(whole)


@pytest.fixture(scope="module")
def compiled(whole, tmp_path_factory):
    """The programs of the run, all of them: a kill would leave half a file."""
    folder = tmp_path_factory.mktemp("processes")
    shutil.copytree(os.environ["JAX_COMPILATION_CACHE_DIR"], folder / "compiled")
    first = tiny.start(folder / "compiled", command(folder / "run"))
    assert first.wait(timeout=300) == 0
    assert outcome(folder / "run") == outcome(whole)
    return folder / "compiled"


@pytest.fixture(scope="module")
def start(compiled):
    """Starts the same run in a process of its own."""
    return partial(tiny.start, compiled)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_saves_and_ends_with_status_75(whole, start, tmp_path, number):
    run = start(command(tmp_path / "run"))
    while not list(tmp_path.glob("run/checkpoints/[0-9]*")) and run.poll() is None:
        time.sleep(0.02)
    run.send_signal(number)
    _, said = run.communicate(timeout=300)
    if run.returncode == 0:
        pytest.skip("the run was over before the signal came")
    assert run.returncode == signals.EXIT_STATUS
    last = said.strip().splitlines()[-1]
    assert last.startswith(f"stopped by {number.name} after step")
    assert last.endswith(f"resume with --workdir={tmp_path / 'run'}")
    again = start(command(tmp_path / "run"))
    assert again.wait(timeout=300) == 0
    assert outcome(tmp_path / "run") == outcome(whole)


def test_a_full_disk_is_said_and_with_more_room_the_run_goes_on(whole, start, tmp_path):
    """On a file system of its own, first too small and then large enough."""
    disk, run = tmp_path / "disk", tmp_path / "disk" / "run"
    disk.mkdir()
    mount = f"mount -t tmpfs -o size=500k,{{}} metaseg {disk} && "
    if subprocess.run(isolated(mount.format("rw") + "true")).returncode:
        pytest.skip("file systems cannot be mounted here")
    again = shlex.join(command(run))
    script = (
        f"{again}; status=$?; ls {run}/checkpoints >&2; "
        f"mount -o remount,size=50m {disk} && {again} && cp -r {run} {tmp_path}; "
        "exit $status"
    )
    process = start(isolated(mount.format("rw") + "{ " + script + "; }"))
    _, said = process.communicate(timeout=300)
    assert process.returncode == 2
    assert re.search(
        r"error: --workdir: .*No space left on device.*that of step \d is kept", said
    )
    assert "going on after step" in said
    assert "is damaged" not in said
    assert outcome(tmp_path / "run") == outcome(whole)


def isolated(script):
    """A command that sees mounts of its own."""
    return ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", script]


@pytest.mark.slow
def test_twenty_kills_at_random_moments_change_nothing(whole, compiled, tmp_path):
    """Kills fall into every part of a run, the writing of checkpoints included."""
    draw = random.Random(0)
    kills, steps, workdir = 0, [], tmp_path / "0"
    while kills < 20:
        run, before = tiny.fork(compiled, command(workdir)), newest_step(workdir)
        if draw.random() < 0.3:  # into the start, which takes most of the time
            run.join(draw.random() * 4)
        else:
            while newest_step(workdir) == before and run.is_alive():
                time.sleep(0.002)
            time.sleep(draw.random() * 0.3)
        run.kill()
        run.join()
        if run.exitcode == 0:  # it was over before: the next one
            assert outcome(workdir) == outcome(whole)
            workdir = tmp_path / str(kills)
            continue
        assert run.exitcode == -signal.SIGKILL
        kills += 1
        steps.append(newest_step(workdir))
    assert len(set(steps)) > 3
    last = tiny.fork(compiled, command(workdir))
    last.join(timeout=300)
    assert last.exitcode == 0
    assert outcome(workdir) == outcome(whole)


def newest_step(workdir):
    names = [p.name for p in workdir.glob("checkpoints/*") if p.name.isdecimal()]
    return max(map(int, names), default=-1)
