"""One run, or an ensemble of runs: data, noise, network, training, readings, report.

Writes into the work folder `config.json`, `environment.json`, `metrics.jsonl`,
TensorBoard events, `checkpoints/`, `results.json` and `report.html`; for an ensemble
these for each member under `members/`, and what puts them side by side above.
"""

import contextlib
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from absl import logging
from ml_collections import ConfigDict

from metaseg import (
    checkpoint,
    errors,
    files,
    losses,
    models,
    noise,
    optimizers,
    parallel,
    report,
    training,
)
from metaseg.batch import Batch
from metaseg.data import augment, folder, prepared, synthetic
from metaseg.data.dataset import Dataset, Examples
from metaseg.data.pipeline import InOrder
from metaseg.errors import InputError
from metaseg.parallel import Layout, processes
from metaseg.runs import metrics_log, progress, signals
from metaseg.runs import workdir as resuming
from metaseg.runs.train import feeds, loop
from metaseg.runs.train import members as members_lib
from metaseg.runs.train import results as results_lib
from metaseg.runs.train.loop import Loop, Profile, Programs, Progress


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


class Job(NamedTuple):
    """What a run is made of, once its config has been read.

    Attributes:
      workdir: folder for the results.
      members: configs of the runs that are trained side by side.
      data: examples.
      layout: where everything lies.
      parts: static parts of the step; those that no member has to itself.
      settings: what the compiled steps are told of the members.
    """

    workdir: Path
    members: list[ConfigDict]
    data: Dataset
    layout: Layout
    parts: training.Step
    settings: members_lib.Settings

    def folders(self) -> list[Path]:
        """Where the results of each member go."""
        count = len(self.members)
        if count == 1:
            return [self.workdir]
        width = len(str(count - 1))
        return [self.workdir / "members" / f"{i:0{width}}" for i in range(count)]

    def matrix(self, member: int) -> np.ndarray | None:
        """Noise transition matrix of one member, if its noise has one."""
        matrix = self.settings.matrix
        return matrix if matrix is None or matrix.ndim == 2 else matrix[member]


def run(
    config: ConfigDict,
    workdir: Path,
    resume: str = "auto",
    profile: tuple[int, int] | None = None,
) -> Path:
    """Trains and evaluates as `config` says.

    Args:
      config: of `configs/`.
      workdir: folder for the results, on a disk or a `files.bucket`; made if missing.
        One that holds this run goes on from its newest checkpoint; one that holds
        anything else is refused.
      resume: "auto", "must" or "never", see `resuming.check`.
      profile: steps to trace, those after the first up to the second.

    Returns:
      The path of the report.

    Raises:
      InputError: for bad input, before any training; or a loss that is not finite.
      signals.StoppedError: a signal asked the run to stop; it has been saved.
    """
    start = time.perf_counter()
    logging.set_verbosity(logging.FATAL)  # Orbax tells all; what fails is raised
    check(config)
    layout = build_layout(config)
    requested = config.to_dict()
    if processes.decide(partial(resuming.check, workdir, requested, resume)):
        _say(f"{workdir} holds this run, finished")
        return workdir / "report.html"
    for member in members_lib.configs(config):
        build_step(member)  # names what is wrong before the data are read
    data = load_data(config)
    count_epochs(config, len(data.train))
    if profile and not 0 <= profile[0] < profile[1] <= config.training.steps:
        raise InputError(
            f"--profile: got {profile[0]}:{profile[1]}, expected two steps START:STOP "
            f"of 0 to {config.training.steps}, the first one smaller"
        )
    job = build_job(config, workdir, data, layout)
    if processes.is_primary():
        begin_folders(job, requested)
    state = layout.put_state(initial_state(job))
    checkpoints = checkpoint.Checkpoints(workdir / "checkpoints")
    digest = resuming.digest(requested)
    resumed = resuming.newest(checkpoints, layout.get_state(state), digest, _say)
    log = open_log(job, resumed)
    log.say(describe(job))
    clock = {"setup_seconds": time.perf_counter() - start}
    if resumed.state is not None:
        state = layout.put_state(resumed.state)
        log.say(f"going on after step {resumed.progress.step}")
    traced = Profile(*profile, workdir / "profile") if profile else None
    point = (state, resumed.progress)
    saved = {"config": digest}
    try:
        state, programs, progress = train(
            job, log, point, checkpoints, saved, clock, traced
        )
    except BaseException:  # the run ends here: what the log holds is to be seen
        with contextlib.suppress(OSError):
            log.close()
        raise
    finally:
        checkpoints.close()
    finish(config, job, log, state, programs, progress, clock, start)
    processes.wait_for_all("finished")
    return workdir / "report.html"


