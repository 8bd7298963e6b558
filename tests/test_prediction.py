"""Tiny untrained networks; the reference is the network on the whole image at once."""

from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

import metaseg
from metaseg import decoding, models, ntm, prediction
from metaseg.data import normalize
from metaseg.errors import InputError
from metaseg.prediction import network, tiles

RNG = np.random.default_rng(0)
SMOOTH = ndimage.gaussian_filter(RNG.normal(size=(100, 70)), 2).astype(np.float32)


def make_run(num_classes=2, channels=1, matrix=None, norm="batch", validation=None):
    model = models.UNet(num_classes=num_classes, width=2, depth=2, norm=norm)
    image = jnp.zeros((1, 4, 4, channels))
    shapes = jax.eval_shape(partial(model.init, train=False), jax.random.key(0), image)
    rng = np.random.default_rng(5)

    def draw(path, leaf):  # kernels of He's variance; else near 0 or 1
        kernel = leaf.ndim > 1
        scale = np.sqrt(2 * leaf.shape[-1] / leaf.size) if kernel else 0.1
        middle = float(path[-1].key in ("scale", "var"))
        return jnp.asarray(rng.normal(middle, scale, leaf.shape), jnp.float32)

    return prediction.Predictor(
        model=model,
        variables=jax.tree_util.tree_map_with_path(draw, shapes),
        matrix=matrix,
        num_classes=num_classes,
        class_names=tuple("abcdef"[:num_classes]),
        channels=channels,
        normalizer=normalize.build(),
        validation_threshold=validation,
        name="untrained",
    )


@pytest.fixture(scope="module")
def run():
    return make_run()


@cache
def applied(model):
    return jax.jit(partial(model.apply, train=False))


def whole(run, image):
    """Probabilities of an image in one piece, its edge repeated to multiples of 16."""
    image = image.reshape(*image.shape[:2], -1)
    pixels = run.normalizer(image)(image)
    missing = [(0, -side % 16) for side in image.shape[:2]]
    extended = np.pad(pixels, (*missing, (0, 0)), mode="edge")
    logits = applied(run.model)(run.variables, extended[None])
    probability = decoding.probabilities(logits)
    return np.asarray(probability)[0, : image.shape[0], : image.shape[1]]


@pytest.mark.parametrize(
    ("tile", "overlap"), [(None, None), (64, None), (64, 44), (96, 60)]
)
def test_scores_do_not_depend_on_the_tiles(run, tile, overlap):
    (found,) = prediction.predict(run, SMOOTH, tile=tile, overlap=overlap)
    expected = whole(run, SMOOTH)
    assert expected.std() > 0.01  # there is something to get wrong
    np.testing.assert_allclose(found.scores, expected, atol=1e-5)


def test_scores_of_three_classes_do_not_depend_on_the_tiles():
    run = make_run(num_classes=3, channels=3)
    image = np.dstack([SMOOTH, SMOOTH**2, -SMOOTH])[:90, :60]
    (found,) = prediction.predict(run, image, tile=64)
    np.testing.assert_allclose(found.scores, whole(run, image), atol=1e-5)


def test_overlaps_below_the_radius_are_nearer_the_truth_the_wider_they_are(run):
    expected = whole(run, SMOOTH)
    errors = []
    for overlap in (0, 16, 32, 44):
        (found,) = prediction.predict(run, SMOOTH, tile=64, overlap=overlap)
        errors.append(np.square(found.scores - expected).mean())
    assert errors == sorted(errors, reverse=True)
    assert errors[0] > 100 * errors[-1]


def test_images_of_one_size_come_out_as_each_alone(run):
    images = [SMOOTH[:40, :50], SMOOTH[9:49, 9:59], SMOOTH[:33, :33]]
    together = prediction.predict(run, images)
    for image, found in zip(images, together, strict=True):
        (alone,) = prediction.predict(run, image)
        assert found.scores.shape == (*image.shape, 2)
        np.testing.assert_allclose(found.scores, alone.scores, atol=1e-6)


