from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from metaseg import noise, ntm
from metaseg.errors import InputError
from metaseg.labels import VOID

KEY = jax.random.key(1)
BINARY = np.random.default_rng(0).choice(
    [0, 1, VOID], p=[0.6, 0.3, 0.1], size=(3, 90, 110)
)
BINARY = BINARY.astype(np.uint8)
MANY = np.random.default_rng(1).choice([0, 1, 2, 3, 4, VOID], size=(3, 90, 110))
MANY = MANY.astype(np.int32)


@partial(jax.jit, static_argnames=("num_classes", "exact"))
def flip(labels, rate, num_classes=2, exact=False):
    return noise.flip(KEY, labels, rate=rate, num_classes=num_classes, exact=exact)


@partial(jax.jit, static_argnames=("classes", "fill", "exact"))
def sample(labels, fraction, classes=None, fill=0, exact=False):
    return noise.sample(
        KEY, labels, fraction=fraction, classes=classes, fill=fill, exact=exact
    )


@jax.jit
def transition(labels, matrix):
    return noise.transition(KEY, labels, matrix=matrix)


def joint(clean, noisy):
    """Counts of each (clean, noisy) pair of ids, void included."""
    cells = clean.astype(int) * 256 + np.asarray(noisy).astype(int)
    return np.bincount(cells.ravel(), minlength=256 * 256).reshape(256, 256)


def assert_follows(clean, noisy, matrix):
    """Each pixel's label was drawn from its class's row; void stayed void."""
    assert noisy.dtype == clean.dtype
    counts = joint(clean, noisy)
    num_classes = len(matrix)
    totals = counts.sum(1)[:num_classes, None]
    matrix = np.asarray(matrix, np.float64).round(7)  # 0 and 1 are to be exactly that
    drawn = counts[:num_classes, :num_classes]
    at_most = scipy.stats.binom.cdf(drawn, totals, matrix)
    at_least = scipy.stats.binom.sf(drawn - 1, totals, matrix)
    assert (np.minimum(at_most, at_least) > 1e-7).all()  # 5 standard deviations
    np.testing.assert_array_equal(drawn.sum(1), totals[:, 0])
    assert counts[VOID, VOID] == counts[VOID].sum() == (clean == VOID).sum()


@pytest.mark.parametrize("rate", [0.0, 0.1, 0.5, 0.9, 1.0, (0.05, 0.7)])
def test_binary_flip_follows_its_matrix(rate):
    noisy = flip(BINARY, jnp.array(rate))
    assert_follows(BINARY, noisy, ntm.symmetric(2, rate))


@pytest.mark.parametrize("rate", [0.0, 0.3, 1.0, (0.0, 0.1, 0.5, 0.9, 1.0)])
def test_multi_class_flip_follows_its_matrix(rate):
    noisy = flip(MANY, jnp.array(rate), num_classes=5)
    assert_follows(MANY, noisy, ntm.symmetric(5, rate))


def test_exact_flip_flips_the_ceiling_of_each_class_of_each_map():
    rate = (0.3, 0.07)
    noisy = flip(BINARY, jnp.array(rate), exact=True)
    for clean_map, noisy_map in zip(BINARY, noisy, strict=True):
        counts = joint(clean_map, noisy_map)
        for class_id, share in enumerate(rate):
            flipped = counts[class_id, 1 - class_id]
            assert flipped == np.ceil(np.round(counts[class_id].sum() * share, 6))
        assert counts[VOID, VOID] == (clean_map == VOID).sum()


def test_exact_multi_class_flip_spreads_over_the_other_classes():
    noisy = flip(MANY, jnp.array(0.4), num_classes=5, exact=True)
    counts = joint(MANY, noisy)[:5, :5]
    for clean_map, noisy_map in zip(MANY, noisy, strict=True):
        drawn = joint(clean_map, noisy_map)[:5, :5]
        expected = np.ceil(np.round(drawn.sum(1) * 0.4, 6))
        np.testing.assert_array_equal(drawn.sum(1) - np.diag(drawn), expected)
    flipped = (counts.sum(1) - np.diag(counts))[:, None]
    off = ~np.eye(5, dtype=bool)
    bound = 5 * np.sqrt(flipped * 3 / 16)
    assert (abs(counts - flipped / 4) < bound)[off].all()


@pytest.mark.parametrize("fraction", [0.0, 0.1, 1.0])
@pytest.mark.parametrize("labels", [BINARY, MANY], ids=["binary", "many"])
def test_sample_follows_its_matrix(labels, fraction):
    num_classes = 2 if labels is BINARY else 5
    noisy = sample(labels, jnp.array(fraction))
    assert_follows(labels, noisy, ntm.sampling(num_classes, fraction))


