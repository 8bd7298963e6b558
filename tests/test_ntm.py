import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from metaseg import decoding, density, information, noise, ntm
from metaseg.errors import InputError
from metaseg.labels import VOID

# Compiled as a whole, which is quicker than operation by operation.
joint_counts = jax.jit(ntm.joint_counts, static_argnums=2)
from_counts = jax.jit(ntm.from_counts)
from_scores = jax.jit(ntm.estimate_from_scores, static_argnames="unmix")


def close(actual, expected, atol=1e-6):
    np.testing.assert_allclose(actual, expected, atol=atol)


def test_symmetric_spreads_the_rate_over_the_other_classes():
    close(ntm.symmetric(3, 0.4), [[0.6, 0.2, 0.2], [0.2, 0.6, 0.2], [0.2, 0.2, 0.6]])
    close(ntm.symmetric(2, [0.1, 0.3]), [[0.9, 0.1], [0.3, 0.7]])


def test_pair_flips_to_the_next_class():
    close(ntm.pair(3, 0.4), [[0.6, 0.4, 0], [0, 0.6, 0.4], [0.4, 0, 0.6]])
    close(ntm.pair(3, [0, 0.5, 1]), [[1, 0, 0], [0, 0.5, 0.5], [1, 0, 0]])


def test_binary_takes_the_flip_rate_of_each_class():
    close(ntm.binary(foreground=0.3, background=0.1), [[0.9, 0.1], [0.3, 0.7]])


def test_sampling_moves_what_is_not_kept_to_fill():
    close(ntm.sampling(3, 0.1), [[1, 0, 0], [0.9, 0.1, 0], [0.9, 0, 0.1]])
    close(ntm.sampling(2, 0.1, classes=(0,), fill=1), [[0.1, 0.9], [0, 1]])
    close(
        ntm.sampling(3, (0.2, 0.5), classes=(2, 0), fill=0),
        [[1, 0, 0], [0, 1, 0], [0.8, 0, 0.2]],
    )


def test_sampling_to_void_is_diagonal_and_sub_stochastic():
    close(ntm.sampling(3, 0.1, fill=VOID), np.diag([1, 0.1, 0.1]))


def test_block_flips_within_super_classes_only():
    matrix = ntm.block(5, ((0, 3, 4), (1,)), (0.2, 0.9, 0.9, 0.4, 1.0))
    expected = [
        [0.8, 0, 0, 0.1, 0.1],
        [0, 1, 0, 0, 0],  # alone in its group
        [0, 0, 1, 0, 0],  # in no group
        [0.2, 0, 0, 0.6, 0.2],
        [0.5, 0, 0, 0.5, 0],
    ]
    close(matrix, expected)
    close(ntm.block(4, [range(4)], 0.3), ntm.symmetric(4, 0.3))


def test_uniform_has_equal_rows():
    close(ntm.uniform(4), np.full((4, 4), 0.25))
    close(ntm.uniform(2, 0.3), [[0.7, 0.3]] * 2)
    close(ntm.uniform(3, (0.2, 0.5, 0.3)), [[0.2, 0.5, 0.3]] * 3)


def test_compose_applies_first_then_second():
    first, second = ntm.pair(3, 0.4), ntm.sampling(3, 0.3)
    close(ntm.compose(first, second), np.asarray(first) @ np.asarray(second))


BUILDERS = {
    "symmetric": lambda rate: ntm.symmetric(4, rate),
    "pair": lambda rate: ntm.pair(4, rate),
    "block": lambda rate: ntm.block(4, ((0, 2), (1, 3)), rate),
    "binary": lambda rate: ntm.binary(rate, rate / 2),
    "sampling": lambda rate: ntm.sampling(4, rate, classes=(1, 3)),
    "uniform": lambda rate: ntm.uniform(2, rate),
}


@pytest.mark.parametrize("builder", BUILDERS.values(), ids=BUILDERS)
def test_builders_take_traced_rates_and_give_stochastic_rows(builder):
    matrices = jax.jit(jax.vmap(builder))(jnp.linspace(0, 1, 5))
    assert matrices.dtype == jnp.float32
    assert (matrices >= 0).all()
    close(matrices.sum(-1), np.ones(matrices.shape[:-1]))
    close(matrices[2], builder(0.5))


