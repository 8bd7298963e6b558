"""One run at a time writes into a folder; the lock of a dead process is no obstacle."""

import json
import os
import socket
import subprocess
import sys

import pytest

from metaseg.errors import InputError
from metaseg.runs import folder_lock
from metaseg.runs.folder_lock import NAME, FolderLock

HOLD = """
import sys, time
from pathlib import Path
from metaseg.runs.folder_lock import FolderLock
lock = FolderLock(Path(sys.argv[1]))
print("locked", flush=True)
time.sleep(600)
"""


def hold(folder):
    """A process that holds the lock of a folder."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(folder)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "locked\n"
    return process


def test_a_second_run_is_refused_and_told_of_the_first(tmp_path):
    first = hold(tmp_path)
    try:
        with pytest.raises(InputError, match="in use by another run") as told:
            FolderLock(tmp_path)
    finally:
        first.kill()
        first.wait()
    text = str(told.value)
    assert text.startswith(f"workdir: '{tmp_path}' is in use by another run (process ")
    assert f"process {first.pid} on {socket.gethostname()} since " in text
    assert str(tmp_path) in text.partition("since")[2]  # of its command
    assert "\n" not in text
    assert (tmp_path / NAME).exists()  # the dead process could not remove it
    FolderLock(tmp_path).release()
    assert list(tmp_path.iterdir()) == []


def test_a_run_in_the_same_process_is_refused_too_and_not_after_the_end(tmp_path):
    lock = FolderLock(tmp_path)
    owner = json.loads((tmp_path / NAME).read_text())
    assert (owner["pid"], owner["host"]) == (os.getpid(), socket.gethostname())
    with pytest.raises(InputError, match=f"process {os.getpid()} on"):
        FolderLock(tmp_path)
    lock.release()
    FolderLock(tmp_path).release()


def test_a_folder_that_the_lock_has_made_goes_with_it_if_nothing_was_written(tmp_path):
    FolderLock(tmp_path / "a" / "b").release()
    assert not (tmp_path / "a" / "b").exists()
    lock = FolderLock(tmp_path / "c")
    (tmp_path / "c" / "config.json").write_text("{}")
    lock.release()
    assert [path.name for path in (tmp_path / "c").iterdir()] == ["config.json"]


def test_a_child_of_a_dead_process_keeps_nobody_out(tmp_path):
    """A worker that outlives its run holds the system's lock on."""
    code = HOLD.replace('print("locked", flush=True)', "import os; child = os.fork()")
    code = code.replace("time.sleep(600)", "child and print(child, flush=True)\n")
    code += "child or time.sleep(600)\nchild and os._exit(0)\n"
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    child = int(process.stdout.readline())
    process.wait()
    try:
        os.kill(child, 0)
        FolderLock(tmp_path).release()
    finally:
        os.kill(child, 9)


@pytest.mark.parametrize("missing", [True, False])
def test_without_locks_of_the_system_the_named_process_counts(
    tmp_path, monkeypatch, missing
):
    def refused(*_):
        raise OSError(95, "Operation not supported")

    if missing:
        monkeypatch.setattr(folder_lock, "fcntl", None)
    else:
        monkeypatch.setattr(folder_lock.fcntl, "flock", refused)
    lock = FolderLock(tmp_path)
    with pytest.raises(InputError, match="in use by another run"):
        FolderLock(tmp_path)
    lock.release()
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    owner = {"host": socket.gethostname(), "pid": gone.pid}
    for text in (json.dumps(owner), json.dumps({"host": "elsewhere", "pid": 1}), "{"):
        (tmp_path / NAME).write_text(text)
        FolderLock(tmp_path).release()


def test_two_starts_at_once_leave_one_owner(tmp_path):
    code = HOLD.replace("time.sleep(600)", "time.sleep(3)")
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", code, str(tmp_path)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(3)
    ]
    said = [process.communicate(timeout=60) for process in processes]
    assert sum(out == "locked\n" for out, _ in said) >= 1
    for out, err in said:
        assert out == "locked\n" or "in use by another run" in err
