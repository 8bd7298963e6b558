"""Batches follow from seed and step, however they are read."""

import json
from functools import partial

import jax
import numpy as np
import pytest

from metaseg.batch import Batch
from metaseg.data import pipeline
from metaseg.data.dataset import Split, example_ids


def indices(seed, start, num_steps, batch_size, num_examples):
    return pipeline.batch_indices(
        seed=seed,
        start=start,
        num_steps=num_steps,
        batch_size=batch_size,
        num_examples=num_examples,
    )


def test_every_epoch_holds_every_example_once():
    rows = indices(3, 0, 14, 5, 7).ravel()
    for epoch in rows.reshape(10, 7):
        np.testing.assert_array_equal(np.sort(epoch), np.arange(7))


def test_epochs_and_seeds_differ_in_order():
    a = indices(0, 0, 2, 50, 50)
    b = indices(1, 0, 2, 50, 50)
    assert (a[0] != a[1]).any()
    assert (a[0] != b[0]).any()


def test_a_run_can_start_anywhere():
    whole = indices(0, 0, 20, 3, 7)
    for start in (1, 6, 13):
        part = indices(0, start, 5, 3, 7)
        np.testing.assert_array_equal(part, whole[start : start + 5])


def test_a_batch_may_exceed_the_data_set():
    rows = indices(0, 0, 2, 8, 3)
    assert rows.shape == (2, 8)
    assert (np.bincount(rows.ravel()[:15], minlength=3) == 5).all()


@pytest.fixture(scope="module")
def split():
    rng = np.random.default_rng(0)
    names = tuple(f"n{i}" for i in range(11))
    return Split(
        rng.normal(size=(11, 6, 5, 2)).astype(np.float32),
        rng.integers(0, 3, (11, 6, 5)).astype(np.uint8),
        example_ids("train", names),
        names,
        rng.integers(3, 6, (11, 2)).astype(np.int32),
    )


def expected(split, steps, batch_size, seed=5):
    rows = indices(seed, 0, steps, batch_size, len(split))
    return [split.take(r) for r in rows]


def assert_same(batch, taken):
    np.testing.assert_array_equal(batch.images, taken.images)
    np.testing.assert_array_equal(batch.labels, taken.labels)
    np.testing.assert_array_equal(batch.ids, taken.ids)
    np.testing.assert_array_equal(batch.valid_size, taken.valid_size)


@pytest.mark.parametrize("workers", [0, 1, 2])
def test_batches_read_ahead_are_those_of_the_rows_for_any_number_of_workers(
    split, workers
):
    batches = pipeline.stream(split, seed=5, batch_size=4, num_steps=7, workers=workers)
    found = list(batches)  # kept, so that a reused buffer would show
    batches.close()
    for batch, taken in zip(found, expected(split, 7, 4), strict=True):
        assert isinstance(batch.images, jax.Array)
        assert_same(batch, taken)


def test_the_state_of_the_iterator_leads_on_from_where_it_was_taken(split):
    make = partial(pipeline.stream, split, seed=5, batch_size=4, num_steps=9)
    first = make()
    for _ in range(3):
        next(first)
    state = json.loads(json.dumps(first.get_state()))
    other = make()
    other.set_state(state)
    for taken in expected(split, 9, 4)[3:]:
        assert_same(next(other), taken)


def test_parts_are_the_consecutive_parts_of_every_batch(split):
    parts = [
        list(pipeline.stream(split, seed=5, batch_size=4, num_steps=3, part=(index, 2)))
        for index in range(2)
    ]
    for step, taken in enumerate(expected(split, 3, 4)):
        both = [np.concatenate(x) for x in zip(*(p[step] for p in parts), strict=True)]
        assert_same(Batch(*both), taken)


class OnDisk:
    """A split that is not in memory, as far as the pipeline can tell."""

    def __init__(self, split):
        self.split = split

    def __len__(self):
        return len(self.split)

    def take(self, rows):
        return self.split.take(rows)


@pytest.mark.parametrize("where", [lambda split: split, OnDisk])
def test_a_split_in_order_is_covered_at_every_pass_and_filled_up_with_void(
    split, where
):
    batches = pipeline.InOrder(where(split), 4)
    assert len(batches) == 3
    for _ in range(2):
        found = list(batches)
        assert [b.images.shape[0] for b in found] == [4, 4, 4]
        label = np.concatenate([b.labels for b in found])
        np.testing.assert_array_equal(label[:11], split.labels)
        assert (label[11:] == 255).all()
        image = np.concatenate([b.images for b in found])
        np.testing.assert_array_equal(image[:11], split.images)