@pytest.mark.parametrize(
    "matrix",
    [
        ntm.symmetric(2, 0.4),
        ntm.symmetric(2, 0.9),
        ntm.sampling(2, 0.1),
        ntm.sampling(2, 0.1, fill=VOID),
        ntm.binary(0.8, 0.45),
        ntm.sampling(3, 0.3, fill=VOID),
        ntm.pair(4, 0.3),
    ],
)
def test_decode_undoes_the_matrix(matrix):
    num_classes = matrix.shape[0]
    clean = np.random.default_rng(0).dirichlet(np.ones(num_classes), size=(5, 7))
    noisy = clean @ np.asarray(matrix, np.float64)
    close(ntm.decode(noisy, matrix), clean, atol=1e-5)
    seen = noisy / noisy.sum(-1, keepdims=True)
    decoded = ntm.decode(seen, matrix)
    np.testing.assert_array_equal(decoded.argmax(-1), clean.argmax(-1))


def test_decode_scores_classes_alike_that_a_singular_matrix_merges():
    scores = ntm.decode(jnp.array([0.3, 0.7]), ntm.uniform(2, 0.6))
    close(scores[0], scores[1])


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("sub_stochastic", [False, True])
def test_threshold_cuts_where_decoding_changes_class(seed, sub_stochastic):
    rng = np.random.default_rng(seed)
    matrix = rng.dirichlet(np.ones(2), size=2)
    if sub_stochastic:
        matrix *= rng.uniform(0.1, 1, size=(2, 1))
    score = np.linspace(0, 1, 1001)
    cut, inverted = ntm.threshold(matrix)
    away = np.abs(score - cut) > 1e-5
    foreground = score < cut if inverted else score > cut
    decoded = np.stack([1 - score, score], -1) @ np.linalg.inv(matrix)
    np.testing.assert_array_equal(foreground[away], decoded.argmax(-1)[away] == 1)


@pytest.mark.parametrize(
    ("matrix", "cut", "inverted"),
    [
        (ntm.symmetric(2, 0.4), 0.5, False),
        (ntm.symmetric(2, 0.9), 0.5, True),
        (ntm.sampling(2, 0.1), 0.05, False),
        (ntm.sampling(2, 0.1, fill=VOID), 1 / 11, False),
        (ntm.uniform(2, 0.3), 0.3, False),
    ],
)
def test_threshold_of_known_noises(matrix, cut, inverted):
    for threshold in (ntm.threshold, jax.jit(ntm.threshold)):
        got_cut, got_inverted = threshold(matrix)
        close(got_cut, cut)
        assert bool(got_inverted) is inverted


def test_rank_counts_what_the_matrix_tells_apart():
    assert ntm.rank(ntm.symmetric(5, 0.4)) == 5
    assert ntm.rank(ntm.symmetric(5, 0.8)) == 1
    assert ntm.rank(ntm.uniform(5)) == 1
    assert ntm.rank(ntm.sampling(5, 0.0, classes=(2, 3))) == 3
    assert ntm.rank(jnp.diag(jnp.array([1.0, 1e-3])), tol=1e-2) == 1
    assert ntm.rank(ntm.uniform(255)) == 1
    np.testing.assert_array_equal(
        ntm.rank(jnp.stack([jnp.eye(3), jnp.ones((3, 3)) / 3])), [3, 1]
    )


@pytest.mark.parametrize("num_classes", [2, 5, 19])
def test_singular_values_and_condition_number_are_those_of_numpy(num_classes):
    rows = np.random.default_rng(0).dirichlet(np.ones(num_classes), size=num_classes)
    matrix = rows.astype(np.float32)
    values = np.linalg.svd(np.float64(matrix), compute_uv=False)
    # float32 moves a singular value by about its precision times the largest
    atol = 4 * num_classes * np.finfo(np.float32).eps * values[0]
    close(ntm.singular_values(matrix), values, atol=atol)
    number = jax.jit(ntm.condition_number)(matrix)
    assert number.dtype == jnp.float32
    np.testing.assert_allclose(
        number, values[0] / values[-1], rtol=2 * atol / values[-1]
    )


