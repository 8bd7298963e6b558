import jax
import jax.numpy as jnp
import numpy as np
import pytest

from metaseg import ntm
from metaseg.errors import InputError
from metaseg.labels import VOID


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


def test_estimate_is_the_row_normalised_joint_histogram():
    rng = np.random.default_rng(0)
    clean = rng.choice([0, 1, 3, VOID], size=(2, 9, 11)).astype(np.uint8)
    noisy = rng.choice([0, 1, 2, 3, VOID], size=(2, 9, 11)).astype(np.uint8)
    counts = np.zeros((4, 4), int)
    for i, j in zip(clean.ravel(), noisy.ravel(), strict=True):
        if VOID not in (i, j):
            counts[i, j] += 1
    np.testing.assert_array_equal(ntm.joint_counts(clean, noisy, 4), counts)
    expected = np.eye(4)  # class 2 has no clean pixel
    for i in (0, 1, 3):
        expected[i] = counts[i] / counts[i].sum()
    close(jax.jit(ntm.estimate, static_argnums=2)(clean, noisy, 4), expected)


def test_validate_accepts_builders_and_nested_tuples():
    ntm.validate(ntm.symmetric(19, 0.3), 19)
    ntm.validate(((0.9, 0.1), (0.25, 0.75)), 2)


@pytest.mark.parametrize(
    ("matrix", "message"),
    [
        (((1, 0),), r"m: shape \(1, 2\), expected 2 x 2 numbers"),
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
