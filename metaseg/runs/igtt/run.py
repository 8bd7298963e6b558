"""iGTT as a function: segments images without labels.

With a work folder, a run writes `config.json`, `environment.json`, `metrics.jsonl`,
TensorBoard events, `checkpoints/`, `evolution/`, `masks/`, `overlays/`, `results.json`
and `report.html` there, the weights for prediction into `network/`, and with baselines
`baselines/NAME/` for each network trained for them.
"""

import dataclasses
import json
import time
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from ml_collections import ConfigDict, FrozenConfigDict

from metaseg import checkpoint, decoding, files, igtt
from metaseg.batch import Batch
from metaseg.data import file_options
from metaseg.data.dataset import Dataset
from metaseg.errors import InputError
from metaseg.parallel import Layout, processes
from metaseg.runs import config as config_lib
from metaseg.runs import jax_settings, labelled, resuming, signals, sources
from metaseg.runs import progress as progress_lib
from metaseg.runs import workdir as workdir_lib
from metaseg.runs.igtt import baselines as baselines_lib
from metaseg.runs.igtt import output
from metaseg.runs.igtt import programs as programs_lib
from metaseg.runs.igtt.images import images_of, labels_of
from metaseg.runs.igtt.programs import Placed
from metaseg.runs.igtt.rounds import SUPERVISED, Parts, Rounds, Truth, measure
from metaseg.runs.loop import Loop
from metaseg.runs.metrics_log import MetricsLog
from metaseg.runs.run import Run, load, save_weights
from metaseg.runs.training import evaluation, setup, undefined
from metaseg.runs.training import results as results_lib
from metaseg.runs.training.setup import Setup
from metaseg.text import command_line, count_of

__all__ = ["segment"]

NETWORK = "network"  # folder of the weights for prediction


class Variant(NamedTuple):
    """A variant after its last round.

    Attributes:
      rounds: The task.
      state: Train state that segments: the last, or that of the best validation.
      weights: Which state that is.
      history: Rows of metrics.
      seconds: Time that training took.
      updating: Seconds of these spent making labels.
    """

    rounds: Rounds
    state: Any
    weights: evaluation.Choice
    history: list[dict[str, Any]]
    seconds: float
    updating: float


class _Session(NamedTuple):
    """What all variants of a run are trained with."""

    parts: Parts
    test: list[Placed]
    digest: str
    watch: signals.Watch
    quiet: bool


@jax_settings.same_numbers()
def segment(
    config: ConfigDict,
    data: Dataset | None = None,
    *,
    workdir: Path | None = None,
    resume: str = "auto",
    baselines: bool = False,
    watch: signals.Watch | None = None,
    quiet: bool = False,
) -> Run:
    """Segments images without labels, by iGTT.

    Args:
      config: Settings, see `defaults.get_igtt_config`; not changed.
      data: Data set to use in place of the one that `config.data` names.
      workdir: Folder for the results; created if it is missing. A folder that holds
        this run resumes from its newest checkpoint; a folder that holds anything else
        is refused. None keeps the results in memory.
      resume: "auto", "must" or "never", see `workdir.check`.
      baselines: Whether to measure other methods too.
      watch: Says when to stop; by default no signal is handled.
      quiet: Whether to print no progress.

    Returns:
      The finished run; `masks` has the mask of each test image.

    Raises:
      InputError: If the input is wrong, before any training; or if the loss is not
        finite.
      signals.StoppedError: If `watch` asked the run to stop.
    """
    began = time.perf_counter()
    watch = watch or signals.Watch(handle=False)
    processes.check_backend()
    if "://" in str(workdir):
        raise InputError(f"workdir: got '{workdir}', expected a folder on a disk")
    workdir = None if workdir is None else files.expanded(workdir)
    with progress_lib.quiet_logging(), watch:
        config_lib.check_igtt(config, data, baselines=baselines)
        layout = setup.build_layout(config)
        resolved = config_lib.resolve(config)
        with workdir_lib.locked(workdir):
            if workdir is not None and workdir_lib.check(workdir, resume):
                finished = workdir_lib.check_config(
                    workdir, resolved.to_dict(), ignored=config_lib.open_fields(config)
                )
                if finished and _complete(workdir, baselines):
                    if not quiet:
                        progress_lib.say(f"{workdir} holds this run, finished")
                    return load(workdir)
            data = _load(resolved, workdir) if data is None else data
            made = _built(config_lib.resolve(config, data), workdir, data, layout)
            _check_baselines(made, baselines)
            setup.begin_folders(made)
            if not quiet:
                for line in (*data.notes, *_crop_note(config, made), *_described(made)):
                    progress_lib.say(line)
            session = _begin(made, watch, quiet)
            clock = {"setup_seconds": time.perf_counter() - began}
            return _run(session, clock, began, baselines)