def test_condition_number_is_infinite_where_rank_is_below_k():
    matrices = [ntm.symmetric(4, r) for r in (0.0, 0.4, 0.75, 1.0)] + [ntm.uniform(4)]
    numbers = [float(ntm.condition_number(matrix)) for matrix in matrices]
    # symmetric flips have one singular value 1, the others |1 - r K / (K - 1)|
    np.testing.assert_allclose(numbers, [1, 1 / (1 - 1.6 / 3), np.inf, 3, np.inf], 1e-5)
    assert ntm.condition_number(jnp.diag(jnp.array([1.0, 1e-3])), tol=1e-2) == np.inf


def test_estimate_is_the_row_normalised_joint_histogram():
    rng = np.random.default_rng(0)
    clean = rng.choice([0, 1, 3, VOID], size=(2, 9, 11)).astype(np.uint8)
    noisy = rng.choice([0, 1, 2, 3, VOID], size=(2, 9, 11)).astype(np.uint8)
    counts = np.zeros((4, 4), int)
    for i, j in zip(clean.ravel(), noisy.ravel(), strict=True):
        if VOID not in (i, j):
            counts[i, j] += 1
    np.testing.assert_array_equal(joint_counts(clean, noisy, 4), counts)
    expected = np.eye(4)  # class 2 has no clean pixel
    for i in (0, 1, 3):
        expected[i] = counts[i] / counts[i].sum()
    close(jax.jit(ntm.estimate, static_argnums=2)(clean, noisy, 4), expected)


def test_joint_counts_leave_out_ids_that_are_no_class():
    clean, noisy = np.array([0, 0, -1, 1, 1]), np.array([1, -1, 0, 3, 1])
    np.testing.assert_array_equal(joint_counts(clean, noisy, 2), [[0, 1], [0, 1]])


@settings(deadline=None, max_examples=15, derandomize=True)
@given(
    trials=st.integers(1, 10**9),
    share=st.floats(0, 1),
    confidence=st.floats(0.5, 1 - 2**-13, width=32),
)
def test_intervals_are_wilsons(trials, share, confidence):
    hits = round(share * trials)
    counts = np.array([[hits, trials - hits], [0, 0]])
    estimate = from_counts(counts, confidence=confidence)
    for column, k in enumerate(counts[0]):
        interval = scipy.stats.binomtest(int(k), trials).proportion_ci(
            confidence, method="wilson"
        )
        close(estimate.matrix[0, column], k / trials, atol=2e-7)
        close(estimate.low[0, column], interval.low, atol=2e-6)
        close(estimate.high[0, column], interval.high, atol=2e-6)
    assert (estimate.low <= estimate.matrix).all()
    assert (estimate.matrix <= estimate.high).all()
    close(estimate.low[1], [0, 0])  # a class without pixels
    close(estimate.high[1], [1, 1])


def test_intervals_of_rare_flips_keep_their_relative_precision():
    counts = np.array([[10**9, 7], [0, 10**9]])
    estimate = from_counts(counts)
    for k in (7, 0):
        interval = scipy.stats.binomtest(k, 10**9).proportion_ci(method="wilson")
        row = 0 if k else 1
        np.testing.assert_allclose(estimate.low[row, 1 - row], interval.low, 1e-5)
        np.testing.assert_allclose(estimate.high[row, 1 - row], interval.high, 1e-5)


def test_from_counts_takes_sums_of_batches_and_stacks_of_matrices():
    rng = np.random.default_rng(0)
    clean, noisy = rng.choice([0, 1, VOID], size=(2, 3, 8, 8)).astype(np.uint8)
    single = jax.vmap(lambda c, n: joint_counts(c, n, 2))(clean, noisy)
    pooled = from_counts(single.sum(axis=0))
    np.testing.assert_array_equal(pooled.counts, joint_counts(clean, noisy, 2))
    close(pooled.matrix, pooled.counts / np.sum(pooled.counts, axis=1, keepdims=True))
    stacked = from_counts(single)
    for index, counts in enumerate(np.asarray(single)):
        for part, expected in zip(stacked, from_counts(counts), strict=True):
            close(np.asarray(part)[index], expected)


