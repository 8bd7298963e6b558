from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.ndimage as ndi
import scipy.special
import scipy.stats

from metaseg import density, information, noise, ntm
from metaseg.errors import InputError
from metaseg.labels import VOID

RNG = np.random.default_rng(0)
FIELD, OTHER = RNG.dirichlet([0.5, 1, 2], size=(2, 2, 9, 11))  # [B, H, W, K] each
FIELD[0, :3, :4] = 0  # nothing known there
KNOWN = FIELD.sum(-1) > 0
SIDE = 64
HALF = np.zeros((SIDE, SIDE), np.uint8)
HALF[:, 32:] = 1
ROW, COL = np.ogrid[:SIDE, :SIDE]
DISK = ((ROW - 32) ** 2 + (COL - 30) ** 2 <= 18**2).astype(np.uint8)
PRIOR = np.array([0.5, 0.3, 0.2])
MATRICES = {
    "symmetric": ntm.symmetric(3, 0.4),
    "pair": ntm.pair(3, (0.2, 0.7, 0.1)),
    "sampling": ntm.sampling(3, 0.3),
    "to void": ntm.sampling(3, (0.3, 0.05), fill=VOID),
    "merged": ntm.sampling(3, 0.0, classes=(1,)),
    "random": ntm.uniform(3, PRIOR),
}

spatial = jax.jit(information.spatial_information)
semantic = jax.jit(information.semantic_information)
effective_labels = jax.jit(information.effective_labels)
divergence = jax.jit(information.divergence, static_argnames="kind")
boundary_profile = jax.jit(
    partial(information.boundary_profile, num_classes=2, max_distance=8)
)
normalised = jax.jit(information.normalised_spatial_information)
entropy = jax.jit(information.entropy)
local = jax.jit(partial(density.spatial_density, num_classes=2, bandwidth=4.0))
effective_pixels = jax.jit(partial(density.effective_pixels, bandwidth=4.0))


def close(actual, expected, atol=1e-6):
    np.testing.assert_allclose(actual, expected, atol=atol)


def test_entropy_is_scipys():
    close(entropy(OTHER), scipy.stats.entropy(OTHER, axis=-1))
    close(entropy(np.eye(3)), np.zeros(3))


def test_spatial_information_is_the_divergence_of_densities_from_their_mean():
    expected = []
    for field, known in zip(FIELD, KNOWN, strict=True):
        mean = field[known].mean(axis=0)
        expected.append(scipy.stats.entropy(field[known], mean, axis=-1).mean())
    close(spatial(FIELD), expected)
    shares = FIELD.sum((1, 2)) / KNOWN.sum((1, 2))[:, None]
    close(normalised(FIELD), expected / scipy.stats.entropy(shares, axis=-1))


def test_spatial_information_of_one_class_is_zero_and_of_two_halves_is_full():
    for field, full in [(np.eye(2)[np.zeros_like(HALF)], 0), (np.eye(2)[HALF], 1)]:
        close(spatial(field), full * np.log(2))
        close(normalised(field), full)


def test_random_labels_have_no_spatial_information_beyond_the_bias():
    labels = (RNG.random((16, SIDE, SIDE)) < 0.3).astype(np.uint8)
    pixels = effective_pixels(HALF)
    bias = information.spatial_information_bias([0.7, 0.3], pixels)
    found = np.asarray(spatial(local(labels)))
    # Next orders are 1/n of the first; n is 200 within the image, 50 in its corners.
    error = 5 * found.std(ddof=1) / np.sqrt(len(found))
    assert abs(found.mean() - bias) < error + bias / 25
    assert bias < 0.02 * spatial(local(DISK))


def test_bias_counts_classes_that_occur_and_pixels_that_are_seen():
    pixels = np.array([[10.0, 0.0, 40.0]])
    bias = information.spatial_information_bias([0.5, 0.0, 0.5], pixels)
    close(bias, (1 / 20 + 1 / 80) / 2)
    close(information.spatial_information_bias([1.0, 0.0], pixels), 0)


