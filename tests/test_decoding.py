import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import logit

from metaseg import decoding, metrics, ntm


def _clean_problem():
    """Clean posteriors p(x) of a foreground, and labels that follow them."""
    rng = np.random.default_rng(0)
    posterior = rng.uniform(0.02, 0.98, (3, 24, 20))
    labels = (rng.random(posterior.shape) < posterior).astype(np.uint8)
    return posterior, labels


@pytest.mark.parametrize(
    "matrix",
    [
        ntm.symmetric(2, 0.4),
        ntm.symmetric(2, 0.9),
        ntm.binary(0.3, 0.1),
        ntm.sampling(2, 0.1),
    ],
    ids=["flip40", "flip90", "asymmetric", "sample10"],
)
def test_the_analytic_rule_undoes_the_noise_of_ideal_scores(matrix):
    posterior, _ = _clean_problem()
    matrix = np.asarray(matrix)
    noisy = np.stack([1 - posterior, posterior], -1) @ matrix
    found = decoding.predict(jnp.asarray(noisy), matrix)
    sure = np.abs(posterior - 0.5) > 1e-3
    np.testing.assert_array_equal(np.asarray(found)[sure], (posterior > 0.5)[sure])


def test_the_analytic_rule_of_three_classes_is_the_argmax_after_decoding():
    rng = np.random.default_rng(1)
    posterior = rng.dirichlet(np.ones(3), (4, 5))
    matrix = np.asarray(ntm.pair(3, 0.7))
    found = decoding.predict(jnp.asarray(posterior @ matrix), matrix)
    np.testing.assert_array_equal(found, posterior.argmax(-1))


def test_probabilities_of_one_logit_are_the_sigmoid_and_its_rest():
    found = decoding.probabilities(jnp.array([[[logit(0.2)]]]))
    np.testing.assert_allclose(found, [[[0.8, 0.2]]], atol=1e-6)


def test_the_table_agrees_with_the_scores_themselves():
    posterior, labels = _clean_problem()
    matrix = np.asarray(ntm.symmetric(2, 0.9))
    noisy = posterior * matrix[1, 1] + (1 - posterior) * matrix[0, 1]
    logits = jnp.asarray(logit(noisy)[..., None], jnp.float32)
    statistics = jax.jit(lambda *x: decoding.statistics(*x, None))(
        logits, jnp.asarray(labels)
    )
    aware = decoding.statistics(logits, jnp.asarray(labels), matrix)
    np.testing.assert_array_equal(statistics.histogram, aware.histogram)

    measures, thresholds, image_iou = decoding.table(aware, aware, matrix)
    truth = labels == 1

    def iou(mask):
        return (mask & truth).sum() / (mask | truth).sum()

    assert measures["iou"]["argmax"] == pytest.approx(iou(noisy > 0.5))
    assert measures["iou"]["analytic"] == pytest.approx(iou(posterior > 0.5), abs=1e-3)
    best = thresholds["oracle"]
    assert best.inverted
    assert measures["iou"]["oracle"] == pytest.approx(iou(noisy < best.value), abs=1e-9)
    assert measures["iou"]["oracle"] >= measures["iou"]["analytic"] - 1e-6
    assert measures["iou"]["validation"] == measures["iou"]["oracle"]
    each = [
        (m & t).sum() / (m | t).sum()
        for m, t in zip(posterior > 0.5, truth, strict=True)
    ]
    np.testing.assert_allclose(image_iou["analytic"], each, atol=1e-3)
    assert measures["mean_image_iou"]["analytic"] == pytest.approx(
        np.mean(each), abs=1e-3
    )
    raw = metrics.auc(np.asarray(aware.histogram).sum(axis=0))
    assert raw < 0.5  # the scores came out inverted
    assert measures["auc"] == pytest.approx(1 - raw)


def test_a_histogram_counts_what_the_definition_decides_also_at_a_threshold_itself():
    rng = np.random.default_rng(4)
    scores = rng.integers(0, 16, (2, 9, 9)).astype(np.float32) / 16
    labels = rng.integers(0, 2, scores.shape).astype(np.uint8)
    counts = metrics.counts_above(metrics.score_histogram(scores, labels, num_bins=16))
    for inverted, found in ((False, counts), (True, counts.inverted())):
        for i in range(17):
            mask = decoding.is_foreground(scores, i / 16, inverted)
            hits = (mask & (labels == 1)).sum(axis=(1, 2))
            np.testing.assert_array_equal(found.tp[:, i], hits)
            np.testing.assert_array_equal(found.fp[:, i], mask.sum(axis=(1, 2)) - hits)


def test_a_score_of_one_half_is_foreground_with_and_without_a_matrix():
    half = jnp.full((1, 2), 0.5)
    assert decoding.predict(half).tolist() == [1]
    assert decoding.predict(half, ntm.symmetric(2, 0.25)).tolist() == [1]
    assert decoding.predict(half, ntm.symmetric(2, 0.75)).tolist() == [0]


def test_table_of_three_classes_has_miou_and_per_class_iou():
    rng = np.random.default_rng(2)
    labels = rng.integers(0, 3, (2, 8, 8)).astype(np.uint8)
    logits = jnp.asarray(rng.normal(size=(2, 8, 8, 3)), jnp.float32)
    found = decoding.statistics(logits, jnp.asarray(labels), None)
    measures, thresholds, _ = decoding.table(found, found, None)
    pooled = metrics.from_confusion(np.asarray(found.argmax).sum(0))["iou"]
    assert measures["miou"]["argmax"] == pytest.approx(pooled.mean())
    np.testing.assert_allclose(measures["class_iou"]["argmax"], pooled)
    assert thresholds == {}
    assert "auc" not in measures
