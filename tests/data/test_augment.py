import jax
import jax.numpy as jnp
import numpy as np
import pytest

from metaseg.data import augment


def _pair(height=6, width=6):
    label = jnp.arange(height * width, dtype=jnp.uint8).reshape(height, width)
    return label[..., None].astype(jnp.float32), label


def _views(label):
    """The eight symmetries of a square, by NumPy."""
    turns = [np.rot90(label, k) for k in range(4)]
    return [*turns, *(np.flipud(t) for t in turns)]


@pytest.mark.parametrize(
    ("flip", "turn", "group"),
    [(True, True, range(8)), (False, True, range(4)), (False, False, [0])],
)
def test_dihedral_draws_each_symmetry_equally_often(flip, turn, group):
    image, label = _pair()
    draw = jax.jit(
        jax.vmap(lambda k: augment.dihedral(k, image, label, flip=flip, rot90=turn))
    )
    n = 2000
    images, labels = draw(jax.random.split(jax.random.key(0), n))
    np.testing.assert_array_equal(images[..., 0], labels)
    views = np.stack(_views(np.asarray(label)))
    match = (np.asarray(labels)[:, None] == views[None]).all((2, 3))
    assert (match.sum(1) == 1).all()
    counts, expected = match.sum(0), n / len(group)
    bound = 5 * np.sqrt(expected)
    for view in range(8):
        if view in group:
            assert abs(counts[view] - expected) <= bound
        else:
            assert counts[view] == 0


def test_flip_alone_keeps_rows_and_columns_apart():
    image, label = _pair(4, 7)
    _, found = augment.dihedral(jax.random.key(1), image, label, flip=True, rot90=False)
    mirrored = [label, label[::-1], label[:, ::-1], label[::-1, ::-1]]
    assert any(np.array_equal(found, m) for m in mirrored)


def test_horizontal_flips_alone_never_turn_an_image_over():
    image, label = _pair(4, 7)
    flip = jax.vmap(
        lambda k: augment.dihedral(
            k, image, label, flip=True, rot90=False, horizontal_flip_only=True
        )
    )
    images, labels = flip(jax.random.split(jax.random.key(0), 400))
    np.testing.assert_array_equal(images[..., 0], labels)
    mirrored = (np.asarray(labels) == np.asarray(label)[:, ::-1]).all((1, 2))
    assert ((np.asarray(labels) == label).all((1, 2)) | mirrored).all()
    assert abs(mirrored.sum() - 200) <= 5 * 10  # five standard deviations


def test_crops_lie_inside_the_valid_size_and_reach_all_of_it():
    image, label = _pair(9, 10)
    valid_size = jnp.array([6, 8])
    cut = jax.jit(
        jax.vmap(lambda k: augment.crop(k, image, label, valid_size, size=(4, 4)))
    )
    images, labels = cut(jax.random.split(jax.random.key(0), 500))
    np.testing.assert_array_equal(images[..., 0], labels)
    corners = np.asarray(labels)[:, 0, 0]
    assert set(corners) == {r * 10 + c for r in range(3) for c in range(5)}
    np.testing.assert_array_equal(labels[0, 1] - labels[0, 0], 10)


def test_brightness_contrast_is_affine_about_the_mean_and_within_bounds():
    image = jax.random.normal(jax.random.key(0), (8, 8, 1))
    keys = jax.random.split(jax.random.key(1), 300)
    found = jax.vmap(
        lambda k: augment.brightness_contrast(k, image, brightness=0.3, contrast=0.2)
    )(keys)
    scale = found.std((1, 2, 3)) / image.std()
    shift = found.mean((1, 2, 3)) - image.mean()
    assert float(jnp.max(jnp.abs(scale - 1))) <= 0.2 + 1e-5
    assert float(jnp.max(jnp.abs(shift))) <= 0.3 + 1e-5
    assert float(scale.std()) > 0.05
    assert float(shift.std()) > 0.1


@pytest.mark.parametrize(("amplitude", "modulation"), [(1.0, 0.0), (0.0, 0.5)])
def test_illumination_is_smooth_and_keeps_mean_and_deviation(amplitude, modulation):
    one = 3 * jax.random.normal(jax.random.key(0), (32, 24, 1))
    image = jnp.concatenate([one, one + 1], axis=-1)
    lit = jax.vmap(
        lambda k: augment.illumination(
            k, image, amplitude=amplitude, modulation=modulation
        )
    )(jax.random.split(jax.random.key(1), 50))
    np.testing.assert_allclose(lit.mean((1, 2, 3)), image.mean(), atol=1e-4)
    np.testing.assert_allclose(lit.std((1, 2, 3)), image.std(), rtol=1e-4)
    factor = np.asarray(lit[..., 1] - lit[..., 0])  # as the channels differ by 1
    light = np.asarray(lit[..., 0] - factor * image[..., 0])
    assert (factor > 0).all()
    assert (np.ptp(factor, axis=(1, 2)) > 1e-3).any() == (modulation > 0)
    for field in (factor, light):
        steps = np.abs(np.diff(field, axis=1)).mean((1, 2))
        assert (steps < 0.3 * field.std((1, 2)) + 1e-5).all()


def test_illumination_without_amplitude_or_of_a_constant_image_changes_nothing():
    key = jax.random.key(0)
    image = jax.random.normal(jax.random.key(1), (16, 16, 1))
    found = augment.illumination(key, image, amplitude=0.0, modulation=0.0)
    np.testing.assert_allclose(found, image, atol=1e-5)
    flat = jnp.full((16, 16, 1), 0.25)
    found = augment.illumination(key, flat, amplitude=1.0, modulation=0.5)
    np.testing.assert_allclose(found, flat, atol=1e-5)
