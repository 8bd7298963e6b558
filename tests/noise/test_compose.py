"""Properties of all registered noises, and noises built from configs."""

import inspect
from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from ml_collections import ConfigDict

from metaseg import noise, ntm
from metaseg.errors import InputError
from metaseg.labels import VOID, replace_void
from metaseg.noise import parameters

KEY = jax.random.key(3)
K = 3
CLEAN = np.random.default_rng(0).choice([0, 1, 2, VOID], size=(16, 33, 40))
CLEAN = CLEAN.astype(np.uint8)
IDS = jnp.arange(16) * 7 + 2

# A value for each parameter without a default.
VALUES = {
    "rate": 0.4,
    "fraction": 0.3,
    "prior": (0.5, 0.2, 0.3),
    "matrix": ((0.8, 0.1, 0.1), (0.3, 0.7, 0.0), (0.0, 0.5, 0.5)),
    "radius": 1,
    "factor": 5,
    "shift": 4,
    "amplitude": 2.0,
    "sigma": 1.0,
    "tolerance": 1.0,
    "classes": (0, 2),
    "noises": ({"name": "flip", "rate": 0.3}, {"name": "sample", "fraction": 0.5}),
}
# More parameters for noises that would otherwise do nothing, or take long.
MORE = {
    "markov": {"steps": 4},
    "affine": {"angle": 20.0, "scale": 0.1},
    "constant": {"fill": 2},
    "merge": {"rate": 0.5},
}
KEEPS_ALL = {"none"}
DRAWS_NOTHING = KEEPS_ALL | {
    *("dilate", "erode", "skeletonize", "coarsen", "simplify", "boxes", "constant")
}
MAKES_VOID = {"points", "scribbles"}
DEPENDS_ON_PLACE = {
    *("dilate", "erode", "random_boundary", "skeletonize", "shift_pixels", "markov"),
    *("coarsen", "translate", "affine", "elastic", "jitter_vertices", "simplify"),
    *("add", "merge", "boxes", "points", "scribbles", "shuffle"),
}


def config_of(name, **more):
    parameters = inspect.signature(noise.NOISES[name].fn).parameters
    needed = [p.name for p in parameters.values() if p.default is p.empty][2:]
    values = {field: VALUES[field] for field in needed} | MORE.get(name, {})
    return {"name": name} | values | more


@cache
def compiled(name):
    return jax.jit(noise.per_example(noise.build(config_of(name), K)))


every_noise = pytest.mark.parametrize("name", noise.NOISES)


@every_noise
def test_void_shape_and_dtype_are_kept(name):
    noisy = compiled(name)(KEY, CLEAN, IDS)
    assert noisy.shape == CLEAN.shape
    assert noisy.dtype == CLEAN.dtype
    void = np.asarray(noisy == VOID)
    assert void[CLEAN == VOID].all()
    assert void[CLEAN != VOID].any() == (name in MAKES_VOID)
    assert set(np.unique(noisy)) <= {0, 1, 2, VOID}
    assert (np.asarray(noisy) != CLEAN).any() == (name not in KEEPS_ALL)


@every_noise
def test_jit_and_vmap_agree_with_eager_another_dtype_and_void_of_minus_one(name):
    noise_fn = noise.build(config_of(name), K)
    wide = jnp.where(CLEAN[5] == VOID, -1, jnp.asarray(CLEAN[5], jnp.int32))
    eager = noise_fn(jax.random.fold_in(KEY, IDS[5]), wide)
    assert eager.dtype == jnp.int32
    expected = compiled(name)(KEY, CLEAN, IDS)[5]
    np.testing.assert_array_equal(expected, replace_void(eager))


def test_traced_ids_that_are_no_class_become_void():
    maps = np.array([[[0, 1, 2, 3, -1, 254, VOID]]], np.int32)
    fn = noise.per_example(partial(noise.flip, rate=0.0, num_classes=3))
    found = jax.jit(fn)(KEY, maps, IDS[:1])
    np.testing.assert_array_equal(found, [[[0, 1, 2, *[VOID] * 4]]])


