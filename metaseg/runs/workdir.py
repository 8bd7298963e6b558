"""Whether a work folder holds this run already, and how far it is."""

import hashlib
import json
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from metaseg import checkpoint, files
from metaseg.errors import InputError
from metaseg.runs.train.loop import Progress

__all__ = [
    "MODES",
    "Resumed",
    "check",
    "check_empty",
    "check_writable",
    "digest",
    "newest",
]

MODES = ("auto", "must", "never")
# Fields that a result does not depend on: they may change from one session to the next.
FREE = (
    "data.dir",
    "data.memory_gb",
    "data.workers",
    "parallel.partitioner",
    "parallel.devices",
    "parallel.ensemble_by",
    "report.images",
)


class Resumed(NamedTuple):
    """What a run goes on from.

    Attributes:
      state: the train state, or None for a fresh run.
      progress: steps taken and time spent.
      history: rows of metrics so far, of each member; empty for a fresh run.
    """

    state: Any
    progress: Progress
    history: list[list[dict[str, Any]]]


def check(workdir: Path, requested: Mapping[str, Any], mode: str) -> bool:
    """Decides what a work folder is good for, before anything is done.

    Args:
      workdir: the folder.
      requested: the config of this run, as plain values.
      mode: "auto" goes on with a run of the same config that is there, "must" insists
        on one, "never" wants a new or empty folder.

    Returns:
      Whether the run is finished already.

    Raises:
      InputError: the folder holds another run or something else, or nothing to resume.
    """
    if mode not in MODES:
        raise InputError(f"--resume: got '{mode}', expected one of {', '.join(MODES)}")
    check_writable(workdir)
    there = workdir / "config.json"
    mine = mode != "never" and there.is_file()
    if not mine:
        check_empty(workdir)
        if mode == "must":
            raise InputError(f"--resume: no run in '{workdir}' to go on with")
        return False
    try:
        saved = json.loads(there.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{there}: unreadable, expected that of a run") from error
    before, now = _decisive(saved), _decisive(requested)
    changed = [
        f"config.{field} was {before.get(field)!r}, is {now.get(field)!r}"
        for field in sorted(before.keys() | now.keys())
        if before.get(field) != now.get(field)
    ]
    if changed:
        more = f" and {len(changed) - 3} more" if len(changed) > 3 else ""
        raise InputError(
            f"--workdir: '{workdir}' holds a run of another config "
            f"({'; '.join(changed[:3])}{more}); expected the same, or another folder"
        )
    return (workdir / "results.json").is_file() and (workdir / "report.html").is_file()


def check_writable(workdir: Path) -> None:
    """Raises InputError unless `workdir` can be written to."""
    if files.in_bucket(workdir):
        _check_bucket(workdir)
        return
    if workdir.exists() and not workdir.is_dir():
        raise InputError(f"--workdir: '{workdir}' is a file, expected a folder")
    nearest = workdir.absolute()
    while not nearest.exists():
        nearest = nearest.parent
    try:
        with tempfile.TemporaryFile(dir=nearest):
            pass
    except OSError as error:
        raise InputError(
            f"--workdir: cannot write to '{nearest}': {error.strerror}"
        ) from None


def _check_bucket(workdir: Path) -> None:
    trial = workdir / f".trial.{os.getpid()}"
    try:
        files.upload(trial, b"")
        trial.unlink()  # Orbax has to delete too
    except Exception as error:  # network and credentials have many ways to fail
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"--workdir: cannot write to '{workdir}': {reason}") from None


def check_empty(workdir: Path) -> None:
    """Raises InputError if `workdir` holds anything."""
    # Hidden files are scratch of a run that was killed as it began.
    if workdir.is_dir() and any(
        not path.name.startswith(".") for path in workdir.iterdir()
    ):
        raise InputError(
            f"--workdir: '{workdir}' is not empty, expected a new or empty folder"
        )


def _decisive(config: Mapping[str, Any]) -> dict[str, Any]:
    """The fields that a result depends on, as JSON gives them back."""
    flat = dict(_flat(json.loads(json.dumps(config))))
    return {field: value for field, value in flat.items() if field not in FREE}


def digest(config: Mapping[str, Any]) -> str:
    """A hash of the fields that a result depends on."""
    text = json.dumps(_decisive(config), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def _flat(config: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in config.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value


def newest(
    checkpoints: checkpoint.Checkpoints,
    like: Any,
    config: str,
    say: Callable[[str], None],
) -> Resumed:
    """What the newest readable checkpoint holds, or the beginning.

    Args:
      checkpoints: of the run.
      like: the state, laid out as it is to be.
      config: the config's `digest`, which the checkpoint's must equal.
      say: is told of damaged checkpoints.

    Raises:
      InputError: there are checkpoints, but none can be read; or of another config.
    """
    found = checkpoints.restore_newest(like, say)
    if found is None:
        return Resumed(None, Progress(), [])
    values = dict(found.progress)
    if values.pop("config") != config:
        raise InputError(
            f"--workdir: the checkpoint of step {found.step} is of another config than "
            "its config.json says; expected that of one run"
        )
    history = values.pop("history")
    values["pending"] = tuple(map(tuple, values["pending"]))
    values["diverged"] = tuple(values["diverged"])
    return Resumed(found.state, Progress(**values), history)
