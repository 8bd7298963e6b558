import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import expit, log_softmax, softmax

from metaseg import losses
from metaseg.errors import InputError


def test_binary_cross_entropy_equals_its_formula_on_labelled_pixels():
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(2, 5, 7, 1)).astype(np.float32)
    labels = rng.choice([0, 1, 255], (2, 5, 7)).astype(np.uint8)
    p = expit(logits[..., 0].astype(np.float64))
    each = np.where(labels == 1, -np.log(p), -np.log1p(-p))[labels != 255]
    np.testing.assert_allclose(
        losses.cross_entropy(logits, labels), each.mean(), rtol=1e-5
    )


def test_multiclass_cross_entropy_equals_its_formula_on_labelled_pixels():
    rng = np.random.default_rng(1)
    logits = rng.normal(size=(2, 5, 7, 4)).astype(np.float32)
    labels = rng.choice([0, 1, 2, 3, 255], (2, 5, 7)).astype(np.uint8)
    keep = labels != 255
    log_p = log_softmax(logits.astype(np.float64), axis=-1)[keep]
    expected = -np.mean(log_p[np.arange(keep.sum()), labels[keep]])
    np.testing.assert_allclose(
        losses.cross_entropy(logits, labels), expected, rtol=1e-5
    )


@pytest.mark.parametrize("channels", [1, 3])
def test_void_pixels_have_no_gradient(channels):
    logits = jnp.ones((1, 2, 2, channels))
    labels = jnp.array([[[255, 1], [0, 255]]], jnp.uint8)
    gradient = jax.grad(losses.cross_entropy)(logits, labels)
    changed = np.asarray(jnp.any(gradient != 0, axis=-1))
    np.testing.assert_array_equal(changed, labels != 255)


@pytest.mark.parametrize("name", losses.LOSSES)
def test_all_void_is_zero_and_not_nan(name):
    labels = jnp.full((1, 3, 3), 255, jnp.uint8)
    assert losses.LOSSES[name](jnp.ones((1, 3, 3, 1)), labels).mean() == 0.0


def _soft_iou(p, q):
    return 1 - (p * q).sum() / ((p**2).sum() + (q**2).sum() - (p * q).sum())


def _dmi(p, q):
    joint = (
        np.array([p.ravel(), 1 - p.ravel()]) @ np.array([q.ravel(), 1 - q.ravel()]).T
    )
    return -np.log(abs(np.linalg.det(joint)) + 1e-3)


def _dmi_iou(p, q):
    return _dmi(p, q) + _soft_iou(p, q)


OVER_IMAGES = [
    (losses.soft_iou, _soft_iou),
    (losses.dmi, _dmi),
    (losses.dmi_iou, _dmi_iou),
]


def _mean_over_images(formula, logits, labels):
    """The formula on the labelled pixels of each image that has any, in float64."""
    logits = np.asarray(logits, np.float64)
    terms = []
    for z, y in zip(logits, labels, strict=True):
        z, y = z[y != 255], y[y != 255]
        if not y.size:
            continue
        if z.shape[-1] == 1:
            classes = [(expit(z[:, 0]), y)]
        else:
            p = softmax(z, axis=-1)
            classes = [(p[:, k], y == k) for k in range(z.shape[-1])]
        each = [formula(p, np.asarray(q, np.float64)) for p, q in classes]
        terms.append(np.mean(each))
    return np.mean(terms)


