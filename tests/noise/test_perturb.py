import itertools
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import references
import scipy.ndimage as ndi
import scipy.stats
from skimage.measure import block_reduce
from skimage.morphology import disk
from skimage.morphology import skeletonize as reference_skeleton

from metaseg import noise
from metaseg.errors import InputError
from metaseg.labels import VOID

KEY = jax.random.key(0)


def shapes(num_classes, void):
    """Smooth random class regions, some of it void."""
    rng = np.random.default_rng(num_classes)
    fields = [ndi.gaussian_filter(rng.random((60, 75)), 4) for _ in range(num_classes)]
    labels = np.argmax(fields, axis=0).astype(np.uint8)
    if void:
        labels[20:30, 40:60] = VOID
    return labels


def repeated(labels, count):
    return jnp.broadcast_to(jnp.asarray(labels, jnp.uint8), (count, *labels.shape))


def assert_uniform(counts):
    assert scipy.stats.chisquare(np.ravel(counts)).pvalue > 1e-6


FOOTPRINTS = {
    "disk": disk(2),
    "square": np.ones((5, 5)),
    "cross": np.add.outer(*[np.arange(5) == 2] * 2),
}
every_shape = pytest.mark.parametrize("shape", FOOTPRINTS)
two_maps = pytest.mark.parametrize("labels", [shapes(2, False), shapes(4, True)])


@every_shape
@two_maps
def test_dilate_gives_background_to_the_highest_class_in_reach(labels, shape):
    expected = labels.copy()
    for class_id in (1, 2, 3):
        reached = ndi.binary_dilation(labels == class_id, FOOTPRINTS[shape])
        expected[(labels == 0) & reached] = class_id
    got = jax.jit(partial(noise.dilate, radius=2, shape=shape))(KEY, labels)
    np.testing.assert_array_equal(got, expected)


@every_shape
@two_maps
def test_erode_turns_what_background_reaches_into_background(labels, shape):
    expected = labels.copy()
    reached = ndi.binary_dilation(labels == 0, FOOTPRINTS[shape])
    expected[reached & (labels != VOID)] = 0
    got = jax.jit(partial(noise.erode, radius=2, shape=shape))(KEY, labels)
    np.testing.assert_array_equal(got, expected)


def grown(mask, change):
    """The mask with its boundary moved by `change` pixels, by SciPy's distances."""
    if change >= 0:
        return ndi.distance_transform_edt(~mask) <= change
    return ndi.distance_transform_edt(mask) > -change


@partial(jax.jit, static_argnames=("radius", "per"))
def random_boundary(labels, radius, per):
    return noise.random_boundary(KEY, labels, radius=radius, per=per)


def test_random_boundary_per_image_dilates_or_erodes_by_a_uniform_radius():
    clean = shapes(2, False)[:20, :24]
    noisy = np.asarray(random_boundary(repeated(clean, 1400), 3, "image"))
    outcome = {
        grown(clean > 0, change).tobytes(): change + 3 for change in range(-3, 4)
    }
    drawn = [outcome[noisy_map.tobytes()] for noisy_map in noisy == 1]
    assert len(outcome) == 7
    assert_uniform(np.bincount(drawn, minlength=7))


def test_random_boundary_per_object_moves_each_by_a_uniform_radius_of_its_own():
    cell = np.pad(disk(4), 4)  # 17 x 17, room for 7
    clean = np.block([[cell, 2 * cell, cell], [cell, cell, 2 * cell]])
    noisy = np.asarray(random_boundary(repeated(clean, 200), 3, "object"))
    outcome = {grown(cell > 0, change).tobytes(): change + 3 for change in range(-3, 4)}
    drawn = np.zeros((200, 2, 3), int)
    for index in np.ndindex(drawn.shape):
        row, col = (slice(17 * i, 17 * i + 17) for i in index[1:])
        window, kind = noisy[index[0], row, col], clean[row, col].max()
        assert set(np.unique(window)) <= {0, kind}
        drawn[index] = outcome[(window == kind).tobytes()]
    assert_uniform(np.bincount(drawn.ravel(), minlength=7))
    for first, second in itertools.combinations(drawn.reshape(200, 6).T, 2):
        assert abs(np.corrcoef(first, second)[0, 1]) < 5 / np.sqrt(200)


