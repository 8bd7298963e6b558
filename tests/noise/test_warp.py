"""Warped maps. Maps of row and column numbers show how far each pixel has moved."""

from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.ndimage as ndi
import scipy.stats
from skimage.morphology import disk

from metaseg import noise
from metaseg.errors import InputError
from metaseg.labels import VOID

KEY = jax.random.key(0)
SHAPE = 40, 51
MAPS = 400
SHIFT = 3
ROWS, COLS = np.indices(SHAPE)

AFFINE = {"angle": 40.0, "scale": 0.2, "shear": 15.0, "shift": SHIFT}
AMPLITUDE, WAVELENGTH = 2.0, 12.0
WARPS = {
    "translate": partial(noise.translate, shift=SHIFT),
    "affine": partial(noise.affine, **AFFINE),
    "turn": partial(noise.affine, angle=30.0),
    "elastic": partial(noise.elastic, amplitude=AMPLITUDE, wavelength=WAVELENGTH),
}


@cache
def compiled(name, fill):
    return jax.jit(partial(WARPS[name], KEY, fill=fill))


def warp(name, labels, fill=VOID):
    labels = jnp.broadcast_to(jnp.asarray(labels, jnp.uint8), (MAPS, *SHAPE))
    return np.asarray(compiled(name, fill)(labels))


@cache
def read_from(name):
    """Row and column that each pixel of each map reads, NaN where outside."""
    found = [warp(name, number).astype(float) for number in (ROWS, COLS)]
    np.testing.assert_array_equal(*(number == VOID for number in found))
    return [np.where(number == VOID, np.nan, number) for number in found]


def blocks(void):
    """Classes in blocks of 6 x 6 pixels, some void."""
    small = np.random.default_rng(0).choice([0, 1, 2, VOID] if void else 3, (7, 9))
    return np.kron(small, np.ones((6, 6), int))[: SHAPE[0], : SHAPE[1]]


def assert_uniform(values, low, high):
    assert np.min(values) >= low - 0.02 * (high - low)
    assert np.max(values) <= high + 0.02 * (high - low)
    assert scipy.stats.kstest(values, "uniform", (low, high - low)).pvalue > 1e-5


def assert_uniform_shifts(down, right):
    side = 2 * SHIFT + 1
    cell = (down + SHIFT) * side + right + SHIFT
    assert scipy.stats.chisquare(np.bincount(cell, minlength=side**2)).pvalue > 1e-6


@pytest.mark.parametrize("name", WARPS)
def test_fill_comes_from_outside_and_from_void_and_void_stays(name):
    clean, fill = blocks(void=True), 1
    rows, cols = read_from(name)
    outside = np.isnan(rows)
    place = np.nan_to_num(rows).astype(int), np.nan_to_num(cols).astype(int)
    read = np.where(outside | (clean[place] == VOID), fill, clean[place])
    expected = np.where(clean == VOID, VOID, read)
    np.testing.assert_array_equal(warp(name, clean, fill), expected)
    assert outside.any()
    assert 0.5 < (~outside).mean() < 1


def test_translate_moves_the_map_by_one_uniform_offset():
    rows, cols = read_from("translate")
    down, right = ROWS - rows, COLS - cols
    for move in (down, right):
        assert (np.nanmin(move, (1, 2)) == np.nanmax(move, (1, 2))).all()
    down, right = (np.nanmax(move, (1, 2)).astype(int) for move in (down, right))
    assert_uniform_shifts(down, right)
    clean = blocks(void=False)
    for noisy, by in zip(
        warp("translate", clean)[:50], zip(down, right, strict=True), strict=False
    ):
        np.testing.assert_array_equal(noisy, ndi.shift(clean, by, order=0, cval=VOID))


TILT = 1.5 / min(SHAPE)  # sum |x| / 2 over sum x^2


