"""What a run says of its own speed."""

import gzip
import json

import pytest
import tiny

from metaseg.errors import InputError
from metaseg.runs.training.run import train


@pytest.fixture(scope="module")
def traced(tmp_path_factory):
    path = tmp_path_factory.mktemp("traced") / "run"
    train(tiny.config(**{"training.checkpoint_every": 0}), workdir=path, profile=(5, 7))
    return path


def test_a_trace_of_the_steps_asked_for_can_be_opened(traced):
    (trace,) = traced.glob("profile/**/perfetto_trace.json.gz")
    events = json.loads(gzip.decompress(trace.read_bytes()))["traceEvents"]
    steps = [e for e in events if e.get("name") == "PjitFunction(jit(train_steps))"]
    assert len(steps) in (2, 4)  # some versions note a call twice
    assert list(traced.glob("profile/**/*.xplane.pb"))


def test_tracing_changes_no_number(traced, tmp_path):
    train(tiny.config(**{"training.checkpoint_every": 0}), workdir=tmp_path / "run")
    assert tiny.outcome(tmp_path / "run") == tiny.outcome(traced)


def test_speed_and_memory_add_up(traced):
    results = json.loads((traced / "results.json").read_text())
    time, memory = results["time"], results["memory"]
    assert time["images_per_second"] == pytest.approx(4 / time["step_seconds"])
    flops = time["flops_per_second"] / time["images_per_second"]
    # Two levels of two 3x3 convolutions and one joined, at 16 and 8 pixels a side.
    assert flops > 3 * 2 * 9 * 256 * (1 * 2 + 2 * 2 + 4 * 2 + 2 * 2)
    assert "flops_utilisation" not in time  # no peak is known of a CPU
    parameters = results["model"]["parameters"]
    assert memory["device_step_bytes"] > 4 * 4 * parameters  # Adam, and the average


@pytest.mark.parametrize("steps", [(3, 3), (0, 13)])
def test_steps_that_cannot_be_traced_are_refused(tmp_path, steps):
    with pytest.raises(InputError, match=r"profile: got \d+:\d+, expected two steps"):
        train(tiny.config(), workdir=tmp_path / "run", profile=steps)
