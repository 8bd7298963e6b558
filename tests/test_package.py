import subprocess
import sys

import pytest


def test_importing_the_package_does_not_import_jax():
    code = "import sys, metaseg; assert 'jax' not in sys.modules; metaseg.noise.flip"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_noise_needs_neither_flax_nor_matplotlib():
    code = (
        "import sys; from metaseg import noise, ntm, morphology; "
        "assert not {'flax', 'optax', 'matplotlib', 'orbax'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_an_unknown_module_is_an_attribute_error():
    import metaseg

    assert "noise" in dir(metaseg)
    with pytest.raises(AttributeError, match="nois"):
        _ = metaseg.nois
