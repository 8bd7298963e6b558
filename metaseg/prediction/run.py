"""A run's work folder -> what prediction needs of it: network, weights, readings."""

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

from metaseg import checkpoint, decoding, models, ntm, optimizers, training
from metaseg.data import normalize, synthetic
from metaseg.errors import InputError, prefixed

__all__ = ["READINGS", "Run", "fingerprint", "load", "reader"]

READINGS = ("analytic", "argmax", "validation")
_SLAB = 1 << 20  # pixels decoded at a time


class Run(NamedTuple):
    """A trained network and how its scores are read.

    Attributes:
      model: Flax network, images to logits.
      variables: its weights, of `TrainState.variables`.
      matrix: float32 `[K, K]`, noise transition matrix of the training labels, or None
        where none describes them.
      num_classes: K.
      class_names: K names.
      channels: of the images that the network takes.
      normalizer: whole image to the `Affine` that normalises it, as in training.
      validation: the cut tuned on the validation split, or None.
      name: what the run was of, for titles.
      own: the cut that training without labels ended with, or None; the analytic
        reading of such a run.
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
        validation=_validation_cut(results.get("thresholds") or {}),
        own=decoding.Threshold(**results["cut"]) if results.get("cut") else None,
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


def _validation_cut(thresholds: Mapping[str, Any]) -> decoding.Threshold | None:
    """The tuned cut, which takes scores at the threshold as foreground."""
    value = thresholds.get("validation")
    if value is None:
        return None
    if thresholds["inverted"]["validation"]:
        return decoding.Threshold(value, True)
    # `Threshold` means above: take the number just below.
    return decoding.Threshold(
        float(np.nextafter(np.float32(value), np.float32(-1))), False
    )


def reader(run: Run, reading: str) -> Callable[[np.ndarray], np.ndarray]:
    """How scores become class ids; equals `decoding.predict`, on the host.

    Args:
      run: the run.
      reading: "analytic" (noise-aware; the argmax if no matrix describes the noise; the
        run's own cut after training without labels),
        "argmax", or "validation", where the run has such a cut.

    Returns:
      A function from float32 scores `[h, W, 1]` of the foreground, or `[h, W, K]`, to
      uint8 `[h, W]`.

    Raises:
      InputError: unknown reading, or one that the run does not have.
    """
    if reading not in READINGS:
        raise InputError(
            f"reading: got {reading!r}, expected one of {', '.join(READINGS)}"
        )
    if reading == "validation" and run.validation is None:
        raise InputError(
            "reading: got 'validation', but the run has no threshold tuned on its"
            " validation split; expected analytic or argmax"
        )
    matrix = None if reading == "argmax" else run.matrix
    if run.num_classes == 2:
        cuts = {"validation": run.validation, "analytic": run.own}
        cut = cuts.get(reading) or decoding.analytic_threshold(matrix)
        return partial(_above, cut=cut)
    inverse = None
    if matrix is not None:
        inverse = np.asarray(ntm.decode(np.eye(len(matrix), dtype=np.float32), matrix))
    return partial(_likeliest, inverse=inverse)


def _above(scores: np.ndarray, *, cut: decoding.Threshold) -> np.ndarray:
    score = scores[..., 0]
    above = score < cut.threshold if cut.inverted else score > cut.threshold
    return above.astype(np.uint8)


def _likeliest(scores: np.ndarray, *, inverse: np.ndarray | None) -> np.ndarray:
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
