import numpy as np

from metaseg.data import pipeline


def test_every_epoch_holds_every_example_once():
    rows = pipeline.batch_indices(3, 0, 14, 5, 7).ravel()
    for epoch in rows.reshape(10, 7):
        np.testing.assert_array_equal(np.sort(epoch), np.arange(7))


def test_epochs_and_seeds_differ_in_order():
    a = pipeline.batch_indices(0, 0, 2, 50, 50)
    b = pipeline.batch_indices(1, 0, 2, 50, 50)
    assert (a[0] != a[1]).any()
    assert (a[0] != b[0]).any()


def test_a_run_can_start_anywhere():
    whole = pipeline.batch_indices(0, 0, 20, 3, 7)
    for start in (1, 6, 13):
        part = pipeline.batch_indices(0, start, 5, 3, 7)
        np.testing.assert_array_equal(part, whole[start : start + 5])


def test_a_batch_may_exceed_the_data_set():
    rows = pipeline.batch_indices(0, 0, 2, 8, 3)
    assert rows.shape == (2, 8)
    assert (np.bincount(rows.ravel()[:15], minlength=3) == 5).all()
