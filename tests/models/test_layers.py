"""The primitives against jax.lax and flax: values and gradients."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from metaseg.models import layers

DIMENSIONS = ("NHWC", "HWIO", "NHWC")


def draw(seed, *shape):
    return jax.random.normal(jax.random.key(seed), shape)


def assert_same(function, reference, *arguments):
    """Equal values and equal gradients of a random projection of them."""
    expected = reference(*arguments)
    weights = draw(9, *expected.shape)

    def project(f):
        every = tuple(range(len(arguments)))
        return jax.jit(jax.grad(lambda *a: (f(*a) * weights).sum(), every))

    np.testing.assert_allclose(
        jax.jit(function)(*arguments), expected, rtol=1e-4, atol=1e-4
    )
    gradients = project(function)(*arguments), project(reference)(*arguments)
    for ours, theirs in zip(*gradients, strict=True):
        scale = float(jnp.abs(theirs).max())
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-4 * scale)


def conv3x3(x, kernel):
    return jax.lax.conv_general_dilated(
        x, kernel, (1, 1), "SAME", dimension_numbers=DIMENSIONS
    )


@pytest.mark.parametrize("sides", [(6, 8), (5, 7)])
@pytest.mark.parametrize("channels", [(1, 4), (2, 3), (5, 8), (3, 16), (16, 24)])
def test_conv3x3_is_the_same_convolution(sides, channels):
    x, kernel = draw(0, 2, *sides, channels[0]), draw(1, 3, 3, *channels)
    assert_same(layers.conv3x3, conv3x3, x, kernel)


def test_conv3x3_under_vmap_is_the_same_convolution():
    x, kernels = draw(0, 2, 4, 4, 3), draw(1, 3, 3, 3, 3, 2)
    ours = jax.vmap(layers.conv3x3, (None, 0))(x, kernels)
    theirs = jnp.stack([conv3x3(x, kernel) for kernel in kernels])
    np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-4)


def lowered(function, platform, *arguments):
    return jax.jit(function).trace(*arguments).lower(lowering_platforms=(platform,))


@pytest.mark.parametrize(("platform", "pads"), [("cpu", True), ("cuda", False)])
def test_conv3x3_goes_in_pairs_where_it_is_lowered_for_a_cpu(platform, pads):
    x, kernel = draw(0, 1, 4, 4, 3), draw(1, 3, 3, 3, 8)
    text = lowered(layers.conv3x3, platform, x, kernel).as_text()
    assert text.count("stablehlo.convolution") == 1
    assert ("stablehlo.pad" in text) is pads


@pytest.mark.parametrize(("platform", "convolutions"), [("cpu", 0), ("tpu", 1)])
def test_conv3x3_of_one_channel_is_a_sum_on_a_cpu_alone(platform, convolutions):
    x, kernel = draw(0, 1, 4, 4, 1), draw(1, 3, 3, 1, 8)
    text = lowered(layers.conv3x3, platform, x, kernel).as_text()
    assert text.count("stablehlo.convolution") == convolutions


@pytest.mark.parametrize(("platform", "pads"), [("cpu", True), ("cuda", False)])
def test_gradients_of_conv3x3_are_two_convolutions(platform, pads):
    x, kernel, g = draw(0, 1, 4, 4, 3), draw(1, 3, 3, 3, 8), draw(2, 1, 4, 4, 8)

    def gradients(x, kernel, g):
        return jax.vjp(layers.conv3x3, x, kernel)[1](g)

    text = lowered(gradients, platform, x, kernel, g).as_text()
    assert text.count("stablehlo.convolution") == 2
    assert ("stablehlo.pad" in text) is pads


def test_conv3x3_of_one_channel_in_bfloat16_sums_in_float32():
    x, kernel = draw(0, 1, 8, 8, 1), draw(1, 3, 3, 1, 4)
    x, kernel = (each.astype(jnp.bfloat16) for each in (x, kernel))
    exact = conv3x3(x.astype(jnp.float32), kernel.astype(jnp.float32))
    found = layers.conv3x3(x, kernel)
    assert found.dtype == jnp.bfloat16
    np.testing.assert_array_equal(found, exact.astype(jnp.bfloat16))


def test_upsample2x2_is_a_transposed_convolution():
    def reference(x, kernel):
        return jax.lax.conv_transpose(
            x, kernel[::-1, ::-1], (2, 2), "VALID", dimension_numbers=DIMENSIONS
        )

    assert_same(layers.upsample2x2, reference, draw(0, 2, 3, 4, 5), draw(1, 2, 2, 5, 3))


def test_max_pool2x2_is_max_pooling_also_where_pixels_tie():
    def reference(x):
        return nn.max_pool(x, (2, 2), (2, 2))

    assert_same(layers.max_pool2x2, reference, draw(0, 2, 6, 4, 3))
    tied = jnp.round(draw(1, 2, 6, 4, 3))
    assert_same(layers.max_pool2x2, reference, tied)


def test_batch_norm_relu_is_batch_norm_then_relu():
    x, scale, bias = 2 + 3 * draw(0, 4, 5, 6, 7), draw(1, 7), draw(2, 7)

    def reference(x, scale, bias):
        mean, var = x.mean((0, 1, 2)), x.var((0, 1, 2))
        return nn.relu(scale * (x - mean) / jnp.sqrt(var + 1e-5) + bias)

    def ours(x, scale, bias):
        return layers.batch_norm_relu(x, scale, bias)[0]

    assert_same(ours, reference, x, scale, bias)
    _, mean, var = layers.batch_norm_relu(x, scale, bias)
    np.testing.assert_allclose(mean, x.mean((0, 1, 2)), rtol=1e-4)
    np.testing.assert_allclose(var, x.var((0, 1, 2)), rtol=1e-4)
