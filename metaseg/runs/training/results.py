"""Results of a finished run: measures by every decision rule, pictures, environment.

The functions return the content of `results.json` and `report.html` for one member.
"""

import importlib.metadata
import json
import os
import platform
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from metaseg import decoding, files, noise, report, training
from metaseg.data import file_options
from metaseg.data.dataset import Dataset, Examples, Split
from metaseg.runs import labelled
from metaseg.runs.run import Run
from metaseg.runs.training import evaluation, undefined
from metaseg.runs.training import members as members_lib
from metaseg.runs.training.members import TRACED
from metaseg.text import command_line

if TYPE_CHECKING:
    from metaseg.runs.training.setup import Setup

__all__ = [
    "Scores",
    "conclusion",
    "data_facts",
    "ensemble",
    "environment",
    "finished",
    "known",
    "main_measure",
    "noise_name",
    "noisy_labels",
    "panels",
    "peak_memory",
    "summary",
]


class Scores(NamedTuple):
    """The evaluation of one member.

    Attributes:
      validation: Evaluation of the validation split.
      test: Evaluation of the test split.
      probability: Class probabilities of the first test images, or None.
    """

    validation: training.Evaluation
    test: training.Evaluation
    probability: np.ndarray | None


def noise_name(config: ConfigDict) -> str:
    """Returns the name of the noise, or "clean labels".

    Args:
      config: Settings of a run.
    """
    return "clean labels" if config.noise.name == "none" else config.noise.name


def finished(
    made: "Setup",
    member: int,
    scores: Scores,
    *,
    history: list[dict[str, Any]],
    state: training.TrainState,
    weights: evaluation.Choice,
    diverged: int,
    facts: Mapping[str, Any],
) -> Run:
    """Puts together what a finished member has found.

    Args:
      made: Parts of the run.
      member: Index of the member.
      scores: Evaluation of the member.
      history: Rows of its metrics.
      state: Its chosen train state, on the host.
      weights: Which state that is.
      diverged: Step of the first loss that was not finite, or 0.
      facts: What else goes into `results.json`.

    Returns:
      The run.
    """
    config, data = made.members[member], made.data
    matrix, folder = made.matrix(member), made.folders()[member]
    found, image_iou = _measures(config, matrix, data, scores)
    _drop_void_losses(found, made.labels)
    parameters = sum(x.size for x in jax.tree.leaves(state.params))
    found["model"]["parameters"] = parameters
    found["weights"] = weights.plain()
    lack = made.labels["val"].lack()
    found["best"] = evaluation.best_of(history, lack=lack)
    if made.initial is not None:
        found["init_from"] = made.initial.plain()
    if diverged:
        found["diverged"] = diverged
    found = files.plain(found)
    found["warnings"] = list(made.warnings)
    validations = evaluation.validation_scores([history], [0])
    undecided = lack or evaluation.undecided(validations)
    found["why_null"] = undefined.reasons(found, made.labels, undecided)
    return Run(
        config=config,
        results=files.plain(found | dict(facts)),
        history=history,
        environment=environment(),
        folder=folder,
        state=state,
        panels=panels(
            config, matrix, data.test, scores.probability, image_iou["analytic"]
        ),
    )


def ensemble(made: "Setup", members: Sequence[Run]) -> Run:
    """Puts the members of an ensemble side by side.

    Args:
      made: Parts of the run.
      members: The finished members.

    Returns:
      The run of the ensemble.
    """
    differences = members_lib.differences(made.config)
    first = members[0].results
    rows = []
    for i, (member, differs) in enumerate(zip(members, differences, strict=True)):
        row: dict[str, Any] = {"folder": str(i), "differs": differs}
        if member.folder is not None and made.workdir is not None:
            row["folder"] = str(member.folder.relative_to(made.workdir))
        found = member.results
        own = ("test", "weights", "best", "diverged", "why_null")
        row |= {k: found[k] for k in own if k in found}
        rows.append(row)
    common = ("command", "data", "model", "init_from", "warnings", "time", "memory")
    shared = {k: first[k] for k in common if k in first}
    return Run(
        config=made.config,
        results=files.plain({**shared, "members": rows}),
        history=[],
        environment=members[0].environment,
        folder=made.workdir,
        members=tuple(members),
    )


def conclusion(run: Run) -> list[str]:
    """Returns the measures for the terminal, a line for each member.

    Args:
      run: A finished run.
    """
    if not run.members:
        return [summary(run.results)]
    rows = run.results["members"]
    return [
        f"{row['folder']}: {summary(member.results)}"
        for row, member in zip(rows, run.members, strict=True)
    ]


