"""Work folder of a run -> network, weights, normalisation and decision rules."""

import hashlib
import os
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from metaseg import (
    checkpoint,
    checks,
    decoding,
    files,
    models,
    ntm,
    optimizers,
    training,
)
from metaseg.data import file_options, normalize, synthetic
from metaseg.data.file_options import DEFAULT, FileOptions
from metaseg.errors import DamagedError, InputError, prefixed
from metaseg.parallel import processes

__all__ = [
    "PREDICTION_RULES",
    "Predictor",
    "decision",
    "decoder",
    "fingerprint",
    "from_results",
    "load",
]

BORDER = "border"  # name of the class in prepared data sets
PREDICTION_RULES = ("analytic", "argmax", "validation")
_SLAB = 1 << 20  # pixels decoded at a time


class Predictor(NamedTuple):
    """A trained network, and what its scores are decoded by.

    Attributes:
      model: Flax network, images to logits.
      variables: Weights of the network, as `TrainState.variables` returns them.
      matrix: float32 `[K, K]`, noise transition matrix of the training labels, or None
        if none describes their noise.
      num_classes: Number of classes K.
      class_names: K names.
      channels: Channels of the images that the network takes.
      normalizer: Normalisation of the training images.
      name: Data set and noise of the run, for titles.
      validation_threshold: Threshold tuned on the validation split, or None.
      final_threshold: Threshold that training without labels ended with, or None. The
        decision rule "analytic" of such a run uses it.
      border: Class between objects that touch, if the labels were made of instance maps
        with such a class; or None.
      files: Channels of the images of the run, and what its label values meant.
      weights: Which weights of the run these are, such as "step 700, the last".
    """

    model: nn.Module
    variables: Any
    matrix: np.ndarray | None
    num_classes: int
    class_names: tuple[str, ...]
    channels: int
    normalizer: normalize.Normalizer
    name: str
    validation_threshold: decoding.Threshold | None = None
    final_threshold: decoding.Threshold | None = None
    border: int | None = None
    files: FileOptions = DEFAULT
    weights: str = ""


class _Found(NamedTuple):
    """What the folder of a run says of its network.

    Attributes:
      results: Content of `results.json`, or the part that is known before the end.
      step: Step of the weights; None: the newest.
      described: Which weights these are.
    """

    results: Mapping[str, Any]
    step: int | None
    described: str


def load(workdir: str | os.PathLike[str]) -> Predictor:
    """Loads the weights of a run that its `results.json` measures.

    Args:
      workdir: Work folder of `metaseg train` or `metaseg igtt`. Of an unfinished run of
        training the weights are the newest, or the best so far, as
        `config.training.weights` says.

    Returns:
      The predictor.

    Raises:
      InputError: If the folder is missing or holds no run with weights.
    """
    processes.check_backend()
    folder = files.expanded(workdir)
    config = ConfigDict(files.read_run(folder, "config.json"))
    if (folder / "results.json").is_file():
        finished = files.read_run(folder, "results.json")
        chosen = finished.get("weights") or {}
        described = chosen.get("described", "")
        found = _Found(finished, chosen.get("step"), described)
    else:
        found = _unfinished(folder, config)
    results = found.results
    if results.get("members"):
        one = folder / results["members"][0]["folder"]
        raise InputError(f"{folder}: an ensemble; expected one of its runs, as {one}")
    parts = from_results(config, results, None, where=str(folder))
    path = folder / results.get("network", "checkpoints")
    variables = _weights(path, found.step, config, parts.model, parts.channels)
    return parts._replace(variables=jax.device_put(variables), weights=found.described)


def _unfinished(folder: Path, config: ConfigDict) -> _Found:
    """Finds the weights of a run of training that has no results yet."""
    for section, name in (("igtt", "run of iGTT"), ("", "ensemble")):
        if section in config or (not section and config.parallel.ensemble > 1):
            raise InputError(
                f"{folder}: an unfinished {name}; expected a finished one, which has "
                "results.json"
            )
    path, steps = folder / "checkpoints", []
    if path.is_dir():
        checkpoints = checkpoint.Checkpoints(path, read_only=True)
        steps = checkpoints.steps()
    if not steps:
        raise InputError(
            f"{folder}: neither results.json nor a checkpoint; expected the work folder"
            " of a run that has trained"
        )
    progress = checkpoints.progress(steps[-1])
    if "results" not in progress:
        raise InputError(f"{path / str(steps[-1])}: not the checkpoint of such a run")
    step, name = steps[-1], "the newest"
    if config.training.weights == "best":
        rows = [row for row in progress["history"][0] if row["split"] == "val"]
        scores = {row["step"]: row.get("iou", row.get("miou")) for row in rows}
        known = {k: v for k, v in scores.items() if v is not None}
        best = checkpoint.best_step(known)
        if best in steps:
            step, name = best, "the best so far"
    described = f"step {step} of {config.training.steps}, {name} of an unfinished run"
    return _Found(progress["results"], step, described)


