from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.ndimage as ndi
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.test_util import check_grads

from metaseg import density, noise, ntm
from metaseg.errors import InputError
from metaseg.labels import VOID

RNG = np.random.default_rng(0)
MAPS = RNG.choice([0, 1, 2, VOID], p=[0.4, 0.3, 0.1, 0.2], size=(2, 3, 17, 23))
MAPS = MAPS.astype(np.uint8)
MAPS[0, 0, :, 8:] = VOID
WAVES = np.sin(np.arange(24) / 4)[:, None] + np.cos(np.arange(28) / 5)
SMOOTH = np.digitize(WAVES, [-0.6, 0.6]).astype(np.uint8)  # three classes
KEYS = jax.random.split(jax.random.key(7), 400)


@partial(jax.jit, static_argnames=("num_classes", "kernel"))
def traced(labels, num_classes, bandwidth, kernel="gaussian"):
    """A bandwidth that compilation does not know, so that shapes compile once."""
    return density.spatial_density(
        labels, num_classes, bandwidth=bandwidth, kernel=kernel
    )


adaptive = jax.jit(density.adaptive, static_argnames=("num_classes", "neighbours"))
effective = jax.jit(density.effective_pixels, static_argnames=("kernel",))
select = jax.jit(density.select_bandwidth, static_argnames=("num_classes", "kernel"))
position = jax.jit(density.position, static_argnames=("num_classes", "grid"))


def one_hot(labels, num_classes):
    return (labels[..., None] == np.arange(num_classes)).astype(np.float64)


def close(actual, expected, atol=1e-5):
    np.testing.assert_allclose(actual, expected, rtol=0, atol=atol)


def weights(shape, bandwidth, kernel="gaussian"):
    """Kernel of every pixel (last two axes) at every pixel, by its definition."""

    def line(size):
        offset = np.arange(size)[:, None] - np.arange(size)
        if kernel == "gaussian":
            return np.exp(-0.5 * (offset / bandwidth) ** 2)
        if kernel == "box":
            return 1.0 * (abs(offset) <= int(bandwidth))
        return np.maximum(0, 1 - (offset / bandwidth) ** 2)

    return np.einsum("xu,yv->xyuv", line(shape[0]), line(shape[1]))


def direct(labels, num_classes, bandwidth, kernel="gaussian"):
    mass = np.tensordot(
        weights(labels.shape, bandwidth, kernel), one_hot(labels, num_classes)
    )
    total = mass.sum(-1, keepdims=True)
    return np.divide(mass, total, out=np.zeros_like(mass), where=total > 0)


def by_scipy(labels, num_classes, smooth, least):
    """Smoothed one-hot maps over the smoothed map of what is labelled."""
    planes = np.moveaxis(one_hot(labels, num_classes), -1, 0)
    mass = np.stack([smooth(plane) for plane in planes], axis=-1)
    total = smooth(planes.sum(axis=0))[..., None]
    seen = total > least
    return np.divide(mass, total, out=np.zeros_like(mass), where=seen), seen[..., 0]


@settings(max_examples=12, deadline=None)
@given(
    st.sampled_from([(23, 31), (1, 40)]),
    st.sampled_from([2, 5]),
    st.floats(0.7, 20),
    st.integers(0, 2**32 - 1),
)
def test_gaussian_density_is_scipys_filter_renormalised(shape, classes, width, seed):
    rng = np.random.default_rng(seed)
    ids = [*range(classes), VOID]
    labels = rng.choice(ids, size=shape).astype(np.uint8)
    labels[:, : rng.integers(shape[1])] = rng.choice(ids)
    smooth = partial(ndi.gaussian_filter, sigma=width, mode="constant", truncate=60)
    expected, seen = by_scipy(labels, classes, smooth, least=1e-30)
    close(np.asarray(traced(labels, classes, width))[seen], expected[seen])


