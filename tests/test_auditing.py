"""The audit's numbers against scipy, NumPy and counts made by hand."""

from functools import cache, partial, reduce

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.ndimage as ndi

from metaseg import auditing, density, information, noise, ntm
from metaseg.data import synthetic
from metaseg.errors import InputError
from metaseg.labels import VOID

EIGHT = np.ones((3, 3), int)
COUNT = 12


@cache
def cells():
    keys = jax.random.split(jax.random.key(40), COUNT)
    return np.asarray(jax.jit(jax.vmap(lambda key: synthetic.cells(key)[1]))(keys))


def noisy(*noise_fns):
    fn = jax.jit(noise.per_example(noise.chain(*noise_fns)))
    return np.asarray(fn(jax.random.key(41), cells(), jnp.arange(COUNT)))


def pooled(labels, reference):
    pairs = [auditing.compare(a, b, 2) for a, b in zip(labels, reference, strict=True)]
    return reduce(auditing.add, pairs)


def odd(shape=(70, 93), num_classes=3, seed=0):
    """Blocks of random classes with void, of a size that is no bucket."""
    rng = np.random.default_rng(seed)
    coarse = rng.choice([*range(num_classes), VOID], size=(12, 16))
    return np.kron(coarse, np.ones((6, 6), int))[: shape[0], : shape[1]]


@pytest.mark.parametrize(
    ("size", "length"),
    [(1, 64), (64, 64), (65, 96), (97, 128), (200, 256), (2048, 2048), (2049, 3072)],
)
def test_bucket_is_the_next_larger_size(size, length):
    assert auditing.bucket(size) == length


def test_padding_changes_no_number():
    # The same maps, once with more void than the frame adds.
    labels, reference = odd(seed=1), odd(seed=2)
    around = ((0, 60), (0, 40))
    wide = partial(np.pad, pad_width=around, constant_values=VOID)
    plain = auditing.compare(labels, reference, 3)
    padded = auditing.compare(wide(labels), wide(reference), 3)
    for name, a, b in zip(auditing.Comparison._fields, plain, padded, strict=True):
        np.testing.assert_allclose(a, b, err_msg=name)


def test_examine_counts_as_numpy_and_scipy_do():
    labels = odd()
    labels[:2, :5] = 7
    labels[3, 3] = -4
    found = auditing.examine(labels, 3)
    known = (labels >= 0) & (labels < 3)
    np.testing.assert_array_equal(found.counts, np.bincount(labels[known], minlength=3))
    assert found.void == labels.size - known.sum()
    assert found.wrong == 10
    assert found.wrong_ids == (7,)  # a negative number is void
    for class_id in (1, 2):
        assert found.objects[class_id] == ndi.label(labels == class_id, EIGHT)[1]
    assert found.objects[0] == 0
    clean = np.where(known, labels, -1)
    right = (clean[:, 1:] != clean[:, :-1]) & (clean[:, 1:] >= 0) & (clean[:, :-1] >= 0)
    down = (clean[1:] != clean[:-1]) & (clean[1:] >= 0) & (clean[:-1] >= 0)
    assert found.perimeter == right.sum() + down.sum()


def test_information_is_that_of_the_density_inside_the_map():
    labels = odd(shape=(64, 64)).astype(np.uint8)  # fills its bucket
    rho = density.spatial_density(jnp.asarray(labels), 3, bandwidth=2.0)
    expected = information.spatial_information(rho)
    found = auditing.examine(labels, 3, bandwidth=2.0)
    np.testing.assert_allclose(found.information, expected, rtol=1e-5)
    # A map that does not fill its bucket: its density reaches into the padding.
    part = auditing.examine(labels[:50, :40], 3, bandwidth=2.0)
    rho = density.spatial_density(jnp.asarray(labels[:50, :40]), 3, bandwidth=2.0)
    expected = information.spatial_information(rho)
    np.testing.assert_allclose(part.information, expected, rtol=1e-4)


