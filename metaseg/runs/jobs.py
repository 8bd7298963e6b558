"""A job as a process, or as one of several processes: connecting, and exit statuses."""

import sys
from collections.abc import Callable
from pathlib import Path

from metaseg import files, parallel, text
from metaseg.errors import InputError, prefixed
from metaseg.runs import signals

__all__ = ["LOST", "STOPPED", "connect", "folder", "run"]

STOPPED = signals.EXIT_STATUS
LOST = 76  # EX_PROTOCOL of sysexits.h: another process of the run has ended


def folder(address: str) -> Path:
    """Returns the folder of an address.

    Args:
      address: Path on a disk, or `gs://BUCKET/FOLDER`.

    Returns:
      The folder; it need not exist.

    Raises:
      InputError: If the address is neither.
    """
    if "://" in address:
        return files.bucket(address)
    return Path(address).expanduser()


def connect(
    coordinator: str | None, num_processes: int | None, process_id: int | None
) -> None:
    """Connects this process to the others of a run, before jax is used.

    Args:
      coordinator: `HOST:PORT` of process 0; None where the environment tells all three.
      num_processes: Number of processes.
      process_id: Number of this process, from 0.

    Raises:
      InputError: If the arguments do not fit together, the environment does not tell
        them, or the other processes cannot be reached.
    """
    parallel.processes.initialize(coordinator, num_processes, process_id)


def run(
    job: Callable[[signals.Watch], object],
    workdir: Path,
    failed: Callable[[Exception], int],
) -> int:
    """Runs a job and turns its errors into an exit status.

    Args:
      job: The job; takes what says when to stop.
      workdir: Work folder of the job, for messages.
      failed: Prints an error and returns the exit status.

    Returns:
      0; the result of `failed` for an `InputError` or a work folder that cannot be
      written; `STOPPED` if the job was asked to stop and has saved its state; `LOST` if
      one of several processes failed or was lost.
    """
    try:
        parallel.processes.check_backend()
    except InputError as error:
        return failed(error)
    try:
        with prefixed("--", "config", "workdir", "resume", "profile", "baselines"):
            job(signals.Watch(workdir=workdir))
    except InputError as error:
        return _end(failed(error))
    except signals.StoppedError as stopped:
        if parallel.processes.is_primary():
            print(f"{stopped}; {signals.resume_hint(workdir)}", file=sys.stderr)
        return STOPPED
    except OSError as error:  # such as a full disk; the last checkpoint is whole
        said = f"--workdir: '{error.filename or workdir}': {error.strerror}"
        return _end(failed(InputError(said)))
    except Exception as error:
        if parallel.processes.count() == 1:
            raise
        return _end(_lost(error, workdir))
    if parallel.processes.is_primary():
        print(f"report: {workdir / 'report.html'}")
    return 0


def _lost(error: Exception, workdir: Path) -> int:
    """Says that the run cannot continue: a process is lost, or this one failed."""
    reason = text.one_line(error)[:300]
    print(
        f"error: {parallel.processes.name()} cannot continue: another process has "
        f"ended, or this one failed ({reason}); start all of them again with "
        f"--workdir={text.quoted(workdir)}, and the run resumes from its newest "
        "checkpoint",
        file=sys.stderr,
    )
    return LOST


def _end(status: int) -> int:
    """Ends one of several processes at once, as the others may be gone."""
    if parallel.processes.count() > 1:
        parallel.processes.leave(status)
    return status
