import math
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.ndimage as ndi
from scipy.stats import chisquare
from skimage.filters import threshold_otsu
from skimage.morphology import disk, opening, skeletonize

from metaseg import igtt
from metaseg.errors import InputError
from metaseg.labels import VOID

KEY = jax.random.key(0)
EMS = jax.jit(igtt.ems, static_argnames="radius")


def reference_candidates(scores, valid, num_thresholds):
    """Masks of all evenly spaced thresholds but the first and the last."""
    low, high = scores[valid].min(), scores[valid].max()
    thresholds = np.linspace(low, high, num_thresholds)[1:-1]
    return [(scores > threshold) & valid for threshold in thresholds]


def reference_agreement(scores, valid, mask, criterion):
    p, q = scores[valid].astype(np.float64), mask[valid].astype(np.float64)
    if criterion == "dmi":
        joint = np.array([p, 1 - p]) @ np.array([q, 1 - q]).T / p.size
        return abs(np.linalg.det(joint))
    if criterion == "iou":
        return (p * q).sum() / ((p**2).sum() + q.sum() - (p * q).sum())
    if criterion == "bce":
        return np.mean(q * np.log(p) + (1 - q) * np.log1p(-p))
    apart = p[q == 1].mean() - p[q == 0].mean()
    return q.mean() * (1 - q).mean() * apart**2


def reference_mask(scores, valid, criterion, num_thresholds):
    """The best mask of one image, inverted if it holds more than half of the pixels."""
    candidates = reference_candidates(scores, valid, num_thresholds)
    found = [reference_agreement(scores, valid, m, criterion) for m in candidates]
    mask = candidates[int(np.argmax(found))]
    return valid & ~mask if mask.sum() > valid.sum() / 2 else mask


def score_maps(seed, shape=(4, 24, 31), power=2.0):
    """Smooth random scores, some of which have more foreground than background."""
    rng = np.random.default_rng(seed)
    smooth = ndi.gaussian_filter(rng.normal(size=shape), (0, 3, 3))
    p = 1 / (1 + np.exp(-30 * smooth))
    exponents = power ** np.arange(-1, shape[0] - 1)
    p = p ** exponents[:, None, None] * 0.9 + 0.05
    valid = np.ones(shape, bool)
    valid[1, -5:] = False
    return p.astype(np.float32), valid


@pytest.mark.parametrize("criterion", igtt.CRITERIA)
def test_agreement_of_all_thresholds_equals_brute_force_over_explicit_masks(criterion):
    scores, valid = score_maps(0)
    found = jax.jit(partial(igtt.agreement, criterion=criterion, num_thresholds=12))(
        scores, valid
    )
    expected = [
        [
            reference_agreement(p, v, q, criterion)
            for q in reference_candidates(p, v, 12)
        ]
        for p, v in zip(scores, valid, strict=True)
    ]
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("criterion", igtt.CRITERIA)
def test_one_update_without_ems_equals_the_best_mask_computed_by_numpy(criterion):
    scores, valid = score_maps(1)
    update = jax.jit(
        partial(igtt.update_labels, criterion=criterion, keep=igtt.target("mask"))
    )
    found = np.asarray(update(KEY, scores, jnp.arange(4), valid=valid))
    for p, v, label in zip(scores, valid, found, strict=True):
        np.testing.assert_array_equal(label == 1, reference_mask(p, v, criterion, 30))
        np.testing.assert_array_equal(label == 255, ~v)


def test_best_threshold_of_dmi_is_next_to_the_mean_and_of_bce_next_to_one_half():
    scores, valid = score_maps(2)
    for criterion, middles in (
        ("dmi", [p[v].mean() for p, v in zip(scores, valid, strict=True)]),
        ("bce", [0.5] * 4),
    ):
        best = np.argmax(igtt.agreement(scores, valid, criterion=criterion), axis=-1)
        for p, v, i, middle in zip(scores, valid, best, middles, strict=True):
            step = (p[v].max() - p[v].min()) / 29
            assert abs(p[v].min() + (i + 1) * step - middle) <= step


def test_otsu_of_many_thresholds_equals_scikit_image():
    scores, _ = score_maps(3)
    found = igtt.best_mask(
        scores[:, :, :, None].mean(-1) * 100 - 20, criterion="otsu", num_thresholds=257
    )
    for p, mask in zip(scores, np.asarray(found), strict=True):
        assert np.mean(mask == (p > threshold_otsu(p))) > 0.995