@cache
def fitted(name):
    """Matrix `[2, 2]` and shift `[2]` of each map, by least squares over its pixels.

    From places relative to the centre. Rounding of places to pixels, by up to 1/2, can
    tilt the fit by up to `TILT`, where it goes along with the place.
    """
    centre = (np.array(SHAPE) - 1) / 2
    x = np.stack([ROWS, COLS, np.ones(SHAPE)], -1) - np.append(centre, 0)
    fits = []
    for rows, cols in zip(*read_from(name), strict=True):
        seen = ~np.isnan(rows)
        y = np.stack([rows[seen], cols[seen]], -1) - centre
        fits.append(np.linalg.lstsq(x[seen], y)[0].T)
    fits = np.array(fits)
    return fits[..., :2], fits[..., 2]


def test_affine_draws_angle_scale_shear_and_shift_uniformly():
    matrix, move = fitted("affine")
    turn = np.arctan2(-matrix[:, 0, 1], matrix[:, 1, 1])
    zoom = np.hypot(matrix[:, 0, 1], matrix[:, 1, 1])
    cos, sin = np.cos(turn), np.sin(turn)
    upright = np.stack([np.stack([cos, sin], -1), np.stack([-sin, cos], -1)], 1)
    sheared = upright @ matrix / zoom[:, None, None]
    np.testing.assert_allclose(sheared[:, 0, 0], 1, atol=TILT)
    assert_uniform(np.rad2deg(turn), -40, 40)
    assert_uniform(zoom, 0.8, 1.2)
    assert_uniform(np.rad2deg(np.arctan(sheared[:, 1, 0])), -15, 15)
    assert abs(move - move.round()).max() < 0.1
    assert_uniform_shifts(*move.round().astype(int).T)
    drawn = np.stack([turn, zoom, sheared[:, 1, 0], *move.T])
    off = np.corrcoef(drawn)[np.triu_indices(5, 1)]
    assert abs(off).max() < 5 / np.sqrt(MAPS)


@pytest.mark.parametrize("name", ["affine", "turn"])
def test_affine_equals_scipy_but_for_rounding_at_borders_of_pixels(name):
    clean, centre = blocks(void=False), (np.array(SHAPE) - 1) / 2
    noisy = warp(name, clean)
    for noisy_map, matrix, move in zip(noisy[:50], *fitted(name), strict=False):
        expected = ndi.affine_transform(
            clean,
            matrix,
            centre + move - matrix @ centre,
            order=0,
            mode="grid-constant",
            cval=VOID,
        )
        assert (noisy_map != expected).mean() < 0.02


def test_affine_by_an_angle_alone_turns_about_the_centre():
    matrix, move = fitted("turn")
    turn = np.arctan2(-matrix[:, 0, 1], matrix[:, 1, 1])
    cos, sin = np.cos(turn), np.sin(turn)
    rotation = np.stack([np.stack([cos, -sin], -1), np.stack([sin, cos], -1)], 1)
    np.testing.assert_allclose(matrix, rotation, atol=TILT)
    assert abs(matrix - rotation).mean() < TILT / 20
    np.testing.assert_allclose(move, 0, atol=0.05)
    assert_uniform(np.rad2deg(turn), -30, 30)


def test_affine_scales_areas_by_the_inverse_square():
    clean = np.zeros(SHAPE, int)
    clean[9:30, 15:36] = disk(10)
    area = (warp("affine", clean) == 1).sum((1, 2))
    scaled = clean.sum() / np.linalg.det(fitted("affine")[0])
    # Each of the pixels that the outline crosses is in or out by a coin.
    error = np.sqrt(2 * np.pi * 10 * 1.25 / 4)
    assert (abs(area - scaled) < 5 * error).all()
    assert abs((area - scaled).mean()) < 5 * error / np.sqrt(MAPS)


def test_affine_without_parameters_and_elastic_of_no_amplitude_change_nothing():
    clean = jnp.asarray(blocks(void=True))
    for still in (noise.affine, partial(noise.elastic, amplitude=0.0)):
        np.testing.assert_array_equal(jax.jit(still)(KEY, clean), clean)


