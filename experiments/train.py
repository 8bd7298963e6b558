"""One run: data, noise, network, training, readings, report; top to bottom.

Writes into the work folder `config.json`, `environment.json`, `metrics.jsonl`,
TensorBoard events, `checkpoints/`, `results.json` and `report.html`.
"""

import importlib.metadata
import math
import os
import platform
import resource
import shlex
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import chex
import feeds
import jax
import jax.numpy as jnp
import logs
import numpy as np
from absl import logging
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


def run(config: ConfigDict, workdir: Path) -> Path:
    """Trains and evaluates as `config` says.

    Args:
      config: of `configs/`.
      workdir: folder for the results; made if missing, refused if not empty.

    Returns:
      The path of the report.

    Raises:
      InputError: for bad input, before any training.
    """
    start = time.perf_counter()
    logging.set_verbosity(logging.WARNING)  # Orbax tells every file it writes
    logs.check_workdir(workdir)
    check(config)
    build_step(config)  # names what is wrong before the data are read
    matrix = noise.build_matrix(config.noise, config.data.num_classes)
    data = load_data(config)
    count_epochs(config, len(data.train))
    parts = build_step(config)
    log = logs.RunLog(
        workdir,
        total_steps=config.training.steps,
        batch_size=config.training.batch_size,
    )
    logs.write_json(workdir / "config.json", config.to_dict())
    logs.write_json(workdir / "environment.json", environment())
    height, width, channels = data.train.shape
    size = "endless" if config.data.endless else len(data.train)
    log.say(
        f"{data.name}: {size} + {len(data.val)} + {len(data.test)} images "
        f"(train, val, test) of {height} x {width} x {channels}, "
        f"{data.num_classes} classes; noise: {config.noise.name}; writing to {workdir}"
    )
    clock = {"setup_seconds": time.perf_counter() - start}

    state, evaluator, best = train(config, log, parts, matrix, data, clock)
    checkpoint.save(workdir / "checkpoints" / str(config.training.steps), state)
    checkpoint.save(workdir / "checkpoints" / "best", best.variables)
    results, panels = evaluate(config, parts, matrix, data, state, evaluator, clock)
    results["best"] = {"step": best.step, best.measure: best.value}
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
        least = 0 if field in ("epochs", "steps_per_dispatch") else 1
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


class Programs(NamedTuple):
    """The compiled steps of a run, with the keys that they take every time.

    Attributes:
      step: `(state, data, rows, count, noise_key, augment_key) -> (state, loss)`.
      evaluate: `(variables, batch) -> (evaluation, probability)`.
      keys: the keys of noise and augmentation.
    """

    step: Any
    evaluate: Any
    keys: tuple[jax.Array, jax.Array]


class Best(NamedTuple):
    """The state with the best validation so far.

    Attributes:
      variables: of `TrainState.variables`, copied.
      step: steps taken by then.
      measure: "iou" or "miou".
      value: its value on the validation split.
    """

    variables: Any
    step: int
    measure: str
    value: float


def compiled(lowered: jax.stages.Lowered) -> jax.stages.Compiled:
    """Compiles with the options that suit the networks, where the compiler has them."""
    try:
        return lowered.compile(dict(models.COMPILER_OPTIONS))
    except jax.errors.JaxRuntimeError:  # the options differ between XLA's versions
        return lowered.compile()


def compile_programs(
    config: ConfigDict,
    parts: training.Step,
    matrix: chex.Array | None,
    data: Dataset,
    feed: feeds.Feed,
    val_batch: Batch,
) -> tuple[training.TrainState, Programs]:
    """Draws the initial state and compiles the steps for it."""
    weights_key, augment_key = jax.random.split(jax.random.key(config.seed))
    keys = (jax.random.key(config.noise.seed), augment_key)
    state = training.create_state(
        weights_key,
        parts.model,
        parts.optimizer,
        (*window(config, data), data.channels),
        average=parts.average > 0,
    )
    step = jax.jit(partial(training.train_steps, parts), donate_argnums=0)
    evaluate = jax.jit(partial(training.eval_step, parts, matrix=matrix))
    return state, Programs(
        step=compiled(step.lower(state, *feed.example(), 1, *keys)),
        evaluate=compiled(evaluate.lower(state.variables(), val_batch)),
        keys=keys,
    )