def from_results(
    config: ConfigDict,
    results: Mapping[str, Any],
    variables: Any,
    *,
    where: str = "run",
) -> Predictor:
    """Puts a network and its decision rules together from a run in memory.

    Args:
      config: Resolved settings of the run.
      results: Content of its `results.json`.
      variables: Weights of the network, of `TrainState.variables`.
      where: Name of the run, for messages.

    Returns:
      The predictor.

    Raises:
      InputError: If the settings or the results lack a field.
    """
    try:
        data = results["data"]
        num_classes, channels = int(data["num_classes"]), int(data["image_shape"][-1])
        class_names = data.get("class_names") or _names(num_classes)
        matrix = results["noise"]["matrix"]
        with prefixed(f"{where}: config."):
            model = models.build(config.model, num_classes)
        settings = SimpleNamespace(**config.data.to_dict())
        source = config.data.name
    except (KeyError, TypeError, AttributeError, IndexError) as error:
        raise InputError(
            f"{where}: the config or the results lack {error}; expected those of a"
            " finished run"
        ) from error
    labels = "without labels" if "igtt" in config else config.noise.name
    if source in synthetic.FAMILIES:  # drawn standardised, whatever config.data says
        settings = SimpleNamespace(normalize="zscore")
    return Predictor(
        model=model,
        variables=variables,
        matrix=None if matrix is None else np.asarray(matrix, np.float32),
        num_classes=num_classes,
        class_names=tuple(str(name) for name in class_names),
        channels=channels,
        normalizer=normalize.of_config(settings),
        name=f"{data['name']}, {labels}",
        validation_threshold=_validation_threshold(results.get("thresholds") or {}),
        final_threshold=_final_threshold(results.get("threshold")),
        border=_border(config, class_names),
        files=file_options.recorded(data.get("files", {})),
        weights=(results.get("weights") or {}).get("described", ""),
    )


def _names(num_classes: int) -> list[str]:
    """Returns names of classes for a data set without names."""
    if num_classes == 2:
        return ["background", "foreground"]
    return [f"class {index}" for index in range(num_classes)]


def _border(config: ConfigDict, class_names: Sequence[str]) -> int | None:
    """Returns the class between objects that touch, which instance maps may have."""
    of_files = config.get("files", {}).get("instances") == "border"
    named = [str(name) for name in class_names[2:]] == [BORDER]
    return 2 if len(class_names) == 3 and (of_files or named) else None


def _weights(
    path: Path, step: int | None, config: Any, model: nn.Module, channels: int
) -> Any:
    """Returns the weights of the checkpoint of a step, by default the newest."""
    if not path.is_dir():
        raise InputError(f"{path}: no such folder; expected the checkpoints of a run")
    checkpoints = checkpoint.Checkpoints(path, read_only=True)
    steps = checkpoints.steps()
    if not steps or step not in (None, *steps):
        wanted = "no checkpoint" if step is None else f"no checkpoint of step {step}"
        raise InputError(f"{path}: {wanted}; expected those of a run")
    step = steps[-1] if step is None else step
    like = _state_like(config, model, channels)
    try:
        state = checkpoints.restore(step, like).state
    except (DamagedError, OSError) as error:
        reason = " ".join(str(error).split())
        raise InputError(
            f"{path / str(step)}: unreadable, or of another network than config.json"
            f" says ({reason[:200]})"
        ) from error
    return state.variables()