def _measures(
    config: ConfigDict, matrix: chex.Array | None, data: Dataset, scores: Scores
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Applies every decision rule to the scores of the test split.

    Returns:
      Content of `results.json` without time and memory; and for each decision rule the
      IoU of each test image.
    """
    validation, test = scores.validation.statistics, scores.test.statistics
    measures, thresholds, image_iou = decoding.table(test, validation, matrix)
    own, _, _ = decoding.table(validation, validation, matrix)
    results: dict[str, Any] = {
        "command": command_line(),
        "noise": noise_facts(config, matrix, data.train),
        "data": data_facts(config, data),
        "model": {"name": config.model.name},
        "test": {**measures, "loss": _mean(scores.test.loss)},
        "validation": own,
    }
    if thresholds:
        rules = decoding.DECISION_RULES
        known = {rule: thresholds.get(rule) for rule in rules}
        results["thresholds"] = {
            **{rule: each.value if each else None for rule, each in known.items()},
            "inverted": {
                rule: bool(each and each.inverted) for rule, each in known.items()
            },
        }
        pooled = test.histogram.sum(axis=0).reshape(2, 64, -1).sum(axis=-1)
        results["score_histogram"] = {
            "edges": np.linspace(0, 1, 65),
            "background": pooled[0],
            "foreground": pooled[1],
        }
    return results, image_iou


def data_facts(config: ConfigDict, data: Dataset) -> dict[str, Any]:
    """Returns the section `data` of `results.json`.

    Args:
      config: Settings of the run.
      data: Its data set.
    """
    return {
        "name": data.name,
        "num_classes": data.num_classes,
        "class_names": data.class_names,
        **{name: len(split) for name, split in data.splits()},
        **({"train": "endless"} if config.data.endless else {}),
        "image_shape": data.train.shape,
        "channels": data.channels,
        "channel_names": data.channel_names,
        "files": file_options.changed(data.files),
    }


def known(made: "Setup") -> dict[str, Any]:
    """Returns the part of `results.json` that is known before training.

    A checkpoint holds it, so that an unfinished run can predict.

    Args:
      made: Parts of the run.
    """
    matrix = made.settings.matrix
    return files.plain(
        {
            "data": data_facts(made.config, made.data),
            "noise": {"matrix": None if matrix is None else np.asarray(matrix)},
        }
    )


def _mean(values: chex.Array) -> float:
    """Returns the mean; NaN of no values."""
    return float(np.mean(values)) if len(values) else float("nan")


def _drop_void_losses(
    found: dict[str, Any], labels: Mapping[str, labelled.SplitLabels]
) -> None:
    """Makes the loss of a split without labels NaN; the mean of no terms is 0."""
    if not labels["test"].labelled:
        found["test"]["loss"] = float("nan")


def noisy_labels(config: ConfigDict, split: Split) -> np.ndarray:
    """Returns the labels of a few examples as the network sees them.

    Args:
      config: Settings of a run.
      split: The examples.
    """
    key = jax.random.key(config.noise.seed)
    if config.noise.online:
        key = jax.random.fold_in(key, 0)
    fields = {name: x for name, x in config.noise.to_dict().items() if x is not None}
    traced = {
        name: np.asarray(fields.pop(name), np.float32)
        for name in list(fields)
        if f"noise.{name}" in TRACED
    }
    fixed = json.dumps(
        files.plain({**fields, "seed": 0, "num_classes": config.data.num_classes})
    )
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
    """Makes pictures of the first test images without their padding.

    Args:
      config: Settings of a run.
      matrix: Noise transition matrix `[K, K]`, or None.
      test: Test split.
      probability: Predicted probabilities `[n, H, W, K]` of the first n images, or
        None.
      image_iou: IoU of each image, `[N]`.

    Returns:
      A panel for each of the n images.
    """
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
    """Returns the name of the measure that runs are compared by.

    Args:
      results: Content of results.json.
    """
    return "iou" if "iou" in results["test"] else "miou"


def summary(results: Mapping[str, Any]) -> str:
    """Returns the test measure under each decision rule in one line.

    Args:
      results: Content of results.json.
    """
    measure = main_measure(results)
    values = results["test"][measure] | {"auc": results["test"].get("auc")}
    known = [
        f"{name} {value:.4f}" for name, value in values.items() if value is not None
    ]
    if known:
        return f"test {measure}: {'  '.join(known)}"
    reason = results.get("why_null", {}).get(f"test.{measure}.argmax", "no value")
    return f"test {measure}: undefined, {reason}"


def peak_memory() -> int | None:
    """Largest resident memory of this process so far, bytes; None on Windows."""
    try:
        import resource
    except ImportError:
        return None
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
