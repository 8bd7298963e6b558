"""A run's work folder -> what prediction needs of it: network and decision rules."""

import hashlib
import json
import os
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from metaseg import checkpoint, checks, decoding, models, ntm, optimizers, training
from metaseg.data import normalize, synthetic
from metaseg.errors import InputError, prefixed

__all__ = ["DECISION_RULES", "Run", "decision_rule", "fingerprint", "load"]

DECISION_RULES = ("analytic", "argmax", "validation")
_SLAB = 1 << 20  # pixels decoded at a time


class Run(NamedTuple):
    """A trained network and how its scores become classes.

    Attributes:
      model: Flax network, images to logits.
      variables: its weights, of `TrainState.variables`.
      matrix: float32 `[K, K]`, noise transition matrix of the training labels, or None
        where none describes them.
      num_classes: K.
      class_names: K names.
      channels: of the images that the network takes.
      normalizer: whole image to the `Affine` that normalises it, as in training.
      validation: the threshold tuned on the validation split, or None.
      name: what the run was of, for titles.
      own: the threshold that training without labels ended with, or None; the rule
        "analytic" of such a run.
    """

    model: nn.Module
    variables: Any
    matrix: np.ndarray | None
    num_classes: int
    class_names: tuple[str, ...]
    channels: int
    normalizer: normalize.Normalizer
    validation: decoding.Threshold | None
    name: str
    own: decoding.Threshold | None = None


def load(workdir: str | os.PathLike[str]) -> Run:
    """Loads the best weights of a run.

    Args:
      workdir: the work folder of `experiments/main.py`, whose checkpoint with the best
        validation is taken, or of `experiments/igtt.py`.

    Returns:
      The run.

    Raises:
      InputError: no such folder, or not that of a finished run.
    """
    folder = Path(workdir).expanduser()
    config = ConfigDict(_json(folder, "config.json"))
    results = _json(folder, "results.json")
    if results.get("members"):
        one = folder / results["members"][0]["folder"]
        raise InputError(f"{folder}: an ensemble; expected one of its runs, as {one}")
    try:
        data = results["data"]
        num_classes, channels = int(data["num_classes"]), int(data["image_shape"][-1])
        class_names = data.get("class_names") or _names(num_classes)
        matrix = results["noise"]["matrix"]
        weights = folder / results.get("network", "checkpoints")
        with prefixed(f"{folder / 'config.json'}: "):
            model = models.build(config.model, num_classes)
        settings = SimpleNamespace(**config.data.to_dict())
        source = config.data.name
    except (KeyError, TypeError, AttributeError, IndexError) as error:
        raise InputError(
            f"{folder}: config.json or results.json lacks {error}; expected those of a"
            " finished run"
        ) from error
    labels = "without labels" if "igtt" in config else config.noise.name
    if source in synthetic.FAMILIES:  # drawn standardised, whatever config.data says
        settings = SimpleNamespace(normalize="zscore")
    return Run(
        model=model,
        variables=jax.device_put(_weights(weights, config, model, channels)),
        matrix=None if matrix is None else np.asarray(matrix, np.float32),
        num_classes=num_classes,
        class_names=tuple(str(name) for name in class_names),
        channels=channels,
        normalizer=normalize.of_config(settings),
        validation=_validation_threshold(results.get("thresholds") or {}),
        own=_own_threshold(results.get("threshold")),
        name=f"{data['name']}, {labels}",
    )


def _names(num_classes: int) -> list[str]:
    """What classes are called that the data set has no names for."""
    if num_classes == 2:
        return ["background", "foreground"]
    return [f"class {index}" for index in range(num_classes)]


def _json(folder: Path, name: str) -> dict[str, Any]:
    try:
        return json.loads((folder / name).read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(
            f"{folder}: no {name} ({error.strerror}); expected the work folder of a"
            " finished run"
        ) from error
    except ValueError as error:
        raise InputError(f"{folder / name}: not JSON ({error})") from error


def _weights(path: Path, config: Any, model: nn.Module, channels: int) -> Any:
    """The best validated weights among checkpoints."""
    if not path.is_dir():
        raise InputError(f"{path}: no such folder; expected the checkpoints of a run")
    checkpoints = checkpoint.Checkpoints(path, read_only=True)
    step = checkpoints.best_step()
    if step is None:
        raise InputError(f"{path}: no checkpoint; expected those of a run")
    try:
        state = checkpoints.restore(step, _state_like(config, model, channels)).state
    except Exception as error:  # Orbax raises whatever the damage leads to
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise InputError(
            f"{path / str(step)}: unreadable, or of another network than config.json"
            f" says ({reason[:200]})"
        ) from error
    return state.variables()


def _state_like(config: Any, model: nn.Module, channels: int) -> training.TrainState:
    """Shapes and types of what training saved, on the first device."""
    side = getattr(model, "stride", 1)
    blank = jnp.zeros((1, side, side, channels))
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
    """The threshold tuned on the validation split, of `results.json`."""
    value = thresholds.get("validation")
    if value is None:
        return None
    return decoding.Threshold(value, thresholds["inverted"]["validation"])


def _own_threshold(found: Mapping[str, Any] | None) -> decoding.Threshold | None:
    """The threshold of a run that was trained without labels."""
    return decoding.Threshold(**found) if found else None


def decision_rule(run: Run, rule: str) -> Callable[[np.ndarray], np.ndarray]:
    """Returns how scores become class ids; equals `decoding.predict`, on the host.

    Args:
      run: The run.
      rule: One of `DECISION_RULES`: "analytic" (noise-aware; "argmax" if no matrix
        describes the noise; after training without labels, the threshold of the run),
        "argmax", or "validation", for which the run needs a tuned threshold.

    Returns:
      A function from float32 scores `[h, W, 1]` of the foreground, or `[h, W, K]`, to
      uint8 `[h, W]`.

    Raises:
      InputError: If the rule is unknown or the run has no threshold for it.
    """
    checks.choice("rule", rule, DECISION_RULES)
    if rule == "validation" and run.validation is None:
        raise InputError(
            "rule: got 'validation', but the run has no threshold tuned on its"
            " validation split; expected analytic or argmax"
        )
    matrix = None if rule == "argmax" else run.matrix
    if run.num_classes == 2:
        known = {"validation": run.validation, "analytic": run.own}
        threshold = known.get(rule) or decoding.analytic_threshold(matrix)
        return partial(_foreground, threshold=threshold)
    inverse = None
    if matrix is not None:
        inverse = np.asarray(ntm.decode(np.eye(len(matrix), dtype=np.float32), matrix))
    return partial(_most_probable, inverse=inverse)


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


def fingerprint(run: Run) -> str:
    """Tells runs apart: a hash of all that labels follow from but normalisation."""
    digest = hashlib.sha256(repr((run.model, run.validation, run.own)).encode())
    for leaf in jax.tree.leaves((run.variables, run.matrix)):
        digest.update(np.ascontiguousarray(leaf).tobytes())
    return digest.hexdigest()