def _state_like(config: Any, model: nn.Module, channels: int) -> training.TrainState:
    """Returns shapes and types of the state that training saved, on one device."""
    side = getattr(model, "stride", 1)
    blank = jnp.zeros((1, side, side, channels), jnp.float32)
    init = partial(model.init, train=False)
    shapes = jax.eval_shape(init, jax.random.key(0), blank)
    shapes = {"params": shapes["params"], "batch_stats": shapes.get("batch_stats", {})}
    with prefixed("config."):
        optimizer = optimizers.build(config.optimizer, config.training.steps)
    step: Any = jax.ShapeDtypeStruct((), jnp.int32)
    state = training.TrainState(
        step=step,
        opt_state=jax.eval_shape(optimizer.init, shapes["params"]),
        ema_params=shapes if config.optimizer.ema_decay > 0 else None,
        **shapes,
    )
    here = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    return jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=here), state
    )


def _validation_threshold(thresholds: Mapping[str, Any]) -> decoding.Threshold | None:
    """Returns the tuned threshold of results.json."""
    value = thresholds.get("validation")
    if value is None:
        return None
    return decoding.Threshold(value, thresholds["inverted"]["validation"])


def _final_threshold(found: Mapping[str, Any] | None) -> decoding.Threshold | None:
    """Returns the threshold of a run without labels."""
    return decoding.Threshold(**found) if found else None


def decoder(
    predictor: Predictor, decision_rule: str = "analytic"
) -> Callable[[np.ndarray], np.ndarray]:
    """Returns the function from scores to class ids; equals `decoding.predict`.

    Args:
      predictor: The predictor.
      decision_rule: "analytic" is the noise-aware rule, which equals "argmax" if no
        matrix describes the noise; after training without labels it is the threshold
        of the run. "argmax" takes the likeliest class. "validation" takes the threshold
        tuned on the validation split.

    Returns:
      A host-side function from float32 scores `[h, W, 1]` of the foreground, or
      `[h, W, K]`, to uint8 `[h, W]`.

    Raises:
      InputError: If the rule is unknown, or the run has no tuned threshold.
    """
    threshold, inverse = decision(predictor, decision_rule)
    if threshold is not None:
        return partial(_foreground, threshold=threshold)
    return partial(_most_probable, inverse=inverse)


def decision(
    predictor: Predictor, decision_rule: str
) -> tuple[decoding.Threshold | None, np.ndarray | None]:
    """Returns what a decision rule compares or multiplies scores with.

    Args:
      predictor: The predictor.
      decision_rule: As for `decoder`.

    Returns:
      For two classes a threshold and None. For more, None and either float32 `[K, K]`,
      which scores `[..., K]` are multiplied with before the argmax, or None.

    Raises:
      InputError: As for `decoder`.
    """
    checks.choice("decision_rule", decision_rule, PREDICTION_RULES)
    if decision_rule == "validation" and predictor.validation_threshold is None:
        raise InputError(
            "decision_rule: got 'validation', but the run has no threshold tuned on its"
            " validation split; expected analytic or argmax"
        )
    matrix = None if decision_rule == "argmax" else predictor.matrix
    if predictor.num_classes == 2:
        known = {
            "validation": predictor.validation_threshold,
            "analytic": predictor.final_threshold,
        }
        return known.get(decision_rule) or decoding.analytic_threshold(matrix), None
    if matrix is None:
        return None, None
    return None, np.asarray(ntm.decode(np.eye(len(matrix), dtype=np.float32), matrix))


def _foreground(scores: np.ndarray, *, threshold: decoding.Threshold) -> np.ndarray:
    return decoding.is_foreground(scores[..., 0], *threshold).astype(np.uint8)


def _most_probable(scores: np.ndarray, *, inverse: np.ndarray | None) -> np.ndarray:
    rows = max(1, _SLAB // scores.shape[1])
    labels = np.empty(scores.shape[:2], np.uint8)
    for start in range(0, len(scores), rows):
        part = scores[start : start + rows]
        decoded = part if inverse is None else part @ inverse
        labels[start : start + rows] = decoded.argmax(axis=-1)
    return labels


def fingerprint(predictor: Predictor) -> str:
    """Returns a hash of all that labels follow from, but the images.

    Args:
      predictor: The predictor.

    Returns:
      64 hexadecimal digits, which differ if the network, its weights, the normalisation
      or a decision rule differs.
    """
    facts = predictor._replace(
        variables=None, matrix=None, name="", class_names=(), weights=""
    )
    digest = hashlib.sha256(repr(facts).encode())
    for leaf in jax.tree.leaves((predictor.variables, predictor.matrix)):
        digest.update(np.ascontiguousarray(leaf).tobytes())
    return digest.hexdigest()