def _load(config: FrozenConfigDict, workdir: Path | None) -> Dataset:
    if config.data.name == sources.IMAGES:
        return sources.load_images(config, workdir)
    return sources.load(config, need_labels=False)


def _built(
    config: FrozenConfigDict, workdir: Path | None, data: Dataset, layout: Layout
) -> Setup:
    """Puts the parts of a run together; without test images, it segments those it has.

    Raises:
      InputError: If there is no training image.
    """
    if not len(data.train):
        raise InputError("config.data: got no training image, expected at least one")
    if len(data.test):
        return setup.build(config, workdir, data, layout)
    made = setup.build(
        config, workdir, dataclasses.replace(data, test=data.train), layout
    )
    said = "there are no test images: the training images are segmented"
    return made._replace(warnings=[*made.warnings, said])


def _check_baselines(made: Setup, baselines: bool) -> None:
    if baselines and not _labelled(made, "test"):
        raise InputError(
            f"baselines: {made.labels['test'].lack()}, expected labels: other methods "
            "are compared by labels"
        )


def _labelled(made: Setup, split: str) -> bool:
    """Returns whether a split has labels that may be read."""
    return split in made.labels and made.labels[split].labelled


def _complete(workdir: Path, baselines: bool) -> bool:
    """Returns whether a finished run has everything that is asked for now."""
    text = (workdir / "results.json").read_text(encoding="utf-8")
    return not baselines or bool(json.loads(text).get("baselines"))


def _crop_note(config: ConfigDict, made: Setup) -> list[str]:
    """Says which windows are trained on, if images are smaller than the default."""
    crop = made.config.augment.crop
    if config.augment.crop is not None or crop == config_lib.DEFAULT_CROP:
        return []
    return [
        f"trains on windows of {crop} x {crop} pixels, which all images have; "
        "config.augment.crop sets another size"
    ]


def _described(made: Setup) -> list[str]:
    """Describes a run in a line for the terminal, and what its data leave undefined."""
    c, data = made.config.igtt, made.data
    height, width, channels = data.train.shape
    where = f"; writing to {made.workdir}" if made.workdir is not None else ""
    line = (
        f"{data.name}: {count_of(len(data.train), 'image')} to learn from and "
        f"{len(data.test)} to segment, up to {height} x {width} x {channels}; "
        f"{count_of(c.rounds, 'round')} of {count_of(c.steps_per_round, 'step')}{where}"
    )
    started = [] if made.initial is None else [str(made.initial)]
    return [
        line,
        *started,
        *(f"warning: {said}" for said in made.warnings),
    ]


def _begin(made: Setup, watch: signals.Watch, quiet: bool) -> _Session:
    """Puts images on the device and compiles; reads the labels that measure."""
    config, layout, data = made.config, made.layout, made.data
    images = images_of(data.train)
    blank = np.zeros(images.valid.shape, programs_lib.label_dtype(config))
    batch = Batch(images.pixels, blank, images.ids, images.valid_size)
    on_device = layout.put_data(batch)
    placed = programs_lib.place(config, layout, images)
    if not quiet:
        progress_lib.say("compiling the training step")
    state = layout.put_state(made.initial_state())
    programs = programs_lib.build(made, state, on_device, placed[0])
    validation = None
    if _labelled(made, "val"):
        seen = images_of(data.val)
        labels = labels_of(data.val)
        validation = Truth(programs_lib.place(config, layout, seen), labels)
    parts = Parts(made, images, on_device, placed, programs, validation)
    test = placed
    if data.test is not data.train:
        test = programs_lib.place(config, layout, images_of(data.test))
    digest = workdir_lib.digest(config.to_dict())
    return _Session(parts, test, digest, watch, quiet)