@pytest.mark.parametrize("name", ["symmetric", "pair", "sampling", "merged", "random"])
def test_spatial_information_never_grows_under_further_noise(name):
    matrix = np.asarray(MATRICES[name])
    once, twice = FIELD @ matrix, FIELD @ matrix @ matrix
    assert (spatial(once) <= spatial(FIELD) + 1e-6).all()
    assert (spatial(twice) <= spatial(once) + 1e-6).all()


def test_spatial_information_falls_with_the_rate_of_flips():
    rates = jnp.array([0, 0.1, 0.2, 0.3, 0.4, 0.5])

    @jax.jit
    @jax.vmap
    def of_flipped(rate):
        noisy = noise.flip(jax.random.key(0), DISK, rate=rate)
        return information.spatial_information(local(noisy))

    assert (np.diff(of_flipped(rates)) < 0).all()


def mutual_information(joint):
    """Double sum over the cells of a table that sums to 1."""
    total = 0.0
    for i, row in enumerate(joint):
        for j, cell in enumerate(row):
            if cell > 0:
                total += cell * np.log(cell / joint[i].sum() / joint[:, j].sum())
    return total


@pytest.mark.parametrize("matrix", MATRICES.values(), ids=MATRICES)
def test_semantic_information_is_the_double_sum(matrix):
    joint = PRIOR[:, None] * np.asarray(matrix, np.float64)
    left = joint.sum()
    close(semantic(matrix, PRIOR), left * mutual_information(joint / left))


def test_semantic_information_of_flips_is_that_of_the_symmetric_channel():
    for rate in (0.0, 0.1, 0.4, 0.5, 0.9):
        expected = np.log(2) - scipy.stats.entropy([rate, 1 - rate])
        close(semantic(ntm.symmetric(2, rate), [0.5, 0.5]), expected)
    close(information.semantic_information(ntm.symmetric(2, 0.5), 0.3), 0)


@pytest.mark.parametrize("first", MATRICES.values(), ids=MATRICES)
def test_semantic_information_never_grows_under_further_noise(first):
    whole = scipy.stats.entropy(PRIOR)
    assert semantic(first, PRIOR) <= whole + 1e-6
    for second in MATRICES.values():
        both = ntm.compose(first, second)
        assert semantic(both, PRIOR) <= semantic(first, PRIOR) + 1e-6
        assert semantic(both, PRIOR) <= semantic(second, PRIOR @ first) + 1e-6


def test_semantic_information_is_full_at_the_identity_and_none_at_rank_one():
    close(semantic(np.eye(3), PRIOR), scipy.stats.entropy(PRIOR))
    close(semantic(np.eye(3)[[1, 2, 0]], PRIOR), scipy.stats.entropy(PRIOR))
    close(semantic(ntm.uniform(3, PRIOR), PRIOR), 0)


def test_cross_entropy_on_noisy_labels_is_least_at_the_mixed_posterior():
    posterior, matrix = np.array([0.7, 0.2, 0.1]), np.asarray(ntm.pair(3, 0.3))
    noisy = posterior @ matrix
    guesses = np.vstack([noisy, RNG.dirichlet(np.ones(3), size=5000)])
    # The mean over clean classes and what the noise makes of them.
    losses = -np.einsum("i,ij,gj->g", posterior, matrix, np.log(guesses))
    assert losses.argmin() == 0
    close(losses[0], scipy.stats.entropy(noisy))
    close(ntm.decode(noisy, matrix), posterior)


def test_effective_labels_of_flips_near_one_half():
    for rate in (0.0, 0.1, 0.4, 0.49, 0.9):
        worth = effective_labels(ntm.symmetric(2, rate))
        close(worth.mean, (1 - 2 * rate) ** 2)
        close(worth.worst, (1 - 2 * rate) ** 2)


