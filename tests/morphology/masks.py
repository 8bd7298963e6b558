"""Masks that are difficult in different ways, for the tests of `metaseg.morphology`.

All masks except the thin ones have the same shape, so that few programs are compiled.
"""

import jax
import numpy as np
import scipy.ndimage as ndi
from hypothesis import settings
from hypothesis import strategies as st
from skimage import data, filters

SHAPE = (101, 127)  # neither is a multiple of 32
DENSITIES = (0.02, 0.2, 0.407, 0.5, 0.593, 0.75, 0.9, 0.97, 0.995)  # two percolate
THIN = ((1, 45), (33, 1))


def _blobs(rng, sigma):
    smooth = ndi.gaussian_filter(rng.random(SHAPE), sigma)
    return smooth > np.median(smooth)


def _line(angle):
    rows, cols = np.indices(SHAPE)
    return np.abs((rows - 40) * np.cos(angle) - (cols - 50) * np.sin(angle)) < 0.6


def _spiral():
    """Returns a spiral path of width 1 from the corner to the middle, gaps of 1."""
    rows, cols = np.indices(SHAPE)
    ends = rows, SHAPE[0] - 1 - rows, cols, SHAPE[1] - 1 - cols
    mask = np.min(ends, axis=0) % 2 == 0  # nested rings
    for ring in range(0, min(SHAPE) // 2 - 1, 2):
        mask[ring + 1, ring] = False  # cut each open, and lead on to the next
        mask[ring + 2, ring + 1] = True
    return mask


def _comb():
    mask = np.zeros(SHAPE, bool)
    mask[:, ::2] = True
    mask[-1] = True
    return mask


def _snake():
    mask = np.zeros(SHAPE, bool)
    mask[::2] = True
    mask[1::4, -1] = mask[3::4, 0] = True
    return mask


def _pictures():
    """Returns masks of coins, a horse, a page and a text, images of scikit-image."""
    coins, horse = data.coins()[::3, ::3], data.horse()[::3, ::3]
    page, text = data.page(), data.text()[40:]
    masks = [
        coins > filters.threshold_otsu(coins),
        ~horse,
        page < filters.threshold_local(page, 35, offset=10),
        text < filters.threshold_otsu(text),
    ]
    return [mask[: SHAPE[0], : SHAPE[1]] for mask in masks]


def _all():
    rng = np.random.default_rng(0)
    masks = [np.zeros(SHAPE, bool), np.ones(SHAPE, bool)]
    masks += [rng.random(SHAPE) < density for density in DENSITIES]
    masks += [_blobs(rng, sigma) for sigma in (1, 2, 4, 8)]
    masks += [_line(angle) for angle in (0, 0.3, np.pi / 4, np.pi / 2)]
    masks += [np.indices(SHAPE).sum(axis=0) % 2 == 0, _spiral(), _comb(), _snake()]
    pictures = _pictures()
    return np.stack([*masks, *pictures, *(~picture for picture in pictures)])


MASKS = _all()


def _thin(shape, density, seed):
    return np.random.default_rng(seed).random((8, *shape)) < density


# Eight one-pixel wide masks of one density; use it with `few`.
thin = st.builds(
    _thin, st.sampled_from(THIN), st.floats(0, 1), st.integers(0, 2**32 - 1)
)
few = settings(max_examples=15, deadline=None, derandomize=True)


def assert_batch_safe(function, batch):
    """The same bits eager, and jitted and vmapped; and an empty batch has a result.

    Args:
      function: of `[..., H, W]`.
      batch: an even number of images, `[N, H, W]`.
    """
    eager = np.asarray(function(batch))
    more = batch.reshape(2, -1, *batch.shape[1:])
    mapped = jax.jit(jax.vmap(function))(more)
    np.testing.assert_array_equal(mapped.reshape(eager.shape), eager)
    assert jax.eval_shape(function, batch[:0]).shape == batch[:0].shape