def _problem(seed, channels, values):
    """Logits and labels of three images, the last of which is all void."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(3, 6, 7, channels)).astype(np.float32)
    labels = rng.choice([*values, 255], (3, 6, 7))
    labels[2] = 255
    return logits, labels


@pytest.mark.parametrize(("loss", "formula"), OVER_IMAGES)
@pytest.mark.parametrize("channels", [1, 2, 4])
def test_losses_over_images_equal_their_formulas(loss, formula, channels):
    logits, labels = _problem(2, channels, range(max(channels, 2)))
    found = loss(jnp.asarray(logits), jnp.asarray(labels, jnp.uint8))
    np.testing.assert_allclose(
        found, _mean_over_images(formula, logits, labels), rtol=1e-5
    )


@pytest.mark.parametrize(("loss", "formula"), OVER_IMAGES)
def test_losses_over_images_take_soft_labels(loss, formula):
    logits, labels = _problem(3, 1, [0.0, 0.2, 0.7, 1.0])
    found = loss(jnp.asarray(logits), jnp.asarray(labels, jnp.float32))
    np.testing.assert_allclose(
        found, _mean_over_images(formula, logits, labels), rtol=1e-4
    )


def test_cross_entropy_takes_soft_labels():
    logits, labels = _problem(4, 1, [0.0, 0.2, 0.7, 1.0])
    keep = labels != 255
    p, q = expit(logits[..., 0].astype(np.float64))[keep], labels[keep]
    expected = -np.mean(q * np.log(p) + (1 - q) * np.log1p(-p))
    found = losses.cross_entropy(jnp.asarray(logits), jnp.asarray(labels, jnp.float32))
    np.testing.assert_allclose(found, expected, rtol=1e-5)


@pytest.mark.parametrize(("loss", "formula"), OVER_IMAGES)
@pytest.mark.parametrize("channels", [1, 3])
def test_gradients_equal_finite_differences_of_the_formulas(loss, formula, channels):
    logits, labels = _problem(5, channels, range(max(channels, 2)))
    found = jax.grad(loss)(jnp.asarray(logits), jnp.asarray(labels, jnp.uint8))
    logits = logits.astype(np.float64)
    expected = np.zeros_like(logits)
    for place in np.ndindex(logits.shape):
        step = np.zeros_like(logits)
        step[place] = 1e-5
        ahead = _mean_over_images(formula, logits + step, labels)
        behind = _mean_over_images(formula, logits - step, labels)
        expected[place] = (ahead - behind) / 2e-5
    np.testing.assert_allclose(found, expected, atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize("name", losses.LOSSES)
@pytest.mark.parametrize("fill", [0, 1, 255])
@pytest.mark.parametrize("logit", [-200.0, 0.0, 200.0])
def test_constant_labels_and_saturated_scores_have_finite_gradients(name, fill, logit):
    labels = jnp.full((2, 4, 4), fill, jnp.uint8)

    def loss(logits):
        return losses.LOSSES[name](logits, labels).mean()

    for channels in (1, 3):
        logits = jnp.zeros((2, 4, 4, channels)).at[..., 0].set(logit)
        value, gradient = jax.value_and_grad(loss)(logits)
        assert np.isfinite(value)
        assert np.isfinite(gradient).all()


@pytest.mark.parametrize("name", losses.LOSSES)
def test_sums_of_two_batches_add_up_to_those_of_both(name):
    logits, labels = _problem(6, 1, [0, 1])
    logits, labels = jnp.asarray(logits), jnp.asarray(labels, jnp.uint8)
    whole = losses.LOSSES[name](logits, labels)
    first = losses.LOSSES[name](logits[:1], labels[:1])
    rest = losses.LOSSES[name](logits[1:], labels[1:])
    np.testing.assert_allclose(whole.total, first.total + rest.total, rtol=1e-6)
    assert whole.weight == first.weight + rest.weight


@pytest.mark.parametrize("name", losses.LOSSES)
def test_soft_labels_with_several_logits_are_named(name):
    with pytest.raises(InputError, match=r"labels: dtype float32 with 3 logits"):
        losses.LOSSES[name](jnp.zeros((1, 2, 2, 3)), jnp.zeros((1, 2, 2)))


def test_unknown_loss_lists_the_known():
    with pytest.raises(InputError, match=r"^loss: got 'dise', .*cross_entropy"):
        losses.build("dise")


def brier(logits, labels):
    """The plug-in of the tests: squared error of the foreground's probability."""
    error = (jax.nn.sigmoid(logits[..., 0]) - labels) ** 2
    labelled = labels != 255
    return losses.Sums(jnp.where(labelled, error, 0).sum(), labelled.sum())


def scalar(logits, labels):
    return brier(logits, labels).mean()