@pytest.mark.parametrize("matrix", [ntm.binary(0.3, 0.1), ntm.sampling(2, 0.1)])
@pytest.mark.parametrize("share", [0.2, 0.5])
def test_effective_labels_are_the_ratio_of_fisher_information(matrix, share):
    """Of one label about the foreground's share, by numerical differentiation."""

    def fisher(channel, step=1e-3):
        def log_likelihoods(p):
            return np.log(np.array([1 - p, p]) @ channel)

        slope = (log_likelihoods(share + step) - log_likelihoods(share - step)) / 2
        return np.exp(log_likelihoods(share)) @ (slope / step) ** 2

    expected = fisher(np.asarray(matrix, np.float64)) / fisher(np.eye(2))
    close(effective_labels(matrix, [1 - share, share]).mean, expected, atol=1e-4)
    close(information.effective_labels(matrix, share).worst, expected, atol=1e-4)


@pytest.mark.parametrize("matrix", MATRICES.values(), ids=MATRICES)
def test_effective_labels_span_the_fisher_information_of_all_directions(matrix):
    """Generalised eigenvalues, from the conditional distribution of labels left."""
    matrix = np.asarray(matrix, np.float64)
    left = PRIOR @ matrix @ np.ones(3)
    shares = PRIOR @ matrix / left
    directions = np.array([[1, -1, 0], [0, 1, -1]])
    slope = directions @ matrix
    slope = (slope - slope.sum(1, keepdims=True) * shares) / left
    seen = shares > 0
    noisy = left * (slope[:, seen] / shares[seen]) @ slope[:, seen].T
    clean = (directions / PRIOR) @ directions.T
    expected = scipy.linalg.eigh(noisy, clean, eigvals_only=True)
    worth = effective_labels(matrix, PRIOR)
    close(worth.mean, expected.mean(), 1e-5)
    close(worth.worst, max(expected.min(), 0), 1e-5)


@pytest.mark.parametrize("unseen", [0, 1, 2])
def test_classes_with_a_share_of_zero_do_not_count_in_effective_labels(unseen):
    prior = np.insert([0.3, 0.7], unseen, 0)
    seen = np.flatnonzero(prior)
    matrix = np.random.default_rng(unseen).dirichlet(np.ones(3), size=3)
    # Fisher information about the one share that is left, of the labels and of clean.
    slope = matrix[seen[1]] - matrix[seen[0]]
    expected = np.sum(slope**2 / (prior @ matrix)) / (1 / 0.3 + 1 / 0.7)
    for measure in (information.effective_labels, effective_labels):
        close(measure(matrix, prior), (expected, expected))
        close(measure(np.eye(3), prior), (1, 1))
        close(measure(np.eye(3), np.eye(3)[unseen]), (0, 0))


def test_effective_labels_of_sampling_to_void_are_the_fraction():
    worth = effective_labels(0.1 * np.eye(4))
    close([worth.mean, worth.worst], [0.1, 0.1])


def test_effective_labels_are_all_at_the_identity_and_none_of_merged_classes():
    close(effective_labels(np.eye(3), PRIOR), (1, 1))
    merged = effective_labels(MATRICES["merged"], PRIOR)
    close(merged.worst, 0)
    assert merged.mean > 0.4
    close(effective_labels(MATRICES["random"], PRIOR), (0, 0))


def test_divergences_are_what_numpy_computes():
    def mean(each):
        return [value[known].mean() for value, known in zip(each, KNOWN, strict=True)]

    p, q = np.where(KNOWN[..., None], FIELD, 1 / 3), OTHER
    middle = (p + q) / 2
    kl = partial(scipy.stats.entropy, axis=-1)
    expected = {
        "kl": kl(p, q),
        "js": (kl(p, middle) + kl(q, middle)) / 2,
        "tv": abs(p - q).sum(-1) / 2,
        "hellinger": np.sqrt(1 - np.minimum(np.sqrt(p * q).sum(-1), 1)),
    }
    for kind, each in expected.items():
        close(divergence(FIELD, OTHER, kind=kind), mean(each), 1e-5)


