"""Settings of jax that users switch on for other work change no number of metaseg."""

import hashlib
import json
import os
import subprocess
import sys
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict

import metaseg
from metaseg import data, igtt, losses, models, noise
from metaseg.data import augment, synthetic
from metaseg.runs import jax_settings
from metaseg.runs.training import results

OTHERS = {"JAX_ENABLE_X64": "1", "JAX_DEFAULT_PRNG_IMPL": "rbg"}
TINY = {"model.width": 2, "model.depth": 1, "training.batch_size": 8}


def digest(tree: Any) -> list[str]:
    return [
        f"{np.asarray(leaf).dtype} {hashlib.md5(np.asarray(leaf)).hexdigest()}"
        for leaf in jax.tree.leaves(tree)
    ]


def computed(folder: str) -> dict[str, list[str]]:
    """Numbers of functions with a key of Threefry, and of a run."""
    key = jax.random.key(3, impl="threefry2x32")
    rng = np.random.default_rng(0)
    image = rng.uniform(size=(12, 12, 2)).astype(np.float32)
    label = rng.integers(0, 2, (12, 12)).astype(np.uint8)
    config = {"name": "unet", "norm": "batch", "dtype": "float32", "init": "he"}
    model = models.build(ConfigDict(config | {"width": 2, "depth": 1}), 2)
    found = {
        family: synthetic.examples(1, np.arange(1), family=family, height=24, width=20)
        for family in ("cells", "network")
    }
    found |= {
        "network": model.init(key, image[None], train=False),
        "contrast": augment.brightness_contrast(
            key, image, brightness=0.2, contrast=0.1
        ),
        "crop": augment.crop(key, image, label, np.array([12, 12]), size=(8, 8)),
        "turned": augment.dihedral(key, image, label, flip=True, rot90=True),
        "points": noise.points(key, label, background=2),
        "threshold": igtt.best_threshold(image[..., 0]),
        "loss": losses.cross_entropy_sums(image, label),
    }
    images = rng.normal(size=(12, 12, 12))
    labels = rng.integers(0, 2, (12, 12, 12)).astype(np.uint8)
    run = metaseg.train(
        images, labels, noise="flip", rate=0.2, steps=2, fields=TINY, quiet=True
    )
    run.save(folder)
    found["weights"] = run.state.params
    return {name: digest(tree) for name, tree in found.items()}


@pytest.mark.slow
def test_numbers_are_the_same_with_64_bits_and_another_generator(tmp_path):
    folder = tmp_path / "run"
    code = (
        "import json, sys, test_jax_settings as tests; "
        "print(json.dumps(tests.computed(sys.argv[1])))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(folder)],
        env={**os.environ, **OTHERS},
        cwd=os.path.dirname(__file__),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert json.loads(done.stdout.splitlines()[-1]) == computed(str(tmp_path / "here"))
    image = np.random.default_rng(1).normal(size=(12, 12, 1)).astype(np.float32)
    one, other = (
        metaseg.load(where).predict([image])[0] for where in (folder, tmp_path / "here")
    )
    np.testing.assert_array_equal(one.labels, other.labels)


def test_settings_hold_in_a_function_and_are_restored():
    @jax_settings.same_numbers()
    def inside() -> tuple[Any, str]:
        return jnp.zeros(1).dtype, str(jax.random.key_impl(jax.random.key(0)))

    others = {"jax_enable_x64": True, "jax_default_prng_impl": "rbg"}
    before = {name: getattr(jax.config, name) for name in others}
    try:
        for name, value in others.items():
            jax.config.update(name, value)
        assert inside() == (np.float32, "threefry2x32")
        assert jnp.zeros(1).dtype == np.float64
        assert str(jax.random.key_impl(jax.random.key(0))) == "rbg"
    finally:
        for name, value in before.items():
            jax.config.update(name, value)


def test_built_in_images_take_keys_of_any_generator():
    image, label = data.synthetic.FAMILIES["cells"](
        jax.random.key(0, impl="rbg"), height=16, width=16
    )
    assert image.shape == (16, 16, 1)
    assert np.isfinite(image).all()
    assert label.dtype == np.uint8


def test_peak_memory_is_not_known_where_there_is_no_resource_module(monkeypatch):
    assert results.peak_memory() > 1e7
    monkeypatch.setitem(sys.modules, "resource", None)
    assert results.peak_memory() is None
