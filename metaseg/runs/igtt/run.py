"""One run of iGTT: checks, data, rounds, masks, baselines, results and report.

Writes into the work folder `config.json`, `environment.json`, `metrics.jsonl`,
TensorBoard events, `checkpoints/`, `evolution/`, `masks/`, `overlays/`, `results.json`
`report.html` and, for prediction, `network/`; with baselines `baselines/NAME/` for each
network trained for them.
"""

import json
import shlex
import sys
import time
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from absl import logging
from ml_collections import ConfigDict
from PIL import Image

from metaseg import checkpoint, checks, decoding, files, igtt, report
from metaseg.batch import Batch
from metaseg.errors import InputError
from metaseg.runs import metrics_log, progress, signals
from metaseg.runs import workdir as resuming
from metaseg.runs.igtt import baselines as igtt_baselines
from metaseg.runs.igtt import images as igtt_data
from metaseg.runs.igtt import programs as igtt_programs
from metaseg.runs.igtt import rounds as igtt_loop
from metaseg.runs.igtt.rounds import SHOWN, SUPERVISED, Parts, Rounds, Truth
from metaseg.runs.train import loop
from metaseg.runs.train import results as results_lib
from metaseg.runs.train import run as train

__all__ = ["check", "run"]

STARTS = ("black", "intensity", "contrast")
NETWORK = "network"  # folder of the weights that are read from
PICTURES = 6  # of the evolution of one image


class Trained(NamedTuple):
    """What the rounds of one variant came to.

    Attributes:
      rounds: where they ended.
      state: train state that is read from.
      round: after which it was.
      history: rows of metrics.
    """

    rounds: Rounds
    state: Any
    round: int
    history: list[dict[str, Any]]


def run(
    config: ConfigDict, workdir: Path, resume: str = "auto", baselines: bool = False
) -> Path:
    """Segments as `config` says.

    Args:
      config: of `configs/`, with a section `igtt`.
      workdir: folder for the results; one that holds this run goes on from its newest
        checkpoint.
      resume: "auto", "must" or "never", see `resuming.check`.
      baselines: whether to measure other methods too.

    Returns:
      The path of the report.

    Raises:
      InputError: for bad input, before any training; or a loss that is not finite.
      signals.StoppedError: a signal asked the run to stop; it has been saved.
    """
    began = time.perf_counter()
    logging.set_verbosity(logging.FATAL)  # Orbax tells all; what fails is raised
    config = config.copy_and_resolve_references()
    check(config, baselines)
    config.training.steps = config.igtt.rounds * config.igtt.steps_per_round
    layout = train.build_layout(config)
    train.build_step(config)  # names what is wrong before the data are read
    requested = config.to_dict()
    if "://" in str(workdir):
        raise InputError(f"--workdir: got '{workdir}', expected a folder on a disk")
    if resuming.check(workdir, requested, resume) and _complete(workdir, baselines):
        progress.say(f"{workdir} holds this run, finished")
        return workdir / "report.html"
    data = igtt_data.load(config, workdir)
    train.count_epochs(config, len(data.train))
    job = train.build_job(config, workdir, data, layout)
    train.begin_folders(job, requested)
    progress.say(_described(job))
    parts = build_parts(job)
    test = parts.placed
    if data.test is not data.train:
        images = igtt_data.images_of(data.test)
        test = igtt_programs.place(config, layout, images)
    clock = {"setup_seconds": time.perf_counter() - began}
    with signals.Watch() as watch:
        digest = resuming.digest(requested)
        main = train_variant(parts, config.igtt.target, workdir, digest, watch)
        threshold = _common_threshold(parts, main)
        _keep_network(job, main)
        table, ious = _segment(job, main, test)
        if baselines:
            table += igtt_baselines.classical(job, test)
            table += _loops(parts, test, digest, watch)
    clock["train_seconds"] = main.rounds.progress.total
    clock["update_share"] = main.rounds.progress.updating / clock["train_seconds"]
    clock["total_seconds"] = time.perf_counter() - began
    _write(job, main, threshold, table, ious, clock, baselines)
    return workdir / "report.html"


