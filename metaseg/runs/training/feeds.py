"""Feeds of the training step: examples on the device, from disk, or rendered there.

A feed yields `(data, rows, count)` for each dispatch, the arguments of
`training.train_steps` between the state and the keys, and counts the time that the run
waits for them. Each member of an ensemble has its own order, so rows are
`[steps, batch]` for a run by itself and `[steps, members, batch]` for several.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from metaseg import training
from metaseg.batch import Batch
from metaseg.data import pipeline, synthetic
from metaseg.data.dataset import Examples, Split
from metaseg.errors import InputError
from metaseg.parallel import Layout

__all__ = ["Feed", "build", "renderer", "steps_per_dispatch"]

Dispatch = tuple[Any, Any, int]  # data, rows, steps to take


class Feed:
    """A data set on the device, of which the host selects rows.

    Attributes:
      waited: seconds that the run has spent waiting for examples.
      gather: `training.Step.gather` that goes with what the feed yields.
    """

    gather: Callable[[Any, jax.Array], Batch] = staticmethod(training.gather)

    def __init__(
        self,
        layout: Layout,
        split: Split | None,
        seeds: Sequence[int],
        shape: tuple[int, int],
    ) -> None:
        self.waited = 0.0
        self._layout, self._seeds, self._shape = layout, seeds, shape
        self._data: Any = ()
        if split is not None:
            self._size = len(split)
            self._data = layout.put_data(
                Batch(split.images, split.labels, split.ids, split.valid_size)
            )

    def _order(self, seed: int, step: int, count: int) -> np.ndarray:
        """Returns the rows of some consecutive steps, `[count, batch]`."""
        return pipeline.batch_indices(
            seed=seed,
            start=step,
            num_steps=count,
            batch_size=self._shape[1],
            num_examples=self._size,
        )

    def _rows(self, step: int, count: int) -> np.ndarray:
        """The same for all members, filled up to a whole dispatch."""
        each = [self._order(seed, step, count) for seed in self._seeds]
        rows = each[0] if len(each) == 1 else np.stack(each, axis=1)
        return np.resize(rows, (self._shape[0], *rows.shape[1:]))

    def example(self) -> tuple[Any, Any]:
        """Data and rows of the shapes and types that every dispatch has."""
        return self._data, self._layout.put_rows(self._rows(0, 1))

    def seek(self, step: int) -> None:
        """Goes to where the run begins, so that reading ahead can begin."""

    def dispatches(self, step: int, count: int) -> Iterator[Dispatch]:
        """The dispatches of `count` steps from `step` on."""
        end = step + count
        for first in range(step, end, self._shape[0]):
            taken = min(self._shape[0], end - first)
            yield self._data, self._layout.put_rows(self._rows(first, taken)), taken

    def close(self) -> None:
        """Ends what reads ahead."""


class Rendered(Feed):
    """Examples rendered in the step from ids that never come again."""

    def __init__(
        self,
        layout: Layout,
        seeds: Sequence[int],
        shape: tuple[int, int],
        gather: Callable[[Any, jax.Array], Batch],
    ) -> None:
        super().__init__(layout, None, seeds, shape)
        self.gather = gather

    def _order(self, seed: int, step: int, count: int) -> np.ndarray:
        """Ids in place of rows: 0, 1, 2, ... along the run, for every seed."""
        del seed
        size = self._shape[1]
        first = np.arange(step, step + count, dtype=np.uint32)[:, None]
        return first * np.uint32(size) + np.arange(size, dtype=np.uint32)


def _as_it_is(batch: Batch, rows: jax.Array) -> Batch:
    del rows
    return batch


class Streamed(Feed):
    """Batches read from disk ahead of the steps, a dispatch each."""

    gather = staticmethod(_as_it_is)

    def __init__(
        self,
        layout: Layout,
        split: Examples,
        seed: int,
        batch_size: int,
        num_steps: int,
        workers: int,
    ) -> None:
        super().__init__(layout, None, [seed], (1, batch_size))
        self._split, self._num_steps, self._workers = split, num_steps, workers
        self._batches: Any = None
        self._next_step: int | None = None

    def _order(self, seed: int, step: int, count: int) -> np.ndarray:
        """Of no effect: a batch is what the step gets."""
        del seed, step
        return np.tile(np.arange(self._shape[1], dtype=np.int32), (count, 1))

    def example(self) -> tuple[Any, Any]:
        """The first examples of the split stand for any others."""
        part, parts = self._layout.part()
        places = np.split(np.arange(self._shape[1]), parts)[part] % len(self._split)
        taken = self._split.take(places)
        batch = Batch(taken.images, taken.labels, taken.ids, taken.valid_size)
        return self._layout.put_batch(batch), self._layout.put_rows(self._rows(0, 1))

    def seek(self, step: int) -> None:
        """Reads from a step on."""
        self.close()
        self._next_step = step
        self._batches = pipeline.stream(
            self._split,
            seed=self._seeds[0],
            batch_size=self._shape[1],
            num_steps=self._num_steps,
            workers=self._workers,
            start=step,
            place=self._layout.put_batch,
            part=self._layout.part(),
        )

    def dispatches(self, step: int, count: int) -> Iterator[Dispatch]:
        """One dispatch a step."""
        if step != self._next_step:
            self.seek(step)
        rows = self._layout.put_rows(self._rows(0, 1))
        for _ in range(count):
            began = time.perf_counter()
            batch = next(self._batches)
            self.waited += time.perf_counter() - began
            self._next_step = step = step + 1
            yield batch, rows, 1

    def close(self) -> None:
        """Ends threads and worker processes."""
        if self._batches is not None:
            self._batches.close()


def build(members: Sequence[ConfigDict], split: Examples, layout: Layout) -> Feed:
    """Returns the feed that suits where the training examples are.

    Args:
      members: the configs of the runs, which differ in their seeds at most as far as
        data go.
      split: training examples.
      layout: where they are to lie.

    Returns:
      The feed.

    Raises:
      InputError: several members, and examples that do not fit in memory.
    """
    config, seeds = members[0], [member.seed for member in members]
    c = config.training
    shape = (steps_per_dispatch(config), c.batch_size)
    if config.data.endless:
        return Rendered(layout, seeds, shape, renderer(config))
    if isinstance(split, Split):
        return Feed(layout, split, seeds, shape)
    if len(members) > 1:
        raise InputError(
            "config.data.memory_gb: the training examples do not fit in "
            f"{config.data.memory_gb} GB; an ensemble needs them in memory, expected "
            "more, or config.parallel.ensemble 1"
        )
    return Streamed(
        layout, split, config.seed, c.batch_size, c.steps, config.data.workers
    )


def steps_per_dispatch(config: ConfigDict) -> int:
    """Returns how many steps run per dispatch; by default what suits the device.

    Args:
      config: Settings of a run.
    """
    given = config.training.steps_per_dispatch
    return given or training.default_steps_per_dispatch()


def renderer(config: ConfigDict) -> Callable[[Any, jax.Array], Batch]:
    """Returns `training.Step.gather` for new rendered images in every step.

    Args:
      config: Settings of a run.
    """
    c = config.data
    # Not the seed of the validation and test images: none of them is trained on.
    seed = np.uint32(c.seed) ^ np.uint32(0x6D657461)

    def gather(data: Any, ids: jax.Array) -> Batch:
        del data
        images, labels = synthetic.examples(
            seed, ids, family=c.name, height=c.height, width=c.width
        )
        valid_size = jnp.full((len(ids), 2), jnp.array([c.height, c.width], jnp.int32))
        return Batch(images, labels, ids, valid_size)

    return gather
