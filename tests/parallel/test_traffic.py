"""The passes of a fused program, against counts by hand."""

import jax
import jax.numpy as jnp
import pytest

from metaseg.models import layers
from metaseg.parallel import cost, traffic


def array(*shape, dtype=jnp.float32):
    return jax.ShapeDtypeStruct(shape, dtype)


def convolve(x, kernel):
    return jax.lax.conv_general_dilated(
        x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


def moved(passes):
    return sum(each.bytes_moved for each in passes)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_two_layers_move_what_is_counted_by_hand(dtype):
    def loss(kernels, x):
        hidden = jax.nn.relu(convolve(x, kernels[0]))
        return jnp.sum(convolve(hidden, kernels[1]) ** 2, dtype=jnp.float32)

    # Numbers in x, in the hidden map z and in the result y; v and w are the kernels.
    x, z, y, v, w = 64 * 3, 64 * 4, 64 * 2, 9 * 3 * 4, 9 * 4 * 2
    expected = [
        x + v + z,  # z = conv(x, v)
        z + z,  # relu
        z + w + y,  # y = conv(relu, w)
        y + y,  # gradient of y; the sum, one number, is taken on the way
        z + y + w,  # gradient of w
        y + w + z,  # gradient of relu(z)
        z + z + z,  # gradient of z, 0 where relu(z) is 0
        x + z + v,  # gradient of v
    ]
    kernels = (array(3, 3, 3, 4, dtype=dtype), array(3, 3, 4, 2, dtype=dtype))
    args = (kernels, array(1, 8, 8, 3, dtype=dtype))
    fn = jax.value_and_grad(loss)
    found = traffic.passes(fn, *args)
    size = jnp.dtype(dtype).itemsize
    assert moved(found) == size * sum(expected) + 4  # the sum is float32
    assert sorted(each.bytes_moved // size for each in found if each.flops) == sorted(
        expected[i] for i in (0, 2, 4, 5, 7)
    )
    assert sum(each.flops for each in found) == cost.flops(fn, *args)


def test_batch_norm_takes_two_passes_forward_and_two_backward():
    shape = (4, 8, 8, 16)
    maps = 4 * 4 * 8 * 8 * 16

    def value(x, scale, bias):
        return layers.batch_norm_relu(x, scale, bias)[0]

    args = (array(*shape), array(16), array(16))
    forward = traffic.passes(value, *args)
    assert round(moved(forward) / maps) == 3  # for the statistics; in and out

    def gradient(g, *args):
        return jax.vjp(value, *args)[1](g)

    both = traffic.passes(gradient, array(*shape), *args)
    big = [each for each in both if each.bytes_moved > maps / 2]
    assert len(big) <= 4
    # Statistics (1); then twice all of x and g, and the gradient of x; nothing else.
    assert round(sum(each.bytes_moved for each in big) / maps) == 1 + 2 * 2 + 1


def test_arithmetic_between_products_fuses_and_constants_are_free():
    def fn(x, y):
        mask = jnp.arange(8)[:, None] < jnp.arange(8)
        return jnp.where(mask, jnp.exp(2 * x) + y.T, 0.0).reshape(-1), x - y

    x = array(8, 8)
    (found,) = traffic.passes(fn, x, x)
    assert found.name == "fused"
    assert len(found.read) == len(found.written) == 2
    assert found.bytes_moved == 4 * 4 * 64


def test_what_no_result_needs_is_left_out():
    def fn(x):
        return (x @ x, x + 1)[1]

    assert [each.name for each in traffic.passes(fn, array(4, 4))] == ["fused"]
    assert not traffic.passes(lambda x: x.T, array(4, 4))


def test_calls_are_inlined_and_loops_are_passes():
    inner = jax.jit(lambda x: jnp.sin(x) * 2)

    def fn(x):
        return jax.lax.fori_loop(0, 3, lambda i, x: x + i, inner(x) + 1)

    assert [each.name for each in traffic.passes(fn, array(4))] == ["fused", "scan"]


def test_the_code_for_no_platform_in_particular_counts():
    def fn(x):
        return jax.lax.platform_dependent(
            x, cpu=lambda x: x @ x @ x, default=lambda x: x @ x
        )

    (found,) = traffic.passes(fn, array(4, 4))
    assert found.flops == 128