@pytest.mark.parametrize(
    ("fraction", "classes", "fill"),
    [
        (0.3, (2, 4), 1),
        ((0.2, 0.9), (3, 0), 1),
        ((0.1, 0.2, 0.3, 0.4), None, 0),
    ],
)
def test_sample_of_chosen_classes_follows_its_matrix(fraction, classes, fill):
    noisy = sample(MANY, jnp.array(fraction), classes=classes, fill=fill)
    assert_follows(MANY, noisy, ntm.sampling(5, fraction, classes=classes, fill=fill))


def test_sample_to_void_leaves_what_the_diagonal_matrix_says():
    noisy = sample(BINARY, jnp.array(0.2), fill=VOID)
    counts = joint(BINARY, noisy)
    n = counts[1].sum()
    assert counts[0, 0] == counts[0].sum()
    assert counts[1, 1] + counts[1, VOID] == n
    assert abs(counts[1, 1] - 0.2 * n) < 5 * np.sqrt(n * 0.2 * 0.8)


@pytest.mark.parametrize(
    ("fraction", "classes"),
    [(0.1, None), ((0.07, 0.3), (4, 0)), (0.0, None), (1.0, None)],
)
def test_exact_sample_keeps_the_ceiling_of_each_class_of_each_map(fraction, classes):
    noisy = sample(MANY, jnp.array(fraction), classes=classes, fill=VOID, exact=True)
    chosen = (1, 2, 3, 4) if classes is None else classes
    shares = dict(zip(chosen, np.broadcast_to(fraction, len(chosen)), strict=True))
    for clean_map, noisy_map in zip(MANY, noisy, strict=True):
        counts = joint(clean_map, noisy_map)
        for class_id in range(5):
            n = counts[class_id].sum()
            expected = np.ceil(np.round(n * shares.get(class_id, 1.0), 6))
            assert counts[class_id, class_id] == expected
            assert counts[class_id, VOID] == n - expected


MATRICES = {
    "symmetric": ntm.symmetric(5, 0.4),
    "pair": ntm.pair(5, (0.3, 0.0, 1.0, 0.1, 0.5)),
    "block": ntm.block(5, ((0, 3), (1, 2, 4)), (0.1, 0.9, 0.5, 0.0, 1.0)),
    "sampling": ntm.sampling(5, 0.1),
    "uniform": ntm.uniform(5, (0.1, 0.2, 0.3, 0.4, 0.0)),
    "composed": ntm.compose(ntm.pair(5, 0.3), ntm.sampling(5, 0.5)),
    "identity": jnp.eye(5),
    "cycle": ntm.pair(5, 1.0),
}


@pytest.mark.parametrize("matrix", MATRICES.values(), ids=MATRICES)
def test_transition_follows_every_matrix(matrix):
    assert_follows(MANY, transition(MANY, matrix), matrix)


@pytest.mark.parametrize("matrix", [ntm.binary(0.3, 0.1), ntm.sampling(2, 0.1)])
def test_binary_transition_follows_its_matrix(matrix):
    assert_follows(BINARY, transition(BINARY, matrix), matrix)


DRAWS = 1000


@jax.jit
def transition_often(labels, matrix):
    keys = jax.random.split(KEY, DRAWS)
    return jax.vmap(lambda key: noise.transition(key, labels, matrix=matrix))(keys)


@pytest.mark.parametrize(
    "matrix", [*MATRICES.values(), ntm.binary(0.3, 0.1)], ids=[*MATRICES, "binary"]
)
def test_expected_one_hot_is_clean_one_hot_through_the_matrix(matrix):
    matrix = np.asarray(matrix, np.float64).round(7)
    num_classes = len(matrix)
    clean = np.where(MANY[0, :6, :7] == VOID, 0, MANY[0, :6, :7]) % num_classes
    drawn = np.asarray(transition_often(clean, matrix.astype(np.float32)))
    seen = (drawn[..., None] == np.arange(num_classes)).sum(0)
    expected = np.eye(num_classes)[clean] @ matrix
    bound = 5 * np.sqrt(DRAWS * expected * (1 - expected))
    assert (abs(seen - DRAWS * expected) <= bound + 1e-2).all()


K = 4
RATES = st.tuples(*[st.integers(0, 100)] * K)  # percent
MAPS = st.sampled_from(  # few, as each shape and dtype is compiled
    [((1, 1), np.int16), ((2, 31, 43), np.uint8)]
)