@pytest.mark.parametrize(
    "noise_fn",
    [
        partial(noise.flip, rate=0.1),
        partial(noise.shuffle),
        partial(noise.coarsen, factor=2),
        partial(noise.transition, matrix=np.eye(2)),
        partial(noise.omit, rate=(0.0, 0.5)),
        noise.choose(partial(noise.flip, rate=0.1)),
        noise.only((1,), partial(noise.boxes)),
    ],
)
def test_ids_beyond_the_classes_of_a_noise_are_named(noise_fn):
    with pytest.raises(InputError, match=r"^labels: class id 3, expected 0..1 or 255"):
        noise_fn(KEY, np.array([[0, 1, 3]]))
    with pytest.raises(InputError, match=r"^labels: class id 256, expected 0..254 or"):
        noise.dilate(KEY, np.array([[0, 256]]), radius=1)


def test_per_example_names_ids_beyond_the_classes_of_its_noise():
    with pytest.raises(InputError, match=r"^labels: class id 2, expected 0..1 or 255"):
        noise.per_example(partial(noise.flip, rate=0.1))(KEY, CLEAN, IDS)


@every_noise
def test_batch_order_and_size_change_no_bit(name):
    expected = np.asarray(compiled(name)(KEY, CLEAN, IDS))
    order = np.random.default_rng(1).permutation(16)
    shuffled = compiled(name)(KEY, CLEAN[order], IDS[order])
    np.testing.assert_array_equal(shuffled, expected[order])
    smaller = compiled(name)(KEY, CLEAN[8:11], IDS[8:11])
    np.testing.assert_array_equal(smaller, expected[8:11])


@every_noise
def test_eight_devices_change_no_bit(name):
    devices = jax.devices()
    assert len(devices) == 8
    expected = compiled(name)(KEY, CLEAN, IDS)
    split = NamedSharding(Mesh(np.array(devices), ("data",)), PartitionSpec("data"))
    noisy = compiled(name)(
        KEY, jax.device_put(CLEAN, split), jax.device_put(IDS, split)
    )
    assert len(noisy.sharding.device_set) == 8
    np.testing.assert_array_equal(noisy, expected)


@every_noise
def test_noise_differs_between_ids_and_keys_if_it_draws_at_all(name):
    same = np.broadcast_to(CLEAN[:1], (16, *CLEAN.shape[1:]))
    noisy = np.asarray(compiled(name)(KEY, same, IDS))
    other_key = np.asarray(compiled(name)(jax.random.key(4), same, IDS))
    draws = name not in DRAWS_NOTHING
    assert (noisy[0] != noisy[1]).any() == draws
    assert (noisy != other_key).any() == draws


@every_noise
def test_noisy_labels_follow_the_matrix_of_the_config(name):
    matrix = noise.build_matrix(config_of(name), K)
    assert (matrix is None) == (name in DEPENDS_ON_PLACE)
    if matrix is None or name == "omit":  # its pixels go together
        return
    counts = np.asarray(ntm.joint_counts(CLEAN, compiled(name)(KEY, CLEAN, IDS), K))
    n, p = counts.sum(1, keepdims=True), np.asarray(matrix, np.float64).round(7)
    assert (abs(counts - n * p) <= 5 * np.sqrt(n * p * (1 - p)) + 1e-2).all()


@every_noise
def test_every_parameter_has_a_check(name):
    taken = set(parameters.keyword_only(noise.NOISES[name].fn))
    assert taken - {"num_classes", "noises"} <= set(parameters.CHECKS)


@every_noise
def test_labels_without_pixels_stay(name):
    noise_fn = noise.build(config_of(name), K)
    for shape in ((0, 6, 7), (2, 0, 7)):
        nothing = np.zeros(shape, np.uint8)
        np.testing.assert_array_equal(noise_fn(KEY, nothing), nothing)
        assert noise_fn(KEY, nothing).dtype == np.uint8


def test_a_batch_of_no_examples_stays():
    for name in ("none", "flip", "skeletonize"):
        noise_fn = noise.per_example(noise.build(config_of(name), K))
        nobody = noise_fn(KEY, np.zeros((0, 6, 7), np.uint8), np.zeros(0, np.int32))
        assert nobody.shape == (0, 6, 7)


def test_the_dtype_is_kept_but_for_64_bits_which_jax_makes_32():
    for dtype, expected in [
        (np.uint8, np.uint8),
        (np.int16, np.int16),
        (np.uint32, np.uint32),
        (np.int64, np.int32),
        (np.uint64, np.uint32),
    ]:
        labels = CLEAN[0].astype(dtype)
        for fn in (noise.clean, partial(noise.flip, rate=0.5, num_classes=3)):
            assert fn(KEY, labels).dtype == expected


