"""One run: data, noise, network, training, readings, report; top to bottom.

Writes into the work folder `config.json`, `environment.json`, `metrics.jsonl`,
TensorBoard events, `checkpoints/`, `results.json` and `report.html`.
"""

import importlib.metadata
import os
import platform
import resource
import shlex
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import chex
import feeds
import jax
import jax.numpy as jnp
import logs
import numpy as np
import resuming
import stopping
from absl import logging
from loop import Loop, Programs, Progress, best_of
from ml_collections import ConfigDict

from metaseg import (
    checkpoint,
    losses,
    models,
    noise,
    optimizers,
    readings,
    report,
    training,
)
from metaseg.batch import Batch
from metaseg.data import augment, folder, prepared, synthetic
from metaseg.data.dataset import Dataset, Examples, Split
from metaseg.data.pipeline import InOrder
from metaseg.errors import InputError


def load_folder(config: ConfigDict) -> Dataset:
    """A data set that prepare.py wrote, where there is one, else a tree of files."""
    if (
        config.dir
        and config.dataset
        and prepared.find(Path(config.dir), config.dataset)
    ):
        return prepared.load(config)
    return folder.load(config)


SOURCES = {
    "folder": load_folder,
    "prepared": prepared.load,
    **dict.fromkeys(synthetic.FAMILIES, synthetic.load),
}


def run(config: ConfigDict, workdir: Path, resume: str = "auto") -> Path:
    """Trains and evaluates as `config` says.

    Args:
      config: of `configs/`.
      workdir: folder for the results; made if missing. One that holds this run goes on
        from its newest checkpoint; one that holds anything else is refused.
      resume: "auto", "must" or "never", see `resuming.check`.

    Returns:
      The path of the report.

    Raises:
      InputError: for bad input, before any training; or a loss that is not finite.
      stopping.StoppedError: a signal asked the run to stop; it has been saved.
    """
    start = time.perf_counter()
    logging.set_verbosity(logging.ERROR)  # Orbax tells every file it writes
    check(config)
    requested = config.to_dict()
    if resuming.check(workdir, requested, resume):
        print(f"{workdir} holds this run, finished", file=sys.stderr)
        return workdir / "report.html"
    build_step(config)  # names what is wrong before the data are read
    matrix = noise.build_matrix(config.noise, config.data.num_classes)
    data = load_data(config)
    count_epochs(config, len(data.train))
    parts = build_step(config)
    workdir.mkdir(parents=True, exist_ok=True)
    logs.write_json(workdir / "config.json", requested)
    logs.write_json(workdir / "environment.json", environment())
    checkpoints = checkpoint.Checkpoints(workdir / "checkpoints")
    state = initial_state(config, parts, data)
    resumed = resuming.newest(checkpoints, state, _say)
    log = logs.RunLog(
        workdir,
        total_steps=config.training.steps,
        batch_size=config.training.batch_size,
        history=resumed.history,
        first_step=resumed.progress.step,
    )
    height, width, channels = data.train.shape
    size = "endless" if config.data.endless else len(data.train)
    log.say(
        f"{data.name}: {size} + {len(data.val)} + {len(data.test)} images "
        f"(train, val, test) of {height} x {width} x {channels}, "
        f"{data.num_classes} classes; noise: {config.noise.name}; writing to {workdir}"
    )
    clock = {"setup_seconds": time.perf_counter() - start}

    if resumed.state is not None:
        state = resumed.state
        log.say(f"going on after step {resumed.progress.step}")
    point = (state, resumed.progress)
    try:
        state, evaluator = train(
            config, log, parts, matrix, data, point, checkpoints, clock
        )
    finally:
        checkpoints.close()
    results, panels = evaluate(config, parts, matrix, data, state, evaluator, clock)
    results["best"] = best_of(log.history)
    clock["total_seconds"] = time.perf_counter() - start
    logs.write_json(workdir / "results.json", results)
    report.write_report(
        workdir / "report.html",
        title=f"{data.name}, {noise_name(config)}",
        config=config.to_dict(),
        environment=environment(),
        history=log.history,
        results=results,
        panels=panels,
        num_classes=data.num_classes,
    )
    log.say(summary(results))
    log.close()
    return workdir / "report.html"


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def noise_name(config: ConfigDict) -> str:
    """The noise in a word."""
    return "clean labels" if config.noise.name == "none" else config.noise.name


