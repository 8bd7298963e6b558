"""The work folder of a run: whether it can be used, and whether its run is this one.

Imports no jax until a folder is locked.
"""

import contextlib
import hashlib
import json
import os
import tempfile
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

from metaseg import files, parallel
from metaseg.errors import InputError
from metaseg.runs import folder_lock

__all__ = [
    "MODES",
    "check",
    "check_config",
    "digest",
    "locked",
    "set_aside",
]

MODES = ("auto", "must", "never")
# No result depends on these fields: they may change from one session to the next.
FREE = (
    "data.dir",
    "data.memory_gb",
    "data.workers",
    "parallel.partitioner",
    "parallel.devices",
    "parallel.ensemble_by",
    "report.images",
)
# A run goes on with other values of these fields. Lengths may only grow.
LONGER = ("igtt.rounds", "training.steps", "training.epochs")
CADENCE = (
    "training.log_every",
    "training.eval_every",
    "training.checkpoint_every",
)
RESULTS = ("results.json", "report.html")  # a finished run has both
# `config.resolve` sets these fields from the size of the data set.
LENGTHS = ("training.steps", "optimizer.step_every")


@contextlib.contextmanager
def locked(workdir: Path | None) -> Iterator[None]:
    """Keeps other runs out of a folder; process 0 of several holds the lock.

    The file `.lock` in the folder names the process. The system releases the lock of a
    process that ends in any way. Folders in a bucket are not locked.

    Args:
      workdir: The folder, which is made if it is missing; None locks nothing.

    Raises:
      InputError: If another run uses the folder, or it cannot be written.
    """
    if workdir is None or files.in_bucket(workdir):
        yield
        return
    held: list[folder_lock.FolderLock] = []

    def acquire() -> int:
        _check_writable(workdir)
        held.append(folder_lock.FolderLock(workdir))
        return 0

    parallel.processes.decide(acquire)
    try:
        yield
    finally:
        for lock in held:
            lock.release()


def check(workdir: Path, mode: str) -> bool:
    """Checks whether a folder can be the work folder of a run.

    Args:
      workdir: The folder.
      mode: "auto" resumes a run that is there, "must" insists on one, "never" wants a
        new or empty folder.

    Returns:
      Whether the folder holds a run, whose settings `check_config` compares.

    Raises:
      InputError: If the folder cannot be written, holds something else, or holds no run
        to resume.
    """
    if mode not in MODES:
        raise InputError(f"resume: got '{mode}', expected one of {', '.join(MODES)}")
    _check_writable(workdir)
    if mode != "never" and (workdir / "config.json").is_file():
        return True
    _check_empty(workdir)
    if mode == "must":
        raise InputError(f"resume: no run in '{workdir}' to go on with")
    return False


def check_config(
    workdir: Path, config: Mapping[str, Any], *, ignored: Collection[str] = ()
) -> bool:
    """Compares the settings of the run in a folder with those of this run.

    A run may be made longer, finished or not; what it writes on the way may come at
    other steps. All else has to be the same.

    Args:
      workdir: Folder with a run.
      config: Settings of this run, nested mappings of plain values.
      ignored: Fields left out of the comparison.

    Returns:
      Whether the run in the folder is finished, and is to be no longer than it is.

    Raises:
      InputError: If the settings differ; the message names the fields.
    """
    there = workdir / "config.json"
    try:
        saved = json.loads(there.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{there}: unreadable, expected that of a run") from error
    before, now = (
        {k: v for k, v in _decisive(c).items() if k not in ignored}
        for c in (saved, config)
    )
    differing = [
        field
        for field in sorted(before.keys() | now.keys())
        if before.get(field) != now.get(field) and field not in CADENCE
    ]
    longer = [field for field in LONGER if field in differing]
    changed = [
        f"config.{field} was {before.get(field)!r}, is {now.get(field)!r}"
        for field in differing
        if field not in longer
    ]
    if changed:
        more = f" and {len(changed) - 3} more" if len(changed) > 3 else ""
        raise InputError(
            f"workdir: '{workdir}' holds a run of another config "
            f"({'; '.join(changed[:3])}{more}); expected the same, or another folder"
        )
    for field in longer:
        _check_longer(field, before, now)
    return not longer and all((workdir / name).is_file() for name in RESULTS)


def _check_longer(
    field: str, before: Mapping[str, Any], now: Mapping[str, Any]
) -> None:
    """Raises InputError if a length shrinks."""
    steps = "training.steps"
    if field == "training.epochs" and steps in before and steps in now:
        return  # the steps decide: a length in epochs may become one in steps
    old, new = before.get(field), now.get(field)
    if old is None or new is None or new >= old:
        return
    raise InputError(
        f"workdir: config.{field} was {old!r}, is {new!r}; a run can be trained for "
        "longer, not for less: expected at least as many, or another folder"
    )


def set_aside(folder: Path, steps: int) -> None:
    """Renames the results of a run that is to be trained for longer.

    They are named after the number of steps that the run had, `results-500.json`.

    Args:
      folder: Folder of a run.
      steps: Number of steps that the run is to have.

    Raises:
      OSError: If a file cannot be written.
    """
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        before = config["training"]["steps"]
    except (OSError, ValueError, KeyError):  # a new folder
        return
    if before == steps:
        return
    for path in [folder / name for name in RESULTS]:
        if path.is_file():
            text = path.read_text(encoding="utf-8")
            files.write_text(folder / f"{path.stem}-{before}{path.suffix}", text)
            path.unlink()


def _check_writable(workdir: Path) -> None:
    if files.in_bucket(workdir):
        _check_bucket(workdir)
        return
    if workdir.exists() and not workdir.is_dir():
        raise InputError(f"workdir: '{workdir}' is a file, expected a folder")
    nearest = workdir.absolute()
    while not nearest.exists():
        nearest = nearest.parent
    try:
        with tempfile.TemporaryFile(dir=nearest):
            pass
    except OSError as error:
        raise InputError(
            f"workdir: cannot write to '{nearest}': {error.strerror}"
        ) from None


def _check_bucket(workdir: Path) -> None:
    trial = workdir / f".trial.{os.getpid()}"
    try:
        files.upload(trial, b"")
        trial.unlink()  # Orbax has to delete too
    except Exception as error:  # network and credentials raise many types
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"workdir: cannot write to '{workdir}': {reason}") from None


def _check_empty(workdir: Path) -> None:
    # Hidden files are scratch files of a run that was killed at its start.
    if workdir.is_dir() and any(
        not path.name.startswith(".") for path in workdir.iterdir()
    ):
        raise InputError(
            f"workdir: '{workdir}' is not empty, expected a new or empty folder"
        )


def _decisive(config: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the fields that a result depends on, as JSON gives them back."""
    flat = dict(_flat(json.loads(json.dumps(files.plain(config)))))
    return {field: value for field, value in flat.items() if field not in FREE}


def _flat(config: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in config.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value


def digest(config: Mapping[str, Any]) -> str:
    """Returns a hash of the fields that the state after a step depends on.

    Args:
      config: Settings of a run, nested mappings of plain values.
    """
    left_out = (*LONGER, *CADENCE)
    kept = {k: v for k, v in _decisive(config).items() if k not in left_out}
    text = json.dumps(kept, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()
