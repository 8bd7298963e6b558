import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from metaseg import checks, labels
from metaseg.errors import InputError

MAPS = (
    np.random.default_rng(0).choice([0, 1, 2, 255], size=(2, 3, 7, 5)).astype("uint8")
)


def test_one_hot_marks_the_class_and_is_zero_where_void():
    expected = (MAPS[..., None] == np.arange(3)).astype(np.float32)
    encoded = labels.one_hot(jnp.asarray(MAPS), 3)
    assert encoded.dtype == jnp.float32
    np.testing.assert_array_equal(encoded, expected)
    np.testing.assert_array_equal(
        labels.is_void(jnp.asarray(MAPS)), encoded.sum(-1) == 0
    )


def test_class_counts_equal_bincount_of_each_map():
    counts = labels.class_counts(jnp.asarray(MAPS), 4)
    assert counts.shape == (2, 3, 4)
    for index in np.ndindex(2, 3):
        expected = np.bincount(MAPS[index].ravel(), minlength=256)[:4]
        np.testing.assert_array_equal(counts[index], expected)


def test_validate_accepts_class_ids_and_void():
    labels.validate(MAPS, 3)
    labels.validate(MAPS.astype(np.int32), 3)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (MAPS.astype(float), "a.png: got dtype float64, expected integer class ids"),
        (MAPS[0, 0, 0], r"a.png: got shape \(5,\), expected \[..., H, W\]"),
        (np.array([[7, 1]]), r"a.png: class id 7, expected 0..3 or 255 \(void\)"),
        (np.array([[0, 2**32]]), r"a.png: class id 4294967296, expected 0..3 or .*"),
    ],
)
def test_validate_names_what_is_wrong(value, message):
    with pytest.raises(InputError, match=f"^{message}$"):
        labels.validate(value, 4, where="a.png")


@pytest.mark.parametrize("dtype", [np.int8, np.int16, np.int32, np.int64, np.float32])
def test_negative_numbers_are_void(dtype):
    ids = np.array([[0, 1, -1, -100]], dtype)
    for array in (ids, jnp.asarray(ids)):
        np.testing.assert_array_equal(labels.is_void(array), ids < 0)
        np.testing.assert_array_equal(labels.is_void(array, 1), ids != 0)


def test_replace_void_gives_all_void_one_id():
    ids = np.array([[0, 1, 2, 255, -1, 254]], np.int32)
    found = labels.replace_void(ids)
    np.testing.assert_array_equal(found, [[0, 1, 2, 255, 255, 254]])
    assert found.dtype == ids.dtype
    within = jax.jit(labels.replace_void, static_argnums=1)(ids, 2)
    np.testing.assert_array_equal(within, [[0, 1, 255, 255, 255, 255]])
    np.testing.assert_array_equal(labels.replace_void(ids, 2, by=0)[0, 2:], [0] * 4)


def test_ids_beyond_the_classes_are_named_in_arrays_of_either_library():
    for maps in (MAPS, jnp.asarray(MAPS)):
        for measure in (labels.one_hot, labels.class_counts, labels.validate):
            with pytest.raises(InputError, match=r"^labels: class id 2, expected 0..1"):
                measure(maps, 2)
    # Within a transformation ids are not known; they belong to no class.
    counts = jax.jit(labels.class_counts, static_argnums=1)(MAPS, 2)
    np.testing.assert_array_equal(counts, labels.class_counts(MAPS, 3)[..., :2])


def test_a_mask_of_0_and_255_gets_a_warning_that_names_the_cure():
    mask = np.array([[0, 255], [255, 0]], np.uint8)
    with pytest.warns(UserWarning, match="255 is void; if .* metaseg.labels.from_mask"):
        labels.validate(mask, 2)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for silent in (mask * 0, mask | 255, labels.from_mask(mask)):
            labels.validate(silent, 2)
        labels.validate(mask, 3)


@pytest.mark.parametrize(
    "mask",
    [[[0, 255]], [[0, 1]], [[False, True]], [[0.0, 1.0]], [[0, -1]], [[0, 65535]]],
)
def test_from_mask_makes_class_ids(mask):
    ids = labels.from_mask(np.array(mask))
    np.testing.assert_array_equal(ids, [[0, 1]])
    assert ids.dtype == np.uint8


def test_from_mask_refuses_a_third_value():
    with pytest.raises(InputError, match=r"^mask: got 1 and 255 besides 0, expected"):
        labels.from_mask(np.array([[0, 1, 255]]))


def test_checks_that_need_no_jax_know_the_same_void():
    assert checks.VOID == labels.VOID
