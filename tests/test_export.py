"""An exported network gives what the predictor gives, without the package."""

import json
import re
import subprocess
import sys
from pathlib import Path

import flax.linen as nn
import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import pytest

from metaseg import decoding, models, prediction
from metaseg.data import normalize
from metaseg.errors import InputError
from metaseg.prediction.stablehlo import normalized

RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (3, 21, 37, 1), dtype=np.uint8)
NORMALIZERS = [
    normalize.build("zscore"),
    normalize.build("percentile"),
    normalize.build("fixed", mean=100, std=50),
    normalize.build("none"),
]


def make_predictor(model, num_classes=2, channels=1, **more):
    image = jnp.zeros((1, 16, 16, channels))
    variables = model.init(jax.random.key(0), image, train=False)
    leaves, tree = jax.tree.flatten(variables)
    rng = np.random.default_rng(1)
    leaves = [x + rng.normal(0, 0.1, x.shape).astype(np.float32) for x in leaves]
    variables = jax.tree.unflatten(tree, map(np.abs, leaves))
    fields = {
        "model": model,
        "variables": variables,
        "matrix": None,
        "num_classes": num_classes,
        "class_names": tuple("abc"[:num_classes]),
        "channels": channels,
        "normalizer": normalize.build(),
        "name": "untrained",
    }
    return prediction.Predictor(**(fields | more))


@pytest.fixture(scope="module")
def binary():
    model = models.UNet(num_classes=2, width=2, depth=1)
    threshold = decoding.Threshold(0.4, True)
    return make_predictor(
        model,
        normalizer=normalize.build("percentile"),
        validation_threshold=threshold,
    )


@pytest.fixture(scope="module")
def file(binary, tmp_path_factory):
    path = tmp_path_factory.mktemp("export") / "net.stablehlo"
    return prediction.export(binary, path, decision_rule="validation")


