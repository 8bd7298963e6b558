"""SIGTERM and Ctrl-C at every moment of a command; each test starts a process."""

import signal
import subprocess
import sys
import threading

import pytest

from metaseg import cli
from metaseg.runs import signals

# Hashing holds the main thread and runs no handler of Python, as XLA's compiler does.
BUSY = "hashlib.pbkdf2_hmac('sha256', b'', b'', 1 << 30)"
HEAD = (
    "import hashlib, os, signal, sys, time; "
    "from metaseg import cli; from metaseg.runs import signals\n"
    "def send(name): os.kill(os.getpid(), getattr(signal, name))\n"
)


def ended(code):
    """Exit status and standard error of a process."""
    done = subprocess.run(
        [sys.executable, "-c", HEAD + code],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return done.returncode, done.stderr


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT"])
def test_a_signal_while_train_starts_ends_it_with_status_75(name, tmp_path):
    config = tmp_path / "config.py"  # is read when the command has just begun
    config.write_text(
        f"import hashlib, os, signal\nos.kill(os.getpid(), signal.{name})\n{BUSY}"
    )
    status, said = ended(f"sys.exit(cli.main(['train', '--config={config}']))")
    assert status == 75
    assert said == (
        f"stopped by {name} before anything was started; run the same command again\n"
    )


@pytest.mark.parametrize(("name", "expected"), [("SIGTERM", 75), ("SIGINT", 130)])
def test_a_signal_unwinds_the_other_commands(name, expected):
    code = f"""
from metaseg.cli import audit
def run():
    try:
        send({name!r})
        time.sleep(60)
    finally:
        print("cleaned up", file=sys.stderr)
audit.run = run
sys.exit(cli.main(["audit"]))
"""
    assert ended(code) == (
        expected,
        "cleaned up\nstopped; run the same command again to continue\n",
    )


def test_a_second_signal_ends_a_command_that_does_not_unwind():
    code = f"""
from metaseg.cli import audit
def run():
    try:
        send("SIGINT")
        time.sleep(60)
    finally:
        send("SIGINT")
        {BUSY}
audit.run = run
sys.exit(cli.main(["audit"]))
"""
    assert ended(code) == (130, "ended at once; run the same command again\n")


def test_before_the_first_step_a_signal_ends_a_run_though_it_compiles():
    code = f"""
with signals.Watch() as watch:
    send("SIGTERM")
    {BUSY}
"""
    expected = "stopped by SIGTERM before the first step; run the same command again\n"
    assert ended(code) == (75, expected)


def test_while_a_run_takes_steps_only_the_second_ctrl_c_ends_it_at_once():
    code = f"""
import pathlib
with signals.Watch(workdir=pathlib.Path("my runs/1")) as watch, watch.stepping():
    send("SIGINT")
    while not watch.signal:
        time.sleep(0.01)
    print(watch.signal, watch.asked(1), file=sys.stderr)
    send("SIGINT")
    {BUSY}
"""
    status, said = ended(code)
    assert status == 130
    assert sorted(said.splitlines()) == [
        "SIGINT True",
        "ended at once by SIGINT; the last checkpoint is whole; resume with "
        "--workdir='my runs/1'",
        "saving and ending after this step; Ctrl-C again ends at once",
    ]


def test_signals_of_a_forked_process_are_its_own():
    code = """
with signals.ending():
    ready, write = os.pipe()
    child = os.fork()
    if not child:
        os.write(write, b"x")
        time.sleep(60)
        os._exit(0)
    os.read(ready, 1)
    os.kill(child, signal.SIGTERM)
    assert os.waitpid(child, 0)[1] == signal.SIGTERM
    time.sleep(0.2)
sys.exit(7)
"""
    assert ended(code) == (7, "")


def test_handlers_are_restored(capsys):
    before = [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)]
    assert cli.main(["train"]) == 2
    assert cli.main(["predict"]) == 2
    with signals.Watch() as watch, watch.stepping():
        assert signal.getsignal(signal.SIGTERM) != before[1]
    assert [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)] == before
    assert signal.set_wakeup_fd(-1) == -1
    capsys.readouterr()


def test_another_thread_may_run_commands(capsys):
    found = []
    thread = threading.Thread(target=lambda: found.append(cli.main(["train"])))
    thread.start()
    thread.join()
    assert found == [2]
    capsys.readouterr()