NUMBER = 3


def test_a_plugin_is_called_as_it_is():
    logits, labels = _problem(7, 1, [0, 1])
    found = losses.build(f"{__name__}:brier")(jnp.asarray(logits), jnp.asarray(labels))
    keep = labels != 255
    expected = np.mean((expit(logits[..., 0]) - labels)[keep] ** 2)
    np.testing.assert_allclose(found.mean(), expected, rtol=1e-5)


def test_a_plugin_that_is_no_loss_is_named():
    with pytest.raises(InputError, match=r"^loss: got '.*NUMBER', a int, expected"):
        losses.build(f"{__name__}:NUMBER")
    loss = losses.build(f"{__name__}:scalar")
    with pytest.raises(InputError, match=r"^loss: .*returns .*, expected .*Sums"):
        loss(jnp.zeros((1, 2, 2, 1)), jnp.zeros((1, 2, 2), jnp.uint8))


@pytest.mark.parametrize("name", losses.LOSSES)
@pytest.mark.parametrize("channels", [1, 3])
def test_negative_labels_are_void_in_every_loss(name, channels):
    rng = np.random.default_rng(3)
    logits = rng.normal(size=(2, 5, 7, channels)).astype(np.float32)
    labels = rng.choice([0, 1, 255], (2, 5, 7))
    expected = losses.LOSSES[name](logits, labels.astype(np.uint8))
    for dtype in (np.int8, np.int32, np.int64):
        marked = np.where(labels == 255, -1, labels).astype(dtype)
        found = losses.LOSSES[name](logits, marked)
        np.testing.assert_array_equal(found, expected)
    if channels == 1:
        soft = np.where(labels == 255, -1, labels).astype(np.float32)
        np.testing.assert_array_equal(losses.LOSSES[name](logits, soft), expected)


@pytest.mark.parametrize("name", losses.LOSSES)
def test_labels_that_are_no_class_are_named_and_void_where_traced(name):
    loss, logits = losses.LOSSES[name], jnp.ones((1, 2, 2, 3))
    labels = np.array([[[0, 1], [2, 3]]])
    with pytest.raises(InputError, match=r"^labels: class id 3, expected 0..2 or 255"):
        loss(logits, labels)
    with pytest.raises(InputError, match=r"^labels: class id 2, expected 0..1 or 255"):
        loss(logits[..., :1], labels)
    traced = jax.jit(loss)(logits, labels)
    np.testing.assert_array_equal(
        traced, loss(logits, np.where(labels > 2, 255, labels))
    )


@pytest.mark.parametrize("name", losses.LOSSES)
@pytest.mark.parametrize("value", [1.5, 254.0, np.nan])
def test_soft_labels_above_one_are_named(name, value):
    labels = np.array([[[0.0, value]]], np.float32)
    with pytest.raises(InputError, match=r"^labels: got .*, expected soft labels in"):
        losses.LOSSES[name](jnp.ones((1, 1, 2, 1)), labels)


@pytest.mark.parametrize("name", losses.LOSSES)
@pytest.mark.parametrize("channels", [1, 4])
def test_shapes_that_differ_are_both_named(name, channels):
    logits = jnp.ones((1, 8, 8, channels))
    for shape in ((1, 8, 8, 1), (8, 8), (1, 8, 7)):
        message = rf"^labels: got shape \({', '.join(map(str, shape))}\), expected "
        message += rf"\(1, 8, 8\), as logits \(1, 8, 8, {channels}\)$"
        with pytest.raises(InputError, match=message):
            losses.LOSSES[name](logits, np.zeros(shape, np.uint8))


@pytest.mark.parametrize("name", losses.LOSSES)
@pytest.mark.parametrize("shape", [(0, 4, 5), (2, 0, 5)])
def test_a_batch_without_pixels_has_no_term(name, shape):
    sums = losses.LOSSES[name](jnp.ones((*shape, 1)), np.zeros(shape, np.uint8))
    assert (float(sums.total), int(sums.weight), float(sums.mean())) == (0, 0, 0)