def test_a_known_small_bandwidth_gives_the_same_in_tiles():
    labels = RNG.choice([0, 1, VOID], size=(170, 190)).astype(np.uint8)
    labels[:, 40:] = VOID
    for kernel, width in [("gaussian", 1.5), ("box", 5.5), ("epanechnikov", 7.0)]:
        known = jax.jit(
            partial(
                density.spatial_density,
                num_classes=2,
                bandwidth=width,
                kernel=kernel,
            )
        )
        close(known(labels), traced(labels, 2, width, kernel))


@pytest.mark.parametrize("width", [0.5, 1, 3.7, 50, 1e20])
def test_box_density_is_scipys_uniform_filter_renormalised(width):
    side = 2 * int(min(width, 30)) + 1
    smooth = partial(ndi.uniform_filter, size=side, mode="constant")
    for labels in MAPS[0, :2]:
        # scipy's running sums leave rounding where there is nothing.
        expected, _ = by_scipy(labels, 3, smooth, least=1e-9)
        close(traced(labels, 3, width, "box"), expected)


@pytest.mark.parametrize("width", [0.5, 2, 6.3])
def test_epanechnikov_density_is_the_direct_sum(width):
    for labels in MAPS[0, :2]:
        expected = direct(labels, 3, width, "epanechnikov")
        close(traced(labels, 3, width, "epanechnikov"), expected)


@pytest.mark.parametrize("width", [1.0, 2.0, 4.0])
def test_density_of_a_half_plane_is_the_normal_distribution(width):
    labels = np.zeros((24, 64), np.uint8)
    labels[:, 32:] = 1
    expected = scipy.stats.norm.cdf(np.arange(64), loc=31.5, scale=width)
    inner = slice(22, 42)  # the border is 5 bandwidths off
    share = traced(labels, 2, width)[:, inner, 1]
    # Sums for integrals: the slope of the kernel over 24, at most.
    bound = np.exp(-0.5) / np.sqrt(2 * np.pi) / width**2 / 24
    close(share - expected[inner], 0, atol=1.05 * bound + 1e-5)


def test_density_at_the_centre_of_a_disk_is_that_of_rayleigh():
    row, col = np.ogrid[-40:41, -40:41]
    for radius, width in [(5, 4.0), (10, 7.0), (20, 8.0)]:
        labels = (row**2 + col**2 <= radius**2).astype(np.uint8)
        # Pixels, as squares, cover a disk smaller by half a diagonal, and lie in one
        # larger by that; the border takes less than 1e-4.
        ends = scipy.stats.rayleigh.cdf(radius + np.array([-1, 1]) / 2**0.5, 0, width)
        share = traced(labels, 2, width)[40, 40, 1]
        assert ends[0] - 1e-4 < share < ends[1] + 1e-4


@pytest.mark.parametrize("kernel", density.KERNELS)
def test_densities_sum_to_one_and_are_zero_out_of_reach(kernel):
    field = np.asarray(traced(MAPS, 3, 2.5, kernel))
    distance = ndi.distance_transform_cdt(MAPS[0, 0] == VOID, "chessboard")
    total = field.sum(-1)
    assert (field >= 0).all()
    assert not np.asarray(traced(np.full_like(MAPS, VOID), 3, 2.5, kernel)).any()
    reached = distance <= (33 if kernel == "gaussian" else 2)
    close(total[0, 0], reached)
    close(total[0, 1:], 1)


def test_batches_vmap_and_eager_calls_give_the_same():
    compute = partial(density.spatial_density, num_classes=3, bandwidth=2.5)
    batch = np.asarray(jax.jit(compute)(MAPS))
    assert batch.shape == (*MAPS.shape, 3)
    assert batch.dtype == np.float32
    close(jax.jit(jax.vmap(compute))(MAPS), batch, 1e-6)
    close(compute(MAPS[1, 2].astype(np.int32)), batch[1, 2], 1e-6)