def take_steps(
    programs: Programs,
    state: training.TrainState,
    feed: feeds.Feed,
    step: int,
    count: int,
) -> tuple[training.TrainState, float]:
    """Takes `count` steps after `step`; returns the state and the mean loss."""
    losses_so_far = []
    for data, rows, taken in feed.dispatches(step, count):
        state, total = programs.step(state, data, rows, taken, *programs.keys)
        losses_so_far.append(total)
    return state, sum(float(x) for x in losses_so_far) / count


def train(
    config: ConfigDict,
    log: logs.RunLog,
    parts: training.Step,
    matrix: chex.Array | None,
    data: Dataset,
    clock: dict[str, float],
) -> tuple[training.TrainState, Any, Best]:
    """Trains to the last step, validating on the way; fills in `clock`.

    Returns:
      The final state, the compiled evaluation step and the best validated state.
    """
    c, best = config.training, Best(None, 0, "", -math.inf)
    began = time.perf_counter()
    val_batches = InOrder(data.val, c.eval_batch_size)
    feed = feeds.build(config, data.train)
    log.say("compiling the training step")
    first = next(iter(val_batches))
    state, programs = compile_programs(config, parts, matrix, data, feed, first)
    clock["compile_seconds"] = time.perf_counter() - began
    learning_rate = optimizers.schedule(config.optimizer, c.steps)

    began, stepping, step = time.perf_counter(), 0.0, 0
    log.begin()
    while step < c.steps:
        until = (c.log_every - step % c.log_every, c.eval_every - step % c.eval_every)
        count = min(*until, c.steps - step)
        tick = time.perf_counter()
        state, loss = take_steps(programs, state, feed, step, count)
        seconds = time.perf_counter() - tick
        stepping += seconds
        step += count
        if not math.isfinite(loss):
            raise InputError(
                f"config.optimizer.learning_rate: the loss is not finite at step "
                f"{step} with {config.optimizer.learning_rate}; expected a smaller one"
            )
        log.write(
            step,
            "train",
            loss=loss,
            learning_rate=float(learning_rate(step - 1)),
            images_per_second=count * c.batch_size / seconds,
        )
        shown = {"loss": f"{loss:.4f}"}
        if step % c.eval_every == 0 or step == c.steps:
            values = validate(programs.evaluate, state, val_batches, len(data.val))
            log.write(step, "val", **values)
            measure = "iou" if "iou" in values else "miou"
            shown[f"val {measure}"] = f"{values[measure]:.4f}"
            if not values[measure] <= best.value:
                kept = jax.tree.map(jnp.array, state.variables())
                best = Best(kept, step, measure, values[measure])
        log.progress(step, force=len(shown) > 1, **shown)
    feed.close()
    clock["train_seconds"] = time.perf_counter() - began
    clock["images_per_second"] = c.steps * c.batch_size / stepping
    clock["data_wait_share"] = feed.waited / stepping
    return state, programs.evaluate, best


def validate(
    evaluator: Any,
    state: training.TrainState,
    batches: InOrder,
    count: int,
) -> dict[str, float]:
    """Loss and noise-aware measures of the validation split's clean labels."""
    found, _ = training.evaluate(evaluator, state.variables(), batches, count)
    values = readings.measure(found.statistics.analytic)
    kept = ("iou", "miou", "dice", "accuracy")
    return {"loss": float(np.mean(found.loss))} | {
        k: float(values[k])  # type: ignore[arg-type]
        for k in kept
        if k in values
    }


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