def check(config: ConfigDict) -> None:
    """Raises InputError for values that no run can use."""
    if config.data.name not in SOURCES:
        known = ", ".join(sorted(SOURCES))
        raise InputError(
            f"config.data.name: unknown data '{config.data.name}'; known: {known}"
        )
    if config.data.name in synthetic.FAMILIES:
        num_classes = synthetic.num_classes(config.data.name)
        if config.data.num_classes != num_classes:
            raise InputError(
                f"config.data.num_classes: got {config.data.num_classes}, but "
                f"'{config.data.name}' has {num_classes} classes"
            )
    elif config.data.endless:
        raise InputError(
            f"config.data.endless: '{config.data.name}' has so many images; expected "
            f"False, or a built-in family: {', '.join(sorted(synthetic.FAMILIES))}"
        )
    for field in ("workers", "memory_gb"):
        if config.data[field] < 0:
            raise InputError(
                f"config.data.{field}: got {config.data[field]}, expected at least 0"
            )
    for field in config.training:
        may_be_off = ("epochs", "steps_per_dispatch", "checkpoint_every")
        least = 0 if field in may_be_off else 1
        if config.training[field] < least:
            raise InputError(
                f"config.training.{field}: got {config.training[field]}, "
                f"expected at least {least}"
            )
    if not 0 <= config.optimizer.average < 1:
        raise InputError(
            f"config.optimizer.average: got {config.optimizer.average}, "
            "expected a decay in [0, 1)"
        )
    if config.augment.turn and config.augment.upright:
        raise InputError(
            "config.augment.upright: True with config.augment.turn True; expected at "
            "most one of them"
        )
    for field in ("crop", "brightness", "contrast"):
        if config.augment[field] < 0:
            raise InputError(
                f"config.augment.{field}: got {config.augment[field]}, "
                "expected at least 0"
            )


def count_epochs(config: ConfigDict, size: int) -> None:
    """Turns lengths given in epochs into steps, once the data's size is known."""
    per_epoch = size / config.training.batch_size
    if config.training.epochs:
        config.training.steps = max(1, round(config.training.epochs * per_epoch))
    if config.optimizer.step_epochs:
        every = max(1, round(config.optimizer.step_epochs * per_epoch))
        config.optimizer.step_every = every


def load_data(config: ConfigDict) -> Dataset:
    """Loads the data set and checks that its images fit the crop."""
    data = SOURCES[config.data.name](config.data)
    crop = config.augment.crop
    small = np.flatnonzero((data.train.sizes < crop).any(axis=1))
    if crop and len(small):
        height, width = data.train.sizes[small[0]]
        raise InputError(
            f"config.augment.crop: training image '{data.train.names[small[0]]}' is "
            f"{height} x {width}, smaller than the crop of {crop} x {crop}; expected a "
            "smaller crop, or 0 for whole images"
        )
    shape = window(config, data)
    if config.augment.turn and shape[0] != shape[1]:
        raise InputError(
            f"config.augment.turn: quarter turns need square crops, got {shape[0]} x "
            f"{shape[1]}; expected config.augment.crop > 0 or turn False"
        )
    return data


def window(config: ConfigDict, data: Dataset) -> tuple[int, int]:
    """Height and width that the network trains on."""
    crop = config.augment.crop
    return (crop, crop) if crop else data.train.shape[:2]