def covered(num_pixels, probability, confidence):
    """P(the interval holds `probability`), exactly: a sum over the binomial law."""
    hits = np.arange(num_pixels + 1)
    z = scipy.stats.norm.ppf((1 + confidence) / 2)
    spread = z * np.sqrt(num_pixels * probability * (1 - probability))
    inside = np.abs(hits - num_pixels * probability) <= spread + 1e-9
    return scipy.stats.binom.pmf(hits, num_pixels, probability)[inside].sum()


@pytest.mark.parametrize("confidence", [0.8, 0.95])
@pytest.mark.parametrize(
    "matrix",
    [ntm.binary(0.3, 0.1), ntm.pair(5, 0.4), ntm.symmetric(5, 0.9), ntm.uniform(2)],
    ids=["binary", "pair", "symmetric", "uniform"],
)
def test_intervals_hold_the_matrix_as_often_as_they_say(matrix, confidence):
    repetitions, pixels = 400, 150  # pixels of each class
    rng = np.random.default_rng(0)
    matrix = np.asarray(matrix, np.float64)
    num_classes = len(matrix)
    clean = np.repeat(np.arange(num_classes), pixels)
    uniform = rng.random((repetitions, clean.size, 1))
    noisy = (uniform > matrix.cumsum(axis=1)[clean][..., :-1]).sum(axis=-1)
    counts = np.stack([joint_counts(clean, each, num_classes) for each in noisy])
    estimate = from_counts(counts, confidence=confidence)
    close(estimate.matrix.sum(axis=-1), np.ones((repetitions, num_classes)))
    inside = (estimate.low <= matrix + 1e-7) & (matrix - 1e-7 <= estimate.high)
    times = np.asarray(inside).sum(axis=0)
    exact = np.vectorize(covered)(pixels, matrix, confidence)
    # Wilson's coverage is not the nominal one, but at 150 pixels within 0.03 of it
    # (and 1 for an entry that is 0 or 1); each entry is held to its exact coverage,
    # with a false alarm once in 10^5 entries.
    assert (np.abs(exact - confidence)[(matrix > 0) & (matrix < 1)] < 0.03).all()
    assert (times >= scipy.stats.binom.ppf(0.5e-5, repetitions, exact)).all()
    assert (times <= scipy.stats.binom.isf(0.5e-5, repetitions, exact)).all()


MATRICES = [
    ntm.binary(0.3, 0.1),
    ntm.symmetric(2, 0.9),
    ntm.block(5, ((0, 1), (2, 3, 4)), 0.3),
    ntm.sampling(4, 0.2),
]


@pytest.mark.parametrize("unmix", [False, True])
@pytest.mark.parametrize("matrix", MATRICES)
def test_scores_of_a_certain_model_give_the_matrix_and_decode_to_clean(matrix, unmix):
    num_classes = len(matrix)
    rng = np.random.default_rng(0)
    clean = rng.choice([*range(num_classes), VOID], size=(3, 16, 20)).astype(np.uint8)
    one_hot = np.eye(num_classes)[np.where(clean == VOID, 0, clean)]
    scores = np.where((clean == VOID)[..., None], np.nan, one_hot @ np.asarray(matrix))
    estimated = from_scores(scores, clean, unmix=unmix)
    assert estimated.dtype == jnp.float32
    close(estimated, matrix, atol=1e-5)
    decoded = np.asarray(ntm.decode(scores, estimated))
    close(decoded[clean != VOID], one_hot[clean != VOID], atol=1e-4)


def uncertain(matrix, seed=0):
    """Posteriors, scores and clean labels that follow the posteriors exactly.

    Places repeat 12 times, and among the repeats of a place each class is as frequent
    as its posterior says.
    """
    num_classes = len(matrix)
    rng = np.random.default_rng(seed)
    share = rng.dirichlet(np.full(num_classes, 0.5), size=64)
    frequency = np.stack([rng.multinomial(12, row) for row in share])
    clean = [np.repeat(np.arange(num_classes), row) for row in frequency]
    posterior = np.repeat(frequency[:, None] / 12, 12, axis=1)
    return posterior, posterior @ np.asarray(matrix, np.float64), np.stack(clean)


