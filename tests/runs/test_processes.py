"""Several processes do one run together, and none of them hangs when another ends."""

import signal
import socket
import time

import numpy as np
import pytest
import stored
import tiny

# Two devices in all, one of each process.
SHARED = {"parallel.devices": 0}
FEW = {"training.checkpoint_every": 4}
# Those of the other tests, but for the number of devices.
FLAGS = "--xla_backend_optimization_level=0 --xla_cpu_use_fusion_emitters=false"


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("compiled")


@pytest.fixture
def start(cache, monkeypatch):
    """Starts the two processes of a run."""
    monkeypatch.setenv("XLA_FLAGS", FLAGS)

    def start(workdir, **changes):
        with socket.socket() as free:
            free.bind(("localhost", 0))
            port = free.getsockname()[1]
        flags = [f"--coordinator=localhost:{port}", "--num_processes=2"]
        commands = [
            tiny.command(workdir, *flags, f"--process_id={i}", **SHARED, **changes)
            for i in range(2)
        ]
        return [tiny.start(cache, command) for command in commands]

    return start


def ends(run, seconds=120):
    """Exit status and last line of each process."""
    found = []
    for process in run:
        _, said = process.communicate(timeout=seconds)
        lines = said.strip().splitlines()
        found.append((process.returncode, lines[-1] if lines else ""))
    return found


def wait_for(workdir, run, step):
    """Returns once the run has a checkpoint of this step or a later one."""
    while all(process.poll() is None for process in run):
        names = [p.name for p in workdir.glob("checkpoints/*") if p.name.isdecimal()]
        if any(int(name) >= step for name in names):
            return
        time.sleep(0.02)


@pytest.mark.slow
def test_two_processes_that_read_half_of_each_batch_do_the_run_of_one(
    start, cache, tmp_path
):
    rng = np.random.default_rng(0)
    sizes = {"train": 7, "val": 3, "test": 3}
    splits = {s: stored.random_examples(rng, n, low=8) for s, n in sizes.items()}
    stored.write(tmp_path / "data", splits)
    changes = FEW | {
        "augment.crop": 8,
        "data.name": "prepared",
        "data.dir": tmp_path / "data",
        "data.dataset": "tiny/plain",
        "data.memory_gb": 0.0,  # streamed
    }
    run = start(tmp_path / "two", **changes)
    assert [status for status, _ in ends(run)] == [0, 0]
    with pytest.MonkeyPatch.context() as patch:
        count = "--xla_force_host_platform_device_count=2"
        patch.setenv("XLA_FLAGS", f"{FLAGS} {count}")
        alone = tiny.command(tmp_path / "one", **changes | {"parallel.devices": 2})
        one = tiny.start(cache, alone)
    assert ends([one])[0][0] == 0
    expected = tiny.history(tmp_path / "one")
    tiny.assert_close(tiny.history(tmp_path / "two"), expected)
    for name in ("report.html", "results.json", "checkpoints/12"):
        assert (tmp_path / "two" / name).exists()


@pytest.mark.slow
def test_when_one_process_is_killed_the_other_says_so_and_the_run_can_go_on(
    start, tmp_path
):
    workdir = tmp_path / "run"
    run = start(workdir, **FEW, **{"training.steps": 2000})
    wait_for(workdir, run, 8)
    run[1].kill()
    began = time.monotonic()
    (status, said), (killed, _) = ends(run)
    assert killed == -signal.SIGKILL
    assert status == 76
    assert said.startswith("error: process 0 of 2 cannot continue: another process has")
    assert time.monotonic() - began < 60
    again = start(workdir, **FEW, **{"training.steps": 2000})
    wait_for(workdir, again, 16)
    again[0].send_signal(signal.SIGTERM)
    (first, said), (second, _) = ends(again)
    assert (first, second) == (75, 75)
    assert "stopped by SIGTERM after step" in said


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--coordinator=here:1"], "--num_processes: not given; expected all of"),
        (
            ["--coordinator=here", "--num_processes=2", "--process_id=0"],
            "--coordinator: got 'here', expected HOST:PORT",
        ),
        (
            ["--coordinator=here:1", "--num_processes=2", "--process_id=2"],
            "--process_id: got 2, expected 0 to 1",
        ),
    ],
)
def test_flags_that_do_not_fit_together_are_named(cache, tmp_path, flags, said):
    process = tiny.start(cache, tiny.command(tmp_path / "run", *flags))
    ((status, line),) = ends([process])
    assert status == 2
    assert line.startswith(f"error: {said}")
    assert not (tmp_path / "run").exists()
