"""How examples reach the training step: from the device, from disk, or rendered there.

A feed yields `(data, rows, count)` for each dispatch: what `training.train_steps` takes
between the state and the keys. It says how long the run waited for it.
"""

import time
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from metaseg import training
from metaseg.batch import Batch
from metaseg.data import pipeline, synthetic
from metaseg.data.dataset import Examples, Split

__all__ = ["Feed", "build", "renderer"]

Dispatch = tuple[Any, np.ndarray, int]  # data, rows [steps, batch], steps to take


class Feed:
    """A data set that lies on the device; the host sends rows.

    Attributes:
      waited: seconds that the run has spent waiting for examples.
    """

    def __init__(self, split: Split | None, seed: int, shape: tuple[int, int]) -> None:
        self.waited = 0.0
        self._seed, self._shape = seed, shape
        self._data: Any = ()
        if split is not None:
            self._size = len(split)
            self._data = jax.device_put(
                Batch(split.images, split.labels, split.ids, split.sizes)
            )

    def rows(self, step: int, count: int) -> np.ndarray:
        """What the data are told about some consecutive steps, `[count, batch]`."""
        return pipeline.batch_indices(
            self._seed, step, count, self._shape[1], self._size
        )

    def example(self) -> tuple[Any, np.ndarray]:
        """Data and rows of the shapes and types that every dispatch has."""
        return self._data, np.resize(self.rows(0, 1), self._shape)

    def seek(self, step: int) -> None:
        """Goes to where the run begins, so that reading ahead can begin."""

    def dispatches(self, step: int, count: int) -> Iterator[Dispatch]:
        """The dispatches of `count` steps from `step` on."""
        order = self.rows(step, count)
        for first in range(0, count, self._shape[0]):
            part = order[first : first + self._shape[0]]
            yield self._data, np.resize(part, self._shape), len(part)

    def close(self) -> None:
        """Ends what reads ahead."""


class Rendered(Feed):
    """Examples rendered in the step from ids that never come again."""

    def rows(self, step: int, count: int) -> np.ndarray:
        """Ids in place of rows: 0, 1, 2, ... along the run."""
        size = self._shape[1]
        first = np.arange(step, step + count, dtype=np.uint32)[:, None]
        return first * np.uint32(size) + np.arange(size, dtype=np.uint32)


class Streamed(Feed):
    """Batches read from disk ahead of the steps, a dispatch each."""

    def __init__(
        self, split: Examples, seed: int, batch_size: int, num_steps: int, workers: int
    ) -> None:
        super().__init__(None, seed, (1, batch_size))
        self._split, self._num_steps, self._workers = split, num_steps, workers
        self._batches: Any = None
        self._next_step: int | None = None

    def seek(self, step: int) -> None:
        """Reads from a step on."""
        self.close()
        self._next_step = step
        self._batches = pipeline.stream(
            self._split,
            seed=self._seed,
            batch_size=self._shape[1],
            num_steps=self._num_steps,
            workers=self._workers,
            start=step,
        )

    def rows(self, step: int, count: int) -> np.ndarray:
        """A batch is what the step gets: all of its rows, in order."""
        del step
        return np.tile(np.arange(self._shape[1], dtype=np.int32), (count, 1))

    def example(self) -> tuple[Any, np.ndarray]:
        """The first examples of the split stand for any others."""
        places = np.arange(self._shape[1]) % len(self._split)
        taken = self._split.take(places)
        data = Batch(taken.images, taken.labels, taken.ids, taken.sizes)
        return jax.device_put(data), self.rows(0, 1)

    def dispatches(self, step: int, count: int) -> Iterator[Dispatch]:
        """One dispatch a step."""
        if step != self._next_step:
            self.seek(step)
        for _ in range(count):
            began = time.perf_counter()
            batch = next(self._batches)
            self.waited += time.perf_counter() - began
            self._next_step = step = step + 1
            yield batch, self.rows(0, 1), 1

    def close(self) -> None:
        """Ends threads and worker processes."""
        if self._batches is not None:
            self._batches.close()


def build(config: ConfigDict, split: Examples) -> Feed:
    """The feed that suits where the examples of `split` lie."""
    c = config.training
    if config.data.endless:
        return Rendered(None, config.seed, (steps_per_dispatch(config), c.batch_size))
    if isinstance(split, Split):
        return Feed(split, config.seed, (steps_per_dispatch(config), c.batch_size))
    return Streamed(split, config.seed, c.batch_size, c.steps, config.data.workers)


def steps_per_dispatch(config: ConfigDict) -> int:
    """As the config says, or what suits the device."""
    given = config.training.steps_per_dispatch
    return given or training.default_steps_per_dispatch()


def renderer(config: ConfigDict) -> Any:
    """`training.Step.fetch` for a built-in family without end."""
    c = config.data
    # Not the seed of the validation and test images: none of them is trained on.
    seed = np.uint32(c.seed) ^ np.uint32(0x6D657461)

    def fetch(data: Any, ids: jax.Array) -> Batch:
        del data
        images, labels = synthetic.examples(
            seed, ids, family=c.name, height=c.height, width=c.width
        )
        extent = jnp.full((len(ids), 2), jnp.array([c.height, c.width], jnp.int32))
        return Batch(images, labels, ids, extent)

    return fetch