def _say(text: str) -> None:
    if processes.is_primary():
        progress.say(text)


def build_layout(config: ConfigDict) -> Layout:
    """The devices that `config.parallel` asks for, and how members share them.

    Raises:
      InputError: there are not so many devices, or a batch cannot be spread over them.
    """
    c, there = config.parallel, jax.devices()
    if not 0 <= c.devices <= len(there):
        raise InputError(
            f"config.parallel.devices: got {c.devices}, but there are {len(there)}; "
            "expected at most as many, or 0 for all"
        )
    if c.devices and processes.count() > 1:
        raise InputError(
            f"config.parallel.devices: got {c.devices} with {processes.count()} "
            "processes; expected 0, all devices"
        )
    ways = ("", "vmap", "turns")
    if c.ensemble_by not in ways:
        raise InputError(
            f"config.parallel.ensemble_by: got '{c.ensemble_by}', expected one of "
            "vmap, turns, or '' for what suits the device"
        )
    by = c.ensemble_by or ("turns" if jax.default_backend() == "cpu" else "vmap")
    turns = by == "turns" and c.ensemble > 1
    with errors.prefixed("config."):
        layout = parallel.build(
            c.partitioner,
            there[: c.devices or None],
            1 if turns else max(1, c.ensemble),
            compiler_options=models.compiler_options(),
        )
    if turns:
        layout = parallel.in_turns(layout, c.ensemble)
    parts = layout.batch_devices * config.training.grad_accum_steps
    if config.training.batch_size % parts:
        raise InputError(
            f"config.training.batch_size: got {config.training.batch_size}, expected a "
            f"multiple of {parts} ({layout.batch_devices} devices times "
            f"config.training.grad_accum_steps = {config.training.grad_accum_steps})"
        )
    return layout


def build_job(config: ConfigDict, workdir: Path, data: Dataset, layout: Layout) -> Job:
    """Puts together what a run is made of."""
    members = members_lib.configs(config)
    settings = members_lib.settings(members)
    return Job(workdir, members, data, layout, build_step(members[0]), settings)


def begin_folders(job: Job, requested: dict[str, Any]) -> None:
    """Writes what is known before a run begins."""
    job.workdir.mkdir(parents=True, exist_ok=True)
    files.write_json(job.workdir / "config.json", requested)
    files.write_json(job.workdir / "environment.json", results_lib.environment())
    if len(job.members) > 1:
        for folder_, member in zip(job.folders(), job.members, strict=True):
            folder_.mkdir(parents=True, exist_ok=True)
            files.write_json(folder_ / "config.json", member.to_dict())


def open_log(job: Job, resumed: resuming.Resumed) -> progress.RunLog:
    """The records of the members, and what shows progress."""
    primary, step = processes.is_primary(), resumed.progress.step
    histories = resumed.history or [[]] * len(job.members)
    config = job.members[0]
    return progress.RunLog(
        [
            metrics_log.MetricsLog(folder_ if primary else None, history, step)
            for folder_, history in zip(job.folders(), histories, strict=True)
        ],
        total_steps=config.training.steps,
        batch_size=config.training.batch_size * len(job.members),
        first_step=step,
        quiet=not primary,
    )


def describe(job: Job) -> str:
    """The run in a line or two for the terminal."""
    config, data = job.members[0], job.data
    height, width, channels = data.train.shape
    size = "endless" if config.data.endless else len(data.train)
    count = len(job.members)
    where = [f"{len(job.layout.devices)} devices"] * (len(job.layout.devices) > 1)
    where += [f"{processes.count()} processes"] * (processes.count() > 1)
    where += [f"an ensemble of {count}"] * (count > 1)
    return (
        f"{data.name}: {size} + {len(data.val)} + {len(data.test)} images "
        f"(train, val, test) of {height} x {width} x {channels}, "
        f"{data.num_classes} classes; noise: {config.noise.name}; "
        + "".join(f"{each}; " for each in where)
        + f"writing to {job.workdir}"
    )


