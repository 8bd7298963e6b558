"""Where a run goes on: from its newest checkpoint, or from the beginning."""

from collections.abc import Callable
from typing import Any, NamedTuple

from metaseg import checkpoint, optimizers
from metaseg.errors import InputError
from metaseg.runs.loop import LoopState

__all__ = ["Resumed", "continued", "newest"]


class Resumed(NamedTuple):
    """Where a run goes on.

    Attributes:
      state: Arrays of the newest checkpoint, or None for a fresh run.
      at: Steps taken and time spent.
      history: Rows of metrics so far, of each member; empty for a fresh run.
    """

    state: Any
    at: LoopState
    history: list[list[dict[str, Any]]]


def continued(config: Any, step: int) -> str:
    """Says where a run goes on.

    Args:
      config: Settings of the run.
      step: Number of steps taken.

    Returns:
      The step, the length of the run, and the learning rate of the next step.
    """
    c, total = config.optimizer, config.training.steps
    said = f"going on after step {step} of {total}"
    if step >= total:
        return said
    rate = float(optimizers.schedule(c, total)(step))
    length = f" over {total} steps" if c.schedule == "cosine" else ""
    return f"{said}; learning rate {rate:.3g} ({c.schedule}{length})"


def newest(
    checkpoints: checkpoint.Checkpoints | None,
    like: Any,
    config: str,
    say: Callable[[str], None],
) -> Resumed:
    """Reads the newest readable checkpoint of a run.

    Args:
      checkpoints: Checkpoints of the run; None for a run without a folder.
      like: Arrays of the structure, shapes and shardings to restore.
      config: Value of "config" that the checkpoint must have.
      say: Is told of damaged checkpoints.

    Returns:
      The content of the checkpoint, or the beginning of a run if there is none.

    Raises:
      InputError: If there are checkpoints, but none can be read, or the newest is of
        another config.
    """
    found = checkpoints.restore_newest(like, say) if checkpoints else None
    if found is None:
        return Resumed(None, LoopState(), [])
    values = dict(found.progress)
    if values.pop("config") != config:
        raise InputError(
            f"workdir: the checkpoint of step {found.step} is of another config than "
            "its config.json says; expected that of one run"
        )
    history = values.pop("history")
    values.pop("results", None)
    return Resumed(found.state, LoopState.from_plain(values), history)