def test_beyond_the_radius_a_changed_block_changes_nothing(run):
    changed = SMOOTH.copy()
    changed[64:68] += 1
    plain = run._replace(normalizer=normalize.build("none"))
    before, after = (whole(plain, image)[..., 1] for image in (SMOOTH, changed))
    rows = np.flatnonzero((before != after).any(axis=1))
    radius = network.radius(run.model, 1)
    assert 64 - radius <= rows[0]
    assert rows[-1] < 68 + radius
    # 2 + 2 * (2 + 2 * 2 + 2) + 2, less where halves of blocks are not reached: 22.
    assert radius == 22


def test_a_norm_over_the_image_is_known_to_see_all_of_it():
    model = models.UNet(width=2, depth=1, norm="group")
    assert network.radius(model, 1) == network.GLOBAL_RADIUS


@settings(max_examples=200, deadline=None)
@given(
    side=st.integers(1, 40),
    tile=st.integers(1, 8),
    overlap=st.integers(0, 63),
    radius=st.integers(0, 40),
)
def test_weights_sum_to_one_and_vanish_near_cuts_where_they_can(
    side, tile, overlap, radius
):
    plan = tiles.plan(4, radius, tile=32 * tile, overlap=min(overlap, 28 * tile))
    axis = tiles.cut(32 * side, plan)
    total = np.zeros(32 * side)
    for i, (start, weight) in enumerate(zip(axis.starts, axis.weights, strict=True)):
        assert start % 4 == 0
        total[start : start + axis.length] += weight
        if plan.overlap >= 2 * radius:
            assert i == 0 or not weight[:radius].any()
            assert i == len(axis.starts) - 1 or not weight[axis.length - radius :].any()
    np.testing.assert_allclose(total, 1, atol=1e-6)
    assert axis.starts[-1] + axis.length == 32 * side


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 1000),
    cuts=st.lists(st.integers(1, 29), max_size=6, unique=True),
    blur=st.sampled_from([0.0, 0.7, 2.0]),
)
def test_objects_counted_in_strips_are_those_of_the_whole(seed, cuts, blur):
    noise = np.random.default_rng(seed).normal(size=(30, 20))
    noise = ndimage.gaussian_filter(noise, blur)
    labels = np.digitize(noise, np.quantile(noise, [0.45, 0.8])).astype(np.uint8)
    objects = prediction.no_objects(3)
    for strip in np.split(labels, sorted(cuts)):
        objects = prediction.add_strip(objects, strip)
    expected = [ndimage.label(labels == k, np.ones((3, 3)))[1] for k in (1, 2)]
    assert objects.counts.tolist() == expected


def test_branches_that_meet_at_the_bottom_are_one_object():
    comb = np.zeros((9, 15), np.uint8)
    comb[:, ::2] = 1
    comb[-1] = 1
    objects = prediction.no_objects(2)
    for row in comb:
        objects = prediction.add_strip(objects, row[None])
    assert objects.counts.tolist() == [1]


@pytest.mark.parametrize("rate", [0.0, 0.4, 0.9])
@pytest.mark.parametrize("num_classes", [2, 3])
def test_decision_rules_equal_those_of_training(num_classes, rate):
    matrix = np.asarray(ntm.symmetric(num_classes, rate))
    run = make_run(num_classes, matrix=matrix)
    probability = RNG.dirichlet(np.ones(num_classes), (50, 40)).astype(np.float32)
    scores = probability[..., 1:] if num_classes == 2 else probability
    for rule, known in (("analytic", matrix), ("argmax", None)):
        expected = decoding.predict(jnp.asarray(probability), known)
        np.testing.assert_array_equal(prediction.decoder(run, rule)(scores), expected)


@pytest.mark.parametrize(
    ("inverted", "expected"), [(False, [0, 1, 1]), (True, [1, 0, 0])]
)
def test_a_tuned_threshold_is_itself_foreground_unless_inverted(inverted, expected):
    score = np.float32([0.25 - 1 / 4096, 0.25, 0.75]).reshape(1, 3, 1)
    run = make_run(validation=decoding.Threshold(0.25, inverted))
    assert prediction.decoder(run, "validation")(score).tolist() == [expected]