def test_roughness_is_high_for_specks_and_low_for_disks():
    rows, cols = np.mgrid[:128, :128] - 64
    disk = (rows**2 + cols**2 < 30**2).astype(np.uint8)
    specks = (np.random.default_rng(0).random((128, 128)) < 0.1).astype(np.uint8)
    assert auditing.examine(disk, 2).roughness < 0.05
    assert auditing.examine(specks, 2).roughness > 0.9
    assert auditing.examine(0 * disk, 2).roughness == 0


def test_joint_counts_and_depth_are_those_of_scipy():
    labels, reference = odd(seed=3).astype(np.uint8), odd(seed=4).astype(np.uint8)
    pair = auditing.compare(labels, reference, 3)
    np.testing.assert_array_equal(pair.joint, ntm.joint_counts(reference, labels, 3))
    edge = np.zeros(reference.shape, bool)
    for axis in (0, 1):
        for step in (1, -1):
            other = np.roll(reference, step, axis)
            near = (other != reference) & (other != VOID) & (reference != VOID)
            border = 0 if step == 1 else -1
            near[(border, slice(None)) if axis == 0 else (slice(None), border)] = False
            edge |= near
    depth = np.minimum(ndi.distance_transform_edt(~edge), auditing.DEPTHS - 1).astype(
        int
    )
    valid = (labels != VOID) & (reference != VOID)
    expected = np.zeros((3, auditing.DEPTHS, 3), int)
    np.add.at(expected, (reference[valid], depth[valid], labels[valid]), 1)
    np.testing.assert_array_equal(pair.profile.sum(axis=0), expected)


def test_missed_invented_split_and_joined_objects_are_counted():
    reference = np.zeros((96, 96), np.uint8)
    reference[5:20, 5:20] = 1  # kept
    reference[5:20, 30:45] = 1  # missed
    reference[40:55, 5:20] = 1  # joined with
    reference[40:55, 24:39] = 1  # this one
    reference[40:55, 60:81] = 1  # split
    labels = reference.copy()
    labels[5:20, 30:45] = 0
    labels[45:50, 20:24] = 1
    labels[40:55, 69:72] = 0
    labels[70:80, 70:80] = 1  # invented
    pair = auditing.compare(labels, reference, 2)
    judged, missed, part, split, all_sizes = pair.objects[1]
    assert (judged, missed, part, split, all_sizes) == (5, 1, 0, 1, 5)
    solid, joined, invented = pair.found[1]
    assert (solid, joined, invented) == (ndi.label(labels, EIGHT)[1], 1, 1)
    assert pair.invented == 100
    missed_pixels = pair.profile[1].sum()
    assert missed_pixels == 15 * 15


def test_covers_of_objects_are_those_of_scipy():
    reference = cells()[0]
    labels = noisy(partial(noise.sample, fraction=0.6))[0]
    numbers, count = ndi.label(reference, EIGHT)
    area = np.bincount(numbers.ravel())[1:]
    hits = ndi.sum_labels(labels, numbers, np.arange(1, count + 1))
    judged = area >= 9
    area, hits = area[judged], hits[judged]
    expected = [len(area), area.sum(), (area**2).sum(), hits.sum()]
    expected.append((hits**2 / area).sum())
    spread = auditing.compare(labels, reference, 2).spread[1]
    np.testing.assert_allclose(spread, expected, rtol=1e-5)


def test_kinds_of_error_add_up_to_all_wrong_pixels():
    for fn in (
        partial(noise.flip, rate=0.3),
        partial(noise.elastic, amplitude=3.0),
        partial(noise.add, rate=0.5),
    ):
        labels = noisy(fn)
        wrong = (labels != cells()).sum()
        assert auditing.error_kinds(pooled(labels, cells())).total == pytest.approx(
            wrong
        )


