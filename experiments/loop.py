"""The training loop: steps, validations, checkpoints, and where it all stands."""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import feeds
import jax
import logs
import numpy as np
import stopping
from ml_collections import ConfigDict

from metaseg import checkpoint, optimizers, readings, training
from metaseg.data.pipeline import InOrder
from metaseg.errors import InputError

__all__ = ["Loop", "Programs", "Progress", "best_of", "validate"]


class Programs(NamedTuple):
    """The compiled steps of a run, with the keys that they take every time.

    Attributes:
      step: `(state, data, rows, count, noise_key, augment_key) -> (state, losses)`.
      evaluate: `(variables, batch) -> (evaluation, probability)`.
      keys: the keys of noise and augmentation.
    """

    step: Any
    evaluate: Any
    keys: tuple[jax.Array, jax.Array]


class Progress(NamedTuple):
    """Where a run is; what a checkpoint holds beside the state, in plain values.

    Attributes:
      step: steps taken.
      pending: losses since the last row of the history.
      stepping: seconds spent in steps.
      waiting: seconds of those spent waiting for examples.
      training: seconds spent training, validation included.
    """

    step: int = 0
    pending: tuple[float, ...] = ()
    stepping: float = 0.0
    waiting: float = 0.0
    training: float = 0.0


def take_steps(
    programs: Programs,
    state: training.TrainState,
    feed: feeds.Feed,
    step: int,
    count: int,
    watch: stopping.Watch,
) -> tuple[training.TrainState, list[float]]:
    """Takes `count` steps after `step`, or fewer if the run is to stop.

    Returns:
      The state and the loss of each step taken.
    """
    found = []
    for data, rows, taken in feed.dispatches(step, count):
        state, losses_ = programs.step(state, data, rows, taken, *programs.keys)
        found.append((losses_, taken))
        if watch.signal:
            break
    return state, [float(x) for each, n in found for x in np.asarray(each)[:n]]


class Loop:
    """Training from wherever `progress` is to the last step."""

    def __init__(
        self,
        config: ConfigDict,
        log: logs.RunLog,
        programs: Programs,
        feed: feeds.Feed,
        val_batches: InOrder,
        val_size: int,
        checkpoints: checkpoint.Checkpoints,
        progress: Progress,
    ) -> None:
        self.progress = progress
        self._config, self._log, self._programs = config, log, programs
        self._feed, self._val_batches, self._val_size = feed, val_batches, val_size
        self._checkpoints = checkpoints
        self._learning_rate = optimizers.schedule(
            config.optimizer, config.training.steps
        )

    def run(
        self, state: training.TrainState, watch: stopping.Watch
    ) -> training.TrainState:
        """Takes all steps that are left."""
        c, before = self._config.training, self.progress
        began = time.perf_counter()
        save_every = c.checkpoint_every or c.eval_every
        while self.progress.step < c.steps:
            step, ends = self.progress.step, (c.log_every, c.eval_every, save_every)
            count = min(*(n - step % n for n in ends), c.steps - step)
            tick = time.perf_counter()
            state, found = take_steps(
                self._programs, state, self._feed, step, count, watch
            )
            now = time.perf_counter()
            self.progress = Progress(
                step + len(found),
                (*self.progress.pending, *found),
                self.progress.stepping + now - tick,
                before.waiting + self._feed.waited,
                before.training + now - began,
            )
            self._check_finite(step, found)
            step, score = self.progress.step, None
            if step == c.steps or 0 in (step % c.log_every, step % c.eval_every):
                score = self._report(state, len(found) / (now - tick))
            if score is not None or step % save_every == 0 or watch.signal:
                self._save(state, score)
            if watch.signal and step < c.steps:
                self._finish_saving()
                raise stopping.StoppedError(
                    f"stopped by {watch.signal} after step {step} of {c.steps}, "
                    "and saved"
                )
        self._finish_saving()
        return state

    def _check_finite(self, step: int, found: Sequence[float]) -> None:
        bad = next((i for i, x in enumerate(found) if not math.isfinite(x)), None)
        if bad is None:
            return
        self._finish_saving()
        kept = self._checkpoints.steps()
        raise InputError(
            f"config.optimizer.learning_rate: loss or gradients are not finite at step "
            f"{step + bad + 1} with {self._config.optimizer.learning_rate}; expected a "
            "smaller one"
            + (f" (the checkpoint of step {kept[-1]} is kept)" if kept else "")
        )

    def _report(
        self, state: training.TrainState, steps_per_second: float
    ) -> float | None:
        """Writes the row that is due; returns the score if it is one of validation."""
        c, step = self._config.training, self.progress.step
        loss = math.fsum(self.progress.pending) / len(self.progress.pending)
        self.progress = self.progress._replace(pending=())
        self._log.write(
            step,
            "train",
            loss=loss,
            learning_rate=float(self._learning_rate(step - 1)),
            images_per_second=steps_per_second * c.batch_size,
        )
        shown, score = {"loss": f"{loss:.4f}"}, None
        if step % c.eval_every == 0 or step == c.steps:
            values = validate(
                self._programs.evaluate, state, self._val_batches, self._val_size
            )
            self._log.write(step, "val", **values)
            score = values[measure_of(values)]
            shown[f"val {measure_of(values)}"] = f"{score:.4f}"
        self._log.progress(step, force=len(shown) > 1, **shown)
        return score

    def _save(self, state: training.TrainState, score: float | None) -> None:
        finite = score is not None and math.isfinite(score)
        values = {**self.progress._asdict(), "history": self._log.history}
        self._guard(
            lambda: self._checkpoints.save(
                self.progress.step, state, values, score if finite else None
            )
        )

    def _finish_saving(self) -> None:
        self._guard(self._checkpoints.wait)

    def _guard(self, write: Callable[[], None]) -> None:
        """Says in a line that a checkpoint could not be written, and what is left."""
        try:
            write()
        except Exception as error:  # what the file system says comes in many wrappings
            kept = self._checkpoints.steps()
            reason = " ".join(str(error).split())[:200]
            raise InputError(
                f"--workdir: the checkpoint of step {self.progress.step} cannot be "
                f"written ({reason}); "
                + (f"that of step {kept[-1]} is kept" if kept else "there is none yet")
            ) from error


def validate(
    evaluator: Any,
    state: training.TrainState,
    batches: InOrder,
    count: int,
) -> dict[str, float]:
    """Loss and noise-aware measures of the validation split's clean labels."""
    found, _ = training.evaluate(evaluator, state.variables(), batches, count)
    values = readings.measure(found.statistics.analytic)
    kept = ("iou", "miou", "dice", "accuracy")
    return {"loss": float(np.mean(found.loss))} | {
        k: float(values[k])  # type: ignore[arg-type]
        for k in kept
        if k in values
    }


def measure_of(values: Mapping[str, Any]) -> str:
    """Name of the measure that runs are compared by."""
    return "iou" if "iou" in values else "miou"


def best_of(history: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Step and measure of the best validation, the first of equals."""
    rows = [row for row in history if row["split"] == "val"]
    row = max(rows, key=lambda row: row[measure_of(row)] or 0.0)
    return {"step": row["step"], measure_of(row): row[measure_of(row)]}