def check(config: ConfigDict, baselines: bool = False) -> None:
    """Raises InputError for values that no run can use."""
    if "igtt" not in config:
        raise InputError(
            "--config: has no section igtt; expected one such as configs/cell_igtt.py"
        )
    _check_section(config.igtt)
    igtt_data.check(config)
    train.check_numbers(config)
    for field, got, expected, why in (
        ("noise.name", config.noise.name, "none", "labels come from the scores"),
        ("parallel.ensemble", config.parallel.ensemble, 1, "a run has one network"),
        ("training.epochs", config.training.epochs, 0, "rounds say how long it is"),
    ):
        if got != expected:
            raise InputError(
                f"config.{field}: got {got!r}, expected {expected!r}: {why}"
            )
    if baselines and config.igtt.labels == "none":
        raise InputError(
            "--baselines: config.igtt.labels is 'none', expected 'measure' or 'choose'"
            ": without labels nothing can be compared"
        )


def _check_section(c: ConfigDict) -> None:
    """Raises InputError for a wrong field of the section igtt."""
    where = "config.igtt."
    checks.choice(f"{where}start", c.start, STARTS)
    checks.choice(f"{where}target", c.target, igtt.TARGETS)
    checks.choice(f"{where}criterion", c.criterion, igtt.CRITERIA)
    checks.choice(f"{where}polarity", c.polarity, igtt.POLARITIES)
    checks.choice(f"{where}labels", c.labels, igtt_data.LABELS)
    checks.integer(f"{where}radius", c.radius, 0, "pixels")
    checks.integer(f"{where}min_radius", c.min_radius, 0, "pixels")
    checks.number(f"{where}boundary_sigma", c.boundary_sigma, 0, unit="pixels")
    checks.integer(f"{where}num_thresholds", c.num_thresholds, 3, "cuts")
    checks.integer(f"{where}rounds", c.rounds, 1)
    checks.integer(f"{where}steps_per_round", c.steps_per_round, 1)
    checks.number(f"{where}fraction", c.fraction, 0, 1)
    checks.number(f"{where}target_sigma", c.target_sigma, 0, unit="pixels")
    checks.number(f"{where}ema_decay", c.ema_decay, 0, 1)
    checks.number(f"{where}stop_stability", c.stop_stability, 0, 1)
    if c.sigma_coarse <= 1:
        raise InputError(
            f"{where}sigma_coarse: got {c.sigma_coarse}, expected more than 1 pixel, "
            "the standard deviation of the finer Gaussian"
        )


def _complete(workdir: Path, baselines: bool) -> bool:
    """Whether a finished run has all that is asked for now."""
    text = (workdir / "results.json").read_text(encoding="utf-8")
    return not baselines or bool(json.loads(text).get("baselines"))


def _described(job: train.Job) -> str:
    c, data = job.members[0].igtt, job.data
    height, width, channels = data.train.shape
    return (
        f"{data.name}: {len(data.train)} images to learn from and {len(data.test)} to "
        f"segment, up to {height} x {width} x {channels}; {c.rounds} rounds of "
        f"{c.steps_per_round} steps; writing to {job.workdir}"
    )


def build_parts(job: train.Job) -> Parts:
    """Puts images on the device and compiles; reads the labels that measure."""
    config, layout = job.members[0], job.layout
    images = igtt_data.images_of(job.data.train)
    blank = np.zeros(images.valid.shape, igtt_programs.label_dtype(config))
    data = layout.put_data(Batch(images.pixels, blank, images.ids, images.valid_size))
    placed = igtt_programs.place(config, layout, images)
    progress.say("compiling the training step")
    state = layout.put_state(train.initial_state(job))
    programs = igtt_programs.build(job, state, data, placed[0])
    validation = None
    if config.igtt.labels != "none":
        seen = igtt_data.images_of(job.data.val)
        labels = igtt_data.labels_of(job.data.val)
        validation = Truth(igtt_programs.place(config, layout, seen), labels)
    return Parts(job, images, data, placed, programs, validation)