FAMILIES = {
    "clean": (noise.clean,),
    "randomised": (
        partial(noise.flip, rate=0.4),
        partial(noise.flip, rate=0.9),
        partial(noise.sample, fraction=0.02),
    ),
    "perturbed": (
        partial(noise.dilate, radius=2),
        partial(noise.skeletonize),
        partial(noise.shift_pixels, radius=2),
        partial(noise.translate, shift=12),
    ),
    "objects": (
        partial(noise.omit, rate=0.4),
        partial(noise.add, rate=0.4),
        partial(noise.boxes),
    ),
    "sparse": (partial(noise.points), partial(noise.scribbles)),
    "random": (partial(noise.random, prior=0.2), partial(noise.constant, fill=0)),
}


@pytest.mark.parametrize("family", FAMILIES)
def test_verdict_names_the_family(family):
    for fn in FAMILIES[family]:
        found = auditing.verdict(pooled(noisy(fn), cells()))
        assert found.family == family, fn
        assert found.sentences
        assert "never" not in " ".join(found.sentences)


def test_differences_of_two_annotators_have_two_kinds_of_error():
    # The second annotator draws other outlines and overlooks some objects.
    outlines = noisy(partial(noise.elastic, amplitude=2.0))
    labels = noisy(
        partial(noise.elastic, amplitude=2.0), partial(noise.omit, rate=0.25)
    )
    found = auditing.verdict(pooled(labels, cells()))
    overlooked = (outlines != labels).sum() / (labels != cells()).sum()
    assert found.family in ("perturbed", "objects")
    assert found.kinds.independent < 0.1
    assert found.kinds.boundary > 0.2
    assert found.kinds.objects == pytest.approx(overlooked, abs=0.2)
    said = " ".join(found.sentences)
    assert "Boundaries are displaced" in said
    assert "Whole objects are wrong" in said
    assert found.evidence["missed_objects"] == pytest.approx(0.25, abs=0.15)
    assert 0.3 < found.evidence["displacement"] < 3


def test_heavy_flips_do_not_hide_displaced_boundaries():
    labels = noisy(partial(noise.erode, radius=2), partial(noise.flip, rate=0.35))
    found = auditing.verdict(pooled(labels, cells()))
    assert found.kinds.independent > 0.9
    assert found.family == "perturbed"
    assert found.evidence["step_contrast"] < 0.5


def test_independent_noise_has_the_evidence_of_independence():
    rate = 0.3
    pair = pooled(noisy(partial(noise.flip, rate=rate)), cells())
    found = auditing.evidence(pair)
    # Correlations of so many independent pairs are within 5 standard deviations.
    assert abs(found["neighbour_correlation"]) < 5 / np.sqrt(0.1 * pair.labelled)
    assert abs(found["step_contrast"] - 1) < 5 * found["step_error"]
    assert found["disagreement"] == pytest.approx(rate, abs=0.01)
    expected = information.semantic_information(
        ntm.symmetric(2, rate), pair.joint.sum(axis=1) / pair.labelled
    )
    # The evidence is within maps, whose shares differ: at most that of the whole set.
    assert 0.7 * float(expected) < found["information"] < 1.02 * float(expected)


def multi():
    """Regions of four classes."""
    grid = jax.random.normal(jax.random.key(2), (6, 9, 9, 4))
    fields = jax.image.resize(grid, (6, 128, 128, 4), "cubic")
    return np.asarray(jnp.argmax(fields, axis=-1).astype(jnp.uint8))


@pytest.mark.parametrize(
    ("fn", "family"),
    [
        (partial(noise.transition, matrix=ntm.pair(4, 0.3)), "randomised"),
        (partial(noise.elastic, amplitude=2.0), "perturbed"),
        (partial(noise.random, prior=(0.4, 0.3, 0.2, 0.1)), "random"),
    ],
)
def test_verdict_on_many_classes(fn, family):
    clean = multi()
    one = jax.jit(noise.per_example(fn))
    labels = np.asarray(one(jax.random.key(0), clean, jnp.arange(len(clean))))
    pairs = [auditing.compare(a, b, 4) for a, b in zip(labels, clean, strict=True)]
    assert auditing.verdict(reduce(auditing.add, pairs)).family == family