def build_step(config: ConfigDict) -> training.Step:
    """Binds the static parts of the training step."""

    def augment_example(
        key: jax.Array, image: jax.Array, label: jax.Array, extent: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        c = config.augment
        k_crop, k_dihedral, k_light = jax.random.split(key, 3)
        if c.crop:
            size = (c.crop, c.crop)
            image, label = augment.crop(k_crop, image, label, extent, size=size)
        image, label = augment.dihedral(
            k_dihedral, image, label, flip=c.flip, turn=c.turn, upright=c.upright
        )
        image = augment.brightness_contrast(
            k_light, image, brightness=c.brightness, contrast=c.contrast
        )
        return image, label

    num_classes = config.data.num_classes
    return training.Step(
        model=models.build(config.model, num_classes),
        optimizer=optimizers.build(config.optimizer, config.training.steps),
        loss=losses.build(config.loss),
        noise=noise.build(config.noise, num_classes),
        augment=augment_example,
        online=config.noise.online,
        average=config.optimizer.average,
        fetch=feeds.renderer(config) if config.data.endless else training.gather,
    )


def _keys(config: ConfigDict) -> tuple[jax.Array, jax.Array]:
    """Keys of the weights and of the augmentation."""
    weights, augmentation = jax.random.split(jax.random.key(config.seed))
    return weights, augmentation


def initial_state(
    config: ConfigDict, parts: training.Step, data: Dataset
) -> training.TrainState:
    """Draws the weights."""
    return training.create_state(
        _keys(config)[0],
        parts.model,
        parts.optimizer,
        (*window(config, data), data.channels),
        average=parts.average > 0,
    )


def compile_programs(
    config: ConfigDict,
    parts: training.Step,
    matrix: chex.Array | None,
    state: training.TrainState,
    feed: feeds.Feed,
    val_batch: Batch,
) -> Programs:
    """Compiles the steps."""
    keys = (jax.random.key(config.noise.seed), _keys(config)[1])
    options = models.compiler_options()
    step = jax.jit(
        partial(training.train_steps, parts), donate_argnums=0, compiler_options=options
    )
    evaluate = jax.jit(
        partial(training.eval_step, parts, matrix=matrix), compiler_options=options
    )
    return Programs(
        step=step.lower(state, *feed.example(), 1, *keys).compile(),
        evaluate=evaluate.lower(state.variables(), val_batch).compile(),
        keys=keys,
    )


def train(
    config: ConfigDict,
    log: logs.RunLog,
    parts: training.Step,
    matrix: chex.Array | None,
    data: Dataset,
    start: tuple[training.TrainState, Progress],
    checkpoints: checkpoint.Checkpoints,
    clock: dict[str, float],
) -> tuple[training.TrainState, Any]:
    """Trains to the last step, validating and saving on the way; fills in `clock`.

    Returns:
      The final state and the compiled evaluation step.

    Raises:
      stopping.StoppedError: a signal asked the run to stop; it has been saved.
      InputError: the loss is not finite, or a checkpoint cannot be written.
    """
    began = time.perf_counter()
    state, progress = start
    val_batches = InOrder(data.val, config.training.eval_batch_size)
    feed = feeds.build(config, data.train)
    feed.seek(progress.step)
    log.say("compiling the training step")
    first = next(iter(val_batches))
    programs = compile_programs(config, parts, matrix, state, feed, first)
    clock["compile_seconds"] = time.perf_counter() - began
    loop = Loop(
        config, log, programs, feed, val_batches, len(data.val), checkpoints, progress
    )
    log.begin()
    try:
        with stopping.Watch() as watch:
            state = loop.run(state, watch)
    finally:
        feed.close()
    steps = config.training.steps
    clock["train_seconds"] = loop.progress.training
    clock["images_per_second"] = (
        steps * config.training.batch_size / loop.progress.stepping
    )
    clock["data_wait_share"] = loop.progress.waiting / loop.progress.stepping
    return state, programs.evaluate


def evaluate(
    config: ConfigDict,
    parts: training.Step,
    matrix: chex.Array | None,
    data: Dataset,
    state: training.TrainState,
    evaluator: Any,
    clock: dict[str, float],
) -> tuple[dict[str, Any], list[report.Panel]]:
    """Reads the scores of the test split in every way.

    Returns:
      What goes into `results.json`, and the pictures of the report.
    """
    began = time.perf_counter()
    size, variables = config.training.eval_batch_size, state.variables()
    validation, _ = training.evaluate(
        evaluator,
        variables,
        InOrder(data.val, size),
        len(data.val),
    )
    test, probability = training.evaluate(
        evaluator,
        variables,
        InOrder(data.test, size),
        len(data.test),
        keep=config.report.images,
    )
    measures, cuts, image_iou = readings.table(
        test.statistics, validation.statistics, matrix
    )
    own, _, _ = readings.table(validation.statistics, validation.statistics, matrix)
    clock["evaluate_seconds"] = time.perf_counter() - began
    results: dict[str, Any] = {
        "command": shlex.join(["python", *sys.argv]),
        "noise": noise_facts(config, parts, matrix, data.train),
        "data": {
            "name": data.name,
            "num_classes": data.num_classes,
            "class_names": data.class_names,
            **{name: len(split) for name, split in data.splits()},
            **({"train": "endless"} if config.data.endless else {}),
            "image_shape": data.train.shape,
        },
        "model": {
            "name": config.model.name,
            "parameters": sum(x.size for x in jax.tree.leaves(state.params)),
        },
        "test": {**measures, "loss": float(np.mean(test.loss))},
        "validation": own,
        "time": clock,
        "memory": {"peak_bytes": peak_memory()},
    }
    if cuts:
        results["thresholds"] = {
            **{reading: cut.threshold for reading, cut in cuts.items()},
            "inverted": {reading: cut.inverted for reading, cut in cuts.items()},
        }
        pooled = test.statistics.histogram.sum(axis=0).reshape(2, 64, -1).sum(axis=-1)
        results["score_histogram"] = {
            "edges": np.linspace(0, 1, 65),
            "background": pooled[0],
            "foreground": pooled[1],
        }
    shown = (
        []
        if probability is None
        else panels(
            config, parts, matrix, data.test, probability, image_iou["analytic"]
        )
    )
    return results, shown


def noisy_labels(config: ConfigDict, parts: training.Step, split: Split) -> np.ndarray:
    """The labels of a few examples as the network would see them."""
    key = jax.random.key(config.noise.seed)
    if parts.online:
        key = jax.random.fold_in(key, 0)
    corrupt = jax.jit(noise.per_example(parts.noise))
    return np.asarray(corrupt(key, split.labels, split.ids))


def noise_facts(
    config: ConfigDict,
    parts: training.Step,
    matrix: chex.Array | None,
    train_split: Examples,
) -> dict[str, Any]:
    """The noise's parameters, its matrix, and the share of label pixels it changed."""
    some = train_split.take(range(min(len(train_split), 64)))
    clean, noisy = some.labels, noisy_labels(config, parts, some)
    given = {k: v for k, v in config.noise.to_dict().items() if v is not None}
    return {
        **given,
        "matrix": None if matrix is None else np.asarray(matrix),
        "changed_pixels": float((clean != noisy).sum() / max(1, (clean != 255).sum())),
    }


def panels(
    config: ConfigDict,
    parts: training.Step,
    matrix: chex.Array | None,
    test: Examples,
    probability: np.ndarray,
    image_iou: np.ndarray,
) -> list[report.Panel]:
    """Pictures of the first test images, padding cut away."""
    split = test.take(range(len(probability)))
    noisy = noisy_labels(config, parts, split)
    prediction = np.asarray(readings.predict(jnp.asarray(probability), matrix))
    binary = probability.shape[-1] == 2
    score = probability[..., 1] if binary else probability.max(axis=-1)
    result = []
    for i in range(len(probability)):
        inside = tuple(slice(0, n) for n in split.sizes[i])
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


def summary(results: dict[str, Any]) -> str:
    """The readings in one or two lines for the terminal."""
    measure = "iou" if "iou" in results["test"] else "miou"
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
        "metaseg",
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
        "packages": {p: importlib.metadata.version(p) for p in packages},
    }
