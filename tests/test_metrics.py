import jax
import jax.numpy as jnp
import numpy as np
import pytest

from metaseg import metrics
from metaseg.errors import InputError


def _scored(seed=0, void=0.1):
    rng = np.random.default_rng(seed)
    labels = (rng.random((3, 9, 11)) < 0.3).astype(np.uint8)
    scores = np.clip(rng.normal(0.3 + 0.3 * labels, 0.2), 0, 1).astype(np.float32)
    labels[rng.random(labels.shape) < void] = 255
    return scores, labels


@pytest.mark.parametrize("num_classes", [2, 5])
def test_confusion_matrix_counts_every_labelled_pixel_once(num_classes):
    rng = np.random.default_rng(0)
    labels = rng.integers(0, num_classes, (4, 6, 5)).astype(np.uint8)
    labels[0, 0] = 255
    guess = rng.integers(0, num_classes, labels.shape).astype(np.uint8)
    found = metrics.confusion_matrix(
        jnp.asarray(guess), jnp.asarray(labels), num_classes
    )
    for n in range(4):
        expected = [
            [np.sum((labels[n] == i) & (guess[n] == j)) for j in range(num_classes)]
            for i in range(num_classes)
        ]
        np.testing.assert_array_equal(found[n], expected)


def test_counts_above_equal_counting_at_every_cut():
    scores, labels = _scored()
    histogram = np.asarray(
        metrics.score_histogram(jnp.asarray(scores), jnp.asarray(labels), num_bins=16)
    )
    counts = metrics.counts_above(histogram)
    for cut in range(17):
        for n in range(3):
            above = scores[n] >= cut / 16
            if cut == 16:  # a score of exactly 1 lies in the last bin
                above = np.zeros_like(above)
            fore, back = labels[n] == 1, labels[n] == 0
            assert counts.tp[n, cut] == (above & fore).sum()
            assert counts.fp[n, cut] == (above & back).sum()
            assert counts.fn[n, cut] == (~above & fore).sum()
            assert counts.tn[n, cut] == (~above & back).sum()


def test_best_threshold_is_the_best_of_all_cuts_and_finds_inverted_scores():
    scores, labels = _scored(1)
    for inverted in (False, True):
        s = 1 - scores if inverted else scores
        histogram = np.asarray(
            metrics.score_histogram(jnp.asarray(s), jnp.asarray(labels), num_bins=64)
        ).sum(axis=0)
        cut, turned = metrics.best_threshold(histogram)
        assert turned is inverted

        def iou(t, s=s, turned=turned):
            mask = (s < t) if turned else (s >= t)
            fore = labels == 1
            return (mask & fore).sum() / ((mask & (labels == 0)) | fore).sum()

        assert iou(cut) == pytest.approx(max(iou(i / 64) for i in range(65)))


def test_auc_equals_the_share_of_ordered_pairs():
    scores, labels = _scored(2)
    scores = np.floor(scores * 64) / 64 + 1 / 256  # ties exactly where bins tie
    histogram = np.asarray(
        metrics.score_histogram(jnp.asarray(scores), jnp.asarray(labels), num_bins=64)
    ).sum(axis=0)
    fore, back = scores[labels == 1][:, None], scores[labels == 0][None]
    pairs = np.mean((fore > back) + 0.5 * (fore == back))
    assert metrics.auc(histogram) == pytest.approx(pairs, abs=1e-12)


def test_auc_of_one_class_is_nan():
    assert np.isnan(metrics.auc(np.array([[3, 2], [0, 0]])))


def test_measures_equal_their_definitions():
    found = metrics.from_confusion(np.array([[50, 10], [5, 35]]))
    assert found["iou"][1] == pytest.approx(35 / 50)
    assert found["dice"][1] == pytest.approx(70 / 85)
    assert found["precision"][1] == pytest.approx(35 / 45)
    assert found["recall"][1] == pytest.approx(35 / 40)
    assert found["accuracy"] == pytest.approx(0.85)


def test_a_class_that_never_occurs_is_nan():
    found = metrics.from_confusion(np.array([[4, 1, 0], [0, 5, 0], [0, 0, 0]]))
    assert np.isnan(found["iou"][2])
    assert not np.isnan(found["iou"][:2]).any()


def test_void_in_any_number_and_other_ids_do_not_count():
    labels = np.array([[0, 1, -1, 255, 1, 0]], np.int32)
    guess = np.array([[0, 1, 1, 1, -1, 255]], np.int32)
    found = metrics.confusion_matrix(guess, labels, 2)
    np.testing.assert_array_equal(found, [[1, 0], [0, 1]])
    histogram = metrics.score_histogram(guess / 255, labels, num_bins=2)
    np.testing.assert_array_equal(histogram, [[1, 1], [2, 0]])
    # Within a transformation ids that are no class do not count either.
    traced = jax.jit(metrics.confusion_matrix, static_argnums=2)
    np.testing.assert_array_equal(traced(guess + 1, labels, 2), [[0, 1], [1, 0]])
    np.testing.assert_array_equal(traced(guess, labels + 3, 2), np.zeros((2, 2)))


def test_ids_that_are_no_class_are_named():
    maps = np.array([[0, 1, 2]])
    with pytest.raises(InputError, match=r"^labels: class id 2, expected 0..1 or 255"):
        metrics.confusion_matrix(maps * 0, maps, 2)
    with pytest.raises(InputError, match=r"^prediction: class id 2, expected 0..1"):
        metrics.confusion_matrix(maps, maps * 0, 2)
    with pytest.raises(InputError, match=r"^labels: class id 2, expected 0..1 or 255"):
        metrics.score_histogram(maps / 2, maps, num_bins=4)


def test_shapes_that_differ_are_both_named():
    labels = np.zeros((6, 10), int)
    with pytest.raises(
        InputError,
        match=r"^prediction: got shape \(10, 6\), expected \(6, 10\), as labels$",
    ):
        metrics.confusion_matrix(labels.T, labels, 2)
    with pytest.raises(InputError, match=r"^scores: got shape \(10, 6\), expected \(6"):
        metrics.score_histogram(np.zeros((10, 6), np.float32), labels, num_bins=4)
    for measure in (metrics.counts_above, metrics.best_threshold, metrics.auc):
        with pytest.raises(
            InputError, match=r"^histogram: got shape \(3, 4\), expected"
        ):
            measure(np.zeros((3, 4), int))
    with pytest.raises(InputError, match=r"^matrix: got shape \(2, 3\), expected"):
        metrics.from_confusion(np.zeros((2, 3)))


@pytest.mark.parametrize("shape", [(0, 4, 5), (3, 0, 5)])
def test_batches_without_pixels_count_nothing(shape):
    labels = np.zeros(shape, np.uint8)
    found = metrics.confusion_matrix(labels, labels, 3)
    np.testing.assert_array_equal(found, np.zeros((shape[0], 3, 3)))
    scores = np.zeros(shape, np.float32)
    histogram = metrics.score_histogram(scores, labels, num_bins=4)
    np.testing.assert_array_equal(histogram, np.zeros((shape[0], 2, 4)))