def test_a_fresh_process_with_jax_alone_gives_equal_scores(binary, file, tmp_path):
    np.save(tmp_path / "images.npy", IMAGES)
    code = f"""
import pathlib, sys
import jax, jax.export, numpy as np
content = bytearray(pathlib.Path({str(file)!r}).read_bytes())
images = np.load({str(tmp_path / "images.npy")!r}).astype(np.float32)
labels, scores = jax.export.deserialize(content).call(images)
np.savez({str(tmp_path / "found.npz")!r}, labels=labels, scores=scores)
assert "metaseg" not in sys.modules and "flax" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True, cwd=tmp_path)
    found = np.load(tmp_path / "found.npz")
    expected = prediction.predict(binary, list(IMAGES), decision_rule="validation")
    assert found["labels"].dtype == np.uint8
    assert found["scores"].dtype == np.float32
    for i, one in enumerate(expected):
        np.testing.assert_allclose(
            found["scores"][i, ..., 0], one.scores[..., 1], atol=1e-6
        )
        clear = np.abs(one.scores[..., 1] - 0.4) > 1e-5
        np.testing.assert_array_equal(found["labels"][i][clear], one.labels[clear])
        assert clear.mean() > 0.9


@pytest.mark.parametrize("shape", [(1, 16, 16), (2, 40, 23)])
def test_one_file_takes_batches_and_images_of_any_size(binary, file, shape):
    images = RNG.integers(0, 256, (*shape, 1), dtype=np.uint8)
    labels, scores = prediction.load_export(file)(images)
    assert labels.shape == shape
    assert scores.shape == (*shape, 1)
    expected = prediction.predict(binary, list(images))
    for one, score in zip(expected, scores, strict=True):
        np.testing.assert_allclose(score[..., 0], one.scores[..., 1], atol=1e-6)


def test_the_file_is_compiled_for_all_platforms_and_says_what_it_is(file):
    exported = prediction.load_export(file)
    assert exported.function.platforms == ("cpu", "cuda", "tpu")
    assert exported.facts == json.loads(file.with_name(file.name + ".json").read_text())
    assert exported.facts["class_names"] == ["a", "b"]
    assert exported.facts["decision_rule"] == "validation"
    assert exported.facts["normalization"]["method"] == "percentile"
    with pytest.raises(InputError, match=r"^images: got shape \[1, 8, 8, 3\]"):
        exported(np.zeros((1, 8, 8, 3)))


@pytest.mark.parametrize(
    ("platforms", "forms"),
    [(["cpu"], "own"), (["cuda"], "plain"), (["tpu"], "plain"), (None, "both")],
)
def test_only_a_cpu_gets_the_convolutions_of_a_cpu(binary, tmp_path, platforms, forms):
    options = {} if platforms is None else {"platforms": platforms}
    path = prediction.export(binary, tmp_path / "a", **options)
    program = prediction.load_export(path).function.mlir_module()
    kernels = re.findall(
        r"stablehlo\.convolution\(.*: \(tensor<.*?>, tensor<(\d+x\d+)x", program
    )
    assert ("3x3" in kernels) == (forms != "own")
    assert (set(kernels) == {"3x3"}) == (forms == "plain")


@pytest.mark.parametrize("rule", ["analytic", "argmax"])
def test_three_classes_in_colour_are_decoded_by_their_matrix(rule, tmp_path):
    matrix = np.float32([[0.2, 0.7, 0.1], [0.1, 0.2, 0.7], [0.7, 0.1, 0.2]])
    model = models.UNet(num_classes=3, width=2, depth=1, norm="group")
    predictor = make_predictor(model, 3, 3, matrix=matrix)
    images = RNG.integers(0, 256, (2, 17, 30, 3), dtype=np.uint8)
    path = prediction.export(predictor, tmp_path / "a", decision_rule=rule)
    labels, scores = prediction.load_export(path)(images)
    expected = prediction.predict(predictor, list(images), decision_rule=rule)
    for i, one in enumerate(expected):
        np.testing.assert_allclose(scores[i], one.scores, atol=5e-6)
        assert (labels[i] == one.labels).mean() > 0.999


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
@pytest.mark.parametrize("normalizer", NORMALIZERS, ids=lambda one: one.method)
def test_normalisation_on_the_device_equals_that_of_the_host(normalizer, dtype):
    top = np.iinfo(dtype).max if np.dtype(dtype).kind == "u" else 1e4
    images = RNG.gamma(2, top / 20, (4, 30, 41, 3)).clip(0, top).astype(dtype)
    images[2] = 7  # constant
    images[3] = 7
    images[3, 5, 6] = 9  # constant but for one pixel
    expected = np.stack([normalizer(image)(image) for image in images])
    found = jax.jit(normalized, static_argnums=0)(normalizer, images)
    np.testing.assert_allclose(found, expected, rtol=2e-5, atol=2e-5)


def test_a_large_mean_costs_no_digits():
    images = (1e6 + RNG.normal(0, 1, (1, 64, 64, 1))).astype(np.float32)
    found = normalized(normalize.build("zscore"), images)
    expected = normalize.build()(images[0])(images[0])
    np.testing.assert_allclose(found[0], expected, atol=1e-4)


def test_percentiles_of_millions_of_values_are_exact():
    images = np.arange(3 * 2**20, dtype=np.int32).reshape(1, 2**10, -1, 1) // 2**5
    found = normalized(normalize.build("percentile"), images.astype(np.float32))
    low, high = np.percentile(images, (1, 99.8))
    corner = float(found[0, 0, 0, 0]), float(found[0, -1, -1, 0])
    expected = -low / (high - low), (images.max() - low) / (high - low)
    np.testing.assert_allclose(corner, expected, rtol=1e-6)


class OfOneSize(nn.Module):
    """A network whose program depends on the size of the image."""

    @nn.compact
    def __call__(self, images, train):
        if images.shape[1] > 40:
            images = images + 1
        return nn.Dense(1)(images)


def test_a_network_that_needs_a_size_says_so_and_gets_it(tmp_path):
    predictor = make_predictor(OfOneSize())
    path = tmp_path / "a"
    with pytest.raises(InputError, match=r"^size: got None, but the program of the"):
        prediction.export(predictor, path)
    prediction.export(predictor, path, size=(21, 37), platforms=["cpu"])
    _, scores = prediction.load_export(path)(IMAGES)
    expected = prediction.predict(predictor, list(IMAGES))
    np.testing.assert_allclose(scores[0, ..., 0], expected[0].scores[..., 1], atol=1e-6)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"platforms": ["gpu"]}, "platforms: got 'gpu', expected one of cpu"),
        ({"platforms": "cpu"}, "platforms: got 'cpu', expected some of"),
        ({"decision_rule": "oracle"}, "decision_rule: got 'oracle'"),
    ],
)
def test_wrong_arguments_are_named(binary, tmp_path, options, message):
    with pytest.raises(InputError, match=f"^{message}"):
        prediction.export(binary, tmp_path / "a", **options)


def test_a_file_names_no_path_of_this_machine(file):
    before = jax.config.jax_hlo_source_file_canonicalization_regex
    content = file.read_bytes()
    assert not re.findall(rb"[\w/.-]+\.py\b", content)
    for folder in (
        Path.cwd(),
        Path(prediction.__file__).parents[2],
        Path(jax.__file__),
    ):
        assert str(folder).encode() not in content
    assert before is None  # the option is restored
    # Without the option, the paths are there: they would have been found.
    function = jax.export.export(jax.jit(lambda x: jnp.sin(x) + 1))
    assert re.search(rb"\.py\b", bytes(function(jnp.ones(3)).serialize()))


def test_files_of_other_kinds_are_named(tmp_path):
    with pytest.raises(InputError, match=f"^{tmp_path / 'a'}: No such file"):
        prediction.load_export(tmp_path / "a")
    (tmp_path / "a").write_bytes(b"text")
    (tmp_path / "a.json").write_text("{}")
    with pytest.raises(InputError, match=r"a: not a file of metaseg\.prediction\.exp"):
        prediction.load_export(tmp_path / "a")
