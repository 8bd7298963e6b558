import jax.numpy as jnp
import numpy as np
import pytest

from metaseg import labels
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
        (np.array([[0, -2]]), r"a.png: class id -2, expected 0..3 or 255 \(void\)"),
    ],
)
def test_validate_names_what_is_wrong(value, message):
    with pytest.raises(InputError, match=f"^{message}$"):
        labels.validate(value, 4, where="a.png")
