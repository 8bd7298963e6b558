"""The training loop: steps, validations, checkpoints, and where it all stands.

A run by itself is an ensemble of one: losses, records and results come in lists, one
entry for each member.
"""

import errno
import math
import os
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from ml_collections import ConfigDict

from metaseg import checkpoint, decoding, optimizers, parallel, training
from metaseg.data.pipeline import InOrder
from metaseg.errors import InputError
from metaseg.parallel import processes
from metaseg.runs import progress, signals
from metaseg.runs.train import feeds

DISK = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EIO)

__all__ = [
    "Loop",
    "Profile",
    "Programs",
    "Progress",
    "best_of",
    "evaluate",
    "guard",
    "validate",
]


class Programs(NamedTuple):
    """The compiled steps of a run, with what they are told every time.

    Attributes:
      layout: of everything that they take.
      settings: see `members.Settings`; laid out.
      train: `(settings, state, data, rows, count) -> (state, losses)`.
      evaluate: `(settings, state, batch) -> (evaluation, probability)`.
      flops_per_image: of the network, in training.
    """

    layout: parallel.Layout
    settings: Any
    train: parallel.Program
    evaluate: parallel.Program
    flops_per_image: int


class Profile(NamedTuple):
    """Steps to be traced: those after `start`, up to `stop`."""

    start: int
    stop: int
    folder: Path


class Progress(NamedTuple):
    """Where a run is; what a checkpoint holds beside the state, in plain values.

    Attributes:
      step: steps taken; it says too where the examples go on, see `batch_indices`.
      pending: losses since the last row of the history, for each step one per member.
      diverged: for each member the step whose loss was the first not to be finite; 0
        if all are.
      stepping: seconds spent in steps.
      waiting: seconds of those spent waiting for examples.
      training: seconds spent training, validation included.
    """

    step: int = 0
    pending: tuple[tuple[float, ...], ...] = ()
    diverged: tuple[int, ...] = ()
    stepping: float = 0.0
    waiting: float = 0.0
    training: float = 0.0


def take_steps(
    programs: Programs,
    state: Any,
    feed: feeds.Feed,
    step: int,
    count: int,
    watch: signals.Watch,
) -> tuple[Any, np.ndarray]:
    """Takes `count` steps after `step`, or fewer if the run is to stop.

    Returns:
      The state, and the losses of the steps taken, `[steps, members]`.
    """
    found = []
    for data, rows, taken in feed.dispatches(step, count):
        state, losses_ = programs.train(programs.settings, state, data, rows, taken)
        found.append((losses_, taken))
        step += taken
        if watch.asked(step):
            break
    fetched = [programs.layout.to_host(each)[:n] for each, n in found]
    return state, np.concatenate(fetched).reshape(-1, programs.layout.members)