def test_ids_of_64_bits_draw_noise_of_their_own():
    noise_fn = noise.per_example(partial(noise.flip, rate=0.5))
    labels = np.zeros((3, 16, 16), np.uint8)
    ids = np.array([5, 5 + 2**32, 5 + 2**33])
    noisy = np.asarray(noise_fn(KEY, labels, ids))
    # 3 pairs of 256 fair coins: 6 standard deviations.
    for first, second in ((0, 1), (0, 2), (1, 2)):
        assert abs((noisy[first] != noisy[second]).mean() - 0.5) < 6 * 0.5 / 16
    small = np.asarray(noise_fn(KEY, labels, np.array([5, -1, 3_000_000_000])))
    np.testing.assert_array_equal(noisy[0], small[0])
    short = np.array([5, 2**32 - 1, 3_000_000_000], np.uint32)
    np.testing.assert_array_equal(small, noise_fn(KEY, labels, short))
    mixed = np.array([-1, 3_000_000_000, 2**40])
    np.testing.assert_array_equal(noise_fn(KEY, labels, mixed)[:2], small[1:])


@pytest.mark.parametrize(
    ("key", "got"),
    [
        (CLEAN[0], r"uint8 of shape \(33, 40\)"),
        (3, "3"),
        (jax.random.split(KEY), r"key<fry> of shape \(2,\)"),
    ],
)
def test_a_key_that_is_none_is_named(key, got):
    with pytest.raises(InputError, match=rf"^key: got {got}, expected a key, .*"):
        noise.dilate(key, CLEAN[0], radius=1)


def test_a_key_of_the_old_kind_draws_the_same_bits():
    flip = partial(noise.flip, rate=0.5, num_classes=K)
    old = flip(jax.random.PRNGKey(3), CLEAN[0])
    np.testing.assert_array_equal(old, flip(KEY, CLEAN[0]))


@pytest.mark.parametrize(
    "combine", [noise.per_example, noise.chain, noise.choose, partial(noise.only, (1,))]
)
def test_a_noise_that_lacks_a_parameter_is_named(combine):
    message = (
        r"^noise_fn: got flip without rate, expected functools.partial\(flip, rate="
    )
    with pytest.raises(InputError, match=message):
        combine(noise.flip)
    with pytest.raises(InputError, match=r"^noise_fn: got 3, expected a function"):
        combine(3)
    combine(partial(noise.flip, rate=0.1))


def test_chain_applies_in_order_with_a_key_each():
    labels = jnp.asarray(CLEAN[0])
    first, second = (
        jax.jit(noise.build(config_of(name), K)) for name in ("flip", "dilate")
    )
    expected = second(KEY, first(jax.random.fold_in(KEY, 0), labels))
    np.testing.assert_array_equal(noise.chain(first, second)(KEY, labels), expected)
    again = noise.chain(first, first)(KEY, labels)
    by_hand = first(
        jax.random.fold_in(KEY, 1), first(jax.random.fold_in(KEY, 0), labels)
    )
    np.testing.assert_array_equal(again, by_hand)
    np.testing.assert_array_equal(noise.chain()(KEY, labels), labels)


def test_build_reads_a_config_dict_and_skips_none_and_run_fields():
    config = ConfigDict(
        {
            "name": "sample",
            "online": False,
            "seed": 5,
            "fraction": [0.1, 0.9],
            "classes": (2, 1),
            "fill": VOID,
            "exact": True,
            "rate": None,
            "matrix": None,
        }
    )
    labels = jnp.asarray(CLEAN[0])
    sample = partial(
        noise.sample, fraction=(0.1, 0.9), classes=(2, 1), fill=VOID, exact=True
    )
    expected = jax.jit(sample)(KEY, labels)
    built = jax.jit(noise.build(config, K))(KEY, labels)
    np.testing.assert_array_equal(built, expected)
    matrix = noise.build_matrix(config, K)
    np.testing.assert_allclose(matrix, np.diag([1, 0.9, 0.1]), atol=1e-6)


def test_more_parameters_of_any_noise_come_in_a_mapping():
    labels = jnp.asarray(CLEAN[0])
    given = {"name": "sample", "fraction": 0.3, "fill": None}
    more = ConfigDict({"fill": 2, "classes": [1], "exact": None})
    merged = noise.build(given | {"parameters": more}, K)
    expected = noise.sample(KEY, labels, fraction=0.3, fill=2, classes=(1,))
    np.testing.assert_array_equal(merged(KEY, labels), expected)