@pytest.mark.parametrize("criterion", igtt.CRITERIA)
def test_invalid_pixels_change_no_result(criterion):
    scores, valid = score_maps(4)
    other = np.where(valid, scores, np.nan)
    for p in (scores, other):
        found = igtt.agreement(p[1], valid[1], criterion=criterion)
        cropped = igtt.agreement(scores[1, :-5], criterion=criterion)
        np.testing.assert_allclose(found, cropped, rtol=1e-5)
        mask = igtt.best_mask(p[1], valid[1], criterion=criterion)
        assert not mask[-5:].any()


@pytest.mark.parametrize("criterion", igtt.CRITERIA)
@pytest.mark.parametrize("value", [0.0, 0.3, 1.0])
def test_constant_scores_give_an_empty_mask(criterion, value):
    scores = jnp.full((2, 8, 9), value)
    assert np.isfinite(igtt.agreement(scores, criterion=criterion)).all()
    assert not igtt.best_mask(scores, criterion=criterion).any()


@pytest.mark.parametrize("criterion", igtt.CRITERIA)
def test_images_without_a_valid_pixel_give_an_empty_mask(criterion):
    scores, nothing = score_maps(5)[0], np.zeros((4, 24, 31), bool)
    assert np.isfinite(igtt.agreement(scores, nothing, criterion=criterion)).all()
    mask = igtt.masks(scores, nothing, criterion=criterion)
    assert not mask.any()
    assert (igtt.to_labels(mask, nothing) == 255).all()


@pytest.mark.parametrize("criterion", igtt.CRITERIA)
def test_saturated_scores_are_their_own_mask(criterion):
    scores = (score_maps(6)[0] > 0.5).astype(np.float32)
    assert np.isfinite(igtt.agreement(scores, criterion=criterion)).all()
    np.testing.assert_array_equal(
        igtt.best_mask(scores, criterion=criterion), scores == 1
    )


@pytest.mark.parametrize("criterion", igtt.CRITERIA)
def test_best_threshold_separates_the_best_mask_from_the_rest(criterion):
    scores, valid = score_maps(8)
    best = np.asarray(igtt.best_threshold(scores, valid, criterion=criterion))
    masks = np.asarray(igtt.best_mask(scores, valid, criterion=criterion))
    for threshold, score, mask, known in zip(best, scores, masks, valid, strict=True):
        assert score[mask].min() > threshold - 1e-6
        assert score[known & ~mask].max() < threshold + 1e-6
    assert np.isnan(igtt.best_threshold(jnp.ones((1, 4, 4)), criterion=criterion)).all()


def test_orient_makes_the_chosen_side_foreground():
    mask = np.zeros((2, 6, 6), bool)
    mask[0, :2], mask[1, :4] = True, True
    shade = np.where(mask, 0.2, 0.7)[..., None]
    small, large = mask[0], mask[1]
    expected = {
        "smaller": [small, ~large],
        "brighter": [~small, ~large],
        "darker": [small, large],
        "none": [small, large],
    }
    for polarity in igtt.POLARITIES:
        found = igtt.orient(mask, None, shade, polarity=polarity)
        np.testing.assert_array_equal(found, expected[polarity], polarity)


def test_orient_counts_valid_pixels_only():
    mask, valid = np.ones((6, 6), bool), np.ones((6, 6), bool)
    mask[3:], valid[:1] = False, False  # 2 rows of 5 are foreground
    np.testing.assert_array_equal(igtt.orient(mask, valid), mask & valid)


@pytest.mark.parametrize("polarity", ["brighter", "darker"])
def test_orient_without_contrast_inverts_nothing(polarity):
    image = np.ones((6, 6, 1))
    for mask in (np.zeros((6, 6), bool), np.eye(6) > 0):
        found = igtt.orient(mask, None, image, polarity=polarity)
        np.testing.assert_array_equal(found, mask)


def blobs(seed=0, shape=(3, 48, 56)):
    noise = np.random.default_rng(seed).normal(size=shape)
    smooth = ndi.gaussian_filter(noise, (0, 4, 4))
    return (smooth > np.quantile(smooth, 0.7)).astype(np.uint8)


@pytest.mark.parametrize("radius", [0, 1, 3])
def test_ems_lies_on_the_dilated_skeleton(radius):
    square = np.ones((2 * radius + 1, 2 * radius + 1), bool)
    masks = blobs()
    found = np.asarray(EMS(KEY, masks, radius=radius, fraction=0.5)).astype(bool)
    for mask, points in zip(masks, found, strict=True):
        near = ndi.binary_dilation(skeletonize(mask > 0), square)
        assert points.any()
        assert not (points & ~near).any()