@pytest.mark.parametrize("kernel", density.KERNELS)
def test_soft_density_is_that_of_labels_and_differentiable(kernel):
    labels = MAPS[0, 0]
    soft = jax.jit(partial(density.soft_density, bandwidth=1.7, kernel=kernel))
    close(soft(one_hot(labels, 3)), traced(labels, 3, 1.7, kernel))
    # Weights that no sum of floats gives exactly, with void beside them.
    shares = one_hot(labels, 3) * RNG.uniform(0.1, 1, size=(17, 23, 1))
    close(soft(shares).sum(-1), traced(labels, 3, 1.7, kernel).sum(-1))
    shares, project = (
        RNG.uniform(0.2, 1, size=(17, 23, 3)),
        RNG.normal(size=(17, 23, 3)),
    )
    check_grads(lambda x: (soft(x) * project).sum(), (shares,), 1, ["rev"], eps=1e-2)


@pytest.mark.parametrize("kernel", density.KERNELS)
def test_weighted_sum_is_a_convolution_with_the_kernel(kernel):
    values = RNG.normal(size=(2, 17, 23)).astype(np.float32)
    offset = np.arange(-22, 23) / 2.6
    line = {
        "gaussian": np.exp(-0.5 * offset**2),
        "box": np.abs(offset) <= 1,
        "epanechnikov": np.maximum(1 - offset**2, 0),
    }[kernel]
    weights = np.outer(line, line)[None].astype(np.float32)
    found = density.weighted_sum(values, bandwidth=2.6, kernel=kernel)
    close(found, ndi.convolve(values, weights, mode="constant"), 1e-4)


NOISES = {
    "flip": (partial(noise.flip, rate=0.4), ntm.symmetric(2, 0.4)),
    "sample": (partial(noise.sample, fraction=0.1), ntm.sampling(2, 0.1)),
    "asymmetric flip": (
        partial(noise.transition, matrix=ntm.binary(0.7, 0.1)),
        ntm.binary(0.7, 0.1),
    ),
    "multi-class": (
        partial(noise.transition, matrix=ntm.pair(3, (0.2, 0.5, 0.8))),
        ntm.pair(3, (0.2, 0.5, 0.8)),
    ),
    "random": (partial(noise.random, prior=0.3), ntm.uniform(2, 0.3)),
}


@pytest.mark.parametrize(("corrupt", "matrix"), NOISES.values(), ids=NOISES)
def test_the_mean_noisy_density_is_the_clean_one_times_the_matrix(corrupt, matrix):
    classes = len(matrix)
    labels = np.minimum(SMOOTH, classes - 1)
    noisy = jax.jit(jax.vmap(lambda key: corrupt(key, labels)))(KEYS)
    drawn = np.asarray(traced(noisy, classes, 2.0), np.float64)
    matrix = np.asarray(matrix, np.float64)
    kernel = weights(labels.shape, 2.0)
    kernel /= kernel.sum(axis=(2, 3), keepdims=True)
    expected = np.tensordot(kernel, one_hot(labels, classes)) @ matrix
    variance = np.tensordot(kernel**2, (matrix * (1 - matrix))[labels])
    # A pixel's z exceeds 5 with probability 6e-7, and there are 2000.
    bound = 5 * np.sqrt(variance / len(KEYS)) + 1e-5
    assert (abs(drawn.mean(0) - expected) < bound).all()
    # A variance from 400 draws errs by 7 %, and by more where draws are rare.
    wide = variance > 1e-4
    assert 0.9 < (drawn.var(0)[wide] / variance[wide]).mean() < 1.1
    pixels = np.asarray(effective(labels, bandwidth=2.0))[..., None]
    assert (variance <= 1 / (4 * pixels) + 1e-5).all()


def test_omitted_objects_keep_the_mean_though_pixels_depend_on_each_other():
    labels = np.zeros((24, 28), np.uint8)
    labels[4:9, 5:9] = labels[12:20, 12:20] = labels[3:8, 18:26] = 1
    omit = jax.jit(jax.vmap(lambda key: noise.omit(key, labels, rate=0.4)))
    drawn = np.asarray(traced(omit(KEYS), 2, 2.0), np.float64)
    expected = direct(labels, 2, 2.0) @ np.array([[1, 0], [0.4, 0.6]])
    bound = 5 * np.sqrt(0.4 * 0.6 / len(KEYS)) * direct(labels, 2, 2.0)[..., 1:]
    assert (abs(drawn.mean(0) - expected) <= bound + 1e-5).all()
    # Their errors do not average out within an object: ten times those of pixels.
    pixels = np.asarray(effective(labels, bandwidth=2.0))
    assert (drawn.var(0)[..., 1] * 4 * pixels).max() > 10


