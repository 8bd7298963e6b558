"""The U-Net: parameter count, shapes, dtypes, norms, and the registry."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict

from metaseg import models
from metaseg.errors import InputError


def config(**changes):
    names = {"name": "unet", "norm": "batch", "dtype": "float32", "init": "he"}
    return ConfigDict({"width": 2, "depth": 1} | names | changes)


def initialised(model, *shape):
    images = jax.random.normal(jax.random.key(1), shape)
    initialise = jax.jit(lambda key: model.init(key, images, train=False))
    return images, initialise(jax.random.key(0))


def apply(model, variables, images, train):
    """Logits and the statistics after the call, compiled: op by op is slow."""
    step = jax.jit(
        lambda variables, images: model.apply(
            variables, images, train=train, mutable=["batch_stats"]
        )
    )
    return step(variables, images)


def test_parameter_count_at_width_64_is_the_sources():
    def level(before, after):
        convolutions = 9 * before * after + after + 9 * after * after + after
        return convolutions + 2 * 2 * after

    widths = [64, 128, 256, 512, 1024]
    encoder = sum(level(c, d) for c, d in zip([1, *widths], widths, strict=False))
    upsampling = sum(4 * 2 * d * d + d for d in widths[:-1])
    decoder = sum(level(2 * d, d) for d in widths[:-1])
    expected = encoder + upsampling + decoder + 64 + 1

    model = models.build(config(width=64, depth=4), num_classes=2)
    images = jnp.zeros((1, 16, 16, 1))
    shapes = jax.eval_shape(
        lambda key: model.init(key, images, train=False), jax.random.key(0)
    )
    count = sum(leaf.size for leaf in jax.tree.leaves(shapes["params"]))
    assert count == expected == 31_042_369


@pytest.mark.parametrize(
    ("shape", "num_classes", "channels"),
    [((2, 8, 12, 1), 2, 1), ((1, 5, 7, 3), 4, 4), ((2, 1, 3, 9, 1), 3, 3)],
)
def test_logits_have_the_sides_of_the_image(shape, num_classes, channels):
    model = models.build(config(), num_classes)
    logits, _ = jax.eval_shape(
        lambda key, images: model.init_with_output(key, images, train=False),
        jax.random.key(0),
        jnp.zeros(shape),
    )
    assert logits.shape == (*shape[:-1], channels)
    assert logits.dtype == jnp.float32


def test_padding_extends_the_edge():
    model = models.build(config(), num_classes=2)
    images, variables = initialised(model, 1, 5, 7, 1)
    extended = np.pad(images, ((0, 0), (0, 1), (0, 1), (0, 0)), mode="edge")
    logits, _ = apply(model, variables, images, train=False)
    expected, _ = apply(model, variables, extended, train=False)
    np.testing.assert_allclose(logits, expected[:, :5, :7], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("norm", "dtype"),
    [("batch", "bfloat16"), ("group", "float32"), ("none", "float32")],
)
def test_parameters_logits_and_gradients_are_finite_float32(norm, dtype):
    model = models.build(config(norm=norm, dtype=dtype), num_classes=3)
    images, variables = initialised(model, 2, 8, 8, 1)

    def loss(params):
        logits, _ = model.apply(
            variables | {"params": params}, images, train=True, mutable=["batch_stats"]
        )
        return (logits**2).mean(), logits

    gradients, logits = jax.jit(jax.grad(loss, has_aux=True))(variables["params"])
    leaves = jax.tree.leaves((variables, gradients, logits))
    assert {leaf.dtype for leaf in leaves} == {jnp.dtype("float32")}
    assert all(np.isfinite(leaf).all() for leaf in leaves)
    assert any(np.any(np.asarray(leaf)) for leaf in jax.tree.leaves(gradients))


def test_batch_statistics_change_in_training_only():
    model = models.build(config(), num_classes=2)
    images, variables = initialised(model, 2, 8, 8, 1)

    def statistics(train):
        _, state = apply(model, variables, images, train)
        return jax.tree.leaves(state["batch_stats"])

    before = jax.tree.leaves(variables["batch_stats"])
    pairs = list(zip(before, statistics(train=False), strict=True))
    assert all(np.array_equal(old, new) for old, new in pairs)
    pairs = list(zip(before, statistics(train=True), strict=True))
    assert not any(np.array_equal(old, new) for old, new in pairs)


def test_running_mean_includes_the_bias_of_the_convolution():
    """After many steps on one batch, evaluation equals training on it."""
    model = models.build(config(), num_classes=2)
    images, variables = initialised(model, 4, 8, 8, 1)
    params = jax.tree.map(lambda leaf: leaf + 0.5, variables["params"])

    @jax.jit
    def converge(stats):
        def step(_, state):
            variables = {"params": params} | state
            return model.apply(variables, images, train=True, mutable=["batch_stats"])[
                1
            ]

        return jax.lax.fori_loop(0, 100, step, {"batch_stats": stats})

    variables = {"params": params} | converge(variables["batch_stats"])
    trained, _ = apply(model, variables, images, train=True)
    evaluated, _ = apply(model, variables, images, train=False)
    np.testing.assert_allclose(evaluated, trained, rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"name": "unett"}, "^model.name: got 'unett', expected one of unet, or "),
        (
            {"name": f"{__name__}:NotANetwork"},
            "^model.name: .*returns dict, exp",
        ),
        (
            {"name": f"{__name__}:pytest.fail"},
            "^model.name: .*expected a callab",
        ),
        ({"norm": "layer"}, "^model.norm: got 'layer', expected one of batch, group"),
        ({"dtype": "f4"}, "^model.dtype: got 'f4', expected one of float32, bfloat16"),
        ({"init": "x"}, "^model.init: got 'x', expected one of he, normal"),
        ({"width": 0}, "^model.width: got 0, expected an integer >= 1 .channels"),
        ({"depth": 1.5}, "^model.depth: got 1.5, expected an integer >= 1 .poolings"),
    ],
)
def test_bad_config_is_named(change, message):
    with pytest.raises(InputError, match=message):
        models.build(config(**change), num_classes=2)


NotANetwork = dict


class Pixelwise(nn.Module):
    """A network that sees one pixel at a time, with the arguments of a plug-in."""

    num_classes: int
    width: int
    depth: int
    norm: str
    dtype: Any
    kernel_init: Any

    @nn.compact
    def __call__(self, images, train):
        del train
        for _ in range(self.depth):
            layer = nn.Dense(self.width, kernel_init=self.kernel_init)
            images = nn.relu(layer(images))
        return nn.Dense(self.num_classes)(images)


def test_a_plugin_is_built_with_the_fields_of_the_config():
    plugin = config(name=f"{__name__}:Pixelwise", norm="own", width=3, init="normal")
    model = models.build(plugin, num_classes=4)
    assert isinstance(model, Pixelwise)
    assert (model.num_classes, model.width, model.norm) == (4, 3, "own")
    images, variables = initialised(model, 1, 2, 2, 1)
    assert model.apply(variables, images, train=False).shape == (1, 2, 2, 4)
