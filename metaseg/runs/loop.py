"""The training loop, of every kind of run: steps, reports, checkpoints, stopping.

A kind of run is a `Task`: the loop asks it to take steps and to report. The loop itself
handles what all kinds share: losses that are not finite, full disks, signals, traces,
and where a run goes on. A run by itself is an ensemble of one: losses come in lists,
one entry for each member.
"""

import dataclasses
import errno
import math
import os
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from metaseg import checkpoint
from metaseg.errors import InputError
from metaseg.parallel import processes
from metaseg.runs import progress as progress_lib
from metaseg.runs import signals

__all__ = ["Loop", "LoopState", "Report", "Task", "TraceWindow", "guard", "take_steps"]

_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EIO)


class TraceWindow(NamedTuple):
    """Steps to trace: those after `start`, up to `stop`.

    Attributes:
      start: Step after which tracing starts.
      stop: Last step that is traced.
      folder: Folder for the trace.
    """

    start: int
    stop: int
    folder: Path


class LoopState(NamedTuple):
    """Where a run is, in plain values: what a checkpoint holds beside the arrays.

    Attributes:
      step: Number of steps taken; the order of the examples follows from it.
      pending: Losses since the last report, for each step one per member.
      diverged: For each member the first step with a loss that is not finite; 0 if all
        are finite.
      stepping: Seconds spent in steps.
      waiting: Seconds of `stepping` spent waiting for examples.
      training: Seconds spent training, reports included.
      updating: Seconds of `training` spent making labels (iGTT).
      reported: Value of `training` at the last report.
    """

    step: int = 0
    pending: tuple[tuple[float, ...], ...] = ()
    diverged: tuple[int, ...] = ()
    stepping: float = 0.0
    waiting: float = 0.0
    training: float = 0.0
    updating: float = 0.0
    reported: float = 0.0

    @classmethod
    def from_plain(cls, values: Mapping[str, Any]) -> "LoopState":
        """Builds the state of plain values that JSON gave back."""
        lists = {
            "pending": tuple(map(tuple, values["pending"])),
            "diverged": tuple(values["diverged"]),
        }
        return cls(**{**values, **lists})


@dataclasses.dataclass(frozen=True)
class Report:
    """Result of a task's report.

    Attributes:
      state: State to go on with.
      score: Validation score by which the best checkpoint is chosen, or None.
      updating: Seconds spent making labels.
    """

    state: Any
    score: float | None = None
    updating: float = 0.0


class Task(ABC):
    """What one kind of run does between two events.

    Attributes:
      members: Number of runs trained side by side.
      total_steps: Number of steps of the whole run.
      waited: Seconds spent waiting for examples since the task was made.
    """

    members: int
    total_steps: int
    waited: float = 0.0

    @abstractmethod
    def next_event(self, step: int) -> int:
        """Returns the next step at which something is due."""

    @abstractmethod
    def take(
        self, state: Any, step: int, count: int, asked: Callable[[int], bool]
    ) -> tuple[Any, np.ndarray]:
        """Takes `count` steps after `step`, or fewer if `asked(step)` says so.

        Returns:
          The state, and the losses of the steps taken, `[steps, members]`.
        """

    @abstractmethod
    def reports(self, step: int) -> bool:
        """Returns whether a report is due after `step`."""

    @abstractmethod
    def report(
        self, state: Any, at: LoopState, losses: np.ndarray, steps_per_second: float
    ) -> Report:
        """Reports on the steps since the last report.

        Args:
          state: State of the run.
          at: Where the run is.
          losses: Losses since the last report, `[steps, members]`.
          steps_per_second: Speed of the last steps.
        """

    @abstractmethod
    def saves(self, step: int) -> bool:
        """Returns whether a checkpoint is due after `step`."""

    @abstractmethod
    def saved(self, state: Any) -> Any:
        """Returns the arrays that a checkpoint holds."""

    @abstractmethod
    def learning_rate(self, member: int) -> float:
        """Returns the learning rate of a member, for messages."""

    def settled(self) -> bool:
        """Returns whether the run may end before its last step."""
        return False