@pytest.mark.parametrize("fraction", [0.0, 0.1, 0.34, 1.0])
def test_ems_keeps_exactly_its_share_of_the_shifted_pixels(fraction):
    mask = jnp.asarray(blobs())
    everything = EMS(KEY, mask, fraction=1.0)
    points = EMS(KEY, mask, fraction=fraction)
    for shifted, kept in zip(everything, points, strict=True):
        assert kept.sum() == math.ceil(round(int(shifted.sum()) * fraction, 6))
        assert not (kept & ~shifted).any()


def test_ems_shifts_uniformly_and_independently_along_both_axes():
    radius, pitch, side = 2, 7, 70
    lone = np.zeros((40, side, side), np.uint8)  # 4 000 pixels, no two in reach
    lone[:, 3::pitch, 3::pitch] = 1
    moved = np.asarray(EMS(KEY, jnp.asarray(lone), radius=radius, fraction=1.0))
    cells = moved.reshape(40, 10, pitch, 10, pitch).sum(axis=(0, 1, 3))
    inner = cells[1:-1, 1:-1]
    assert inner.sum() == cells.sum() == lone.sum()
    assert chisquare(inner.ravel()).pvalue > 1e-3


def test_ems_of_every_pixel_unmoved_is_the_skeleton():
    mask = blobs(1)
    found = EMS(KEY, jnp.asarray(mask), radius=0, fraction=1.0)
    np.testing.assert_array_equal(found, [skeletonize(m > 0) for m in mask])


def test_target_mask_is_the_mask_and_target_sample_an_exact_share_of_it():
    mask = blobs(2)
    whole = igtt.target("mask")(KEY, mask)
    some = np.asarray(jax.jit(igtt.target("sample", fraction=0.2))(KEY, mask))
    np.testing.assert_array_equal(whole, mask)
    assert not (some & ~mask).any()
    np.testing.assert_array_equal(
        some.sum(axis=(1, 2)), np.ceil(mask.sum(axis=(1, 2)) / 5)
    )


def test_target_random_places_as_many_points_as_ems_anywhere():
    mask = blobs(2)
    points = np.asarray(EMS(KEY, mask, radius=0, fraction=1.0))
    drawn = igtt.target("random", radius=0, fraction=1.0)
    labels = np.asarray(jax.jit(drawn)(KEY, mask))
    np.testing.assert_array_equal(labels.sum(axis=(1, 2)), points.sum(axis=(1, 2)))
    total, outside = labels.sum(), (labels & (1 - mask)).sum()
    share = 1 - mask.mean()
    assert abs(outside - total * share) < 4 * math.sqrt(total * share * (1 - share))


def test_update_of_an_example_does_not_depend_on_the_batch():
    scores, valid = score_maps(7)
    ids, others = jnp.array([5, 9, 2, 40]), np.array([2, 0, 3, 3])
    update = jax.jit(partial(igtt.update_labels, keep=igtt.target(fraction=0.5)))
    whole = np.asarray(update(KEY, scores, ids, valid=valid))
    mixed = update(KEY, scores[others], ids[others], valid=valid[others])
    np.testing.assert_array_equal(mixed, whole[others])
    again = update(jax.random.key(1), scores, ids, valid=valid)
    assert (np.asarray(again) != whole).any(axis=(1, 2)).all()


def test_soft_targets_are_the_gaussian_of_the_points_scaled_to_one():
    labels = np.zeros((2, 30, 30), np.uint8)
    labels[0, 5, 6] = labels[0, 20, 24] = 1
    found = np.asarray(igtt.soft_targets(jnp.asarray(labels), bandwidth=2.0))
    blurred, mass = (
        ndi.gaussian_filter(x, 2.0, mode="constant", truncate=14)
        for x in (labels[0].astype(float), np.ones((30, 30)))
    )
    expected = blurred / mass
    np.testing.assert_allclose(found[0], expected / expected.max(), atol=1e-5)
    assert not found[1].any()


def test_soft_targets_keep_void():
    labels = jnp.zeros((9, 9), jnp.uint8).at[4, 4].set(1).at[:2].set(255)
    found = igtt.soft_targets(labels, bandwidth=1.5)
    np.testing.assert_array_equal(found == 255, labels == 255)
    assert found[2:].max() == 1