def test_no_matrix_maps_the_density_to_that_of_dilated_labels():
    labels = np.zeros((24, 28), np.uint8)
    labels[:, 14:] = 1
    clean = np.asarray(traced(labels, 2, 1.0)).reshape(-1, 2)
    dilated = noise.dilate(KEYS[0], labels, radius=3)
    flipped = clean @ np.array([[0.9, 0.1], [0.3, 0.7]])
    moved = np.asarray(traced(dilated, 2, 1.0)).reshape(-1, 2)
    left = [
        abs(clean @ np.linalg.lstsq(clean, noisy)[0] - noisy).max()
        for noisy in (flipped, moved)
    ]
    assert left[0] < 1e-5
    assert left[1] > 0.5


def test_a_dilated_half_plane_is_a_clean_one_elsewhere():
    labels = np.zeros((24, 28), np.uint8)
    labels[:, 14:] = 1
    dilated = noise.dilate(KEYS[0], labels, radius=3)
    np.testing.assert_array_equal(dilated[:, :-3], labels[:, 3:])


def test_two_densities_look_alike_through_a_singular_matrix():
    matrix = np.asarray(ntm.sampling(3, 0.0, classes=(1,)))  # class 1 becomes 0
    clean = np.asarray(traced(SMOOTH, 3, 2.0))
    other = clean + 0.3 * clean[..., 1:2] * np.array([1, -1, 0])
    assert abs(clean - other).max() > 0.2
    close(clean @ matrix, other @ matrix)


@pytest.mark.parametrize("name", ["flip", "asymmetric flip", "multi-class"])
def test_invert_is_unbiased_and_knows_its_error(name):
    corrupt, matrix = NOISES[name]
    classes = len(matrix)
    labels = np.minimum(SMOOTH, classes - 1)
    pixels = effective(labels, bandwidth=3.0)

    @jax.jit
    @jax.vmap
    def inverted(key):
        noisy = traced(corrupt(key, labels), classes, 3.0)
        return density.invert(noisy, matrix, pixels=pixels)

    estimate, error = (np.asarray(part, np.float64) for part in inverted(KEYS))
    away = estimate - direct(labels, classes, 3.0)
    bound = 5 * away.std(0) / np.sqrt(len(KEYS))
    assert (abs(away.mean(0)) < bound + 1e-5).all()
    assert 0.9 < ((away / error) ** 2).mean() < 1.1


def test_invert_shares_what_a_singular_matrix_merges_and_says_where_it_knows_nothing():
    matrix = [[0.5, 0.5, 0], [0.5, 0.5, 0], [0, 0, 1]]
    field = jnp.array([[[0.3, 0.3, 0.4], [0, 0, 0]]])
    found = density.invert(field, matrix, pixels=jnp.array([[10.0, 0.0]]))
    close(found.density[0, 0], [0.3, 0.3, 0.4])
    assert np.isfinite(found.standard_error[0, 0]).all()
    assert np.isinf(found.standard_error[0, 1]).all()


def test_adaptive_takes_the_smallest_square_with_enough_labels():
    labels = RNG.choice([0, 1, 2, VOID], p=[0.1, 0.06, 0.04, 0.8], size=(2, 9, 11))
    found = adaptive(labels.astype(np.uint8), num_classes=3, neighbours=7)
    field, radius = map(np.asarray, found)
    for index in np.ndindex(labels.shape):
        one, row, col = index

        def square(side, row=row, col=col, one=one):
            top, left = max(row - side, 0), max(col - side, 0)
            return labels[one, top : row + side + 1, left : col + side + 1]

        enough = (side for side in range(12) if (square(side) != VOID).sum() >= 7)
        assert radius[index] == next(enough)
        inside = square(int(radius[index]))
        counts = one_hot(inside, 3).sum((0, 1))
        close(field[index], counts / counts.sum())


