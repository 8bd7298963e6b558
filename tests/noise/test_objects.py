"""Noise on objects, compared with SciPy's labels and scikit-image's skeletons."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.ndimage as ndi
import scipy.stats
from skimage.morphology import disk, skeletonize

from metaseg import noise
from metaseg.errors import InputError
from metaseg.labels import VOID

KEY = jax.random.key(0)
EIGHT = np.ones((3, 3))


def scattered():
    """Objects of two classes, from single pixels up, among them some void."""
    rng = np.random.default_rng(0)
    fields = ndi.gaussian_filter(rng.random((3, 36, 45)), (0, 1.5, 1.5))
    fields[0] += 0.04
    labels = np.argmax(fields, axis=0).astype(np.uint8)
    labels[3:6, 3:6], labels[4, 4] = 0, 1
    labels[20:26, 15:30] = VOID
    return labels


CLEAN = scattered()


def numbered(labels):
    """Objects numbered from 1, their class by number, and background's first pixel."""
    numbers, class_of = np.zeros(labels.shape, int), [0]
    for class_id in (1, 2):
        found, count = ndi.label(labels == class_id, EIGHT)
        numbers[found > 0] = found[found > 0] + numbers.max()
        class_of += [class_id] * count
    return numbers, np.array(class_of)


NUMBERS, CLASS_OF = numbered(CLEAN)


def repeated(labels, count):
    return jnp.broadcast_to(jnp.asarray(labels, jnp.uint8), (count, *labels.shape))


def assert_uniform(counts):
    assert scipy.stats.chisquare(np.ravel(counts)).pvalue > 1e-6


def assert_binomial(counts, n, p):
    assert (abs(np.asarray(counts) - n * p) <= 5 * np.sqrt(n * p * (1 - p))).all()


@jax.jit
def omit(labels, rate):
    return noise.omit(KEY, labels, rate=rate, fill=VOID)


def test_omit_takes_or_leaves_whole_objects_at_the_rate_of_their_class():
    count = 200
    rates = np.array([1.0, 0.3, 0.6])
    noisy = np.asarray(omit(repeated(CLEAN, count), jnp.array(rates)))
    missed = (noisy != CLEAN) & (noisy == VOID)
    assert ((noisy == CLEAN) | missed).all()
    number = np.arange(1, len(CLASS_OF))
    share = np.array([ndi.mean(of_map, NUMBERS, number) for of_map in missed])
    assert set(np.unique(share)) == {0, 1}
    assert len(number) > 20
    assert_binomial(share.sum(0), count, rates[CLASS_OF[1:]])
    assert_binomial(share.sum(), share.size, rates[CLASS_OF[1:]].mean())
    assert abs(np.corrcoef(share.T)[np.triu_indices(len(number), 1)]).max() < (
        6 / np.sqrt(count)
    )


@jax.jit
def add(labels, rate):
    return noise.add(KEY, labels, rate=rate)


def test_add_copies_an_object_to_every_place_where_it_fits_alike():
    clean = np.zeros((8, 9), np.uint8)
    clean[2:5, 3], clean[4, 4:6] = 1, 1  # an L
    shape = clean[2:5, 3:6]
    noisy = np.asarray(add(repeated(clean, 1500), jnp.ones(6)))
    expected = {}
    for row in range(6):
        for col in range(7):
            copy = np.zeros_like(clean)
            copy[row : row + 3, col : col + 3] = shape
            expected[np.maximum(clean, copy).tobytes()] = len(expected)
    assert len(expected) == 42
    places = [expected[noisy_map.tobytes()] for noisy_map in noisy]
    assert_uniform(np.bincount(places, minlength=42))


def test_add_copies_each_object_at_the_rate_of_its_class_and_covers_background():
    count, clean = 1500, np.zeros((8, 9), np.uint8)
    clean[4, ::2] = 1, 2, 3, 4, 5
    rates = np.array([1.0, 0.2, 0.5, 1.0, 0.0, 0.9])
    noisy = np.asarray(add(repeated(clean, count), jnp.array(rates)))
    assert (noisy == clean)[:, clean > 0].all()
    copies = np.stack([(noisy == k).sum((1, 2)) - 1 for k in range(1, 6)])
    # Seen where it lands on background and no higher class lands on it.
    hidden = 1 - rates[1:] / clean.size
    on_top = np.append(np.cumprod(hidden[::-1])[::-1][1:], 1)
    seen = rates[1:] * (1 - 5 / clean.size) * on_top
    assert copies.max() == 1
    assert_binomial(copies.sum(1), count, seen)


RADIUS = 2


