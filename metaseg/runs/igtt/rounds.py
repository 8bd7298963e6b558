"""The rounds of iGTT as a task of the training loop.

A round takes steps on the labels of the round before, scores all training images, and
makes new labels of the scores. A checkpoint holds all arrays that a round changes, so
that a run that was stopped within a round ends with the same bits.
"""

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from metaseg import decoding, files, metrics, training
from metaseg.batch import Batch
from metaseg.data import pipeline
from metaseg.runs import progress as progress_lib
from metaseg.runs import sources
from metaseg.runs.igtt import programs as programs_lib
from metaseg.runs.igtt.images import Images
from metaseg.runs.igtt.programs import IgttPrograms, Placed
from metaseg.runs.loop import LoopState, Report, Task, take_steps
from metaseg.runs.training import members as members_lib
from metaseg.runs.training import undefined
from metaseg.runs.training.setup import Setup

__all__ = [
    "SHOWN",
    "SUPERVISED",
    "Arrays",
    "Parts",
    "Rounds",
    "Truth",
    "evolution_file",
    "measure",
]

SUPERVISED = "supervised"  # in place of a target: true labels in every round
SHOWN = 4  # number of training images whose masks are kept from every round


class Arrays(NamedTuple):
    """The arrays that a round changes.

    Attributes:
      state: Train state.
      labels: uint8 or soft `[N, H, W]`, of the training images; on the host.
      masks: bool `[N, H, W]`, from which the labels were made; on the host.
      ema_scores: float32 `[N, H, W]`, moving average of the scores over rounds, or
        None; on the host.
    """

    state: Any
    labels: Any
    masks: Any
    ema_scores: Any


class Truth(NamedTuple):
    """Images with the labels by which their masks are measured.

    Attributes:
      placed: The images in batches.
      labels: Class ids, uint8 `[N, H, W]`.
    """

    placed: list[Placed]
    labels: np.ndarray


class Parts(NamedTuple):
    """The parts that all variants of a run share.

    Attributes:
      made: Settings, data, layout and static parts of the step.
      images: Images of the training split.
      data: The same images on the device, for the steps; a round adds its labels.
      placed: The same images in batches, for scoring.
      programs: Compiled functions.
      validation: Images and labels by which each round is measured, or None.
    """

    made: Setup
    images: Images
    data: Batch
    placed: list[Placed]
    programs: IgttPrograms
    validation: Truth | None


_confusion = jax.jit(partial(metrics.confusion_matrix, num_classes=2))


def measure(masks: np.ndarray, labels: np.ndarray) -> tuple[dict[str, Any], np.ndarray]:
    """Measures masks against labels.

    Args:
      masks: bool `[N, H, W]`.
      labels: uint8 `[N, H, W]`; void pixels do not count.

    Returns:
      Measures over all pixels by name, and the IoU `[N]` of each image.
    """
    found = np.asarray(_confusion(masks, labels))
    return decoding.measure(found), metrics.from_confusion(found)["iou"][:, 1]