@pytest.mark.parametrize("matrix", MATRICES)
def test_uncertain_pixels_mix_rows_and_unmix_undoes_it(matrix):
    posterior, scores, clean = uncertain(matrix)
    mixing = np.stack([posterior[clean == k].mean(axis=0) for k in range(len(matrix))])
    mixed = from_scores(scores, clean)
    close(mixed, mixing @ np.asarray(matrix), atol=1e-5)
    assert np.abs(mixed - matrix).max() > 0.1
    close(from_scores(scores, clean, unmix=True), matrix, atol=1e-4)


@pytest.mark.parametrize("unmix", [False, True])
def test_score_sums_of_batches_add_up(unmix):
    _, scores, clean = uncertain(ntm.symmetric(3, 0.4))
    parts = [ntm.score_sums(scores[i::4], clean[i::4]) for i in range(4)]
    added = jax.tree.map(lambda *leaves: sum(leaves), *parts)
    estimated = ntm.from_score_sums(added, unmix=unmix)
    close(estimated, from_scores(scores, clean, unmix=unmix), atol=1e-5)


def test_scores_give_a_class_without_pixels_the_identitys_row():
    matrix = np.asarray(ntm.symmetric(3, 0.4))
    posterior, _, clean = uncertain(np.eye(2))
    scores = posterior @ matrix[:2]
    estimated = from_scores(scores, clean, unmix=True)
    close(estimated, [*matrix[:2], (0, 0, 1)], atol=1e-4)
    close(from_scores(scores, clean)[2], (0, 0, 1))


@settings(deadline=None, max_examples=15, derandomize=True)
@given(
    concentration=st.floats(0.01, 100),
    unmix=st.booleans(),
    seed=st.integers(0, 2**32 - 1),
)
def test_estimates_from_any_scores_are_stochastic(concentration, unmix, seed):
    rng, shape = np.random.default_rng(seed), (2, 4, 6)
    scores = rng.dirichlet(np.full(5, concentration), size=shape)
    clean = rng.choice([0, 1, 2, 3, 4, VOID], size=shape).astype(np.uint8)
    half = scores.astype(jnp.bfloat16)
    matrix = np.asarray(from_scores(half, clean, unmix=unmix))
    assert (matrix >= 0).all()
    close(matrix.sum(axis=-1), np.ones(5), atol=1e-5)