def test_local_contrast_is_a_difference_of_gaussians_of_the_root_of_intensity():
    images = np.random.default_rng(0).normal(size=(20, 25, 3))
    valid = np.ones((20, 25), bool)
    valid[:, 20:] = False
    shade = images[:, :20].mean(-1)
    root = np.sqrt((shade - shade.min()) / np.ptp(shade))

    def mean(sigma):
        blur = partial(ndi.gaussian_filter, sigma=sigma, mode="constant", truncate=14)
        return blur(root) / blur(np.ones_like(root))

    found = igtt.local_contrast(images, valid, fine=1.0, sigma_coarse=3.0)
    np.testing.assert_allclose(found[:, :20], mean(1.0) - mean(3.0), atol=1e-5)
    assert not found[:, 20:].any()


def test_open_masks_is_an_opening_that_ignores_padding():
    mask = np.random.default_rng(0).random((2, 30, 34)) > 0.2
    found = igtt.open_masks(mask, min_radius=2)
    for one, expected in zip(found, mask, strict=True):
        expected = opening(expected, disk(2), mode="ignore")
        np.testing.assert_array_equal(one, expected)
    valid = np.zeros_like(mask)
    valid[:, :25, :20] = True
    cropped = igtt.open_masks(mask[:, :25, :20], min_radius=2)
    found = igtt.open_masks(mask, valid, min_radius=2)
    np.testing.assert_array_equal(found[:, :25, :20], cropped)
    assert not (found & ~valid).any()
    np.testing.assert_array_equal(igtt.open_masks(mask, min_radius=0), mask)


def reference_fit(mask, image, bandwidth, band):
    """Three times: pixels near the boundary join the side of the nearer local mean."""
    root = np.sqrt((image - image.min()) / np.ptp(image))
    blur = partial(ndi.gaussian_filter, sigma=1.0, mode="constant", truncate=14)
    smooth = blur(root) / blur(np.ones_like(root))
    half = np.sqrt(5) * bandwidth
    line = np.maximum(1 - (np.arange(-20, 21) / half) ** 2, 0)
    total = partial(ndi.convolve, weights=np.outer(line, line), mode="constant")
    for _ in range(3):
        inside, outside = (
            total(root * side) / np.maximum(total(side * 1.0), 1e-9)
            for side in (mask, ~mask)
        )
        near = ndi.distance_transform_edt(mask) <= band
        near &= ndi.distance_transform_edt(~mask) <= band
        nearer = np.abs(smooth - inside) < np.abs(smooth - outside)
        mask = np.where(near, nearer, mask)
    return mask


def objects_of_two_brightnesses():
    rows, columns = np.mgrid[:40, :56]
    truth = np.hypot(rows - 20, columns - 14) < 9
    bright = np.hypot(rows - 20, columns - 40) < 9
    image = ndi.gaussian_filter(truth * 1.0 + bright * 4.0, 1.5) + 1.0
    image += np.random.default_rng(0).normal(0, 0.02, image.shape)
    return image.astype(np.float32), truth | bright


def test_fit_boundary_follows_its_definition():
    image, _ = objects_of_two_brightnesses()
    mask = image > 1.3
    found = igtt.fit_boundary(mask, image[..., None], bandwidth=5.0)
    expected = reference_fit(mask, image, 5.0, 2)
    assert (expected != mask).sum() > 20
    assert (np.asarray(found) != expected).mean() < 1e-3  # ties are rounding's


def test_fit_boundary_corrects_the_sizes_of_bright_and_dim_objects():
    image, truth = objects_of_two_brightnesses()
    mask = image > 1.3
    negative = igtt.fit_boundary(mask, -image[..., None], bandwidth=5.0)
    found = igtt.fit_boundary(mask, image[..., None], bandwidth=5.0)
    for fitted in (found, negative):
        assert (fitted ^ truth).sum() < 0.5 * (mask ^ truth).sum()


def test_fit_boundary_keeps_padding_and_masks_without_a_boundary():
    image, truth = objects_of_two_brightnesses()
    fit = jax.jit(partial(igtt.fit_boundary, bandwidth=5.0))
    nothing, everything = np.zeros((40, 56), bool), np.ones((40, 56), bool)
    assert not fit(nothing, image[..., None]).any()
    assert fit(everything, image[..., None]).all()
    np.testing.assert_array_equal(fit(truth, np.ones((40, 56, 1))), truth)
    valid = nothing.copy()
    valid[:30, :40] = True
    padded = np.where(valid, image, 1e6)[..., None]
    found = fit(truth, padded, valid)
    cropped = fit(truth[:30, :40], image[:30, :40, None])
    np.testing.assert_array_equal(found[:30, :40], cropped)
    assert not (found & ~valid).any()