def many_cells():
    """Cells of class 1 in the left half, and of class 2 in the right half."""
    maps = cells().copy()
    maps[:, :, 64:][maps[:, :, 64:] == 1] = 2
    return maps


def judged(labels, clean=None, num_classes=3, **options):
    clean = many_cells() if clean is None else clean
    pairs = [
        auditing.compare(a, b, num_classes) for a, b in zip(labels, clean, strict=True)
    ]
    return auditing.verdict(reduce(auditing.add, pairs), **options)


def omitted(rate):
    omit = partial(noise.omit, rate=rate)
    one = jax.jit(noise.per_example(noise.only((0, 2), omit)))
    return np.asarray(one(jax.random.key(5), many_cells(), jnp.arange(COUNT)))


@pytest.mark.parametrize("rate", [0.5, 0.9, 1.0])
def test_a_class_whose_objects_are_missed_has_object_errors_at_any_rate(rate):
    found = judged(omitted(rate))
    assert found.family == "objects"
    assert found.kinds.objects > 0.95
    assert not any("Boundaries" in text for text in found.sentences)
    never = "Class 2 is never labelled: 100 % of its pixels are labelled class 0."
    assert (never in found.sentences) == (rate == 1)


def test_a_class_that_is_always_called_another_is_merged_with_it():
    labels = np.minimum(many_cells(), 1)
    found = judged(labels)
    assert found.family == "objects"
    assert found.kinds.objects == pytest.approx(1)
    assert "Classes 1 and 2 are merged: all are labelled class 1." in found.sentences
    named = judged(labels, class_names=("none", "round", "long"))
    assert "Round and long are merged: all are labelled round." in named.sentences
    with pytest.raises(InputError, match=r"^class_names: got 2, expected 3$"):
        judged(labels, class_names=("a", "b"))


def test_other_errors_beside_a_lost_class_are_told_as_without_it():
    clean, eroded = many_cells(), noisy(partial(noise.erode, radius=2))
    found = judged(np.where(clean == 2, 0, eroded))
    alone = judged(np.where(clean == 2, VOID, eroded))
    assert "Class 2 is never labelled" in " ".join(found.sentences)
    assert "Boundaries are displaced" in " ".join(found.sentences)
    lost = (clean == 2).sum()
    wrong = lost + ((eroded != clean) & (clean == 1)).sum()
    assert found.kinds.objects == pytest.approx(lost / wrong, abs=0.01)
    for name in ("step_contrast", "displacement", "neighbour_correlation"):
        assert found.evidence[name] == pytest.approx(alone.evidence[name], abs=0.05)


def test_classes_in_each_others_place_are_told():
    swapped = np.array([0, 2, 1], np.uint8)[many_cells()]
    said = judged(swapped).sentences
    assert "Class 1 is always labelled class 2." in said
    assert "Class 2 is always labelled class 1." in said


def test_a_class_that_is_void_wherever_it_is_is_told():
    clean = many_cells()
    found = judged(np.where(clean == 2, VOID, clean))
    assert found.family == "clean"
    assert "Class 2 is never labelled: its pixels are void." in found.sentences


def test_bootstrap_equals_a_loop_over_numpy_draws():
    joints = np.random.default_rng(0).integers(0, 50, size=(40, 3, 3))
    rng = np.random.default_rng(1)
    ratios = []
    for _ in range(4000):
        total = joints[rng.integers(40, size=40)].sum(axis=0)
        ratios.append(total / total.sum(axis=1, keepdims=True))
    found = auditing.bootstrap(joints, draws=4000)
    # Expanded by about sqrt(n / (n - 1)) t / z, here 4.5 %.
    centre = np.mean(ratios, axis=0)
    for end, q in ((found.low, 0.025), (found.high, 0.975)):
        expected = np.quantile(ratios, q, axis=0) - centre
        np.testing.assert_allclose((end - centre) / expected, 1.045, atol=0.08)
    again = auditing.bootstrap(joints, draws=4000)
    np.testing.assert_array_equal(found.low, again.low)