def train_variant(
    parts: Parts,
    target: str,
    folder: Path,
    digest: str,
    watch: signals.Watch,
    labels: np.ndarray | None = None,
) -> Trained:
    """Takes the rounds of one variant, or those that are left.

    Args:
      parts: what variants share.
      target: what is kept of masks, or `SUPERVISED`.
      folder: for its checkpoints and metrics.
      digest: of the config.
      watch: for signals.
      labels: of a supervised variant.
    """
    config = parts.job.members[0]
    rounds = Rounds(parts, target, folder)
    rounds.begin(labels)
    checkpoints = checkpoint.Checkpoints(folder / "checkpoints")
    facts = {"config": f"{digest} {target}"}
    history = _resume(rounds, checkpoints, facts)
    step = rounds.progress.step
    log = progress.RunLog(
        [metrics_log.MetricsLog(folder, history, step)],
        total_steps=config.training.steps,
        batch_size=config.training.batch_size,
        first_step=step,
    )
    if step:
        log.say(f"going on after step {step}")
    log.begin()
    try:
        rounds.run(log, checkpoints, facts, watch)
        state, step = _chosen(config, rounds, checkpoints)
    finally:
        log.close()
        checkpoints.close()
    round_ = step // config.igtt.steps_per_round
    return Trained(rounds, state, round_, log.records[0].history)


def _resume(
    rounds: Rounds, checkpoints: checkpoint.Checkpoints, facts: Mapping[str, Any]
) -> list[dict[str, Any]]:
    """Goes to the newest readable checkpoint; returns the history up to there."""
    found = checkpoints.restore_newest(rounds.saved()._asdict(), progress.say)
    if found is None:
        return []
    values = dict(found.progress)
    if values.pop("config") != facts["config"]:
        raise InputError(
            f"--workdir: the checkpoint of step {found.step} is of another config than "
            "its config.json says; expected that of one run"
        )
    history = values.pop("history")
    values["pending"] = tuple(values["pending"])
    rounds.resume(igtt_loop.Point(**found.state), igtt_loop.Progress(**values))
    return history


def _chosen(
    config: ConfigDict, rounds: Rounds, checkpoints: checkpoint.Checkpoints
) -> tuple[Any, int]:
    """The state to read from and its step: the last, or that of the best validation."""
    best = checkpoints.best_step()
    if config.igtt.labels != "choose" or best in (None, rounds.progress.step):
        return rounds.point.state, rounds.progress.step
    found = checkpoints.restore(best, rounds.saved()._asdict())
    rounds.resume(igtt_loop.Point(**found.state), rounds.progress)
    return rounds.point.state, best


def _masks(
    job: train.Job, trained: Trained, test: Sequence[igtt_programs.Placed]
) -> np.ndarray:
    return trained.rounds.masks(trained.state, test, len(job.data.test))


def _measured(
    job: train.Job, name: str, masks: np.ndarray
) -> tuple[list[dict[str, Any]], np.ndarray]:
    """A row of the table, and the IoU of each image; nothing without labels."""
    if job.members[0].igtt.labels == "none":
        return [], np.full(len(masks), np.nan)
    values, ious = igtt_loop.measure(masks, igtt_data.labels_of(job.data.test))
    return [igtt_baselines.row(name, values)], ious


def _segment(
    job: train.Job, main: Trained, test: Sequence[igtt_programs.Placed]
) -> tuple[list[dict[str, Any]], np.ndarray]:
    """Writes masks and overlays; measures them where there are labels."""
    masks = _masks(job, main, test)
    split: Any = job.data.test
    for i, (name, (height, width)) in enumerate(
        zip(split.names, split.valid_size, strict=True)
    ):
        mask = masks[i, :height, :width].astype(np.uint8)
        pixels = split.images[i, :height, :width]
        files.write_png(job.workdir / "masks" / f"{name}.png", 255 * mask)
        over = report.overlay(pixels, mask, 2)
        files.write_png(job.workdir / "overlays" / f"{name}.png", over)
    return _measured(job, f"iGTT, {job.members[0].igtt.target}", masks)


def _common_threshold(parts: Parts, trained: Trained) -> decoding.Threshold | None:
    """The median threshold of the training images, for images of any size."""
    job = parts.job
    find = jax.jit(partial(igtt_programs.thresholds, job.members[0]))
    scores = trained.rounds.scores(trained.state, parts.placed)
    found = [
        find(each, batch.images)
        for each, batch in zip(scores, parts.placed, strict=True)
    ]
    each, inverted = igtt_programs.joined(job.layout, found, len(parts.images.ids))
    some = np.isfinite(each)
    if not some.any():
        return None
    return decoding.Threshold(
        float(np.median(each[some])), bool(inverted[some].mean() > 0.5)
    )