def test_a_plugin_is_a_noise_whose_parameters_have_no_range():
    labels = jnp.asarray(CLEAN[0])
    config = {
        "name": "noise_plugin:rotate",
        "radius": -0.5,
        "parameters": {"strength": 2},
    }
    expected = np.where(CLEAN[0] == VOID, VOID, (CLEAN[0] + 2) % K)
    np.testing.assert_array_equal(noise.build(config, K)(KEY, labels), expected)
    assert noise.build_matrix(config, K) is None


@pytest.mark.parametrize("name", ["noise_plugin:swap", "noise_plugin:bundled"])
def test_a_plugin_may_bring_its_matrix(name):
    labels = jnp.asarray(CLEAN[0] % 2)
    config = {"name": name, "rate": 0.25}
    expected = noise.flip(KEY, labels, rate=0.25)
    np.testing.assert_array_equal(noise.build(config, 2)(KEY, labels), expected)
    np.testing.assert_allclose(noise.build_matrix(config, 2), ntm.symmetric(2, 0.25))


@pytest.mark.parametrize("name", ["chain", "choose", "only"])
def test_a_plugin_works_inside_another_noise(name):
    more = {"classes": (0, 1)} if name == "only" else {}

    def outer(inner):
        return {"name": name, "noises": (inner,)} | more

    plugin = outer({"name": "noise_plugin:swap", "parameters": {"rate": 0.25}})
    built_in = outer({"name": "flip", "rate": 0.25})
    labels = jnp.asarray(CLEAN[0] % 2)
    noisy, expected = (
        noise.build(config, 2)(KEY, labels) for config in (plugin, built_in)
    )
    np.testing.assert_array_equal(noisy, expected)
    np.testing.assert_allclose(
        *(noise.build_matrix(config, 2) for config in (plugin, built_in))
    )


def test_messages_name_the_field_that_the_caller_says():
    with pytest.raises(InputError, match=r"^labels\.noise\.rate: got 2"):
        noise.build({"name": "flip", "rate": 2}, K, field="labels.noise")