INVALID = [
    (
        lambda: ntm.symmetric(1, 0.1),
        "num_classes: got 1, expected an integer in 2..255",
    ),
    (lambda: ntm.pair(2.0, 0.1), "num_classes: got 2.0, expected an integer in 2..255"),
    (lambda: ntm.estimate([0], [0], 256), "num_classes: got 256, expected an .*"),
    (lambda: ntm.symmetric(2, 1.2), r"rate: got 1.2, expected values in \[0, 1\]"),
    (
        lambda: ntm.pair(2, (0.1, np.nan)),
        r"rate: got .*nan\), expected values in \[0, 1\]",
    ),
    (lambda: ntm.pair(3, (0.1, 0.2)), r"rate: got \(0.1, 0.2\), expected a .* 3 of .*"),
    (lambda: ntm.pair(3, "a lot"), "rate: got 'a lot', expected a number or 3 .*"),
    (lambda: ntm.binary(0.1, -1), r"background: got -1, expected a .* in \[0, 1\]"),
    (lambda: ntm.binary((0.1, 0.2), 0), "foreground: got .*, expected a number .*"),
    (lambda: ntm.sampling(3, 2), r"fraction: got 2, expected values in \[0, 1\]"),
    (lambda: ntm.sampling(3, (1, 1, 1)), "fraction: got .*, expected .* 2 of them .*"),
    (
        lambda: ntm.sampling(3, 1, classes=(1, 3)),
        r"classes: got \(1, 3\), expected class ids in 0..2",
    ),
    (
        lambda: ntm.sampling(3, 1, classes=(1, 1)),
        r"classes: got \(1, 1\), expected each .*",
    ),
    (
        lambda: ntm.sampling(3, 1, classes=1),
        "classes: got 1, expected class ids in 0..2",
    ),
    (lambda: ntm.sampling(3, 1, fill=3), r"fill: got 3, .* 0..2 or 255 \(void\)"),
    (
        lambda: ntm.block(4, ((0, 4),), 1),
        r"groups: got \(0, 4\), expected class ids in 0..3",
    ),
    (lambda: ntm.block(4, ((0, 1), (1, 2)), 1), "groups: got .*, expected each .*"),
    (lambda: ntm.block(4, (0, 1), 1), "groups: got 0, expected class ids in 0..3"),
    (lambda: ntm.uniform(3, (0.5, 0.2, 0.2)), "prior: sums to 0.9, expected 1"),
    (lambda: ntm.uniform(3, 0.5), "prior: got 0.5, expected 3 values, one per class"),
    (
        lambda: ntm.compose(np.eye(2), np.eye(3)),
        r"second: got shape \(3, 3\), expected .*",
    ),
    (lambda: ntm.compose(np.ones((2, 3)), np.eye(3)), r"first: got shape \(2, 3\), .*"),
    (lambda: ntm.decode([1, 0, 0], np.eye(2)), r"probabilities: got shape \(3,\), .*"),
    (lambda: ntm.decode([1, 0], [[1, 0], [1]]), "matrix: got .*, .* K x K numbers"),
    (
        lambda: ntm.threshold(np.eye(3)),
        r"matrix: got shape \(3, 3\), expected 2 x 2 .*",
    ),
    (lambda: ntm.rank(np.ones(3)), r"matrix: got shape \(3,\), expected K x K numbers"),
    (lambda: ntm.rank(np.eye(3), tol=-1), "tol: got -1, expected a number >= 0"),
    (lambda: ntm.condition_number(np.ones((2, 3))), r"matrix: got shape \(2, 3\), .*"),
    (
        lambda: ntm.joint_counts([0], [[0]], 2),
        r"noisy: got shape \(1, 1\), .*, as clean",
    ),
    (
        lambda: ntm.joint_counts([0, 2], [0, 1], 2),
        r"clean: class id 2, expected 0..1 or 255 \(void\)",
    ),
    (
        lambda: ntm.estimate([[0] * 6] * 4, [[0] * 4] * 6, 2),
        r"noisy: got shape \(6, 4\), expected \(4, 6\), as clean",
    ),
    (
        lambda: ntm.score_sums(np.full((1, 2), 0.5), np.array([7])),
        "clean: class id 7, expected 0..1 or .*",
    ),
    (lambda: ntm.joint_counts([0.0], [0], 2), "clean: got dtype float64, .* class ids"),
    (
        lambda: ntm.from_counts([[1, -2], [0, 1]]),
        r"counts: got -2, expected 0..2\^31.*",
    ),
    (
        lambda: ntm.from_counts(np.eye(2)),
        "counts: got dtype float64, expected integers",
    ),
    (
        lambda: ntm.from_counts(np.eye(2, dtype=int), confidence=1),
        r"confidence: got 1, expected a number in \(0, 1\)",
    ),
    (
        lambda: ntm.estimate_from_scores(np.ones((4, 3)), np.ones(3, int)),
        r"probabilities: got shape \(4, 3\), expected \[..., K\], .* clean",
    ),
    (
        lambda: ntm.estimate_from_scores(np.array([[2.0, 1.5]]), np.array([0])),
        "probabilities: negative or not summing to 1, .*",
    ),
]


@pytest.mark.parametrize(("call", "message"), INVALID)
def test_an_invalid_parameter_is_named_in_one_line(call, message):
    with pytest.raises(InputError, match=f"^{message}$"):
        call()


def test_values_of_traced_parameters_are_not_looked_at():
    counts = np.array([[3, 1], [0, 5]])
    from_counts(counts, confidence=1.5)
    jax.jit(lambda r: ntm.symmetric(2, [r, 0.1]))(1.2)
    jax.jit(lambda p: ntm.uniform(3, p))(jnp.ones(3))
    jax.jit(ntm.rank)(np.eye(2), tol=-1.0)
    slope = jax.grad(lambda rate: ntm.symmetric(2, rate)[0, 1])(0.3)
    close(slope, 1)


