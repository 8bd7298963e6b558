"""Whether a work folder holds this run already, and how far it is."""

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import logs
from loop import Progress

from metaseg import checkpoint
from metaseg.errors import InputError

__all__ = ["MODES", "Resumed", "check", "digest", "newest"]

MODES = ("auto", "must", "never")
# Fields that a result does not depend on: they may change from one session to the next.
FREE = (
    "data.dir",
    "data.memory_gb",
    "data.workers",
    "parallel.backend",
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
    logs.check_workdir(workdir)
    there = workdir / "config.json"
    mine = mode != "never" and there.is_file()
    if not mine:
        logs.check_empty(workdir)
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