@jax.jit
def merge(labels, rate=(1.0, 1.0, 1.0)):  # always [8, 36, 45], compiled once
    return noise.merge(KEY, labels, radius=RADIUS, rate=jnp.stack(rate))


def two_squares(gap, other=1):
    labels = np.zeros(CLEAN.shape, np.uint8)
    labels[3:8, 2:6] = 1
    labels[3:8, 6 + gap : 10 + gap] = other
    return labels


GAPS = range(1, 9)


def test_merge_joins_across_gaps_up_to_twice_the_radius():
    noisy = merge(np.stack([two_squares(gap) for gap in GAPS]))
    for gap, noisy_map in zip(GAPS, noisy, strict=True):
        joined = gap <= 2 * RADIUS
        assert ndi.label(noisy_map, EIGHT)[1] == (1 if joined else 2)
        assert (noisy_map[3:8, 6 : 6 + gap] == joined).all()


def test_merge_with_a_radius_beyond_the_map_fills_between_any_two_objects():
    labels = two_squares(20)
    radius = 10**6
    noisy = np.asarray(noise.merge(KEY, labels, radius=radius))
    assert (noisy == 1).all()
    np.testing.assert_array_equal(noisy, noise.merge(KEY, labels, radius=60))


def test_merge_leaves_neighbours_of_different_classes_apart():
    labels = np.stack([two_squares(gap, other=2) for gap in GAPS])
    np.testing.assert_array_equal(merge(labels), labels)


def test_merge_fills_where_the_two_nearest_objects_are_near_enough():
    number = np.arange(1, len(CLASS_OF))
    away = [ndi.distance_transform_edt(i != NUMBERS) for i in number]
    first, second = np.argsort(away, axis=0, kind="stable")[:2]
    nearest = np.sort(away, axis=0)
    narrow = nearest[0] + nearest[1] <= 2 * RADIUS + 1
    same = CLASS_OF[1 + first] == CLASS_OF[1 + second]
    decided = nearest[1] != nearest[2]  # else, the second nearest is a matter of order
    expected = np.where((CLEAN == 0) & narrow & same, CLASS_OF[1 + first], CLEAN)
    got = np.asarray(merge(repeated(CLEAN, 8)))[0]
    np.testing.assert_array_equal(got[decided], expected[decided])
    assert (got != CLEAN).sum() > 20
    assert decided[CLEAN == 0].mean() > 0.8


def test_merge_joins_each_pair_or_not_at_the_rate_of_its_class():
    pair = np.zeros((6, 8), np.uint8)
    pair[3, [2, 4]] = 1
    clean = np.zeros(CLEAN.shape, np.uint8)
    clean[:, :40] = np.tile(np.hstack([pair, 2 * pair]), (6, 3))[:, :40]
    rates = (1.0, 0.3, 0.8)
    labels = repeated(clean, 8)

    def windows(maps):
        cells = np.asarray(maps)[..., :40].reshape(8, 6, 6, 5, 8).swapaxes(2, 3)
        return cells.reshape(-1, 48)

    noisy, full = windows(merge(labels, rates)), windows(merge(labels))
    class_of, joined = full.max(1), (noisy == full).all(1)
    assert (joined | (noisy == windows(labels)).all(1)).all()
    for class_id in (1, 2):
        of_class = joined[class_of == class_id]
        assert_binomial(of_class.sum(), of_class.size, rates[class_id])


def test_boxes_are_those_of_find_objects_in_order_of_class():
    expected = np.zeros_like(CLEAN)
    for class_id in (1, 2):
        for box in ndi.find_objects(ndi.label(class_id == CLEAN, EIGHT)[0]):
            expected[box] = class_id
    expected[CLEAN == VOID] = VOID
    boxes = jax.jit(partial(noise.boxes, num_classes=3))
    np.testing.assert_array_equal(boxes(KEY, CLEAN), expected)


@partial(jax.jit, static_argnames="radius")
def points(labels, radius=0):
    return noise.points(KEY, labels, count=2, background=3, radius=radius)


def test_points_keep_so_many_pixels_of_every_object_and_of_background():
    marked = np.asarray(points(repeated(CLEAN, 20)))
    kept = marked != VOID
    np.testing.assert_array_equal(marked, np.where(kept, CLEAN, VOID))
    sizes = np.bincount(NUMBERS.ravel())[1:]
    assert sizes.min() == 1
    for of_map in kept:
        assert of_map[CLEAN == 0].sum() == 3
        clicks = np.bincount(NUMBERS[of_map], minlength=len(CLASS_OF))[1:]
        np.testing.assert_array_equal(clicks, np.minimum(sizes, 2))