def test_bootstrap_is_wider_than_wilson_if_neighbours_are_wrong_together():
    labels = noisy(partial(noise.omit, rate=0.5))
    joints = np.stack(
        [auditing.compare(a, b, 2).joint for a, b in zip(labels, cells(), strict=True)]
    )
    found = auditing.transition(joints)
    wide = found.interval.high[1, 1] - found.interval.low[1, 1]
    narrow = found.estimate.high[1, 1] - found.estimate.low[1, 1]
    assert wide > 5 * narrow
    assert found.interval.low[1, 1] <= 0.5 <= found.interval.high[1, 1]


def test_effective_labels_of_flips_follow_the_formula():
    joints = np.array([[[60, 40], [40, 60]]] * 9) * 1_000_000_000  # beyond 31 bits
    found = auditing.transition(joints, class_names=("sky", "sea"))
    np.testing.assert_allclose(found.estimate.matrix, [[0.6, 0.4], [0.4, 0.6]], 1e-4)
    assert found.labelled == 1_800_000_000_000
    assert found.effective == pytest.approx(0.04 * found.labelled, rel=1e-3)
    assert found.rank == 2
    assert found.condition_number == pytest.approx(5, rel=1e-3)
    assert auditing.transition(joints[:, ::-1] * 0 + 1).rank == 1


def test_a_class_without_pixels_has_no_information():
    joints = np.zeros((5, 3, 3), int)
    joints[:, :2, :2] = [[8, 2], [2, 8]]
    found = auditing.transition(joints)
    assert (found.interval.low[2], found.interval.high[2]) == (
        pytest.approx([0, 0, 0]),
        pytest.approx([1, 1, 1]),
    )
    assert found.effective == pytest.approx(0.36 * found.labelled)


def test_duplicates_are_found_exact_and_near():
    first, second, third = cells()[:3]
    near = first.copy()
    near[60, 60:64] = 1 - near[60, 60:64]
    doubled = np.kron(second, np.ones((2, 2), np.uint8))
    blank = np.zeros_like(first)
    maps = [first, second, first, near, third, doubled, blank, blank]
    found = auditing.duplicates([auditing.examine(one, 2) for one in maps])
    assert found.exact == ((0, 2),)
    assert sorted(found.near) == [(0, 3), (1, 5)]


def test_overview_and_outliers_list_unusual_maps():
    maps = [*cells(), np.full((128, 128), VOID), np.ones((128, 128), int)]
    maps.append(np.where(cells()[0] > 0, 9, 0))
    examined = [auditing.examine(one, 2) for one in maps]
    whole = auditing.overview(examined)
    assert whole.maps == COUNT + 3
    assert whole.empty == (COUNT,)
    assert whole.one_class == (COUNT + 1, COUNT + 2)
    assert whole.wrong_ids == {9: 1}
    found = auditing.outliers(examined)
    assert {COUNT, COUNT + 1} <= set(found.indices)
    assert found.reasons[0][0] in found.names


def test_wrong_input_is_named():
    with pytest.raises(InputError, match=r"a.png: .*expected integer class ids"):
        auditing.examine(np.zeros((4, 4)), 2, where="a.png")
    with pytest.raises(InputError, match=r"b.png: shape \(4, 4\), expected \(4, 5\)"):
        auditing.compare(np.zeros((4, 4), int), np.zeros((4, 5), int), 2, where="b.png")
    with pytest.raises(InputError, match="joints: "):
        auditing.bootstrap(np.zeros((3, 2, 3), int))


def test_counts_of_many_classes_do_not_overflow_narrow_ids():
    rng = np.random.default_rng(7)
    clean, labels = rng.integers(0, 20, (2, 60, 60)).astype(np.uint8)
    pair = auditing.compare(labels, clean, 20)
    np.testing.assert_array_equal(pair.joint, ntm.joint_counts(clean, labels, 20))
