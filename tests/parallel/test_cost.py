import jax
import jax.numpy as jnp
import pytest

from metaseg import models
from metaseg.parallel import cost


def test_a_matrix_product_takes_two_operations_for_each_pair():
    a, b = jnp.zeros((3, 5, 7)), jnp.zeros((3, 7, 11))
    assert cost.flops(jnp.matmul, a, b) == 2 * 3 * 5 * 7 * 11


def test_what_is_inside_compiled_functions_counts():
    square = jnp.zeros((4, 4))
    assert cost.flops(jax.jit(lambda x: jax.checkpoint(jnp.dot)(x, x)), square) == 128


def test_the_most_expensive_branch_counts():
    def fn(x):
        return jax.lax.cond(x[0, 0] > 0, lambda x: x @ x @ x, lambda x: x @ x, x)

    assert cost.flops(fn, jnp.zeros((4, 4))) == 2 * 128


@pytest.mark.parametrize("width", [4, 16])  # the CPU takes detours for few channels
def test_a_unet_costs_its_convolutions_on_every_platform(width):
    depth, size, classes = 2, 32, 3
    model = models.UNet(classes, width, depth)

    def level(channels, features, size):
        return 9 * size**2 * (channels * features + features**2)

    expected = level(1, width, size)
    for i in range(1, depth + 1):
        features, side = width << i, size >> i
        expected += level(features // 2, features, side)
        expected += 4 * side**2 * features * features // 2  # up to the level above
        expected += level(features, features // 2, 2 * side)
    expected += size**2 * width * classes
    assert cost.forward_flops(model, (size, size, 1)) == 2 * expected


@pytest.mark.parametrize(
    ("kind", "dtype", "tera"),
    [
        ("NVIDIA A100-SXM4-80GB", "bfloat16", 312),
        ("NVIDIA H100 80GB HBM3", "float32", 494.7),
        ("TPU v5 lite", "bfloat16", 197),
        ("TPU v5p", "bfloat16", 459),
        ("cpu", "float32", None),
    ],
)
def test_peaks_are_those_of_the_makers(kind, dtype, tera):
    class Device:
        device_kind = kind

    expected = None if tera is None else pytest.approx(1e12 * tera)
    assert cost.peak_flops(Device, dtype) == expected


def test_memory_is_none_where_the_backend_does_not_count_it():
    assert cost.memory(jax.devices("cpu")[:2]) == [None, None]