def test_every_pair_of_pixels_of_an_object_is_clicked_alike():
    clean = np.zeros((4, 5), np.uint8)
    clean[1, 1:4], clean[2, 2:4] = 1, 1
    marked = np.asarray(points(repeated(clean, 2000)))
    pairs = (marked[:, clean == 1] == 1) @ (1 << np.arange(5))
    counts = np.unique(pairs, return_counts=True)[1]
    assert len(counts) == 10
    assert_uniform(counts)
    assert_binomial((marked[:, clean == 0] == 0).sum(0), 2000, 3 / 15)


def test_points_become_disks_cut_off_at_the_border_of_their_object():
    labels = repeated(CLEAN, 20)
    spots, disks = np.asarray(points(labels)), np.asarray(points(labels, radius=2))
    expected = np.full_like(disks, VOID)
    for noisy, spot in zip(expected, spots, strict=True):
        for number in range(len(CLASS_OF)):
            own = number == NUMBERS
            reached = ndi.binary_dilation((spot != VOID) & own, disk(2)) & own
            noisy[reached] = CLEAN[reached]
    np.testing.assert_array_equal(disks, expected)


LENGTH = 9.0


@partial(jax.jit, static_argnames="radius")
def scribbles(labels, radius):
    return noise.scribbles(KEY, labels, length=LENGTH, background=1, radius=radius)


def test_a_scribble_is_the_skeleton_within_half_its_length_of_one_of_its_pixels():
    marked = np.asarray(scribbles(repeated(CLEAN, 20), 0))
    kept = marked != VOID
    np.testing.assert_array_equal(marked, np.where(kept, CLEAN, VOID))
    lines = sum(skeletonize(k == CLEAN) * (k + 1) for k in (0, 1, 2)) == CLEAN + 1
    for number in range(len(CLASS_OF)):
        own = np.argwhere(lines & (number == NUMBERS) & (CLEAN != VOID))
        near = np.hypot(*(own[:, None] - own).T) <= LENGTH / 2
        for of_map in kept:
            stroke = of_map[tuple(own.T)]
            assert stroke.sum() == of_map[(number == NUMBERS)].sum() > 0
            assert (near[stroke] == stroke).all(1).any()


@pytest.mark.parametrize("radius", [1, 6, 1000])
def test_scribbles_widen_inside_their_own_object(radius):
    labels = repeated(CLEAN, 20)
    thin, wide = np.asarray(scribbles(labels, 0)), np.asarray(scribbles(labels, radius))
    thin, wide = thin[:4], wide[:4]
    expected = np.full_like(wide, VOID)
    for noisy, stroke in zip(expected, thin, strict=True):
        for number in range(len(CLASS_OF)):
            own = number == NUMBERS
            marks = (stroke != VOID) & own
            reached = (ndi.distance_transform_edt(~marks) <= radius) & own
            noisy[reached] = CLEAN[reached]
    np.testing.assert_array_equal(wide, expected)


def test_scribbles_leave_no_object_out_however_small():
    sizes = [(1, 1), (1, 2), (2, 1), (2, 2), (2, 3), (3, 2), (3, 3), (4, 4)]
    labels = np.zeros((36, 45), np.uint8)
    for index, (height, width) in enumerate(sizes):
        labels[2:][:height, 5 * index + 2 :][:, :width] = 1 + index % 2
    marked = np.asarray(scribbles(repeated(labels, 20), 0))[0]
    for index in range(len(sizes)):
        window = np.s_[1:7, 5 * index + 1 : 5 * index + 6]
        assert (marked[window] == 1 + index % 2).any()


@pytest.mark.parametrize(
    ("fn", "name", "value", "more"),
    [
        (noise.omit, "rate", -0.1, {}),
        (noise.omit, "fill", 256, {"rate": 0.1}),
        (noise.add, "rate", (0.1, 2.0), {}),
        (noise.merge, "radius", -1, {}),
        (noise.merge, "rate", float("nan"), {"radius": 1}),
        (noise.boxes, "num_classes", 1, {}),
        (noise.points, "count", 1.5, {}),
        (noise.points, "background", -1, {}),
        (noise.points, "radius", True, {}),
        (noise.scribbles, "length", -1.0, {}),
        (noise.scribbles, "background", "3", {}),
        (noise.scribbles, "radius", -2, {}),
    ],
)
def test_an_invalid_parameter_is_named(fn, name, value, more):
    with pytest.raises(InputError, match=f"^{name}: .+$"):
        fn(KEY, jnp.asarray(CLEAN), **{name: value}, **more)


@pytest.mark.parametrize("labels", [CLEAN > 0, CLEAN.astype(np.int8), CLEAN[0]])
def test_invalid_labels_are_named(labels):
    with pytest.raises(InputError, match=r"^labels: .+$"):
        noise.omit(KEY, labels, rate=0.1)