class Rounds(Task):
    """The rounds of one variant: a target, or supervised training as a baseline.

    Attributes:
      log: Records and progress; to be set before the first round.
      best_state: Train state of the best validation, where labels choose and no
        checkpoint keeps the weights; else None.
    """

    members = 1
    log: progress_lib.RunLog
    best_state: Any = None

    def __init__(self, parts: Parts, target: str, folder: Path | None) -> None:
        """Compiles the functions of the variant.

        Args:
          parts: Parts that all variants share.
          target: One of `igtt.TARGETS`, or `SUPERVISED`.
          folder: Folder for the masks of each round, or None.
        """
        self._made, self._layout = parts.made, parts.made.layout
        self._config: ConfigDict = parts.made.members[0]
        self.total_steps = self._config.training.steps
        self._programs, self._data = parts.programs, parts.data
        self._images, self._placed = parts.images, parts.placed
        self._validation, self._folder = parts.validation, folder
        self._best_score = -math.inf
        self._supervised = target == SUPERVISED
        self._read = programs_lib.reader(self._config, supervised=self._supervised)
        if not self._supervised:
            self._label = programs_lib.labels(self._config, target)

    def begin(self, labels: np.ndarray | None = None) -> Arrays:
        """Draws weights, and makes the first labels unless they are given.

        Args:
          labels: Labels of supervised training, uint8 `[N, H, W]`.
        """
        state, shape = self._weights(0), self._images.valid.shape
        scores = np.zeros(shape, np.float32) if self._config.igtt.ema_decay else None
        if labels is not None:
            labels = np.asarray(labels, programs_lib.label_dtype(self._config))
            return Arrays(state, labels, np.zeros(shape, bool), scores)
        key = programs_lib.label_key(self._config, 0)
        found = []
        for batch in self._placed:
            first = self._layout.to_host(self._programs.first(batch.images))
            found.append((self._label(key, first, batch.images), first))
        made, masks = programs_lib.joined(self._layout, found, len(self._images.ids))
        self._draw(masks, 0)
        return Arrays(state, made, masks, scores)

    def restored(self, arrays: Mapping[str, Any]) -> Arrays:
        """Lays out the arrays of a checkpoint.

        Args:
          arrays: Content of `saved`, by name.
        """
        found = Arrays(**arrays)
        return Arrays(
            self._layout.put_state(found.state), *jax.tree.map(np.asarray, found[1:])
        )

    def saved(self, state: Arrays) -> dict[str, Any]:
        """Returns the arrays as a checkpoint holds them, by name."""
        found = Arrays(
            self._layout.get_state(state.state), *jax.tree.map(jnp.asarray, state[1:])
        )
        return found._asdict()

    def warm_up(self, arrays: Arrays) -> None:
        """Compiles the making of labels, so that the time it takes is that of work."""
        if not self._supervised:
            scores = self.scores(arrays.state, self._placed[:1])
            self._relabelled(arrays, scores, 0)

    def settled(self) -> bool:
        """Returns whether the masks have changed less than `igtt.stop_stability`."""
        least, history = self._config.igtt.stop_stability, self.log.records[0].history
        last = history[-1].get("stability", -1.0) if history else -1.0
        return least > 0 and last >= least

    def next_event(self, step: int) -> int:
        """Returns the last step of the round."""
        length = self._config.igtt.steps_per_round
        return step - step % length + length

    def reports(self, step: int) -> bool:
        """Returns whether `step` is the last of a round."""
        return step % self._config.igtt.steps_per_round == 0

    def saves(self, step: int) -> bool:
        """Returns True: a checkpoint follows every round."""
        return True

    def learning_rate(self, member: int) -> float:
        """Returns `optimizer.learning_rate`."""
        return self._config.optimizer.learning_rate

    def take(
        self, state: Arrays, step: int, count: int, asked: Callable[[int], bool]
    ) -> tuple[Arrays, np.ndarray]:
        """Takes steps on the labels of the round before."""
        config, programs = self._config, self._programs
        round_, within = divmod(step, config.igtt.steps_per_round)
        if config.igtt.reinitialise and round_ and not within:
            state = state._replace(state=self._weights(round_))
        data = self._data._replace(labels=self._layout.put_data(state.labels))
        trained, losses = take_steps(
            programs.train,
            self._layout.to_host,
            self._settings(round_),
            state.state,
            self._dispatches(data, step, count),
            step,
            asked,
        )
        return state._replace(state=trained), losses

    def _dispatches(
        self, data: Batch, step: int, count: int
    ) -> Iterator[tuple[Batch, Any, int]]:
        c, most = self._config, self._programs.steps
        number = len(self._images.ids)
        for first in range(step, step + count, most):
            taken = min(most, step + count - first)
            size = c.training.batch_size
            rows = pipeline.batch_indices(
                seed=c.seed,
                start=first,
                num_steps=taken,
                batch_size=size,
                num_examples=number,
            )
            yield data, self._layout.put_rows(np.resize(rows, (most, size))), taken

    def report(
        self, state: Arrays, at: LoopState, losses: np.ndarray, steps_per_second: float
    ) -> Report:
        """Makes the labels of the next round, and writes the round's row."""
        del steps_per_second
        began = time.perf_counter()
        round_ = at.step // self._config.igtt.steps_per_round
        pending = losses[:, 0].tolist()
        row: dict[str, float] = {"round": round_}
        row["loss"] = math.fsum(pending) / len(pending)
        updating = 0.0
        if not self._supervised:
            found = jax.block_until_ready(self.scores(state.state, self._placed))
            tick = time.perf_counter()
            state, changes = self._relabel(state, found, round_)
            row |= changes
            updating = time.perf_counter() - tick
            self._draw(state.masks, round_)
        seconds = at.training - at.reported + time.perf_counter() - began
        row |= {"seconds": seconds, "update_share": updating / seconds}
        if self._validation is not None:
            row |= self._validate(state, self._validation)
        labels, why = self._made.labels.get("val"), {}
        if labels is not None:
            null = [name for name, value in row.items() if not math.isfinite(value)]
            why = {
                name: undefined.measure_reason(labels, name.removeprefix("val_"))
                for name in null
            }
        self.log.records[0].write(at.step, "round", row, why_null=why)
        self.log.progress(at.step, force=True, **_shown(row))
        score = self._score(row)
        if self._folder is None and score is not None and score >= self._best_score:
            self._best_score = score
            self.best_state = jax.tree.map(jnp.copy, state.state)  # steps donate theirs
        return Report(state, score, updating)

    def scores(self, state: Any, placed: Sequence[Placed]) -> list[jax.Array]:
        """Returns the foreground's probability, batch by batch."""
        settings = self._settings(0)
        return [self._programs.score(settings, state, b.pixels)[1] for b in placed]

    def masks(self, state: Any, placed: Sequence[Placed], count: int) -> np.ndarray:
        """Segments images with a train state.

        Args:
          state: Train state.
          placed: Images in batches.
          count: Number of images, without those that fill up the last batch.

        Returns:
          Masks, bool `[count, H, W]`.
        """
        found = [
            self._read(scores, batch.images)
            for scores, batch in zip(self.scores(state, placed), placed, strict=True)
        ]
        return programs_lib.joined(self._layout, found, count)

    def _weights(self, round_: int) -> Any:
        made, parts = self._made, self._made.parts
        key = members_lib.keys(self._config)[0]
        state = training.create_state(
            jax.random.fold_in(key, round_) if round_ else key,
            parts.model,
            parts.optimizer,
            (*sources.window(self._config, made.data), made.data.channels),
            ema=parts.ema_decay > 0,
        )
        if made.initial is not None:
            state = made.initial.put_into(state)
        return self._layout.put_state(state)

    def _settings(self, round_: int) -> Any:
        """Returns settings with a key of augmentation for the round.

        With `igtt.reinitialise`, steps count anew in each round, and so would the keys.
        """
        settings = self._made.settings
        key = jax.random.wrap_key_data(jnp.asarray(settings.augment_key))
        own = jax.random.key_data(jax.random.fold_in(key, round_))
        return self._layout.put_settings(settings._replace(augment_key=np.asarray(own)))

    def _relabelled(
        self, arrays: Arrays, scores: Sequence[Any], round_: int
    ) -> list[Any]:
        """Returns labels, masks, averages and stability of the first batches."""
        key, found, first = programs_lib.label_key(self._config, round_), [], 0
        for each, batch in zip(scores, self._placed, strict=False):
            size = len(batch.images.ids)
            rows = np.minimum(np.arange(first, first + size), len(self._images.ids) - 1)
            ema_scores, before = arrays.ema_scores, arrays.masks[rows]
            ema_scores = None if ema_scores is None else ema_scores[rows]
            masks, ema_scores, stability = self._programs.update(
                round_ - 1, each, ema_scores, before, batch.images
            )
            # By way of the host, so that one program serves the first labels too.
            masks = self._layout.to_host(masks)
            labels = self._label(key, masks, batch.images)
            found.append((labels, masks, ema_scores, stability))
            first += size
        return jax.block_until_ready(found)

    def _relabel(
        self, arrays: Arrays, scores: Sequence[Any], round_: int
    ) -> tuple[Arrays, dict[str, float]]:
        """Replaces labels, masks and averages; returns how much the masks changed."""
        labels, masks, ema_scores, stability = programs_lib.joined(
            self._layout,
            self._relabelled(arrays, scores, round_),
            len(self._images.ids),
        )
        share = masks.sum() / self._images.valid.sum()
        changes = {"stability": float(stability.mean()), "mask_share": float(share)}
        return Arrays(arrays.state, labels, masks, ema_scores), changes

    def _validate(self, arrays: Arrays, truth: Truth) -> dict[str, float]:
        masks = self.masks(arrays.state, truth.placed, len(truth.labels))
        values, _ = measure(masks, truth.labels)
        names = ("iou", "mean_image_iou", "dice")
        return {f"val_{name}": float(values[name]) for name in names}

    def _score(self, row: Mapping[str, float]) -> float | None:
        """Returns the score of a round by which labels may choose the best."""
        if self._config.igtt.labels != "choose" or self._validation is None:
            return None
        if not self._made.labels["val"].chooses:
            return None
        return row["val_dice"] if math.isfinite(row["val_dice"]) else None

    def _draw(self, masks: np.ndarray, round_: int) -> None:
        """Keeps the masks of a few training images, for the report."""
        if self._supervised or self._folder is None:
            return
        for i, mask in enumerate(masks[:SHOWN]):
            height, width = self._images.valid_size[i]
            files.write_png(
                evolution_file(self._folder, i, round_),
                (255 * mask[:height, :width]).astype(np.uint8),
            )


def evolution_file(folder: Path, image: int, round_: int) -> Path:
    """Returns the path of the mask of a training image after a round.

    Args:
      folder: Folder of the variant.
      image: Index of the image.
      round_: Number of the round; 0 is the start.
    """
    return folder / "evolution" / f"{image}-{round_:04}.png"


def _shown(row: Mapping[str, float]) -> dict[str, str]:
    """Formats the numbers of a round for the terminal."""
    names = ("loss", "stability", "mask_share", "update_share", "val_iou")
    shown = {name: f"{row[name]:.4f}" for name in names if name in row}
    return {"round": f"{row['round']:.0f}", **shown}