MARGIN = 12  # six standard deviations: nothing is read from outside
INSIDE = np.s_[:, MARGIN:-MARGIN, MARGIN:-MARGIN]


def displacement():
    rows, cols = read_from("elastic")
    moves = np.stack([(rows - ROWS)[INSIDE], (cols - COLS)[INSIDE]])
    assert not np.isnan(moves).any()
    return moves  # [2, MAPS, H, W]


def test_elastic_displaces_by_its_amplitude_in_the_mean_square():
    square = (displacement() ** 2).mean((2, 3))
    expected = AMPLITUDE**2 + 1 / 12  # and the rounding to whole pixels
    error = square.std(1) / np.sqrt(MAPS)
    assert (abs(square.mean(1) - expected) < 5 * error + 0.02 * expected).all()
    assert error.max() < 0.1


def test_elastic_displaces_alike_everywhere_along_both_axes_independently():
    moves = displacement()
    square = (moves**2).mean(1) / (AMPLITUDE**2 + 1 / 12)
    spread = np.sqrt(2 / MAPS)  # of the mean square of that many normal draws
    assert abs(square - 1).max() < 5 * spread
    assert abs(moves.mean(1)).max() < 5 * AMPLITUDE * 1.02 / np.sqrt(MAPS)
    cross = (moves[0] * moves[1]).mean(0) / (AMPLITUDE**2 + 1 / 12)
    assert abs(cross).max() < 5 / np.sqrt(MAPS)


def test_elastic_holds_no_waves_shorter_than_its_wavelength():
    rows, cols = (slice(6, -6),) * 2
    moves = np.stack(
        [
            (read - at)[:, rows, cols]
            for read, at in zip(read_from("elastic"), (ROWS, COLS), strict=True)
        ]
    )
    moves = moves[:, ~np.isnan(moves).any((0, 2, 3))]
    assert moves.shape[1] > 20
    height, width = moves.shape[2:]
    window = np.outer(np.blackman(height), np.blackman(width))
    power = abs(np.fft.fft2(moves * window)) ** 2 / (window**2).sum()
    power = power.mean((0, 1))
    frequency = np.hypot(*np.meshgrid(np.fft.fftfreq(width), np.fft.fftfreq(height)))
    leak = 3 / min(height, width)  # half of the window's main lobe
    beyond = frequency > 1 / WAVELENGTH + leak
    assert beyond.mean() > 0.5
    # Rounding to whole pixels is white, of variance 1 / 12.
    np.testing.assert_allclose(power[beyond].mean(), 1 / 12, rtol=0.1)
    assert power[frequency < 1 / WAVELENGTH].mean() > 20


@pytest.mark.parametrize(
    ("fn", "name", "value", "more"),
    [
        (noise.translate, "shift", -1, {}),
        (noise.translate, "shift", 1.5, {}),
        (noise.translate, "shift", 1 << 15, {}),
        (noise.translate, "fill", 256, {"shift": 1}),
        (noise.affine, "angle", -1.0, {}),
        (noise.affine, "angle", 181.0, {}),
        (noise.affine, "scale", 1.0, {}),
        (noise.affine, "shear", 61.0, {}),
        (noise.affine, "shift", True, {}),
        (noise.affine, "fill", -1, {}),
        (noise.elastic, "amplitude", -0.1, {}),
        (noise.elastic, "amplitude", float("inf"), {}),
        (noise.elastic, "wavelength", 1.0, {"amplitude": 1.0}),
        (noise.elastic, "fill", 0.5, {"amplitude": 1.0}),
    ],
)
def test_an_invalid_parameter_is_named(fn, name, value, more):
    with pytest.raises(InputError, match=f"^{name}: .+$"):
        fn(KEY, jnp.asarray(blocks(void=True)), **{name: value}, **more)