def test_the_function_of_the_package_takes_one_array_or_several(run):
    grey = RNG.integers(0, 256, (40, 44), dtype=np.uint8)
    (one,) = metaseg.predict(run, grey)
    several = metaseg.predict(run, [grey, grey[..., None], np.dstack([grey] * 3)])
    for found in several:
        np.testing.assert_array_equal(found.labels, one.labels)
    assert one.labels.dtype == np.uint8
    assert one.scores.dtype == np.float32
    np.testing.assert_allclose(one.scores.sum(axis=-1), 1, atol=1e-6)


def test_grey_is_repeated_for_a_colour_run():
    run = make_run(channels=3)
    grey = SMOOTH[:30, :30]
    one, three = prediction.predict(run, [grey, np.dstack([grey] * 3)])
    np.testing.assert_allclose(one.scores, three.scores, atol=1e-6)


def test_a_stack_is_predicted_as_its_images_are(run):
    stack = RNG.integers(0, 256, (5, 24, 20), dtype=np.uint8)
    whole, each = prediction.predict(run, stack), prediction.predict(run, list(stack))
    assert len(whole) == len(each) == 5
    for a, b in zip(whole, each, strict=True):
        np.testing.assert_array_equal(a.scores, b.scores)


def test_the_fingerprint_follows_from_everything_that_labels_follow_from(run):
    threshold = decoding.Threshold(0.3, False)
    changes = [
        {"normalizer": normalize.build("percentile")},
        {"normalizer": normalize.build("fixed", mean=1)},
        {"variables": jax.tree.map(lambda x: x + 1, run.variables)},
        {"matrix": np.eye(2, dtype=np.float32)},
        {"validation_threshold": threshold},
        {"final_threshold": threshold},
    ]
    found = [prediction.fingerprint(run._replace(**change)) for change in changes]
    assert len({prediction.fingerprint(run), *found}) == 7
    assert prediction.fingerprint(run._replace(name="b")) == prediction.fingerprint(run)


@pytest.mark.parametrize("planes", [1, 3])
def test_scores_that_are_written_in_strips_are_read_back_whole(tmp_path, planes):
    scores = RNG.random((50, 30, planes), dtype=np.float32)
    path = tmp_path / "scores" / "a.tif"
    with prediction.ScoreFile(path, planes, 50, 30) as file:
        for start in range(0, 50, 20):
            file.write(start, scores[start : start + 20])
            assert not path.exists()
        file.finish()
    expected = scores[..., 0] if planes == 1 else np.moveaxis(scores, -1, 0)
    np.testing.assert_array_equal(tifffile.imread(path), expected)


def test_a_file_of_scores_that_is_not_finished_is_removed(tmp_path):
    path = tmp_path / "a.tif"
    with pytest.raises(KeyError), prediction.ScoreFile(path, 1, 5, 5):
        raise KeyError
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("image", "options", "message"),
    [
        (RNG.normal(size=(8, 8, 3)), {}, r"^images\[0\]: 3 channels; expected grey"),
        (np.zeros((0, 8)), {}, r"^images\[0\]: float64 of shape \(0, 8\)"),
        (np.full((8, 8), np.nan), {}, r"^images\[0\]: NaN"),
        (SMOOTH, {"decision_rule": "oracle"}, "^decision_rule: got 'oracle'"),
        (SMOOTH, {"decision_rule": "validation"}, "^decision_rule: got 'validation'"),
        (SMOOTH, {"tile": 0}, "^tile: got 0"),
        (SMOOTH, {"tile": 64, "overlap": 64}, "^overlap: got 64, expected 0 to 60"),
    ],
)
def test_wrong_input_is_named(run, image, options, message):
    with pytest.raises(InputError, match=message):
        prediction.predict(run, image, **options)