def test_ema_is_the_plain_mean_of_the_first_rounds_and_then_decays():
    scores = np.random.default_rng(0).random((6, 3, 4)).astype(np.float32)
    found = jnp.full((3, 4), 7.0)
    for i in range(4):
        found = igtt.ema(found, scores[i], i, decay=0.75)
    np.testing.assert_allclose(found, scores[:4].mean(axis=0), rtol=1e-5)
    for i in (4, 5):
        expected = 0.75 * found + 0.25 * scores[i]
        found = igtt.ema(found, scores[i], i, decay=0.75)
        np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_stability_is_the_iou_with_the_previous_round():
    now = np.zeros((4, 4, 4), bool)
    before = now.copy()
    now[0, :2], before[0, 1:3] = True, True  # 1 of 3 rows shared
    now[1], before[2] = True, True
    np.testing.assert_allclose(igtt.stability(now, before), [1 / 3, 0, 0, 1])


def test_wrong_arguments_are_named():
    scores = jnp.zeros((1, 4, 4))
    wrong = {
        "criterion: .*'dice'": {"criterion": "dice"},
        "num_thresholds: got 2": {"num_thresholds": 2},
        "polarity: .*'larger'": {"polarity": "larger"},
        "images: got None, .*'darker'": {"polarity": "darker"},
        "images: got None, boundary_sigma": {"boundary_sigma": 3.0},
        "min_radius: got -1": {"min_radius": -1},
        "boundary_sigma: got -1": {"boundary_sigma": -1.0, "images": scores[..., None]},
    }
    for message, argument in wrong.items():
        with pytest.raises(InputError, match=message):
            igtt.update_labels(KEY, scores, jnp.arange(1), **argument)
    with pytest.raises(InputError, match=r"name: .*'skeleton'"):
        igtt.target("skeleton")
    with pytest.raises(InputError, match="fraction: got 2"):
        igtt.target("sample", fraction=2.0)(KEY, jnp.zeros((4, 4), jnp.uint8))


def test_void_of_any_number_is_void_in_soft_targets():
    labels = np.zeros((12, 12), np.int32)
    labels[4:6, 3:9] = 1
    marked = labels.copy()
    marked[:3] = -1
    void = np.where(marked < 0, VOID, marked)
    expected = igtt.soft_targets(void, bandwidth=2.0)
    np.testing.assert_array_equal(igtt.soft_targets(marked, bandwidth=2.0), expected)
    assert (np.asarray(expected)[:3] == VOID).all()
    with pytest.raises(InputError, match=r"^labels: class id 2, expected 0..1 or 255"):
        igtt.soft_targets(2 * labels, bandwidth=2.0)


SCORES, MASK = np.zeros((2, 6, 8), np.float32), np.zeros((2, 6, 8), bool)
IMAGES = np.zeros((2, 6, 8, 3), np.float32)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: igtt.agreement(SCORES, MASK[:1]), r"valid: got shape \(1, 6, 8\), "),
        (lambda: igtt.best_mask(SCORES, MASK.mT), r"valid: got shape \(2, 8, 6\), "),
        (lambda: igtt.best_mask(SCORES[0, 0]), r"scores: got shape \(8,\), expected "),
        (lambda: igtt.orient(MASK, MASK[0]), r"valid: got shape \(6, 8\), expected "),
        (
            lambda: igtt.orient(MASK, None, IMAGES[:1], polarity="brighter"),
            r"images: got shape \(1, 6, 8, 3\), expected \(2, 6, 8\) and channels, ",
        ),
        (
            lambda: igtt.fit_boundary(MASK, IMAGES[0], bandwidth=3.0),
            r"images: got shape \(6, 8, 3\), expected ",
        ),
        (lambda: igtt.open_masks(MASK, MASK[0], min_radius=1), "valid: got shape "),
        (lambda: igtt.to_labels(MASK, MASK[0]), "valid: got shape "),
        (lambda: igtt.stability(MASK, MASK[0]), "previous: got shape "),
        (lambda: igtt.ema(MASK, MASK[0], 1, decay=0.5), "new: got shape "),
    ],
)
def test_shapes_that_differ_are_named(call, message):
    with pytest.raises(InputError, match=rf"^{message}"):
        call()


@pytest.mark.parametrize("shape", [(0, 4, 5), (2, 0, 5)])
def test_batches_without_pixels_pass(shape):
    scores, labels = np.zeros(shape, np.float32), np.zeros(shape, np.uint8)
    key, ids = jax.random.key(0), np.arange(shape[0])
    assert igtt.update_labels(key, scores, ids).shape == shape
    assert igtt.agreement(scores).shape == (shape[0], 28)
    assert igtt.soft_targets(labels, bandwidth=2.0).shape == shape