def check(config: ConfigDict) -> None:
    """Raises InputError for values that no run can use."""
    if "igtt" in config:
        raise InputError(
            "--config: has a section igtt, for training without labels; expected it at "
            "experiments/igtt.py"
        )
    check_source(config)
    check_numbers(config)


def check_source(config: ConfigDict) -> None:
    """Raises InputError for data that no run can be trained on."""
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


def check_numbers(config: ConfigDict) -> None:
    """Raises InputError for numbers out of range, whatever the data."""
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
    if not 0 <= config.optimizer.ema_decay < 1:
        raise InputError(
            f"config.optimizer.ema_decay: got {config.optimizer.ema_decay}, "
            "expected a decay in [0, 1)"
        )
    if config.augment.rot90 and config.augment.horizontal_flip_only:
        raise InputError(
            "config.augment.horizontal_flip_only: got True with config.augment.rot90 "
            "True, expected at most one of them"
        )
    for field in ("crop", "brightness", "contrast", "illumination", "modulation"):
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
    with errors.prefixed("config.", "data"):
        data = SOURCES[config.data.name](config.data)
    check_window(config, data)
    return data


def check_window(config: ConfigDict, data: Dataset) -> None:
    """Raises InputError if the training images do not fit the crop and its turns."""
    crop = config.augment.crop
    small = np.flatnonzero((data.train.valid_size < crop).any(axis=1))
    if crop and len(small):
        height, width = data.train.valid_size[small[0]]
        raise InputError(
            f"config.augment.crop: training image '{data.train.names[small[0]]}' is "
            f"{height} x {width}, smaller than the crop of {crop} x {crop}; expected a "
            "smaller crop, or 0 for whole images"
        )
    shape = window(config, data)
    if config.augment.rot90 and shape[0] != shape[1]:
        raise InputError(
            f"config.augment.rot90: quarter turns need square crops, got {shape[0]} x "
            f"{shape[1]}; expected config.augment.crop > 0 or rot90 False"
        )


def window(config: ConfigDict, data: Dataset) -> tuple[int, int]:
    """Height and width that the network trains on."""
    crop = config.augment.crop
    return (crop, crop) if crop else data.train.shape[:2]


