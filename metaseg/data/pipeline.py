"""Which examples make up which batch, and batches that are read ahead of the step.

A data set that fits stays on the device, and the host sends row numbers only. Others
are read, decoded and padded by threads or worker processes (grain), a few batches
ahead. In both cases the examples of a step follow from seed and step alone.
"""

from collections.abc import Callable, Iterator
from functools import lru_cache, partial
from typing import Any

import numpy as np
from jaxtyping import Int32

from metaseg.batch import Batch
from metaseg.data.dataset import VOID, Examples, Split

__all__ = ["InOrder", "batch_indices", "stream"]

PlaceFn = Callable[[Batch], Batch]  # puts a batch where the steps want it

AHEAD = 4  # batches that wait for the step, and again for each worker process


def batch_indices(
    *, seed: int, start: int, num_steps: int, batch_size: int, num_examples: int
) -> Int32[np.ndarray, "steps batch"]:
    """Computes the row numbers of the examples of consecutive steps.

    Each epoch has all examples in an order of its own. Batches are cut from the stream
    of epochs, so a batch may hold examples of two epochs. The result follows from the
    arguments alone, so that a run can start at any step.

    Args:
      seed: Seed of the shuffling.
      start: First step, from 0.
      num_steps: Number of steps.
      batch_size: Examples per step.
      num_examples: Examples in the data set.

    Returns:
      int32 `[num_steps, batch_size]`.
    """
    first = start * batch_size
    last = (start + num_steps) * batch_size
    epochs = range(first // num_examples, -(-last // num_examples))
    stream = np.concatenate(
        [_order(seed, epoch, num_examples) for epoch in epochs]
        or [np.zeros(0, np.int64)]
    )
    offset = first - epochs.start * num_examples
    rows = stream[offset : offset + last - first]
    return rows.reshape(num_steps, batch_size).astype(np.int32)


@lru_cache(maxsize=4)  # consecutive steps use the same epoch
def _order(seed: int, epoch: int, num_examples: int) -> np.ndarray:
    order = np.random.default_rng((seed, epoch)).permutation(num_examples)
    order.setflags(write=False)
    return order


class _Shuffled:
    """The batches of a run by number: a random-access source for workers.

    Each element is a whole batch, so that the order does not depend on the number of
    workers.
    """

    def __init__(
        self,
        split: Examples,
        seed: int,
        batch_size: int,
        num_steps: int,
        part: tuple[int, int],
        start: int,
    ) -> None:
        self._split, self._seed, self._batch_size = split, seed, batch_size
        self._num_steps, self._part, self._start = num_steps, part, start

    def __len__(self) -> int:
        return self._num_steps - self._start

    def __getitem__(self, index: int) -> Batch:
        step = self._start + index
        rows = batch_indices(
            seed=self._seed,
            start=step,
            num_steps=1,
            batch_size=self._batch_size,
            num_examples=len(self._split),
        )
        index, count = self._part
        return _batch(self._split.take(np.split(rows[0], count)[index]))


class _Consecutive:
    """A split in batches of one size; the last batch is filled up with void.

    An element is the part of a batch for this process. `part` holds the index of the
    part and the number of equal parts.
    """

    def __init__(self, split: Examples, batch_size: int, part: tuple[int, int]) -> None:
        self._split, self._batch_size, self._part = split, batch_size, part

    def __len__(self) -> int:
        return -(-len(self._split) // self._batch_size)

    def __getitem__(self, index: int) -> Batch:
        count = len(self._split)
        places = index * self._batch_size + np.arange(self._batch_size)
        mine, parts = self._part
        places = np.split(places, parts)[mine]
        batch = _batch(self._split.take(np.minimum(places, count - 1)))
        label = np.where(places[:, None, None] < count, batch.labels, VOID)
        return batch._replace(labels=label.astype(batch.labels.dtype))


def _batch(taken: Split) -> Batch:
    return Batch(taken.images, taken.labels, taken.ids, taken.valid_size)


def stream(
    split: Examples,
    *,
    seed: int,
    batch_size: int,
    num_steps: int,
    workers: int = 0,
    part: tuple[int, int] = (0, 1),
    start: int = 0,
    place: PlaceFn | None = None,
) -> Any:
    """Returns the batches of a run, read ahead of the steps and put on the device.

    Args:
      split: The examples.
      seed: Seed of the shuffling; the rows are those of `batch_indices`.
      batch_size: Examples per step, over all processes.
      num_steps: Length of the run.
      workers: Processes that read and decode; 0 uses threads of this one.
      part: Index of this process and number of processes. Each process reads an equal,
        consecutive part of every batch, so that the run is the same for any number.
      start: First step to read, of `num_steps`.
      place: Puts a batch on the devices, in a thread that runs ahead; by default on the
        first device.

    Returns:
      An iterator of the results of `place`, by default `Batch` of jax arrays.
      `get_state()` returns the next step as plain numbers that JSON holds, and
      `set_state(state)` goes there. `close()` ends the workers.
    """
    source = _Shuffled(split, seed, batch_size, num_steps, part, start)
    return iter(_ahead(source, workers, place))


class InOrder:
    """A split in batches of one size, for any number of passes.

    The last batch is filled up with void examples. Examples in memory are put on the
    device once; examples on disk are read ahead in every pass. `place` and `part` are
    as in `stream`.
    """

    def __init__(
        self,
        split: Examples,
        batch_size: int,
        *,
        place: PlaceFn | None = None,
        part: tuple[int, int] = (0, 1),
    ) -> None:
        self._source = _Consecutive(split, batch_size, part)
        self._place = place or _on_first_device
        self._kept: list[Batch] | None = None
        if isinstance(split, Split):
            self._kept = [
                self._place(self._source[i]) for i in range(len(self._source))
            ]

    def __len__(self) -> int:
        return len(self._source)

    def __iter__(self) -> Iterator[Batch]:
        if self._kept is not None:
            return iter(self._kept)
        return iter(_ahead(self._source, 0, self._place))


def _on_first_device(batch: Batch) -> Batch:
    import jax

    return jax.device_put(batch, jax.devices()[0])


def _ahead(source: Any, workers: int, place: PlaceFn | None) -> Any:
    """Returns a grain data set of the elements, read ahead and put on the device."""
    import grain  # imported late: it takes two seconds, often for nothing
    from absl import flags

    if not flags.FLAGS.is_parsed():  # in notebooks and tests; grain reads its flags
        flags.FLAGS.mark_as_parsed()
    threads = grain.ReadOptions(
        num_threads=1 if workers else 2, prefetch_buffer_size=1 if workers else AHEAD
    )
    batches = grain.MapDataset.source(source).to_iter_dataset(threads)
    if workers:
        options = grain.MultiprocessingOptions(
            num_workers=workers, per_worker_buffer_size=AHEAD
        )
        batches = batches.mp_prefetch(options)
    prefetch = partial(
        grain.experimental.ThreadPrefetchIterDataset, prefetch_buffer_size=1
    )
    return prefetch(prefetch(batches).map(place or _on_first_device))