def test_divergences_are_bounded_symmetric_and_zero_of_the_same():
    left, right = np.eye(2)[np.zeros((2, 3), int)], np.eye(2)[np.ones((2, 3), int)]
    largest = {"kl": np.inf, "js": np.log(2), "tv": 1, "hellinger": 1}
    for kind in information.DIVERGENCES:
        close(divergence(left, right, kind=kind), largest[kind])
        close(divergence(FIELD, FIELD, kind=kind), 0)
        if kind != "kl":
            there = divergence(FIELD, OTHER, kind=kind)
            close(there, divergence(OTHER, FIELD, kind=kind))


KEYS = jax.random.split(jax.random.key(3), 4)


def profile(clean, noisy):
    """Of as many maps as there are keys, so that it compiles once."""
    shape = (len(KEYS), SIDE, SIDE)
    return boundary_profile(*(np.broadcast_to(x, shape) for x in (clean, noisy)))


def noisy_profile(fn, clean=HALF):
    return profile(clean, jax.jit(jax.vmap(lambda key: fn(key, clean)))(KEYS))


@pytest.mark.parametrize("labels", [HALF, DISK], ids=["half plane", "disk"])
def test_the_profile_of_clean_labels_is_a_step_at_the_exact_distance(labels):
    found = profile(labels, labels)
    expected = np.zeros((2, 17, 2), int)
    for class_id in range(2):
        inside = ndi.distance_transform_edt(labels == class_id)
        outside = ndi.distance_transform_edt(labels != class_id)
        signed = np.where(labels == class_id, -inside, outside - 1).round().astype(int)
        near = abs(signed) <= 8
        np.add.at(expected[class_id], (signed[near] + 8, labels[near]), 1)
    np.testing.assert_array_equal(found.counts, len(KEYS) * expected)
    np.testing.assert_array_equal(found.distance, np.arange(-8, 9))
    close(found.share, np.broadcast_to(found.distance < 0, (2, 17)))


def test_the_profile_of_flips_is_the_step_scaled_and_offset():
    matrix = np.array([[0.9, 0.1], [0.3, 0.7]])
    found = noisy_profile(partial(noise.transition, matrix=matrix))
    for class_id in range(2):
        stays, turns = matrix[class_id, class_id], matrix[1 - class_id, class_id]
        expected = np.where(found.distance < 0, stays, turns)
        count = found.counts[class_id].sum(-1)
        bound = 5 * np.sqrt(expected * (1 - expected) / count)
        assert (abs(found.share[class_id] - expected) < bound).all()


def test_the_profile_of_dilation_is_the_step_displaced():
    found = noisy_profile(partial(noise.dilate, radius=3))
    close(found.share[1], found.distance < 3)
    close(found.share[0], found.distance < -3)


def test_the_profile_of_random_labels_is_flat():
    found = noisy_profile(partial(noise.random, prior=0.3), DISK)
    for class_id, share in enumerate((0.7, 0.3)):
        bound = 5 * np.sqrt(0.21 / found.counts[class_id].sum(-1))
        assert (abs(found.share[class_id] - share) < bound).all()


def test_the_profile_leaves_out_void_and_takes_it_for_no_boundary():
    clean, noisy = HALF.copy(), HALF.copy()
    clean[:, 40:50] = VOID
    noisy[::2] = VOID
    found = profile(clean, noisy).counts
    # Columns 32..39 are of class 1, at -1..-8; nothing else of it is near.
    expected = np.zeros((17, 2), int)
    expected[:8, 1] = expected[8:16, 0] = SIDE // 2
    expected[16, 0] = SIDE // 2
    np.testing.assert_array_equal(found[1], len(KEYS) * expected)


def test_the_profile_of_an_absent_class_is_empty():
    found = profile(np.zeros_like(HALF), HALF)
    assert not found.counts.any()  # nor has the only class a boundary
    assert np.isnan(found.share).all()