def _run(
    session: _Session, clock: dict[str, float], began: float, baselines: bool
) -> Run:
    made = session.parts.made
    target = made.config.igtt.target
    main = _train_variant(session, target, made.workdir)
    threshold = _common_threshold(session.parts, main)
    if made.workdir is not None:
        state = made.layout.get_state(main.state)
        save_weights(made.workdir / NETWORK, main.weights.step, state)
    masks = _masks(session, main)
    table, ious = _measured(made, f"iGTT, {target}", masks)
    if baselines:
        table += baselines_lib.classical(made, session.test)
        table += _loops(session)
    clock["train_seconds"] = main.seconds
    clock["update_share"] = main.updating / main.seconds
    clock["total_seconds"] = time.perf_counter() - began
    results = _results(made, main, threshold, table, clock, baselines)
    split: Any = made.data.test
    run = Run(
        config=made.config,
        results=files.plain(results),
        history=main.history,
        environment=results_lib.environment(),
        folder=made.workdir,
        masks={
            name: mask[:height, :width].astype(np.uint8)
            for name, mask, (height, width) in zip(
                split.names, masks, split.valid_size, strict=True
            )
        },
        state=jax.tree.map(made.layout.to_host, made.layout.get_state(main.state)),
    )
    if made.workdir is not None:
        output.write(run, made.data, ious)
    if not session.quiet:
        for row in table:
            progress_lib.say(
                f"{row['name']:24}  IoU {row['iou']:.4f}  mean per image "
                f"{row['mean_image_iou']:.4f}".replace("nan", "undefined")
            )
    return run


def _train_variant(
    session: _Session, target: str, folder: Path | None, labels: Any = None
) -> Variant:
    """Takes the rounds of one variant, or those that are left.

    Args:
      session: Parts that all variants share.
      target: One of `igtt.TARGETS`, or `SUPERVISED`.
      folder: Folder for its checkpoints and metrics, or None.
      labels: Labels of the supervised variant.
    """
    config = session.parts.made.config
    checkpoints = None
    if folder is not None:
        checkpoints = checkpoint.Checkpoints(folder / "checkpoints")
    rounds = Rounds(session.parts, target, folder)
    arrays = rounds.begin(labels)
    facts = {"config": f"{session.digest} {target}"}
    say = (lambda _: None) if session.quiet else progress_lib.say
    found = resuming.newest(checkpoints, rounds.saved(arrays), facts["config"], say)
    step = found.at.step
    history = found.history[0] if found.history else []
    log = rounds.log = progress_lib.RunLog(
        [MetricsLog(folder, history, step)],
        total_steps=config.training.steps,
        batch_size=config.training.batch_size,
        first_step=step,
        quiet=session.quiet,
    )
    if found.state is not None:
        arrays = rounds.restored(found.state)
        log.say(resuming.continued(config, step))
    log.begin()
    rounds.warm_up(arrays)
    loop = Loop(rounds, log=log, checkpoints=checkpoints, facts=facts, at=found.at)
    try:
        arrays = loop.run(arrays, session.watch)
        state, weights = _chosen(
            session.parts.made, rounds, arrays, log.records[0].history, checkpoints
        )
        if weights.note:
            log.say(f"warning: igtt.labels is 'choose', but {weights.note}")
    finally:
        log.close()
        if checkpoints is not None:
            checkpoints.close()
    return Variant(
        rounds,
        state,
        weights,
        log.records[0].history,
        loop.at.training,
        loop.at.updating,
    )


def _chosen(
    made: Setup,
    rounds: Rounds,
    arrays: Any,
    history: Sequence[Mapping[str, Any]],
    checkpoints: checkpoint.Checkpoints | None,
) -> tuple[Any, evaluation.Choice]:
    """Returns the state that segments, and which it is."""
    last = history[-1]["step"]
    rule = "best" if made.config.igtt.labels == "choose" else "last"
    scores = {row["step"]: row["val_dice"] for row in history if "val_dice" in row}
    lack = made.labels["val"].lack() if rule == "best" else ""
    choice = evaluation.choose(rule, scores, last, lack=lack)
    if choice.step == last:
        return arrays.state, choice
    if checkpoints is None:
        return rounds.best_state, choice
    found = checkpoints.restore(choice.step, rounds.saved(arrays))
    return rounds.restored(found.state).state, choice