@st.composite
def label_maps(draw):
    """Maps of any mixture of the classes and void."""
    shape, dtype = draw(MAPS)
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    share = rng.dirichlet(np.full(K + 1, draw(st.sampled_from([0.2, 1.0, 50.0]))))
    return rng.choice([*range(K), VOID], p=share, size=shape).astype(dtype)


def each_map(*batches):
    maps = (np.asarray(b).reshape(-1, *b.shape[-2:]) for b in batches)
    return zip(*maps, strict=True)


def ceiling(count, percent):
    return -(-count * percent // 100)


@settings(deadline=None, derandomize=True, max_examples=15)
@given(labels=label_maps(), percent=RATES)
def test_any_exact_sample_keeps_the_ceiling_of_each_class_of_each_map(labels, percent):
    fraction = jnp.array(percent) / 100
    noisy = sample(labels, fraction, classes=tuple(range(K)), fill=VOID, exact=True)
    assert noisy.dtype == labels.dtype
    for clean_map, noisy_map in each_map(labels, noisy):
        counts = joint(clean_map, noisy_map)
        for class_id in range(K):
            n = counts[class_id].sum()
            assert counts[class_id, class_id] == ceiling(n, percent[class_id])
            assert counts[class_id, VOID] == n - counts[class_id, class_id]


@settings(deadline=None, derandomize=True, max_examples=15)
@given(labels=label_maps(), percent=RATES)
def test_any_exact_flip_flips_the_ceiling_of_each_class_of_each_map(labels, percent):
    noisy = flip(labels, jnp.array(percent) / 100, num_classes=K, exact=True)
    assert noisy.dtype == labels.dtype
    for clean_map, noisy_map in each_map(labels, noisy):
        counts = joint(clean_map, noisy_map)
        for class_id in range(K):
            n = counts[class_id, :K].sum()
            flipped = n - counts[class_id, class_id]
            assert flipped == ceiling(n, percent[class_id])
        assert counts[VOID, VOID] == (clean_map == VOID).sum()


@settings(deadline=None, derandomize=True, max_examples=15)
@given(labels=label_maps(), percent=RATES)
def test_any_flip_and_its_matrix_agree_on_every_class(labels, percent):
    rate = jnp.array(percent) / 100
    matrix = ntm.symmetric(K, rate)
    for noisy in (flip(labels, rate, num_classes=K), transition(labels, matrix)):
        assert_follows(labels, noisy, matrix)


@settings(deadline=None, derandomize=True, max_examples=15)
@given(labels=label_maps(), percent=RATES)
def test_any_sample_and_its_matrix_agree_on_every_class(labels, percent):
    fraction = jnp.array(percent) / 100
    noisy = sample(labels, fraction, classes=tuple(range(K)), fill=2)
    assert_follows(
        labels, noisy, ntm.sampling(K, fraction, classes=tuple(range(K)), fill=2)
    )


def test_a_curve_of_rates_is_one_compiled_program():
    rates = jnp.linspace(0, 1, 5)
    labels = jnp.asarray(BINARY[0])
    curve = jax.jit(jax.vmap(lambda rate: noise.flip(KEY, labels, rate=rate)))(rates)
    for rate, noisy in zip(rates.tolist(), curve, strict=True):
        np.testing.assert_array_equal(noisy, flip(labels, jnp.array(rate)))


@pytest.mark.parametrize(
    ("fn", "name", "value", "more"),
    [
        (noise.flip, "rate", 1.2, {}),
        (noise.flip, "rate", (0.1, 0.2, 0.3), {}),
        (noise.flip, "rate", "x", {}),
        (noise.flip, "num_classes", 1, {"rate": 0.1}),
        (noise.flip, "exact", 1, {"rate": 0.1}),
        (noise.sample, "fraction", -0.1, {}),
        (noise.sample, "fraction", (0.1, 0.2), {"classes": (1,)}),
        (noise.sample, "classes", (1, 1), {"fraction": 0.1}),
        (noise.sample, "classes", (), {"fraction": 0.1}),
        (noise.sample, "classes", (VOID,), {"fraction": 0.1}),
        (noise.sample, "fill", -1, {"fraction": 0.1}),
        (noise.sample, "exact", 0, {"fraction": 0.1}),
        (noise.transition, "matrix", ((1, 0, 0), (0, 1, 0)), {}),
        (noise.transition, "matrix", ((1, 0), (0.5, 0.6)), {}),
        (noise.transition, "matrix", 1.0, {}),
    ],
)
def test_an_invalid_parameter_is_named(fn, name, value, more):
    with pytest.raises(InputError, match=f"^{name}: .+$"):
        fn(KEY, BINARY, **{name: value}, **more)