def test_random_boundary_by_more_than_the_map_takes_all_or_nothing():
    clean = np.zeros((6, 40), np.uint8)
    clean[2:4, 3:6] = 1
    noisy = np.asarray(random_boundary(repeated(clean, 60), 1000, "image"))
    drawn = noisy.reshape(60, -1).mean(1)
    assert 10 < (drawn == 1).sum() < 50  # outwards, by 37 pixels and more
    assert 10 < (drawn == 0).sum() < 50  # inwards, by 1 pixel and more
    noisy = np.asarray(random_boundary(repeated(clean, 900), 35, "image"))
    possible = {grown(clean > 0, change).tobytes() for change in range(-35, 36)}
    assert {noisy_map.tobytes() for noisy_map in noisy == 1} == possible
    with pytest.raises(InputError, match=r"^radius: got 1025, expected an integer in"):
        noise.random_boundary(KEY, clean, radius=1025)


def test_random_boundary_gives_background_to_the_deepest_and_then_highest():
    clean = np.zeros((8, 9), np.uint8)
    clean[1:4, 1:4], clean[2:7, 6], clean[6:, 2:4] = 1, 2, 3
    clean[4, 4] = VOID
    place = np.argwhere(np.ones_like(clean)).reshape(*clean.shape, 2)

    def squared(mask):
        away = place[:, :, None] - np.argwhere(mask)
        return (away**2).sum(-1).min(-1)

    to_object = {class_id: squared(clean == class_id) for class_id in (1, 2, 3)}
    to_background = squared(clean == 0)

    def by_hand(changes):
        noisy = clean.copy()
        for r, c in np.argwhere(clean == 0):
            reach = [
                (to_object[k][r, c] - change**2, -k)
                for k, change in changes.items()
                if change > 0 and to_object[k][r, c] <= change**2
            ]
            noisy[r, c] = -min(reach)[1] if reach else 0
        for k, change in changes.items():
            if change < 0:
                noisy[(clean == k) & (to_background <= change**2)] = 0
        return noisy.tobytes()

    draws = itertools.product(range(-2, 3), repeat=3)
    expected = {by_hand(dict(zip((1, 2, 3), drawn, strict=True))) for drawn in draws}
    noisy = np.asarray(random_boundary(repeated(clean, 1500), 2, "object"))
    assert {noisy_map.tobytes() for noisy_map in noisy} == expected
    assert len(expected) > 50


@two_maps
def test_skeletonize_leaves_the_skeleton_of_each_class(labels):
    expected = np.where(labels == VOID, VOID, 0)
    for class_id in (1, 2, 3):
        expected[reference_skeleton(labels == class_id)] = class_id
    got = jax.jit(noise.skeletonize)(KEY, labels)
    np.testing.assert_array_equal(got, expected)


@jax.jit
def shift_pixels(labels):
    return noise.shift_pixels(KEY, labels, radius=2)


def landing(row, col, shape):
    """Probability of each place for a pixel moved by up to 2, held at the edge."""
    ends = [
        np.bincount(np.clip(at + np.arange(-2, 3), 0, n - 1), minlength=n) / 5
        for at, n in zip((row, col), shape, strict=True)
    ]
    return np.outer(*ends)


@pytest.mark.parametrize("place", [(4, 5), (0, 0), (8, 4)])
def test_a_shifted_pixel_lands_uniformly_and_is_held_at_the_edge(place):
    clean = np.zeros((9, 10), np.uint8)
    clean[place] = 1
    noisy = np.asarray(shift_pixels(repeated(clean, 2000)))
    np.testing.assert_array_equal(noisy.sum((1, 2)), 1)
    odds = landing(*place, clean.shape)
    counts = noisy.sum(0)
    assert counts[odds == 0].sum() == 0
    expected = 2000 * odds[odds > 0]
    assert scipy.stats.chisquare(counts[odds > 0], expected).pvalue > 1e-6


def test_shifted_pixels_land_independently_and_the_highest_class_stays():
    rng = np.random.default_rng(0)
    clean = rng.choice([0, 1, 2, VOID], p=[0.6, 0.2, 0.15, 0.05], size=(9, 10))
    noisy = np.asarray(shift_pixels(repeated(clean, 2000)))
    missed = {
        k: np.prod([1 - landing(*at, clean.shape) for at in np.argwhere(clean == k)], 0)
        for k in (1, 2)
    }
    void = clean == VOID
    np.testing.assert_array_equal(noisy == VOID, np.broadcast_to(void, noisy.shape))
    odds = {2: 1 - missed[2], 1: missed[2] * (1 - missed[1])}
    for class_id, p in odds.items():
        off = abs((noisy == class_id).sum(0) - 2000 * p)[~void]
        assert (off <= 5 * np.sqrt(2000 * p * (1 - p))[~void] + 1e-9).all()