def take_steps(
    train: Callable[..., Any],
    to_host: Callable[[Any], np.ndarray],
    settings: Any,
    state: Any,
    dispatches: Iterable[tuple[Any, Any, int]],
    step: int,
    asked: Callable[[int], bool],
) -> tuple[Any, np.ndarray]:
    """Takes the steps of some dispatches.

    Args:
      train: `(settings, state, data, rows, count) -> (state, losses)`, compiled.
      to_host: Copies an array of losses to the host.
      settings: First argument of `train`.
      state: Train state before the first step.
      dispatches: `(data, rows, count)` of each dispatch.
      step: Number of steps taken before.
      asked: Returns whether to stop after a step.

    Returns:
      The state, and the losses of the steps taken, `[steps, members]`.
    """
    found = []
    for data, rows, taken in dispatches:
        state, losses = train(settings, state, data, rows, taken)
        found.append((losses, taken))
        step += taken
        if asked(step):
            break
    on_host = [to_host(losses)[:count] for losses, count in found]
    return state, np.concatenate(on_host)


class Loop:
    """Training from wherever `at` is to the last step.

    Attributes:
      at: Where the run is.
    """

    def __init__(
        self,
        task: Task,
        *,
        log: progress_lib.RunLog,
        checkpoints: checkpoint.Checkpoints | None,
        facts: Mapping[str, Any],
        at: LoopState,
        trace: TraceWindow | None = None,
    ) -> None:
        """Takes the parts of a run.

        Args:
          task: The kind of run.
          log: Records and progress of the members.
          checkpoints: Folder of checkpoints; None saves nothing.
          facts: Plain values for every checkpoint.
          at: Where the run is.
          trace: Steps to trace, or None.
        """
        self.at = at if at.diverged else at._replace(diverged=(0,) * task.members)
        self._task, self._log, self._checkpoints = task, log, checkpoints
        self._facts, self._window, self._tracing = facts, trace, False

    def run(self, state: Any, watch: signals.Watch) -> Any:
        """Takes all steps that are left.

        Args:
          state: State of the run.
          watch: Says when to stop.

        Returns:
          The state after the last step.

        Raises:
          InputError: If no member has a finite loss, or a checkpoint cannot be written.
          signals.StoppedError: If a signal asked the run to stop.
        """
        try:
            with watch.stepping():
                return self._run(state, watch)
        finally:
            if self._tracing:
                jax.profiler.stop_trace()
                self._log.say("trace written up to the end of the run")

    def _run(self, state: Any, watch: signals.Watch) -> Any:
        task, before, began = self._task, self.at, time.perf_counter()
        if watch.signal:
            self._save(state, None)
            self._stop(watch.signal)
        while self.at.step < task.total_steps and not task.settled():
            self._trace(self.at.step)
            tick = time.perf_counter()
            state, found = self._take(state, watch)
            now = time.perf_counter()
            self.at = self.at._replace(
                stepping=self.at.stepping + now - tick,
                waiting=before.waiting + task.waited,
                training=before.training + now - began,
            )
            self._check_finite(found)
            score = None
            if task.reports(self.at.step):
                state, score = self._report(state, len(found) / (now - tick))
                training = before.training + time.perf_counter() - began
                self.at = self.at._replace(training=training, reported=training)
            done = self.at.step >= task.total_steps or task.settled()
            if score is not None or task.saves(self.at.step) or watch.signal:
                self._save(state, score)
            if watch.signal and not done:
                self._stop(watch.signal)
        self._finish_saving()
        return state

    def _take(self, state: Any, watch: signals.Watch) -> tuple[Any, np.ndarray]:
        step = self.at.step
        count = self._next(step) - step
        state, found = self._task.take(state, step, count, watch.asked)
        found = found.reshape(-1, self._task.members)
        self.at = self.at._replace(
            step=step + len(found),
            pending=(*self.at.pending, *map(tuple, found.tolist())),
        )
        return state, found

    def _report(self, state: Any, rate: float) -> tuple[Any, float | None]:
        losses = np.array(self.at.pending).reshape(-1, self._task.members)
        self.at = self.at._replace(pending=())
        report = self._task.report(state, self.at, losses, rate)
        updating = self.at.updating + report.updating
        self.at = self.at._replace(updating=updating)
        return report.state, report.score

    def _next(self, step: int) -> int:
        """Returns the next step at which something is due."""
        ends = [self._task.next_event(step), self._task.total_steps]
        if self._window:
            ends += [n for n in self._window[:2] if n > step]
        return min(ends)

    def _trace(self, step: int) -> None:
        """Starts or ends the trace."""
        if self._window is None:
            return
        wanted = self._window.start <= step < self._window.stop
        if wanted and not self._tracing:
            options = jax.profiler.ProfileOptions()
            # It hooks into all threads of Python, also those that end, and can crash.
            options.python_tracer_level = 0
            jax.profiler.start_trace(
                self._window.folder,
                create_perfetto_trace=True,
                profiler_options=options,
            )
        elif self._tracing and not wanted:
            jax.profiler.stop_trace()
            self._log.say(f"trace written to {self._window.folder}")
        self._tracing = wanted

    def _check_finite(self, found: np.ndarray) -> None:
        """Notes members whose loss is not finite; ends the run if none is left."""
        bad = ~np.isfinite(found)
        first = self.at.step - len(found) + 1 + bad.argmax(axis=0)
        diverged = list(self.at.diverged)
        for i in range(len(diverged)):
            if bad[:, i].any() and not diverged[i]:
                diverged[i] = int(first[i])
                said = (
                    f"loss or gradients are not finite at step {first[i]} with "
                    f"{self._task.learning_rate(i)}"
                )
                if len(diverged) > 1:
                    self._log.say(f"member {i}: {said}")
        self.at = self.at._replace(diverged=tuple(diverged))
        if not all(diverged):
            return
        self._finish_saving()
        kept = self._checkpoints.steps() if self._checkpoints else []
        raise InputError(
            f"config.optimizer.learning_rate: {said}; expected a smaller one"
            + (f" (the checkpoint of step {kept[-1]} is kept)" if kept else "")
        )

    def _save(self, state: Any, score: float | None) -> None:
        checkpoints = self._checkpoints
        if checkpoints is None:
            return
        finite = score is not None and math.isfinite(score)
        values = {
            **self.at._asdict(),
            "history": [record.history for record in self._log.records],
            **self._facts,
        }
        arrays = self._task.saved(state)
        guard(
            checkpoints,
            self.at.step,
            lambda: checkpoints.save(
                self.at.step, arrays, values, score if finite else None
            ),
        )

    def _finish_saving(self) -> None:
        if self._checkpoints is not None:
            guard(self._checkpoints, self.at.step, self._checkpoints.wait)

    def _stop(self, signal: str) -> None:
        self._finish_saving()
        saved = ", and saved" if self._checkpoints is not None else ""
        raise signals.StoppedError(
            f"stopped by {signal} after step {self.at.step} of "
            f"{self._task.total_steps}{saved}"
        )


def guard(
    checkpoints: checkpoint.Checkpoints, step: int, write: Callable[[], None]
) -> None:
    """Names the checkpoint that could not be written, and the one that is kept.

    Args:
      checkpoints: Checkpoints of the run.
      step: Step of the checkpoint.
      write: Writes it, or waits for it.

    Raises:
      InputError: If `write` failed.
    """
    try:
        write()
    except Exception as error:  # errors of the file system come in many wrappings
        kept = checkpoints.steps()
        reason = " ".join(str(error).split())
        # The file system's own message stands at the end of those of all layers above.
        said = [text for text in map(os.strerror, _DISK) if text in reason]
        ours = isinstance(error, AttributeError | NameError | TypeError)
        if ours or (processes.count() > 1 and not said):
            raise  # a fault of the program; or another process has ended
        reason = said[0] if said else reason[:200]
        raise InputError(
            f"workdir: the checkpoint of step {step} cannot be written ({reason}); "
            + (f"that of step {kept[-1]} is kept" if kept else "there is none yet")
        ) from error