def build_step(config: ConfigDict) -> training.Step:
    """Binds the static parts of the training step."""

    def augment_example(
        key: jax.Array, image: jax.Array, label: jax.Array, valid_size: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        c = config.augment
        k_crop, k_dihedral, k_light = jax.random.split(key, 3)
        if c.crop:
            size = (c.crop, c.crop)
            image, label = augment.crop(k_crop, image, label, valid_size, size=size)
        image, label = augment.dihedral(
            k_dihedral,
            image,
            label,
            flip=c.flip,
            rot90=c.rot90,
            horizontal_flip_only=c.horizontal_flip_only,
        )
        if c.illumination or c.modulation:
            image = augment.illumination(
                jax.random.fold_in(k_light, 1),
                image,
                amplitude=c.illumination,
                modulation=c.modulation,
            )
        image = augment.brightness_contrast(
            k_light, image, brightness=c.brightness, contrast=c.contrast
        )
        return image, label

    num_classes = config.data.num_classes
    gather = feeds.renderer(config) if config.data.endless else training.gather
    with errors.prefixed("config."):
        model = models.build(config.model, num_classes)
        optimizer = optimizers.build(config.optimizer, config.training.steps)
        loss = losses.build(config.loss)
        noise_fn = noise.build(config.noise, num_classes)
    return training.Step(
        model=model,
        optimizer=optimizer,
        loss=loss,
        noise=noise_fn,
        augment=augment_example,
        online=config.noise.online,
        ema_decay=config.optimizer.ema_decay,
        gather=gather,
        grad_accum_steps=config.training.grad_accum_steps,
    )


def initial_state(job: Job) -> training.TrainState:
    """Draws the weights; with several members leaves lead with them."""
    height, width = window(job.members[0], job.data)
    states = [
        training.create_state(
            members_lib.keys(member)[0],
            job.parts.model,
            job.parts.optimizer,
            (height, width, job.data.channels),
            ema=job.parts.ema_decay > 0,
        )
        for member in job.members
    ]
    if len(states) == 1:
        return states[0]
    return jax.tree.map(lambda *x: np.stack(x), *states)


def step_functions(
    config: ConfigDict, layout: Layout, gather: Callable[[Any, jax.Array], Batch]
) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """The training and the evaluation step as pure functions of arrays alone."""

    def parts(settings: members_lib.Settings) -> training.Step:
        bound = build_step(members_lib.bind(config, settings.values))
        with errors.prefixed("config."):
            bound = training.mapped(bound, layout.axis_name)
        return bound._replace(gather=gather)

    def train_steps(
        settings: members_lib.Settings, state: Any, data: Any, rows: Any, count: Any
    ) -> Any:
        noise_key, augment_key = (
            jax.random.wrap_key_data(jnp.asarray(key))
            for key in (settings.noise_key, settings.augment_key)
        )
        return training.train_steps(
            parts(settings), state, data, rows, count, noise_key, augment_key
        )

    def eval_step(settings: members_lib.Settings, state: Any, batch: Batch) -> Any:
        return training.eval_step(
            parts(settings), state.variables(), batch, settings.matrix
        )

    return train_steps, eval_step


def compile_programs(
    job: Job, state: Any, feed: feeds.Feed, val_batch: Batch
) -> Programs:
    """Compiles the steps."""
    config, layout = job.members[0], job.layout
    train_steps, eval_step = step_functions(config, layout, feed.gather)
    settings = layout.put_settings(job.settings)
    shape = (*window(config, job.data), job.data.channels)
    return Programs(
        layout=layout,
        settings=settings,
        train=layout.train(train_steps, settings, state, *feed.example(), 1),
        evaluate=layout.evaluate(eval_step, settings, state, val_batch),
        flops_per_image=3 * parallel.cost.forward_flops(job.parts.model, shape),
    )


def in_order(job: Job, split: Examples) -> InOrder:
    """A split in batches for evaluation."""
    size = job.members[0].training.eval_batch_size
    layout = job.layout
    return InOrder(split, layout.round_up(size), layout.put_batch, layout.part())


def train(
    job: Job,
    log: progress.RunLog,
    start: tuple[Any, Progress],
    checkpoints: checkpoint.Checkpoints,
    facts: dict[str, Any],
    clock: dict[str, float],
    profile: Profile | None,
) -> tuple[Any, Programs, Progress]:
    """Trains to the last step, validating and saving on the way; fills in `clock`.

    Returns:
      The final state, the compiled steps, and the progress at the end.

    Raises:
      signals.StoppedError: a signal asked the run to stop; it has been saved.
      InputError: the loss is not finite, or a checkpoint cannot be written.
    """
    began = time.perf_counter()
    state, progress = start
    val_batches = in_order(job, job.data.val)
    feed = feeds.build(job.members, job.data.train, job.layout)
    feed.seek(progress.step)
    log.say("compiling the training step")
    programs = compile_programs(job, state, feed, next(iter(val_batches)))
    clock["compile_seconds"] = time.perf_counter() - began
    loop_ = Loop(
        job.members,
        log,
        programs,
        feed,
        val_batches,
        len(job.data.val),
        checkpoints,
        facts,
        progress,
        profile,
    )
    log.begin()
    try:
        with signals.Watch() as watch:
            state = loop_.run(state, watch)
    finally:
        feed.close()
    count_time(job, programs, loop_.progress, clock)
    return state, programs, loop_.progress


def count_time(
    job: Job, programs: Programs, progress: Progress, clock: dict[str, float]
) -> None:
    """Fills in what training took, and how well the devices were used."""
    config, seconds = job.members[0], progress.stepping
    c = config.training
    images = c.steps * c.batch_size * len(job.members)
    clock["train_seconds"] = progress.training
    clock["step_seconds"] = seconds / c.steps
    clock["images_per_second"] = images / seconds
    clock["flops_per_second"] = images / seconds * programs.flops_per_image
    peak = loop.peak_flops(job.layout, config)
    if peak is not None:
        clock["flops_utilisation"] = clock["flops_per_second"] / peak
    clock["data_wait_share"] = progress.waiting / seconds


def finish(
    config: ConfigDict,
    job: Job,
    log: progress.RunLog,
    state: Any,
    programs: Programs,
    progress: Progress,
    clock: dict[str, float],
    start: float,
) -> None:
    """Evaluates every member and writes results and reports; closes `log`."""
    began = time.perf_counter()
    keep = job.members[0].report.images
    found = zip(
        loop.evaluate(programs, state, in_order(job, job.data.val), len(job.data.val)),
        loop.evaluate(
            programs, state, in_order(job, job.data.test), len(job.data.test), keep
        ),
        strict=True,
    )
    scores = [results_lib.Scores(val[0], *test) for val, test in found]
    clock["evaluate_seconds"] = time.perf_counter() - began
    final = job.layout.get_state(state)
    if len(job.members) > 1:
        save_members(job, final)
    memory = {
        "peak_bytes": results_lib.peak_memory(),
        "device_peak_bytes": parallel.cost.memory(jax.local_devices()),
        "device_step_bytes": programs.train.device_bytes(),
    }
    if not processes.is_primary():
        return
    written = []
    count = sum(x.size for x in jax.tree.leaves(final.params)) // len(job.members)
    for i, member in enumerate(job.members):
        results, image_iou = results_lib.facts(
            member, job.matrix(i), job.data, scores[i], count
        )
        results["best"] = loop.best_of(log.records[i].history)
        if progress.diverged[i]:
            results["diverged"] = progress.diverged[i]
        clock["total_seconds"] = time.perf_counter() - start
        results |= {"time": clock, "memory": memory}
        write_member(job, i, results, image_iou, scores[i], log.records[i].history)
        written.append(results)
    if len(written) > 1:
        write_ensemble(config, job, written, log)
    for line in conclusion(job, written):
        log.say(line)
    log.close()


def write_member(
    job: Job,
    i: int,
    results: dict[str, Any],
    image_iou: dict[str, np.ndarray],
    scores: results_lib.Scores,
    history: Sequence[dict[str, Any]],
) -> None:
    """Writes results and report of one member."""
    config, folder_ = job.members[i], job.folders()[i]
    shown = results_lib.panels(
        config,
        job.matrix(i),
        job.data.test,
        scores.probability,
        image_iou["analytic"],
    )
    report.write_run(
        folder_ / "report.html",
        title=f"{job.data.name}, {results_lib.noise_name(config)}",
        config=config.to_dict(),
        environment=results_lib.environment(),
        history=history,
        results=results,
        panels=shown,
        num_classes=job.data.num_classes,
    )
    files.write_json(folder_ / "results.json", results)


def save_members(job: Job, final: training.TrainState) -> None:
    """A checkpoint of each member's final weights, for predict.py."""
    for i, folder_ in enumerate(job.folders()):
        state = jax.tree.map(lambda x, i=i: x[i], final)
        kept = checkpoint.Checkpoints(folder_ / "checkpoints")
        kept.save(job.members[i].training.steps, state, {})
        kept.wait()
        kept.close()


def write_ensemble(
    config: ConfigDict,
    job: Job,
    written: Sequence[dict[str, Any]],
    log: progress.RunLog,
) -> None:
    """Writes what puts the members side by side."""
    folders = [str(each.relative_to(job.workdir)) for each in job.folders()]
    differences = members_lib.differences(config)
    measure = results_lib.main_measure(written[0])
    report.write_ensemble(
        job.workdir / "report.html",
        title=f"{job.data.name}, {results_lib.noise_name(config)}",
        members=[
            report.Member(
                folder=folder_,
                differs=differs,
                measures=results["test"][measure],
                history=record.history,
                diverged=results.get("diverged", 0),
            )
            for folder_, differs, results, record in zip(
                folders, differences, written, log.records, strict=True
            )
        ],
        config=config.to_dict(),
        environment=results_lib.environment(),
        num_classes=job.data.num_classes,
        command=written[0]["command"],
        time=written[0]["time"],
    )
    rows = [
        {"folder": folder_, "differs": differs}
        | {k: results[k] for k in ("test", "best", "diverged") if k in results}
        for folder_, differs, results in zip(folders, differences, written, strict=True)
    ]
    shared = {k: written[0][k] for k in ("command", "data", "model", "time", "memory")}
    files.write_json(job.workdir / "results.json", {**shared, "members": rows})


def conclusion(job: Job, written: Sequence[dict[str, Any]]) -> list[str]:
    """The readings for the terminal, a line for each member."""
    if len(written) == 1:
        return [results_lib.summary(written[0])]
    return [
        f"{folder_.relative_to(job.workdir)}: {results_lib.summary(results)}"
        for folder_, results in zip(job.folders(), written, strict=True)
    ]