def _masks(session: _Session, variant: Variant) -> np.ndarray:
    count = len(session.parts.made.data.test)
    return variant.rounds.masks(variant.state, session.test, count)


def _measured(
    made: Setup, name: str, masks: np.ndarray
) -> tuple[list[dict[str, Any]], np.ndarray]:
    """Returns a row of the table, and the IoU of each image; no row without labels."""
    if not _labelled(made, "test"):
        return [], np.full(len(masks), np.nan)
    values, ious = measure(masks, labels_of(made.data.test))
    return [baselines_lib.row(name, values)], ious


def _common_threshold(parts: Parts, variant: Variant) -> decoding.Threshold | None:
    """Returns the median threshold of the training images, for images of any size."""
    made = parts.made
    find = jax.jit(partial(programs_lib.thresholds, made.config))
    scores = variant.rounds.scores(variant.state, parts.placed)
    found = [
        find(each, batch.images)
        for each, batch in zip(scores, parts.placed, strict=True)
    ]
    count = len(parts.images.ids)
    each, inverted = programs_lib.joined(made.layout, found, count)
    some = np.isfinite(each)
    if not some.any():
        return None
    value, turned = float(np.median(each[some])), bool(inverted[some].mean() > 0.5)
    return decoding.Threshold(value, turned)


def _loops(session: _Session) -> list[dict[str, Any]]:
    """Measures the same loop with other targets, and the supervised network."""
    made, table = session.parts.made, []
    others: Sequence[str] = [t for t in igtt.TARGETS if t != made.config.igtt.target]
    for target in (*others, SUPERVISED):
        true = target == SUPERVISED
        if true and not labelled.count("train", made.data.train, 2).chooses:
            if not session.quiet:
                progress_lib.say("baseline: none supervised, without training labels")
            continue
        if not session.quiet:
            progress_lib.say(f"baseline: {target}")
        labels = labels_of(made.data.train) if true else None
        folder = None
        if made.workdir is not None:
            folder = made.workdir / "baselines" / target
        variant = _train_variant(session, target, folder, labels)
        name = "supervised network" if true else f"iGTT, {target}"
        table += _measured(made, name, _masks(session, variant))[0]
    return table


def _results(
    made: Setup,
    main: Variant,
    threshold: decoding.Threshold | None,
    table: list[dict[str, Any]],
    clock: dict[str, float],
    baselines: bool,
) -> dict[str, Any]:
    """Returns the content of `results.json`."""
    data, weights = made.data, main.weights
    why_null = {
        f"table.{i}.{name}": undefined.measure_reason(made.labels["test"], name)
        for i, row in enumerate(table)
        for name, value in row.items()
        if value != value  # NaN
    }
    if threshold is None:
        why_null["threshold"] = "the scores of no training image have a threshold"
    started = {} if made.initial is None else {"init_from": made.initial.plain()}
    return {
        "command": command_line(),
        "data": {
            "name": data.name,
            "train": len(data.train),
            "test": len(data.test),
            "image_shape": data.train.shape,
            "channels": data.channels,
            "channel_names": data.channel_names,
            "files": file_options.changed(data.files),
            "num_classes": data.num_classes,
            "class_names": data.class_names,
        },
        "noise": {"matrix": None},
        "weights": weights.plain(),
        **started,
        "warnings": list(made.warnings),
        "why_null": why_null,
        "network": NETWORK,
        "threshold": None if threshold is None else threshold._asdict(),
        "igtt": {
            "rounds": len(main.history),
            "round": weights.step // made.config.igtt.steps_per_round,
            "labels": made.config.igtt.labels,
            "stability": main.history[-1]["stability"],
        },
        "baselines": baselines,
        "table": table,
        "time": dict(clock),
        "memory": {"peak_bytes": results_lib.peak_memory()},
    }
