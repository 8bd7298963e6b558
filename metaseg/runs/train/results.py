"""What a finished run has found: readings of the test split, pictures, facts.

What goes into `results.json` and `report.html`, of one member at a time.
"""

import importlib.metadata
import json
import os
import platform
import resource
import shlex
import sys
from collections.abc import Mapping
from functools import partial
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from metaseg import decoding, noise, report, training
from metaseg.data.dataset import Dataset, Examples, Split
from metaseg.runs.train.members import TRACED

__all__ = [
    "Scores",
    "environment",
    "facts",
    "main_measure",
    "noise_name",
    "noisy_labels",
    "panels",
    "peak_memory",
    "summary",
]


class Scores(NamedTuple):
    """What the evaluation of one member found.

    Attributes:
      validation: of the validation split.
      test: of the test split.
      probability: class probabilities of the first test images, or None.
    """

    validation: training.Evaluation
    test: training.Evaluation
    probability: np.ndarray | None


def noise_name(config: ConfigDict) -> str:
    """The noise in a word."""
    return "clean labels" if config.noise.name == "none" else config.noise.name


def facts(
    config: ConfigDict,
    matrix: chex.Array | None,
    data: Dataset,
    scores: Scores,
    parameters: int,
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Reads the scores of the test split in every way.

    Returns:
      What goes into `results.json`, but for time and memory; and per reading the IoU of
      each test image.
    """
    validation, test = scores.validation.statistics, scores.test.statistics
    measures, thresholds, image_iou = decoding.table(test, validation, matrix)
    own, _, _ = decoding.table(validation, validation, matrix)
    results: dict[str, Any] = {
        "command": shlex.join(["python", *sys.argv]),
        "noise": noise_facts(config, matrix, data.train),
        "data": {
            "name": data.name,
            "num_classes": data.num_classes,
            "class_names": data.class_names,
            **{name: len(split) for name, split in data.splits()},
            **({"train": "endless"} if config.data.endless else {}),
            "image_shape": data.train.shape,
        },
        "model": {"name": config.model.name, "parameters": parameters},
        "test": {**measures, "loss": float(np.mean(scores.test.loss))},
        "validation": own,
    }
    if thresholds:
        results["thresholds"] = {
            **{rule: each.value for rule, each in thresholds.items()},
            "inverted": {rule: each.inverted for rule, each in thresholds.items()},
        }
        pooled = test.histogram.sum(axis=0).reshape(2, 64, -1).sum(axis=-1)
        results["score_histogram"] = {
            "edges": np.linspace(0, 1, 65),
            "background": pooled[0],
            "foreground": pooled[1],
        }
    return results, image_iou


def noisy_labels(config: ConfigDict, split: Split) -> np.ndarray:
    """The labels of a few examples as the network would see them."""
    key = jax.random.key(config.noise.seed)
    if config.noise.online:
        key = jax.random.fold_in(key, 0)
    fields = {name: x for name, x in config.noise.to_dict().items() if x is not None}
    traced = {
        name: np.asarray(fields.pop(name), np.float32)
        for name in list(fields)
        if f"noise.{name}" in TRACED
    }
    fixed = json.dumps({**fields, "seed": 0, "num_classes": config.data.num_classes})
    return np.asarray(_corrupt(fixed, traced, key, split.labels, split.ids))


@partial(jax.jit, static_argnums=0)
def _corrupt(
    fixed: str,
    traced: dict[str, jax.Array],
    key: jax.Array,
    labels: jax.Array,
    ids: jax.Array,
) -> jax.Array:
    """Compiled once for all members, whose seeds and rates differ."""
    fields = json.loads(fixed)
    num_classes = fields.pop("num_classes")
    return noise.per_example(noise.build(fields | traced, num_classes))(
        key, labels, ids
    )


def noise_facts(
    config: ConfigDict,
    matrix: chex.Array | None,
    train_split: Examples,
) -> dict[str, Any]:
    """The noise's parameters, its matrix, and the share of label pixels it changed."""
    some = train_split.take(range(min(len(train_split), 64)))
    clean, noisy = some.labels, noisy_labels(config, some)
    given = {k: v for k, v in config.noise.to_dict().items() if v is not None}
    return {
        **given,
        "matrix": None if matrix is None else np.asarray(matrix),
        "changed_pixels": float((clean != noisy).sum() / max(1, (clean != 255).sum())),
    }


def panels(
    config: ConfigDict,
    matrix: chex.Array | None,
    test: Examples,
    probability: np.ndarray | None,
    image_iou: np.ndarray,
) -> list[report.Panel]:
    """Pictures of the first test images, padding cut away."""
    if probability is None:
        return []
    split = test.take(range(len(probability)))
    noisy = noisy_labels(config, split)
    prediction = np.asarray(decoding.predict(jnp.asarray(probability), matrix))
    binary = probability.shape[-1] == 2
    score = probability[..., 1] if binary else probability.max(axis=-1)
    result = []
    for i in range(len(probability)):
        inside = tuple(slice(0, n) for n in split.valid_size[i])
        result.append(
            report.Panel(
                name=split.names[i],
                image=split.images[i][inside],
                clean=split.labels[i][inside],
                noisy=noisy[i][inside],
                score=score[i][inside],
                prediction=prediction[i][inside],
                iou=float(image_iou[i]),
            )
        )
    return result


def main_measure(results: Mapping[str, Any]) -> str:
    """Name of the measure that runs are compared by."""
    return "iou" if "iou" in results["test"] else "miou"


def summary(results: Mapping[str, Any]) -> str:
    """The readings in a line for the terminal."""
    measure = main_measure(results)
    values = results["test"][measure]
    text = "  ".join(f"{reading} {value:.4f}" for reading, value in values.items())
    auc = results["test"].get("auc")
    return f"test {measure}: {text}" + ("" if auc is None else f"  auc {auc:.4f}")


def peak_memory() -> int:
    """Largest resident memory of this process so far, bytes."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def environment() -> dict[str, Any]:
    """Versions and devices that a result may depend on."""
    packages = (
        "metaseg-jax",
        "jax",
        "jaxlib",
        "flax",
        "optax",
        "orbax-checkpoint",
        "numpy",
    )
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpus": os.cpu_count(),
        "devices": [str(d.device_kind) for d in jax.devices()],
        "packages": {p: _version(p) for p in packages},
    }


def _version(package: str) -> str:
    """The version of an installed distribution, or "unknown"."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:  # run from a bare checkout
        return "unknown"