def test_shifted_pixels_stay_in_reach_and_never_become_more():
    rng = np.random.default_rng(1)
    clean = rng.choice([0, 1, 2], p=[0.94, 0.03, 0.03], size=(2000, 9, 10))
    noisy = np.asarray(shift_pixels(clean.astype(np.uint8)))
    for class_id in (1, 2):
        reach = ndi.maximum_filter(clean == class_id, (1, 5, 5))
        assert (noisy == class_id)[~reach].sum() == 0
        counts = [(which == class_id).sum((1, 2)) for which in (noisy, clean)]
        assert (counts[0] <= counts[1]).all()


STEPS = 30
FIELDS = ndi.gaussian_filter(np.random.default_rng(2).random((200, 64, 64)), (0, 5, 5))
BLOBS = np.quantile(FIELDS, 0.7) < FIELDS


@partial(jax.jit, static_argnames=("steps", "blur"))
def markov(labels, theta1, theta2, theta3, steps=STEPS, blur=2.0):
    return noise.markov(
        KEY,
        labels,
        steps=steps,
        theta1=theta1,
        theta2=theta2,
        theta3=theta3,
        blur=blur,
    )


@pytest.mark.parametrize("theta1", [0.8, 0.2])
def test_markov_errs_as_much_as_the_reference_does(theta1):
    noisy = np.asarray(markov(BLOBS.astype(np.uint8), theta1, 0.2, 0.2))
    rng = np.random.default_rng(3)
    dice = np.array(
        [
            (
                references.dice(clean, got > 0),
                references.dice(
                    clean, references.markov(rng, clean, STEPS, theta1, 0.2, 0.2, 2.0)
                ),
            )
            for clean, got in zip(BLOBS, noisy, strict=True)
        ]
    )
    difference = dice[:, 0] - dice[:, 1]
    error = difference.std() / np.sqrt(len(difference))
    assert abs(difference.mean()) < 4 * error
    assert scipy.stats.ks_2samp(*dice.T).pvalue > 1e-3
    assert dice.max() < 0.99


def test_markov_moves_out_at_theta1_of_1_and_in_at_0_and_not_at_all_at_theta2_of_0():
    labels = BLOBS[:8].astype(np.uint8)
    few = partial(markov, labels, theta3=0.0, steps=6, blur=0)
    np.testing.assert_array_equal(few(theta1=0.5, theta2=0.0), labels)
    out, away = np.asarray(few(theta1=1.0, theta2=0.5)), few(theta1=0.0, theta2=0.5)
    assert (out >= labels).all()
    assert (away <= labels).all()
    assert (out > labels).any(axis=(1, 2)).all()
    assert (np.asarray(away) < labels).any(axis=(1, 2)).all()
    for clean, noisy in zip(labels, few(theta1=1.0, theta2=1.0), strict=True):
        cross = ndi.generate_binary_structure(2, 1)
        np.testing.assert_array_equal(noisy, ndi.binary_dilation(clean, cross, 6))


@pytest.mark.parametrize("factor", [1, 4, 100])
@two_maps
def test_coarsen_gives_each_block_its_most_frequent_class(labels, factor):
    def most(blocks, axis):
        return np.argmax([np.sum(blocks == k, axis=axis) for k in range(4)], axis=0)

    blocks = block_reduce(labels, (factor, factor), most, cval=VOID)
    expected = np.kron(blocks, np.ones((factor, factor), int))
    expected = expected[: labels.shape[0], : labels.shape[1]]
    expected[labels == VOID] = VOID
    coarsen = jax.jit(partial(noise.coarsen, factor=factor, num_classes=4))
    np.testing.assert_array_equal(coarsen(KEY, labels), expected)


@pytest.mark.parametrize(
    ("fn", "name", "value", "more"),
    [
        (noise.dilate, "radius", -1, {}),
        (noise.dilate, "shape", "circle", {"radius": 1}),
        (noise.erode, "radius", 1.5, {}),
        (noise.erode, "shape", 3, {"radius": 1}),
        (noise.random_boundary, "radius", "1", {}),
        (noise.random_boundary, "per", "class", {"radius": 1}),
        (noise.shift_pixels, "radius", True, {}),
        (noise.shift_pixels, "radius", 1 << 15, {}),
        (noise.markov, "steps", -1, {}),
        (noise.markov, "theta1", 1.1, {}),
        (noise.markov, "theta2", (0.1, 0.2), {}),
        (noise.markov, "theta3", float("nan"), {}),
        (noise.markov, "blur", -1.0, {}),
        (noise.markov, "num_classes", 0, {}),
        (noise.coarsen, "factor", 0, {}),
        (noise.coarsen, "num_classes", 300, {"factor": 2}),
    ],
)
def test_an_invalid_parameter_is_named(fn, name, value, more):
    with pytest.raises(InputError, match=f"^{name}: .+$"):
        fn(KEY, jnp.zeros((6, 7), jnp.uint8), **{name: value}, **more)
