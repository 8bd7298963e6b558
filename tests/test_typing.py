import jax
import jax.numpy as jnp
import numpy as np
import pytest
import typecheck
from jaxtyping import Integer, TypeCheckError, jaxtyped

from metaseg import noise
from metaseg.errors import InputError
from metaseg.typing import Labels, Matrix, Numbers, PRNGKey

KEY = jax.random.key(0)
LABELS = np.zeros((2, 3, 4), np.uint8)


@jaxtyped(typechecker=typecheck.typechecked)
def scaled(
    key: PRNGKey, labels: Labels, *, by: Numbers = 1, result: object = None
) -> Integer[jax.Array, "*batch H W"]:
    del key
    if labels.ndim == 1:
        raise InputError("labels: got 1 axis")
    return jnp.asarray(labels) * by if result is None else result


@pytest.mark.parametrize(
    ("labels", "by"),
    [(LABELS, 1), (jnp.array(LABELS), np.int32(2)), (LABELS[0], np.arange(4))],
)
def test_arrays_of_either_library_traced_or_not_and_numbers_pass(labels, by):
    plain = scaled(KEY, labels, by=by)
    np.testing.assert_array_equal(jax.jit(scaled)(KEY, labels, by=by), plain)
    jax.vmap(scaled, in_axes=(None, 0))(KEY, jnp.stack([labels, labels]))


@pytest.mark.parametrize(
    ("arguments", "options"),
    [
        ((KEY, LABELS.astype(float)), {"result": jnp.array(LABELS)}),
        ((jax.random.split(KEY, 2), LABELS), {}),
        ((KEY, LABELS), {"by": "1"}),
        ((KEY, LABELS), {"by": np.ones((2, 2)), "result": jnp.array(LABELS)}),
    ],
)
def test_a_wrong_argument_that_the_function_takes_is_refused(arguments, options):
    with pytest.raises((TypeCheckError, TypeError)):
        scaled(*arguments, **options)


def test_a_wrong_argument_that_the_function_refuses_raises_the_function_s_error():
    with pytest.raises(InputError, match="labels: got 1 axis"):
        scaled(KEY, np.zeros(3, int))


@pytest.mark.parametrize(
    "result", [LABELS, jnp.zeros((2, 3, 4)), jnp.zeros((2, 4, 3), int), "text"]
)
def test_a_wrong_result_is_refused(result):
    with pytest.raises(TypeCheckError):
        scaled(KEY, LABELS, result=result)


def test_a_sequence_of_rows_is_a_matrix_and_one_of_numbers_is_not():
    @jaxtyped(typechecker=typecheck.typechecked)
    def size(matrix: Matrix) -> int:
        return len(matrix)

    assert size([[1, 0], (0, 1)]) == size(np.eye(2)) == 2
    for wrong in ([1.0, 2.0], np.ones((2, 3))):
        with pytest.raises(TypeCheckError):
            size(wrong)


def test_the_functions_of_the_package_are_checked():
    wrong_result = noise.chain(lambda key, labels: labels.astype(float))
    with pytest.raises(TypeCheckError):
        wrong_result(KEY, jnp.array(LABELS))