def test_describe_says_what_is_lost():
    names = ("road", "car", "tree")
    say = partial(information.describe, class_names=names)
    assert say(ntm.symmetric(3, 0.4)) == "all 3 classes can be told apart (rank 3)"
    lost = "no class can be told from another (rank 1 of 3)"
    assert say(ntm.uniform(3)) == lost
    merged = "road and tree are no longer distinguishable (rank 2 of 3)"
    assert say(ntm.sampling(3, 0.0, classes=(2,))) == merged
    # Rows in proportion: only how much is labelled differs.
    assert say([[0.6, 0.2, 0], [0, 0, 0.9], [0.3, 0.1, 0]]) == merged
    left = "car is left without labels (rank 2 of 3)"
    assert say(ntm.sampling(3, 0.0, classes=(1,), fill=VOID)) == left
    mixed = "some mixtures of classes look like others (rank 2 of 3)"
    assert say([[1, 0, 0], [0, 1, 0], [0.5, 0.5, 0]]) == mixed
    both = information.describe(np.eye(6)[[0, 1, 2, 2, 3, 3]])
    assert both == (
        "class 2 and class 3 are no longer distinguishable; "
        "class 4 and class 5 are no longer distinguishable (rank 4 of 6)"
    )


INVALID = [
    (
        lambda: information.divergence(FIELD, OTHER, kind="l2"),
        "kind: got 'l2', expected one of kl, js, tv, hellinger",
    ),
    (lambda: information.semantic_information(np.eye(3), [0.5, 0.5]), "prior: got .*"),
    (lambda: information.semantic_information(np.eye(2), [0.5, 0.2]), "prior: sums .*"),
    (
        lambda: information.effective_labels(np.ones((2, 3))),
        r"matrix: got shape \(2, 3\), expected K x K numbers",
    ),
    (lambda: information.describe(np.ones(3)), r"matrix: got shape \(3,\), .*"),
    (
        lambda: information.describe(np.eye(3), class_names=("a", "b")),
        "class_names: got 2, expected 3",
    ),
    (
        lambda: information.effective_labels([[1]]),
        r"matrix: got shape \(1, 1\), expected K x K numbers, K > 1",
    ),
    (
        lambda: information.divergence(FIELD, OTHER[:1]),
        r"q: got shape \(1, .*\), expected \(.*\), as p",
    ),
    (
        lambda: information.spatial_information(FIELD[0, 0]),
        r"density: got shape \(.*\), expected \[..., H, W, K\]",
    ),
    (
        lambda: information.boundary_profile(HALF, HALF + 1, 2),
        r"noisy: class id 2, expected 0..1 or 255 \(void\)",
    ),
    (lambda: information.boundary_profile(HALF, HALF, 1), "num_classes: got 1, .*"),
    (
        lambda: information.boundary_profile(HALF, HALF, 2, max_distance=0),
        "max_distance: got 0, .*",
    ),
    (
        lambda: information.boundary_profile(1.0 * HALF, HALF, 2),
        "clean: got dtype float64, .*",
    ),
    (
        lambda: information.boundary_profile(HALF, HALF[:5], 2),
        r"noisy: got shape \(5, 64\), expected \(64, 64\), as clean",
    ),
]


def test_void_of_any_number_does_not_count_in_a_boundary_profile():
    marked = np.where(HALF == 0, 255, HALF).astype(np.int32)
    marked[:, ::3] = 0
    expected = information.boundary_profile(marked, HALF, 2)
    negative = np.where(marked == 255, -1, marked)
    found = information.boundary_profile(negative, HALF, 2)
    np.testing.assert_array_equal(found.counts, expected.counts)
    # Traced, an id that is no class counts as void too.
    other = np.where(marked == 255, 7, marked)
    near = jax.jit(partial(information.boundary_profile, num_classes=2))(other, HALF)
    np.testing.assert_array_equal(near.counts, expected.counts)


@pytest.mark.parametrize(("call", "message"), INVALID)
def test_an_invalid_parameter_is_named_in_one_line(call, message):
    with pytest.raises(InputError, match=f"^{message}$"):
        call()