def test_build_matrix_of_binary_noises():
    for config, expected in [
        ({"name": "none"}, np.eye(2)),
        ({"name": "flip", "rate": (0.1, 0.3)}, [[0.9, 0.1], [0.3, 0.7]]),
        ({"name": "sample", "fraction": 0.1}, [[1, 0], [0.9, 0.1]]),
        ({"name": "random", "prior": 0.3}, [[0.7, 0.3], [0.7, 0.3]]),
    ]:
        matrix = noise.build_matrix(config, 2)
        np.testing.assert_allclose(matrix, expected, atol=1e-6)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (
            {"name": "flipp"},
            "name: got 'flipp', expected one of add, affine, .*, or 'package.*",
        ),
        ({"rate": 0.1}, "name: got None, expected one of add, affine, .*"),
        (
            {"name": "dilate", "radius": 2, "rate": 0.1},
            "rate: got 0.1, expected None, as noise 'dilate' takes radius, shape",
        ),
        (
            {"name": "none", "rate": 0.1},
            "rate: got 0.1, expected None, as noise 'none' takes no parameters",
        ),
        (
            {"name": "flip", "rate": 0.1, "num_classes": 3},
            "num_classes: got 3, expected None, as noise 'flip' takes rate, exact",
        ),
        (
            {"name": "flip", "rate": None},
            "rate: got None, expected a value, as noise 'flip' needs it",
        ),
        (
            {"name": "flip", "parameters": {"rate": 1.2}},
            r"parameters.rate: got 1.2, expected values in \[0, 1\]",
        ),
        (
            {"name": "flip", "rate": 0.1, "parameters": {"rate": 0.2}},
            "parameters.rate: got 0.2, expected None, as noise.rate is given",
        ),
        (
            {"name": "flip", "rate": 0.1, "parameters": {"rat": 0.2}},
            "parameters.rat: got 0.2, expected None, as noise 'flip' takes .*",
        ),
        (
            {"name": "flip", "parameters": 0.2},
            "parameters: got 0.2, expected a mapping of names",
        ),
        (
            {"name": "chain", "noises": ({"name": "flip", "rate": 2},)},
            r"noises\[0\].rate: got 2, expected .*",
        ),
        ({"name": "chain", "noises": 3}, "noises: got 3, expected a mapping .*"),
        ({"name": "chain", "noises": (3,)}, "noises: got 3, expected a mapping .*"),
        (
            {"name": "noise_plugin:rotate"},
            "parameters.strength: got None, expected a value, as noise 'noise_.*",
        ),
        (
            {"name": "noise_plugin:rotate", "parameters": {"strength": 1, "more": 2}},
            "parameters.more: got 2, .*, as noise .* takes strength, radius",
        ),
        (
            {"name": "noise_plugin:floats"},
            r"name: got .*, which makes float32 of shape \(64, 96\) of uint8 labels .*",
        ),
        (
            {"name": "noise_plugin:cropped"},
            r"name: got .*, which makes uint8 of shape \(64, 95\) of uint8 labels .*",
        ),
        (
            {"name": "noise_plugin:nothing"},
            "name: got .*, but 'noise_plugin' has no 'nothing'; expected .*",
        ),
        (
            {"name": "noise_plugin:number"},
            r"name: got .*, expected a function \(key, labels, \*, parameters\)",
        ),
        (
            {"name": "noise_plugin:no_labels", "rate": 0.1},
            r"name: got .*, expected a function \(key, labels, \*, parameters\)",
        ),
        (
            {"name": "noise_plugin:positional", "rate": 0.1},
            r"name: got .*, expected a function \(key, labels, \*, parameters\)",
        ),
        (
            {"name": "noise_plugin:wrong_matrix"},
            r"name: got .*, whose matrix has shape \(5, 5\), expected \(3, 3\)",
        ),
        ({"name": "flip", "rate": 1.2}, r"rate: got 1.2, expected values in \[0, 1\]"),
        ({"name": "flip", "rate": -0.1}, "rate: got -0.1, expected values in .*"),
        ({"name": "flip", "rate": float("nan")}, "rate: got nan, expected values .*"),
        ({"name": "flip", "rate": "x"}, "rate: got 'x', expected a number or 3 .*"),
        (
            {"name": "flip", "rate": (0.1, 0.2)},
            r"rate: got \(0.1, 0.2\), expected a number or 3 of them in \[0, 1\]",
        ),
        (
            {"name": "flip", "rate": 0.1, "exact": 1},
            "exact: got 1, expected True or .*",
        ),
        ({"name": "sample", "fraction": 2}, "fraction: got 2, expected values in .*"),
        (
            {"name": "sample", "fraction": (0.1, 0.2, 0.3)},
            "fraction: got .*, expected a number or 2 of them .*",
        ),
        (
            {"name": "sample", "fraction": (0.1, 0.2), "classes": (1,)},
            "fraction: got .*, expected a number or 1 of them .*",
        ),
        (
            {"name": "sample", "fraction": 0.1, "classes": (1, 3)},
            r"classes: got \(1, 3\), expected class ids in 0..2",
        ),
        (
            {"name": "sample", "fraction": 0.1, "classes": (1, 1)},
            r"classes: got \(1, 1\), expected each class once",
        ),
        (
            {"name": "sample", "fraction": 0.1, "classes": 1},
            "classes: got 1, expected class ids in 0..2",
        ),
        (
            {"name": "sample", "fraction": 0.1, "fill": 3},
            r"fill: got 3, expected a class id in 0..2 or 255 \(void\)",
        ),
        ({"name": "random", "prior": 0.4}, "prior: got 0.4, expected 3 values, .*"),
        (
            {"name": "random", "prior": (0.5, 0.5, 0.5)},
            "prior: sums to 1.5, expected 1",
        ),
        (
            {"name": "transition", "matrix": ((1, 0), (0, 1))},
            r"matrix: got shape \(2, 2\), expected 3 x 3 numbers",
        ),
        (
            {"name": "transition", "matrix": ((1, 0, 0), (0, 1, 0), (0, 1, 0.5))},
            "matrix: row 2 sums to 1.5, expected rows to sum to 1",
        ),
        (
            {"name": "erode", "radius": -1},
            "radius: got -1, expected an integer >= 0 .*",
        ),
        ({"name": "erode", "radius": 1.5}, "radius: got 1.5, expected an integer .*"),
        ({"name": "erode", "radius": True}, "radius: got True, expected an integer .*"),
    ],
)
def test_bad_configs_are_named(config, message):
    for build in (noise.build, noise.build_matrix):
        with pytest.raises(InputError, match=f"^noise.{message}$"):
            build(ConfigDict(config), K)
