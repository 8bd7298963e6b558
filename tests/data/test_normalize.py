"""Normalisation equals its closed form, for images of any size and dtype."""

from types import SimpleNamespace

import numpy as np
import pytest

from metaseg.data import normalize
from metaseg.errors import InputError

RNG = np.random.default_rng(0)
IMAGES = {
    "uint8": RNG.integers(0, 256, (40, 30, 3), dtype=np.uint8),
    "uint16": RNG.integers(0, 65_536, (40, 30, 1), dtype=np.uint16),
    "int32": RNG.integers(-(2**31), 2**31 - 1, (40, 30, 1), dtype=np.int32),
    "float32": RNG.normal(1e6, 1.0, (40, 30, 1)).astype(np.float32),
}


def build(method, **fields):
    return normalize.build(method, **fields)


@pytest.mark.parametrize("dtype", IMAGES)
@pytest.mark.parametrize("slab", [7, 1 << 24])
def test_zscore_has_mean_0_and_variance_1_however_it_is_cut(dtype, slab, monkeypatch):
    monkeypatch.setattr(normalize, "_SLAB", slab)
    image = IMAGES[dtype]
    exact = (image - image.mean(dtype=np.float64)) / image.std(dtype=np.float64)
    found = build("zscore")(image)(image)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, exact, atol=3e-6)


@pytest.mark.parametrize("dtype", IMAGES)
def test_percentiles_become_0_and_1(dtype):
    image = IMAGES[dtype]
    low, high = np.percentile(image.astype(np.float64), (1, 99.8))
    found = build("percentile")(image)(image)
    np.testing.assert_allclose(found, (image - low) / (high - low), atol=1e-4)


def test_fixed_is_the_same_for_every_image_and_per_channel():
    method = build("fixed", mean=(10, 20, 30), std=(1, 2, 4))
    image = IMAGES["uint8"]
    expected = (image - np.array([10.0, 20.0, 30.0])) / [1, 2, 4]
    np.testing.assert_allclose(method(image)(image), expected, rtol=1e-6)
    np.testing.assert_array_equal(
        method(image[:5])(image[:1]), method(image)(image)[:1]
    )
    scaled = build("fixed", std=255)(image)(image)
    np.testing.assert_allclose(scaled, image / 255, rtol=1e-6)


def test_fixed_takes_any_number_of_channels_and_repeats_grey_images():
    image = RNG.integers(0, 256, (4, 5, 2), dtype=np.uint8)
    method = build("fixed", mean=(10, 20), std=4)
    expected = (image - np.array([10.0, 20.0])) / 4
    np.testing.assert_allclose(method(image)(image), expected, rtol=1e-6)
    grey = image[..., :1]
    expected = (grey - np.array([10.0, 20.0])) / 4
    np.testing.assert_allclose(method(grey)(grey), expected, rtol=1e-6)
    with pytest.raises(InputError, match=r"^mean: got 2 numbers, .* 3 channels"):
        method(IMAGES["uint8"])


def test_none_keeps_stored_values():
    np.testing.assert_array_equal(
        build("none")(IMAGES["uint16"])(IMAGES["uint16"]), IMAGES["uint16"]
    )


@pytest.mark.parametrize("method", ["zscore", "percentile"])
def test_a_constant_image_becomes_zeros(method):
    image = np.full((5, 4, 1), 0.1, np.float32)
    assert (build(method)(image)(image) == 0).all()


def test_a_part_is_normalised_as_in_the_whole():
    image = IMAGES["uint16"]
    affine = build("zscore")(image)
    np.testing.assert_array_equal(affine(image)[3:9], affine(image[3:9]))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"normalize": "max"}, "data.normalize: got 'max', expected one of zscore"),
        (
            {"normalize": "fixed", "std": 0},
            "data.std: got 0, expected",
        ),
        (
            {"normalize": "fixed", "mean": "x"},
            "data.mean: got 'x', expected",
        ),
        ({"normalize": "fixed", "mean": ((1, 2),)}, "data.mean"),
        ({"normalize": "fixed", "std": float("nan")}, "data.std"),
    ],
)
def test_a_wrong_field_is_named(fields, message):
    with pytest.raises(InputError) as caught:
        normalize.of_config(SimpleNamespace(**fields))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