class Loop:
    """Training from wherever `progress` is to the last step.

    Attributes:
      progress: where the run is.
    """

    def __init__(
        self,
        members: Sequence[ConfigDict],
        log: progress.RunLog,
        programs: Programs,
        feed: feeds.Feed,
        val_batches: InOrder,
        val_size: int,
        checkpoints: checkpoint.Checkpoints,
        facts: Mapping[str, Any],
        progress: Progress,
        profile: Profile | None = None,
    ) -> None:
        """Takes what a run is made of; `facts` go into every checkpoint."""
        if not progress.diverged:
            progress = progress._replace(diverged=(0,) * len(members))
        self.progress = progress
        self._members, self._log, self._programs = members, log, programs
        self._feed, self._val_batches, self._val_size = feed, val_batches, val_size
        self._checkpoints, self._facts, self._profile = checkpoints, facts, profile
        self._config, self._tracing = members[0], False
        self._learning_rates = [
            optimizers.schedule(m.optimizer, m.training.steps) for m in members
        ]
        # Steps at which something is due: a row, a validation, a checkpoint.
        c = self._config.training
        self._save_every = c.checkpoint_every or c.eval_every
        self._due = (c.log_every, c.eval_every, self._save_every)

    def run(self, state: Any, watch: signals.Watch) -> Any:
        """Takes all steps that are left."""
        try:
            return self._run(state, watch)
        finally:
            if self._tracing:
                jax.profiler.stop_trace()
                self._log.say("trace written, up to where the run ended")

    def _run(self, state: Any, watch: signals.Watch) -> Any:
        c, before = self._config.training, self.progress
        began = time.perf_counter()
        while self.progress.step < c.steps:
            step = self.progress.step
            self._trace(step)
            tick = time.perf_counter()
            state, found = take_steps(
                self._programs, state, self._feed, step, self._next(step) - step, watch
            )
            now = time.perf_counter()
            self.progress = self.progress._replace(
                step=step + len(found),
                pending=(*self.progress.pending, *map(tuple, found.tolist())),
                stepping=self.progress.stepping + now - tick,
                waiting=before.waiting + self._feed.waited,
                training=before.training + now - began,
            )
            self._check_finite(step, found)
            step, score = self.progress.step, None
            if step == c.steps or 0 in (step % c.log_every, step % c.eval_every):
                score = self._report(state, len(found) / (now - tick))
            stop = watch.signal
            if score is not None or step % self._save_every == 0 or stop:
                self._save(state, score)
            if stop and step < c.steps:
                self._finish_saving()
                raise signals.StoppedError(
                    f"stopped by {stop} after step {step} of {c.steps}, and saved"
                )
        self._finish_saving()
        return state

    def _next(self, step: int) -> int:
        """The next step at which something is due."""
        ends = [step - step % n + n for n in self._due]
        if self._profile:
            ends += [n for n in self._profile[:2] if n > step]
        return min(*ends, self._config.training.steps)

    def _trace(self, step: int) -> None:
        """Starts or ends the trace that was asked for."""
        if self._profile is None:
            return
        wanted = self._profile.start <= step < self._profile.stop
        if wanted and not self._tracing:
            jax.profiler.start_trace(self._profile.folder, create_perfetto_trace=True)
        elif self._tracing and not wanted:
            jax.profiler.stop_trace()
            self._log.say(f"trace written to {self._profile.folder}")
        self._tracing = wanted

    def _check_finite(self, step: int, found: np.ndarray) -> None:
        """Notes members whose loss is not finite; ends the run if none is left."""
        bad = ~np.isfinite(found)
        first = step + 1 + bad.argmax(axis=0)
        diverged = list(self.progress.diverged)
        for i in range(len(diverged)):
            if bad[:, i].any() and not diverged[i]:
                diverged[i] = int(first[i])
                rate = self._members[i].optimizer.learning_rate
                said = (
                    f"loss or gradients are not finite at step {first[i]} with {rate}"
                )
                if len(diverged) > 1:
                    self._log.say(f"member {i}: {said}")
        self.progress = self.progress._replace(diverged=tuple(diverged))
        if not all(diverged):
            return
        self._finish_saving()
        kept = self._checkpoints.steps()
        raise InputError(
            f"config.optimizer.learning_rate: {said}; expected a smaller one"
            + (f" (the checkpoint of step {kept[-1]} is kept)" if kept else "")
        )

    def _report(self, state: Any, steps_per_second: float) -> float | None:
        """Writes the rows that are due; returns the score if one is of validation."""
        c, step = self._config.training, self.progress.step
        losses_ = np.array(self.progress.pending).T
        self.progress = self.progress._replace(pending=())
        means = [math.fsum(each) / len(each) for each in losses_]
        speed = self._speed(steps_per_second * c.batch_size)
        for record, loss, rate in zip(
            self._log.records, means, self._learning_rates, strict=True
        ):
            values = {"loss": loss, "learning_rate": float(rate(step - 1)), **speed}
            record.write(step, "train", values)
        shown, score = {"loss": _middle(means)}, None
        if step % c.eval_every == 0 or step == c.steps:
            scores = []
            for record, values in zip(
                self._log.records,
                validate(self._programs, state, self._val_batches, self._val_size),
                strict=True,
            ):
                record.write(step, "val", values)
                measure = measure_of(values)
                scores.append(values[measure])
            shown[f"val {measure}"] = _middle(scores)
            score = self._score(scores)
        self._log.progress(step, force=len(shown) > 1, **shown)
        return score

    def _speed(self, images_per_second: float) -> dict[str, float]:
        """Images a second of each member, and how much of the devices they use."""
        speed = {"images_per_second": images_per_second}
        rate = images_per_second * len(self._members) * self._programs.flops_per_image
        peak = peak_flops(self._programs.layout, self._config)
        return speed if peak is None else {**speed, "flops_utilisation": rate / peak}

    def _score(self, scores: Sequence[float]) -> float:
        """The mean over members that have not diverged."""
        pairs = zip(scores, self.progress.diverged, strict=True)
        return float(np.mean([score for score, diverged in pairs if not diverged]))

    def _save(self, state: Any, score: float | None) -> None:
        finite = score is not None and math.isfinite(score)
        values = {
            **self.progress._asdict(),
            "history": [record.history for record in self._log.records],
            **self._facts,
        }
        state = self._programs.layout.get_state(state)
        self._guard(
            lambda: self._checkpoints.save(
                self.progress.step, state, values, score if finite else None
            )
        )

    def _finish_saving(self) -> None:
        self._guard(self._checkpoints.wait)

    def _guard(self, write: Callable[[], None]) -> None:
        guard(self._checkpoints, self.progress.step, write)


