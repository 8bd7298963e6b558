import numpy as np
import pytest
import scipy.ndimage as ndi
from scipy.cluster.vq import kmeans2
from skimage import filters

from metaseg import unsupervised
from metaseg.errors import InputError


def disks(channels=1):
    """Two bright disks on a noisy ground, and where they are."""
    rng = np.random.default_rng(0)
    rows, cols = np.mgrid[:48, :56]
    truth = np.hypot(rows - 15, cols - 18) < 9
    truth |= np.hypot(rows - 32, cols - 40) < 8
    image = 3.0 * truth[..., None] + rng.normal(0, 0.3, (48, 56, channels))
    return image.astype(np.float32), truth


def iou(mask, truth):
    return (mask & truth).sum() / (mask | truth).sum()


@pytest.mark.parametrize("method", unsupervised.METHODS)
@pytest.mark.parametrize("channels", [1, 3])
def test_every_method_finds_bright_disks(method, channels):
    image, truth = disks(channels)
    for polarity in unsupervised.POLARITIES:
        mask = unsupervised.segment(image, method, polarity=polarity)
        assert mask.dtype == bool
        assert iou(mask, truth) > 0.9


@pytest.mark.parametrize("method", unsupervised.METHODS)
def test_polarity_decides_on_dark_disks(method):
    image, truth = disks()
    smaller = unsupervised.segment(-image, method)
    brighter = unsupervised.segment(-image, method, polarity="brighter")
    assert iou(smaller, truth) > 0.9
    np.testing.assert_array_equal(brighter, ~smaller)


@pytest.mark.parametrize("method", unsupervised.METHODS)
@pytest.mark.parametrize("scale", [0.01, 1000.0])
def test_scale_and_offset_of_an_image_do_not_matter(method, scale):
    image, _ = disks()
    expected = unsupervised.segment(image, method)
    found = unsupervised.segment(image.astype(np.float64) * scale - 5, method)
    assert np.mean(found == expected) > 0.999


@pytest.mark.parametrize("method", unsupervised.METHODS)
@pytest.mark.parametrize("value", [0.0, -2.5, 255.0])
def test_constant_images_have_no_foreground(method, value):
    image = np.full((12, 13, 3), value) + np.array([0.0, 1.0, 2.0])
    for polarity in unsupervised.POLARITIES:
        assert not unsupervised.segment(image, method, polarity=polarity).any()


@pytest.mark.parametrize("method", unsupervised.METHODS)
def test_images_of_one_intensity_but_several_colours_do_not_crash(method):
    image = np.zeros((8, 8, 2))
    image[:3, :, 0], image[3:, :, 1] = 1.0, 1.0
    assert unsupervised.segment(image, method).shape == (8, 8)


@pytest.mark.parametrize("name", ["otsu", "li", "triangle"])
def test_thresholds_are_those_of_scikit_image_on_the_mean_of_the_channels(name):
    noise = np.random.default_rng(1).normal(size=(40, 50, 2))
    image = ndi.gaussian_filter(noise, (3, 3, 0)) ** 2
    shade = image.mean(axis=-1)
    unit = (shade - shade.min()) / np.ptp(shade)
    threshold = getattr(filters, f"threshold_{name}")(unit)
    found = unsupervised.METHODS[name](image)
    np.testing.assert_array_equal(found, unit > threshold)


def test_kmeans_ends_where_scipys_does():
    image, _ = disks(3)
    pixels = image.reshape(-1, 3).astype(np.float64)
    start = np.quantile(pixels, [0.1, 0.9], axis=0)
    _, cluster = kmeans2(pixels, start, iter=100, minit="matrix")
    found = unsupervised.kmeans(image)
    np.testing.assert_array_equal(found.ravel(), cluster == 1)


def test_wrong_arguments_are_named():
    image, _ = disks()
    for message, arguments in {
        "method: .*'watershed'": (image, "watershed"),
        r"image: got shape \(48, 56\)": (image[..., 0], "otsu"),
        "image: got values not finite": (np.full((4, 4, 1), np.nan), "otsu"),
    }.items():
        with pytest.raises(InputError, match=message):
            unsupervised.segment(*arguments)
    with pytest.raises(InputError, match=r"polarity: .*'darker'"):
        unsupervised.segment(image, "otsu", polarity="darker")


@pytest.mark.parametrize("method", unsupervised.METHODS.values())
def test_a_method_refuses_an_image_without_a_channel_axis(method):
    with pytest.raises(
        InputError, match=r"^image: got shape \(4, 6\), expected finite"
    ):
        method(np.zeros((4, 6)))
