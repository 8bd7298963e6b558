"""Brute force over pairs of objects, closed forms of shifted squares, properties."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from scipy import ndimage
from skimage import segmentation

from metaseg import instances
from metaseg.errors import InputError

SHAPES = arrays.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=9)
EIGHT = np.ones((3, 3), bool)


def maps(low=0, high=4, count=2):
    """Several instance maps of one shape with few ids, so that objects are large."""
    ids = st.integers(low, high)
    return SHAPES.flatmap(
        lambda shape: st.tuples(
            *[arrays.arrays(np.int32, shape, elements=ids) for _ in range(count)]
        )
    )


def ids_of(ids):
    return [int(i) for i in np.unique(ids) if i > 0]


def iou_of(true, predicted, i, j):
    a, b = true == i, (predicted == j) & (true >= 0)
    return np.count_nonzero(a & b) / np.count_nonzero(a | b)


def best_matching(true, predicted, threshold):
    """The one-to-one pairs with most matches, then most IoU, among all assignments."""
    rows, columns = ids_of(true), ids_of(predicted)
    wide = len(columns) >= len(rows)
    few, many = (rows, columns) if wide else (columns, rows)
    best = (0, 0.0)
    for chosen in itertools.permutations(many, len(few)):
        pairs = zip(few, chosen, strict=True)
        ious = [
            iou_of(true, predicted, *(pair if wide else pair[::-1])) for pair in pairs
        ]
        kept = [iou for iou in ious if iou > threshold]
        best = max(best, (len(kept), sum(kept)))
    return best


def square(side, top, left, shape=(40, 40)):
    ids = np.zeros(shape, np.uint16)
    ids[top : top + side, left : left + side] = 1
    return ids


@settings(max_examples=200, deadline=None)
@given(maps(low=-1))
def test_overlaps_are_the_counts_of_every_pair(pair):
    true, predicted = pair[0], np.maximum(pair[1], 0)
    found = instances.overlaps(true, predicted)
    assert found.true_ids.tolist() == ids_of(true)
    assert found.predicted_ids.tolist() == ids_of(predicted)
    assert found.true_areas.tolist() == [np.sum(true == i) for i in ids_of(true)]
    known, void = predicted * (true >= 0), predicted * (true < 0)
    for part, areas in ((known, found.predicted_areas), (void, found.void_areas)):
        assert areas.tolist() == [np.sum(part == i) for i in ids_of(predicted)]
    shared = {
        (a, b): np.sum((true == i) & (predicted == j))
        for a, i in enumerate(ids_of(true))
        for b, j in enumerate(ids_of(predicted))
    }
    listed = zip(map(tuple, found.pairs.tolist()), found.shared.tolist(), strict=True)
    assert dict(listed) == {key: n for key, n in shared.items() if n}


@settings(max_examples=200, deadline=None)
@given(maps(low=-1), st.sampled_from([0.0, 0.1, 0.3, 0.5, 0.75]))
def test_matches_are_the_best_of_all_assignments(pair, threshold):
    true, predicted = pair[0], np.maximum(pair[1], 0)
    found = instances.match(true, predicted, threshold=threshold)
    number, total = best_matching(true, predicted, threshold)
    assert len(found.iou) == number
    assert found.iou.sum() == pytest.approx(total)
    assert len(set(found.true_ids.tolist())) == len(set(found.predicted_ids)) == number
    for i, j, iou in zip(*found, strict=True):
        assert iou == iou_of(true, predicted, i, j) > threshold


@settings(max_examples=100, deadline=None)
@given(maps(), st.sampled_from([0.2, 0.5, 0.8]))
def test_scores_follow_from_the_best_matching(pair, threshold):
    true, predicted = pair
    tp, total = best_matching(true, predicted, threshold)
    fp, fn = len(ids_of(predicted)) - tp, len(ids_of(true)) - tp
    (ap,) = instances.average_precision(true, predicted, thresholds=[threshold])
    pq, sq, rq = instances.panoptic_quality(true, predicted, threshold=threshold)
    if tp + fp + fn == 0:
        assert all(map(math.isnan, (ap, pq, sq, rq)))
        return
    assert ap == tp / (tp + fp + fn)
    assert rq == pytest.approx(tp / (tp + fp / 2 + fn / 2))
    assert pq == pytest.approx(total / (tp + fp / 2 + fn / 2))
    if tp:
        assert pq == pytest.approx(sq * rq)
        assert sq == pytest.approx(total / tp)
    else:
        assert math.isnan(sq)


@settings(max_examples=100, deadline=None)
@given(maps(), st.permutations(range(1, 5)), st.integers(0, 2**40))
def test_the_numbers_of_the_ids_change_nothing(pair, order, offset):
    true, predicted = pair
    table = np.array([0, *order])
    other = table[true].astype(np.int64)
    other[other > 0] += offset
    a, b = (instances.count(x, predicted) for x in (true, other))
    np.testing.assert_equal(a._asdict(), b._asdict())
    np.testing.assert_array_equal(instances.borders(true), instances.borders(other))


@settings(max_examples=100, deadline=None)
@given(maps(), st.sampled_from([0.1, 0.5]))
def test_true_and_predicted_exchanged_give_the_same_scores(pair, threshold):
    there = instances.count(*pair, thresholds=[threshold])
    back = instances.count(*pair[::-1], thresholds=[threshold])
    assert there.matched.tolist() == back.matched.tolist()
    assert there.true == back.predicted
    np.testing.assert_allclose(there.iou_sum, back.iou_sum)


@pytest.mark.parametrize("shift", range(11))
def test_a_square_shifted_by_d_has_the_iou_of_the_closed_form(shift):
    true, predicted = square(10, 5, 5), square(10, 5, 5 + shift)
    iou = (10 - shift) / (10 + shift)
    curve = instances.average_precision(true, predicted)
    assert curve.tolist() == [float(iou > t) for t in instances.THRESHOLDS]
    quality = instances.panoptic_quality(true, predicted)
    np.testing.assert_equal(
        quality, (iou, iou, 1.0) if iou > 0.5 else (0.0, math.nan, 0.0)
    )


def test_an_iou_that_equals_the_threshold_is_no_match():
    true = np.array([[1] * 11 + [0] * 9])
    predicted = np.array([[1] * 20])  # 11 / 20 = 0.55
    curve = instances.average_precision(true, predicted, thresholds=[0.5, 0.55])
    assert curve.tolist() == [1, 0]


def test_pooled_scores_are_of_the_summed_counts_not_means_of_scores():
    true = [np.array([[1, 0, 2, 0]]), np.array([[5, 5, 0, 0]])]
    predicted = [np.array([[1, 0, 0, 3]]), np.array([[4, 4, 0, 0]])]
    curve = instances.average_precision(true, predicted, thresholds=[0.5])
    assert curve.tolist() == [2 / 4]  # TP 2, FP 1, FN 1
    counts = [instances.count(a, b) for a, b in zip(true, predicted, strict=True)]
    scores = instances.measure(counts)
    assert scores["ap"] == pytest.approx(0.5)
    assert scores["mean_image_ap"] == pytest.approx((1 / 3 + 1) / 2)
    assert (scores["true_objects"], scores["predicted_objects"]) == (3, 3)
    assert scores["pq"] == pytest.approx(2 / (2 + 1 / 2 + 1 / 2))
    assert list(scores["curve"].values()) == pytest.approx([0.5] * 10)


def test_scores_without_any_object_are_undefined_and_left_out_of_the_mean():
    empty, one = np.zeros((3, 3), np.uint8), square(2, 0, 0, (3, 3))
    nothing, found = instances.count(empty, empty), instances.count(one, one)
    assert all(math.isnan(instances.measure([nothing])[k]) for k in ("ap", "pq", "sq"))
    both = instances.measure([nothing, found])
    assert (both["ap"], both["mean_image_ap"], both["pq"]) == (1, 1, 1)
    missed = instances.measure([instances.count(one, empty)])
    assert (missed["ap"], missed["pq"], missed["rq"]) == (0, 0, 0)
    assert math.isnan(missed["sq"])


def test_void_is_neither_missed_nor_falsely_found():
    true = np.array([[1, 1, 1, -1, -1, -1, 0, 0, 0, 0]])
    over = np.array([[1, 1, 1, 1, 1, 0, 0, 0, 0, 0]])  # reaches into void
    assert instances.match(true, over).iou.tolist() == [1]
    on_void = np.array([[1, 1, 1, 0, 2, 2, 2, 0, 0, 0]])  # 2 of 3 pixels are void
    assert instances.average_precision(true, on_void, thresholds=[0.5]).tolist() == [1]
    half = np.array([[1, 1, 1, 0, 2, 2, 2, 2, 0, 0]])  # 2 of 4 pixels are void
    assert instances.average_precision(true, half, thresholds=[0.5]).tolist() == [1 / 2]
    alone = instances.count(np.full((2, 2), -1), np.ones((2, 2), int))
    assert (alone.true, alone.predicted, alone.unmatched.max()) == (0, 0, 0)


def test_a_match_counts_even_where_most_of_the_predicted_object_is_void():
    true = np.array([[1, 1, -1, -1, -1]])
    found = instances.count(true, np.ones((1, 5), int), thresholds=[0.5])
    assert (found.matched.tolist(), found.unmatched.tolist()) == ([1], [0])


@settings(max_examples=100, deadline=None)
@given(maps(high=2, count=1))
def test_objects_are_the_components_of_scipy_in_raster_order(one):
    labels = one[0]
    found = instances.label_objects(labels)
    expected, number = ndimage.label(labels == 1, EIGHT)
    np.testing.assert_array_equal(found, expected)
    known, first = np.unique(found[found > 0], return_index=True)
    assert known.tolist() == list(range(1, number + 1))
    assert first.tolist() == sorted(first)


def yields(ids, a, b):
    """Whether object a yields to object b: it is larger, or begins earlier."""
    size = [np.count_nonzero(ids == i) for i in (a, b)]
    first = [np.flatnonzero(ids.ravel() == i)[0] for i in (a, b)]
    return (size[0], -first[0]) > (size[1], -first[1])


@settings(max_examples=200, deadline=None)
@given(maps(low=-1, count=1))
def test_borders_are_the_pixels_of_yielding_objects_beside_another(one):
    (ids,) = one
    expected = np.zeros(ids.shape, bool)
    for i, j in np.argwhere(ids > 0):
        around = ids[max(i - 1, 0) : i + 2, max(j - 1, 0) : j + 2]
        others = [k for k in ids_of(around) if k != ids[i, j]]
        expected[i, j] = any(yields(ids, ids[i, j], k) for k in others)
    found = instances.borders(ids)
    np.testing.assert_array_equal(found, expected)
    rest = np.where(found, 0, ids)  # no two objects touch any more
    pieces, number = ndimage.label(rest > 0, EIGHT)
    assert all(len(ids_of(rest[pieces == n])) == 1 for n in range(1, number + 1))


def test_borders_of_two_regions_are_the_inner_boundary_of_the_larger_one():
    grid = np.mgrid[:40, :50]
    ids = np.where(np.hypot(*(grid - np.array([20, 20]).reshape(2, 1, 1))) < 11, 9, 4)
    inner = segmentation.find_boundaries(
        ids, connectivity=2, mode="inner", background=9
    )
    np.testing.assert_array_equal(instances.borders(ids), inner)
    thick = segmentation.find_boundaries(ids, connectivity=2, mode="thick")
    assert np.all(instances.borders(ids) <= thick)


def test_objects_are_counted_apart_after_their_borders_are_taken_away():
    rng = np.random.default_rng(0)
    seeds = np.zeros((80, 80), int)
    seeds[tuple(rng.integers(0, 80, (2, 30)))] = np.arange(1, 31)
    ids = segmentation.watershed(
        -ndimage.gaussian_filter(rng.normal(size=seeds.shape), 3), seeds
    )
    ids[rng.integers(0, 80, 5)] = 0
    labels = np.where(ids > 0, 1, 0)
    labels[instances.borders(ids)] = 2
    found = instances.join_borders(labels)
    assert instances.label_objects(labels).max() == found.max()
    np.testing.assert_array_equal(found[labels == 1] > 0, True)
    scores = instances.measure([instances.count(ids, found)])
    assert (
        scores["ap50"]
        > instances.average_precision(ids, ndimage.label(ids, EIGHT)[0])[0]
    )


@settings(max_examples=100, deadline=None)
@given(maps(high=2, count=1))
def test_a_border_pixel_joins_the_nearest_object_of_its_piece(one):
    labels = one[0]
    seeds, found = instances.label_objects(labels), instances.join_borders(labels)
    np.testing.assert_array_equal(found[labels == 1], seeds[labels == 1])
    assert not found[labels == 0].any()
    pieces, _ = ndimage.label(labels > 0, EIGHT)
    for i, j in np.argwhere(labels == 2):
        near = np.argwhere((seeds > 0) & (pieces == pieces[i, j]))
        if len(near) == 0:
            assert found[i, j] == 0
            continue
        distance = np.hypot(*(near - [i, j]).T)
        closest = near[distance == distance.min()]
        assert found[i, j] in seeds[tuple(closest.T)]


def test_large_maps_are_counted_in_slabs(monkeypatch):
    rng = np.random.default_rng(1)
    true, predicted = rng.integers(-1, 5, (2, 30, 7))
    predicted = np.abs(predicted)
    whole = instances.overlaps(true, predicted)
    monkeypatch.setattr(instances, "_SLAB", 20)
    for a, b in zip(whole, instances.overlaps(true, predicted), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int64, np.uint64])
def test_every_integer_type_counts_alike(dtype):
    ids = square(3, 1, 1, (6, 6)).astype(dtype)
    assert instances.average_precision(ids, ids).tolist() == [1] * 10
    assert not instances.borders(ids).any()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda a: instances.borders(a * 1.0), r"^ids: got float64 of shape \(2, 2\)"),
        (
            lambda a: instances.label_objects(a[0]),
            r"^labels: got int64 of shape \(2,\)",
        ),
        (lambda a: instances.match(a, a[:1]), r"^predicted: got shape \(1, 2\), exp"),
        (lambda a: instances.match(a, a - 1), "^predicted: got id -1, expected ids >="),
        (lambda a: instances.match(a, a, threshold=1.0), "^threshold: got 1.0, expect"),
        (lambda a: instances.count(a, a, thresholds=[]), "^thresholds: got none"),
        (lambda a: instances.average_precision([a], [a, a]), "^predicted: got 2 maps"),
        (lambda a: instances.measure([]), "^counts: got none"),
        (
            lambda a: instances.measure([instances.count(a, a, thresholds=[0.5])]),
            r"^counts: got thresholds \(0.5,\)",
        ),
    ],
)
def test_wrong_input_is_named(call, message):
    with pytest.raises(InputError, match=message):
        call(np.zeros((2, 2), np.int64))
