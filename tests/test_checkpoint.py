import jax.numpy as jnp
import numpy as np
import optax

from metaseg import checkpoint


def test_what_was_saved_comes_back(tmp_path):
    params = {"a": jnp.arange(4.0), "b": {"c": jnp.ones((2, 3), jnp.int32)}}
    tree = {"params": params, "opt_state": optax.sgd(0.1, momentum=0.9).init(params)}
    checkpoint.save(tmp_path / "1", tree)
    found = checkpoint.restore(tmp_path / "1", tree)
    np.testing.assert_array_equal(found["params"]["a"], params["a"])
    np.testing.assert_array_equal(found["params"]["b"]["c"], params["b"]["c"])
    assert found["params"]["b"]["c"].dtype == jnp.int32
    assert type(found["opt_state"]) is type(tree["opt_state"])
