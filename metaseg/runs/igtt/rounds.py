"""The rounds of iGTT: steps on the labels there are, scores of all images, new labels.

A checkpoint holds all that a round changes, so that a run that was stopped in the midst
of one goes on to the same bits.
"""

import math
import time
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from metaseg import checkpoint, decoding, files, metrics, training
from metaseg.batch import Batch
from metaseg.data import pipeline
from metaseg.errors import InputError
from metaseg.runs import progress, signals
from metaseg.runs.igtt import programs as igtt_programs
from metaseg.runs.igtt.images import Images
from metaseg.runs.igtt.programs import Placed, Programs
from metaseg.runs.train import loop
from metaseg.runs.train import members as members_lib
from metaseg.runs.train import run as train

__all__ = [
    "SHOWN",
    "SUPERVISED",
    "Parts",
    "Point",
    "Progress",
    "Rounds",
    "Truth",
    "evolution_file",
    "measure",
]

SUPERVISED = "supervised"  # in place of a target: true labels, which stay
SHOWN = 4  # training images whose masks are kept from every round


class Point(NamedTuple):
    """The arrays that a round changes.

    Attributes:
      state: train state.
      labels: uint8 or soft `[N, H, W]`, of the training images; on the host.
      masks: bool `[N, H, W]`, what the labels were made of; on the host.
      average: float32 `[N, H, W]`, of the scores over rounds, or None; on the host.
    """

    state: Any
    labels: Any
    masks: Any
    average: Any


class Progress(NamedTuple):
    """Where a run is, in plain values.

    Attributes:
      step: steps taken; rounds follow from it.
      pending: losses of the steps taken in this round.
      seconds: that this round has taken so far.
      total: that all rounds have taken.
      updating: that labels have taken of these.
    """

    step: int = 0
    pending: tuple[float, ...] = ()
    seconds: float = 0.0
    total: float = 0.0
    updating: float = 0.0


class Truth(NamedTuple):
    """Images with the labels that their masks are measured by."""

    placed: list[Placed]
    labels: np.ndarray


class Parts(NamedTuple):
    """What all variants of a run share.

    Attributes:
      job: config, data, layout and static parts of the step.
      images: of the training split.
      data: the same on the device, for the steps; each round gives it labels.
      placed: the same in batches, to be scored.
      programs: compiled.
      validation: images and labels that each round is measured by, or None.
    """

    job: train.Job
    images: Images
    data: Batch
    placed: list[Placed]
    programs: Programs
    validation: Truth | None


_confusion = jax.jit(partial(metrics.confusion_matrix, num_classes=2))


def measure(masks: np.ndarray, labels: np.ndarray) -> tuple[dict[str, Any], np.ndarray]:
    """Measures of masks `[N, H, W]` against labels, pooled, and the IoU of each."""
    found = np.asarray(_confusion(masks, labels))
    return decoding.measure(found), metrics.from_confusion(found)["iou"][:, 1]