def test_validate_accepts_builders_and_nested_tuples():
    ntm.validate(ntm.symmetric(19, 0.3), 19)
    ntm.validate(((0.9, 0.1), (0.25, 0.75)), 2)


@pytest.mark.parametrize(
    ("matrix", "message"),
    [
        (((1, 0),), r"m: got shape \(1, 2\), expected 2 x 2 numbers"),
        (((1, 0), (1,)), r"m: got .*, expected 2 x 2 numbers"),
        ("ab", r"m: got 'ab', expected 2 x 2 numbers"),
        (((1, 0), (0.5, 0.4)), r"m: row 1 sums to 0.9, expected rows to sum to 1"),
        (((1, 0), (float("nan"), 1)), r"m: row 1 holds nan, expected .*"),
        (((1.5, -0.5), (0, 1)), r"m: row 0 holds -0.5, expected .*"),
    ],
)
def test_validate_names_the_row(matrix, message):
    with pytest.raises(InputError, match=f"^{message}$"):
        ntm.validate(matrix, 2, where="m")


def rounded_matrices():
    rows = np.random.default_rng(5).dirichlet(np.ones(7), size=7)
    return {"float16": rows.astype(np.float16), "digits": rows.round(4)}, rows


@pytest.mark.parametrize("how", ["float16", "digits"])
def test_rows_that_were_rounded_are_accepted_and_sum_to_one(how):
    given, exact = rounded_matrices()
    matrix = ntm.as_matrix(given[how], void=False)
    close(matrix.sum(axis=1), np.ones(7))
    close(matrix, exact, atol=4e-4)
    ntm.validate(given[how], 7)
    prior = ntm.as_prior(given[how][0].tolist(), 7)
    close([prior.sum(), np.abs(prior - exact[0]).max()], [1, 0], atol=4e-4)
    close(ntm.uniform(3, (0.3333, 0.3333, 0.3333)), np.full((3, 3), 1 / 3))


def test_rows_that_need_no_rounding_keep_their_bits():
    for matrix in (ntm.symmetric(3, 0.1), ntm.sampling(3, 0.9995, fill=VOID)):
        np.testing.assert_array_equal(ntm.as_matrix(matrix), matrix)
    np.testing.assert_array_equal(
        ntm.as_prior((0.2, 0.0, 0.8)), np.float32([0.2, 0, 0.8])
    )


READERS = {
    "compose": lambda m: ntm.compose(np.eye(2), m),
    "decode": lambda m: ntm.decode(np.array([0.5, 0.5]), m),
    "threshold": ntm.threshold,
    "singular_values": ntm.singular_values,
    "rank": ntm.rank,
    "condition_number": ntm.condition_number,
    "describe": information.describe,
    "effective_labels": information.effective_labels,
    "semantic_information": lambda m: information.semantic_information(m, 0.5),
    "analytic_threshold": decoding.analytic_threshold,
    "predict": lambda m: decoding.predict(np.array([0.5, 0.5]), m),
    "invert": lambda m: density.invert(np.full((1, 1, 2), 0.5), m, pixels=9),
    "transition": lambda m: noise.transition(
        jax.random.key(0), np.zeros((1, 1), int), matrix=m
    ),
    "build": lambda m: noise.build({"name": "transition", "matrix": m}, 2),
}


@pytest.mark.parametrize("read", READERS.values(), ids=READERS)
@pytest.mark.parametrize(
    ("matrix", "problem"),
    [
        (((90, 10), (20, 80)), "row 0 sums to 100, expected rows to sum to"),
        (((1, 0), (1.2, -0.2)), "row 1 holds -0.2, expected probabilities >= 0"),
        (((1, 0), (np.nan, 1)), "row 1 holds nan, expected probabilities >= 0"),
        (((np.inf, 0), (0, 1)), "row 0 holds inf, expected probabilities >= 0"),
    ],
)
def test_what_is_no_transition_matrix_is_named_wherever_one_is_read(
    read, matrix, problem
):
    with pytest.raises(InputError, match=rf"^\S+: {problem}"):
        read(np.array(matrix))