def guard(
    checkpoints: checkpoint.Checkpoints, step: int, write: Callable[[], None]
) -> None:
    """Says in a line that a checkpoint could not be written, and what is left.

    Raises:
      InputError: `write` failed.
    """
    try:
        write()
    except Exception as error:  # what the file system says comes in many wrappings
        kept = checkpoints.steps()
        reason = " ".join(str(error).split())
        # What the disk says comes at the end of what every layer above it says.
        said = [text for text in map(os.strerror, DISK) if text in reason]
        if processes.count() > 1 and not said:
            raise  # it is as likely that another process has ended
        reason = said[0] if said else reason[:200]
        raise InputError(
            f"--workdir: the checkpoint of step {step} cannot be written ({reason}); "
            + (f"that of step {kept[-1]} is kept" if kept else "there is none yet")
        ) from error


def peak_flops(layout: parallel.Layout, config: ConfigDict) -> float | None:
    """Peak FLOP/s of all devices of a run together; None where it is not known."""
    total = 0.0
    for device in layout.devices:
        peak = parallel.cost.peak_flops(device, config.model.dtype)
        if peak is None:
            return None
        total += peak
    return total


def _middle(values: Sequence[float]) -> str:
    """A value, or the lowest and highest of several."""
    if len(values) == 1:
        return f"{values[0]:.4f}"
    return f"{min(values):.4f}..{max(values):.4f}"


def evaluate(
    programs: Programs, state: Any, batches: InOrder, count: int, keep: int = 0
) -> list[tuple[training.Evaluation, np.ndarray | None]]:
    """Evaluates a split with each member: statistics, and probabilities of `keep`."""
    layout = programs.layout
    found, kept = training.evaluate(
        partial(programs.evaluate, programs.settings),
        state,
        batches,
        count,
        keep=keep,
        axis=0 if layout.members == 1 else 1,
        to_host=layout.to_host,
    )
    if layout.members == 1:
        return [(found, kept)]
    return [
        (
            jax.tree.map(lambda x, i=i: x[i], found),
            None if kept is None else kept[i],
        )
        for i in range(layout.members)
    ]


def validate(
    programs: Programs, state: Any, batches: InOrder, count: int
) -> list[dict[str, float]]:
    """Loss and noise-aware measures of each member on clean validation labels."""
    rows = []
    for found, _ in evaluate(programs, state, batches, count):
        values = decoding.measure(found.statistics.analytic)
        row = {"loss": float(np.mean(found.loss))}
        for name in ("iou", "miou", "dice", "accuracy"):
            if name in values:
                row[name] = float(values[name])  # type: ignore[arg-type]
        rows.append(row)
    return rows


def measure_of(values: Mapping[str, Any]) -> str:
    """Name of the measure that runs are compared by."""
    return "iou" if "iou" in values else "miou"


def best_of(history: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Step and measure of the best validation, the first of equals."""
    rows = [row for row in history if row["split"] == "val"]
    row = max(rows, key=lambda row: row[measure_of(row)] or 0.0)
    return {"step": row["step"], measure_of(row): row[measure_of(row)]}