class Rounds:
    """The rounds of one variant, from wherever `progress` is.

    Attributes:
      point: the arrays so far.
      progress: where the run is.
    """

    def __init__(self, parts: Parts, target: str, folder: Path) -> None:
        """Takes what a run is made of; `begin` or `resume` says from where."""
        self._job, self._layout = parts.job, parts.job.layout
        self._config: ConfigDict = parts.job.members[0]
        self._programs, self._data = parts.programs, parts.data
        self._images, self._placed = parts.images, parts.placed
        self._validation, self._folder = parts.validation, folder
        self._supervised = target == SUPERVISED
        self._read = igtt_programs.reader(self._config, supervised=self._supervised)
        if not self._supervised:
            self._label = igtt_programs.labels(self._config, target)
        self.progress = Progress()
        self.point: Point

    def begin(self, labels: np.ndarray | None = None) -> None:
        """Draws weights, and the first labels unless they are given."""
        state, shape = self._weights(0), self._images.valid.shape
        average = np.zeros(shape, np.float32) if self._config.igtt.ema_decay else None
        if labels is None:
            key = igtt_programs.label_key(self._config, 0)
            found = []
            for batch in self._placed:
                first = self._layout.to_host(self._programs.first(batch.images))
                found.append((self._label(key, first, batch.images), first))
            labels, masks = igtt_programs.joined(
                self._layout, found, len(self._images.ids)
            )
        else:
            labels = np.asarray(labels, igtt_programs.label_dtype(self._config))
            masks = np.zeros(shape, bool)
        self.point = Point(state, labels, masks, average)

    def resume(self, point: Point, progress: Progress) -> None:
        """Takes arrays and progress of a checkpoint."""
        self.point = Point(
            self._layout.put_state(point.state), *jax.tree.map(np.asarray, point[1:])
        )
        self.progress = progress

    def saved(self) -> Point:
        """The arrays as a checkpoint holds them."""
        return Point(
            self._layout.get_state(self.point.state),
            *jax.tree.map(jnp.asarray, self.point[1:]),
        )

    def done(self, history: Sequence[Mapping[str, Any]]) -> bool:
        """Whether no round is left, or masks have settled."""
        c = self._config.igtt
        if self.progress.step >= c.rounds * c.steps_per_round:
            return True
        last = history[-1].get("stability", -1.0) if history else -1.0
        return c.stop_stability > 0 and last >= c.stop_stability

    def run(
        self,
        log: progress.RunLog,
        checkpoints: checkpoint.Checkpoints,
        facts: Mapping[str, Any],
        watch: signals.Watch,
    ) -> None:
        """Takes all rounds that are left; saves after each, and when asked to stop.

        Raises:
          InputError: a loss is not finite.
          signals.StoppedError: a signal asked the run to stop; it has been saved.
        """
        record = log.records[0]
        if self.progress.step == 0:
            self._draw(0)
        if not self._supervised:  # compiles, so that the time it takes is the work's
            self._relabelled(self.scores(self.point.state, self._placed[:1]), 0)
        while not self.done(record.history):
            self._take_steps(watch)
            score, whole = None, self._config.igtt.steps_per_round
            if self.progress.pending and self.progress.step % whole == 0:
                row = self._end_round()
                record.write(self.progress.step, "round", row)
                log.progress(self.progress.step, force=True, **_shown(row))
                score = self._score(row)
            values = {**self.progress._asdict(), "history": record.history, **facts}
            step, point = self.progress.step, self.saved()._asdict()
            save = partial(checkpoints.save, step, point, values, score)
            loop.guard(checkpoints, step, save)
            if watch.signal and not self.done(record.history):
                loop.guard(checkpoints, step, checkpoints.wait)
                raise signals.StoppedError(
                    f"stopped by {watch.signal} after step {self.progress.step}, and "
                    "saved"
                )
        loop.guard(checkpoints, self.progress.step, checkpoints.wait)

    def scores(self, state: Any, placed: Sequence[Placed]) -> list[jax.Array]:
        """The foreground's probability, batch by batch."""
        settings = self._settings(0)
        return [self._programs.score(settings, state, b.pixels)[1] for b in placed]

    def masks(self, state: Any, placed: Sequence[Placed], count: int) -> np.ndarray:
        """Masks of images as they are read after training, `[count, H, W]`."""
        found = [
            self._read(scores, batch.images)
            for scores, batch in zip(self.scores(state, placed), placed, strict=True)
        ]
        return igtt_programs.joined(self._layout, found, count)

    def _weights(self, round_: int) -> Any:
        job = self._job
        key = members_lib.keys(self._config)[0]
        parts = job.parts
        state = training.create_state(
            jax.random.fold_in(key, round_) if round_ else key,
            parts.model,
            parts.optimizer,
            (*train.window(self._config, job.data), job.data.channels),
            ema=parts.ema_decay > 0,
        )
        return self._layout.put_state(state)

    def _settings(self, round_: int) -> Any:
        """With augmentation of its own for a round, should steps count anew."""
        settings = self._job.settings
        key = jax.random.wrap_key_data(jnp.asarray(settings.augment_key))
        own = jax.random.key_data(jax.random.fold_in(key, round_))
        return self._layout.put_settings(settings._replace(augment_key=np.asarray(own)))

    def _take_steps(self, watch: signals.Watch) -> None:
        """Steps to the end of the round, or fewer if the run is to stop."""
        config, programs = self._config, self._programs
        began, first = time.perf_counter(), self.progress.step
        round_, within = divmod(first, config.igtt.steps_per_round)
        if config.igtt.reinitialise and round_ and not within:
            self.point = self.point._replace(state=self._weights(round_))
        end = first + config.igtt.steps_per_round - within
        data = self._data._replace(labels=self._layout.put_data(self.point.labels))
        state, settings, found = self.point.state, self._settings(round_), []
        step = first
        while step < end and not watch.asked(step):
            taken = min(programs.steps, end - step)
            rows = self._layout.put_rows(self._rows(step, taken))
            state, losses = programs.train(settings, state, data, rows, taken)
            found.append((losses, taken))
            step += taken
        losses_ = [
            x for each, n in found for x in self._layout.to_host(each)[:n].tolist()
        ]
        self._check_finite(first, losses_)
        self.point = self.point._replace(state=state)
        self.progress = self.progress._replace(
            step=step,
            pending=(*self.progress.pending, *losses_),
            seconds=self.progress.seconds + time.perf_counter() - began,
        )

    def _rows(self, step: int, count: int) -> np.ndarray:
        c = self._config
        size, number = c.training.batch_size, len(self._images.ids)
        rows = pipeline.batch_indices(c.seed, step, count, size, number)
        return np.resize(rows, (self._programs.steps, size))

    def _check_finite(self, first: int, losses: Sequence[float]) -> None:
        bad = [i for i, loss in enumerate(losses) if not math.isfinite(loss)]
        if bad:
            raise InputError(
                "config.optimizer.learning_rate: loss or gradients are not finite at "
                f"step {first + bad[0] + 1} with {self._config.optimizer.learning_rate}"
                "; expected a smaller one"
            )

    def _relabelled(self, scores: Sequence[Any], round_: int) -> list[Any]:
        """Labels, masks, average and stability of the first batches, as many as given.

        The results are waited for.
        """
        key, found, first = igtt_programs.label_key(self._config, round_), [], 0
        for each, batch in zip(scores, self._placed, strict=False):
            size = len(batch.images.ids)
            rows = np.minimum(np.arange(first, first + size), len(self._images.ids) - 1)
            average, before = self.point.average, self.point.masks[rows]
            average = None if average is None else average[rows]
            masks, average, stability = self._programs.cut(
                round_ - 1, each, average, before, batch.images
            )
            # By way of the host, so that one program serves the first labels too.
            masks = self._layout.to_host(masks)
            labels = self._label(key, masks, batch.images)
            found.append((labels, masks, average, stability))
            first += size
        return jax.block_until_ready(found)

    def _end_round(self) -> dict[str, float]:
        """Scores all training images and makes labels of them; the round's numbers."""
        began, c = time.perf_counter(), self._config.igtt
        pending, round_ = self.progress.pending, self.progress.step // c.steps_per_round
        row: dict[str, float] = {"round": round_}
        row["loss"] = math.fsum(pending) / len(pending)
        updating = 0.0
        if not self._supervised:
            scores = jax.block_until_ready(self.scores(self.point.state, self._placed))
            tick = time.perf_counter()
            row |= self._relabel(scores, round_)
            updating = time.perf_counter() - tick
            self._draw(round_)
        seconds = self.progress.seconds + time.perf_counter() - began
        row |= {"seconds": seconds, "update_share": updating / seconds}
        if self._validation is not None:
            row |= self._validate(self._validation)
        self.progress = self.progress._replace(
            pending=(),
            seconds=0.0,
            total=self.progress.total + seconds,
            updating=self.progress.updating + updating,
        )
        return row

    def _relabel(self, scores: Sequence[Any], round_: int) -> dict[str, float]:
        """Replaces labels, masks and average; how much the masks have changed."""
        labels, masks, average, stability = igtt_programs.joined(
            self._layout, self._relabelled(scores, round_), len(self._images.ids)
        )
        self.point = Point(self.point.state, labels, masks, average)
        share = masks.sum() / self._images.valid.sum()
        return {"stability": float(stability.mean()), "mask_share": float(share)}

    def _validate(self, truth: Truth) -> dict[str, float]:
        masks = self.masks(self.point.state, truth.placed, len(truth.labels))
        values, _ = measure(masks, truth.labels)
        names = ("iou", "mean_image_iou", "dice")
        return {f"val_{name}": float(values[name]) for name in names}

    def _score(self, row: Mapping[str, float]) -> float | None:
        """What the best round has most of, where labels may choose it."""
        if self._config.igtt.labels != "choose" or self._validation is None:
            return None
        return row["val_dice"] if math.isfinite(row["val_dice"]) else None

    def _draw(self, round_: int) -> None:
        """Keeps the masks of a few training images, for the report."""
        if self._supervised:
            return
        for i, mask in enumerate(self.point.masks[:SHOWN]):
            height, width = self._images.valid_size[i]
            files.write_png(
                evolution_file(self._folder, i, round_),
                (255 * mask[:height, :width]).astype(np.uint8),
            )


def evolution_file(folder: Path, image: int, round_: int) -> Path:
    """Where the mask of a training image after a round is kept."""
    return folder / "evolution" / f"{image}-{round_:04}.png"


def _shown(row: Mapping[str, float]) -> dict[str, str]:
    """The numbers of a round for the terminal."""
    names = ("loss", "stability", "mask_share", "update_share", "val_iou")
    shown = {name: f"{row[name]:.4f}" for name in names if name in row}
    return {"round": f"{row['round']:.0f}", **shown}