def test_adaptive_takes_all_labels_where_they_are_fewer():
    labels = np.full((2, 9, 11), VOID, np.uint8)
    labels[:, 2, 3] = labels[:, 8, 9] = 1
    labels[:, 8, 0] = 0
    field, radius = adaptive(labels, num_classes=3, neighbours=7)
    assert (radius == 11).all()
    close(field, np.broadcast_to([1 / 3, 2 / 3, 0], field.shape))


@pytest.mark.parametrize("kernel", ["gaussian", "box"])
def test_select_bandwidth_leaves_one_out(kernel):
    labels, widths = MAPS[1, 0, :8, :9], [0.6, 1.5, 4.0]
    found = select(labels, num_classes=3, candidates=widths, kernel=kernel)
    planes, known = one_hot(labels, 3), labels != VOID
    expected = []
    for width in widths:
        kernels = weights(labels.shape, width, kernel)
        for place in np.ndindex(labels.shape):
            kernels[place + place] = 0
        others = np.tensordot(kernels, planes)
        own = (others * planes).sum(-1) + 1 / 3
        expected.append(np.log(own / (others.sum(-1) + 1))[known].mean())
    close(found.log_likelihood, expected)
    assert found.best == np.float32(widths[int(np.argmax(expected))])


def test_select_bandwidth_is_finer_for_finer_structure_and_wider_for_more_noise():
    widths = [0.7, 1.4, 2.8, 5.6, 11.2]

    def best(period, rate):
        stripes = (np.arange(64) // period % 2).astype(np.uint8)
        flipped = RNG.random((64, 64)) < rate
        labels = np.where(flipped, 1 - stripes, stripes)
        return select(labels, num_classes=2, candidates=widths).best

    assert best(4, 0.2) < best(16, 0.2)
    assert best(16, 0.05) < best(16, 0.4)


def test_position_adds_up_over_batches_and_counts_what_a_loop_counts():
    expected = np.zeros((4, 5, 3), int)
    for index in np.ndindex(MAPS.shape):
        if MAPS[index] != VOID:
            *_, row, col = index
            expected[row * 4 // 17, col * 5 // 23, MAPS[index]] += 1
    parts = [position(part, num_classes=3, grid=(4, 5)) for part in MAPS]
    np.testing.assert_array_equal(parts[0] + parts[1], expected)
    pixels = position(MAPS, num_classes=3)
    np.testing.assert_array_equal(pixels, one_hot(MAPS, 3).sum((0, 1)))


@pytest.mark.parametrize("kernel", density.KERNELS)
def test_effective_pixels_are_those_of_the_kernels_weights(kernel):
    for labels in MAPS[0, :2]:
        kernels = weights(labels.shape, 2.5, kernel) * (labels != VOID)
        total, squares = kernels.sum((2, 3)), (kernels**2).sum((2, 3))
        seen = squares > 1e-30
        expected = total**2 / np.where(seen, squares, 1)
        found = np.asarray(effective(labels, bandwidth=2.5, kernel=kernel))
        np.testing.assert_allclose(found[seen], expected[seen], rtol=1e-4)
        # Out of the squares' reach in float32 a label still counts as one at least.
        assert set(np.unique(found[total == 0])) <= {0}
        assert (found[total > 1e-30] >= 1).all()


def test_effective_pixels_of_a_gaussian_are_four_pi_times_the_square_of_its_width():
    found = effective(np.zeros((41, 41), np.uint8), bandwidth=3.0)[20, 20]
    np.testing.assert_allclose(found, 4 * np.pi * 9, rtol=1e-4)


LABELS = np.zeros((4, 5), np.uint8)
WIDTH = r"bandwidth: got .*, expected a number > 0 \(pixels\)"
INVALID = [
    (lambda: density.spatial_density(LABELS, 1, bandwidth=1), "num_classes: got 1, .*"),
    (lambda: density.spatial_density(LABELS, 2, bandwidth=0), WIDTH),
    (lambda: density.spatial_density(LABELS, 2, bandwidth=np.inf), WIDTH),
    (
        lambda: density.spatial_density(LABELS, 2, bandwidth=1, kernel="tent"),
        "kernel: got 'tent', expected one of gaussian, box, epanechnikov",
    ),
    (
        lambda: density.spatial_density(1.0 * LABELS, 2, bandwidth=1),
        "labels: got dtype float64, .*",
    ),
    (
        lambda: density.soft_density(LABELS, bandwidth=1),
        r"probabilities: got shape \(4, 5\), expected \[..., H, W, K\]",
    ),
    (lambda: density.soft_density(np.ones((4, 5, 2)), bandwidth=-1), WIDTH),
    (
        lambda: density.weighted_sum(np.ones(4), bandwidth=1),
        r"values: got shape \(4,\), .*",
    ),
    (lambda: density.effective_pixels(LABELS[0], bandwidth=1), "labels: got shape .*"),
    (lambda: density.effective_pixels(LABELS, bandwidth="wide"), WIDTH),
    (lambda: density.adaptive(LABELS, 2, neighbours=0), "neighbours: got 0, .*"),
    (
        lambda: density.select_bandwidth(LABELS, 2, []),
        r"candidates: got shape \(0,\), .*",
    ),
    (
        lambda: density.select_bandwidth(LABELS, 2, 3.0),
        r"candidates: got shape \(\), .*",
    ),
    (lambda: density.select_bandwidth(LABELS, 2, [1, -1.0]), "candidates: got -1.0.*"),
    (lambda: density.position(LABELS, 2, grid=(0, 3)), "grid: got 0, .*"),
    (
        lambda: density.invert(np.ones((4, 5, 2)), np.eye(3), pixels=1),
        r"matrix: got shape \(3, 3\), expected 2 x 2 numbers",
    ),
    (
        lambda: density.invert(np.ones((4, 5, 2)), np.eye(2) / 2, pixels=1),
        "matrix: row 0 sums to 0.5, .*",
    ),
]


@pytest.mark.parametrize(("call", "message"), INVALID)
def test_an_invalid_parameter_is_named_in_one_line(call, message):
    with pytest.raises(InputError, match=f"^{message}$"):
        call()


@pytest.mark.parametrize("shape", [(0, 6, 7), (2, 0, 7), (2, 6, 0)])
def test_maps_without_pixels_have_densities_without_pixels(shape):
    labels = np.zeros(shape, np.uint8)
    for found in (
        density.spatial_density(labels, 3, bandwidth=2.0),
        density.adaptive(labels, 3, neighbours=2).density,
    ):
        assert found.shape == (*shape, 3)
    assert density.effective_pixels(labels, bandwidth=2.0).shape == shape
    assert density.select_bandwidth(labels, 3, (1.0, 2.0)).best == 1
    if all(shape[1:]):
        assert not density.position(labels, 3).any()


MEASURES = {
    "spatial_density": lambda y: density.spatial_density(y, 3, bandwidth=2.0),
    "effective_pixels": lambda y: density.effective_pixels(y, bandwidth=2.0),
    "adaptive": lambda y: density.adaptive(y, 3, neighbours=4),
    "select_bandwidth": lambda y: density.select_bandwidth(y, 3, (1.0, 3.0)),
    "position": lambda y: density.position(y, 3),
}


@pytest.mark.parametrize("measure", MEASURES.values(), ids=MEASURES)
def test_negative_labels_are_void(measure):
    marked = np.where(MAPS == VOID, -1, MAPS).astype(np.int32)
    found, expected = measure(marked), measure(MAPS.astype(np.int32))
    jax.tree.map(np.testing.assert_array_equal, found, expected)


@pytest.mark.parametrize("measure", MEASURES.values(), ids=MEASURES)
def test_labels_that_are_no_class_are_named(measure):
    with pytest.raises(InputError, match=r"^labels: class id (3|300), expected 0\.\."):
        measure(np.where(MAPS == VOID, 300, MAPS.astype(int) + 1))