def _keep_network(job: train.Job, trained: Trained) -> None:
    """Saves what the masks are read from, for prediction."""
    step = trained.round * job.members[0].igtt.steps_per_round
    checkpoints = checkpoint.Checkpoints(job.workdir / NETWORK)
    state = job.layout.get_state(trained.state)
    try:
        loop.guard(checkpoints, step, partial(checkpoints.save, step, state, {}))
        loop.guard(checkpoints, step, checkpoints.wait)
    finally:
        checkpoints.close()


def _loops(
    parts: Parts,
    test: Sequence[igtt_programs.Placed],
    digest: str,
    watch: signals.Watch,
) -> list[dict[str, Any]]:
    """The same loop with other labels, and the supervised network."""
    job = parts.job
    table = []
    others = [s for s in igtt.TARGETS if s != job.members[0].igtt.target]
    for target in (*others, SUPERVISED):
        progress.say(f"baseline: {target}")
        true = target == SUPERVISED
        labels = igtt_data.labels_of(job.data.train) if true else None
        folder = job.workdir / "baselines" / target
        trained = train_variant(parts, target, folder, digest, watch, labels)
        name = "supervised network" if true else f"iGTT, {target}"
        table += _measured(job, name, _masks(job, trained, test))[0]
    return table


def _write(
    job: train.Job,
    main: Trained,
    threshold: decoding.Threshold | None,
    table: list[dict[str, Any]],
    ious: np.ndarray,
    clock: Mapping[str, float],
    baselines: bool,
) -> None:
    """Writes report and results, and says the table."""
    config, data = job.members[0], job.data
    results = {
        "command": shlex.join(["python", *sys.argv]),
        "data": {
            "name": data.name,
            "train": len(data.train),
            "test": len(data.test),
            "image_shape": data.train.shape,
            "num_classes": data.num_classes,
            "class_names": data.class_names,
        },
        "noise": {"matrix": None},
        "network": NETWORK,
        "threshold": None if threshold is None else threshold._asdict(),
        "igtt": {
            "rounds": len(main.history),
            "round": main.round,
            "labels": config.igtt.labels,
            "stability": main.history[-1]["stability"],
        },
        "baselines": baselines,
        "table": table,
        "time": dict(clock),
        "memory": {"peak_bytes": results_lib.peak_memory()},
    }
    report.write_igtt(
        job.workdir / "report.html",
        results=results,
        history=main.history,
        evolution=_evolution(job, len(main.history)),
        shown=_shown(job, ious),
        config=config.to_dict(),
        environment=results_lib.environment(),
    )
    files.write_json(job.workdir / "results.json", results)
    for each in table:
        progress.say(
            f"{each['name']:24}  IoU {each['iou']:.4f}  mean per image "
            f"{each['mean_image_iou']:.4f}"
        )


# Types of the page are quoted: it brings matplotlib, and is imported when written.
def _evolution(job: train.Job, last: int) -> "list[report.Evolution]":
    """Masks of the first training images after some of the rounds."""
    split: Any = job.data.train
    wanted = sorted({round(x) for x in np.linspace(0, last, PICTURES)})
    found = []
    for i in range(min(SHOWN, len(split))):
        height, width = split.valid_size[i]
        masks = []
        for round_ in wanted:
            path = igtt_loop.evolution_file(job.workdir, i, round_)
            with Image.open(path) as file:
                masks.append((round_, np.asarray(file) > 0))
        image = split.images[i, :height, :width]
        found.append(report.Evolution(split.names[i], image, masks))
    return found


def _shown(job: train.Job, ious: np.ndarray) -> "list[report.Shown]":
    """The first images that were segmented, with their masks as they were written."""
    split: Any = job.data.test
    found = []
    for i in range(min(job.members[0].report.images, len(split))):
        name, (height, width) = split.names[i], split.valid_size[i]
        with Image.open(job.workdir / "masks" / f"{name}.png") as file:
            mask = np.asarray(file) > 0
        image = split.images[i, :height, :width]
        found.append(report.Shown(name, image, mask, float(ious[i])))
    return found
