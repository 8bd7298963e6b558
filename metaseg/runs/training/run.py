"""Training as a function: one run, or an ensemble of runs that differ in a few numbers.

With a work folder, a run writes `config.json`, `environment.json`, `metrics.jsonl`,
TensorBoard events, `checkpoints/`, `results.json` and `report.html` there; an ensemble
writes these for each member under `members/`, and a comparison above.
"""

import contextlib
import math
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict, FrozenConfigDict

from metaseg import checkpoint, files, optimizers, parallel, prediction
from metaseg.data.dataset import Dataset
from metaseg.data.pipeline import InOrder
from metaseg.errors import DamagedError, InputError, prefixed
from metaseg.parallel import Layout, processes
from metaseg.runs import config as config_lib
from metaseg.runs import jax_settings, resuming, signals, sources
from metaseg.runs import progress as progress_lib
from metaseg.runs import workdir as workdir_lib
from metaseg.runs.loop import Loop, LoopState, Report, Task, TraceWindow, take_steps
from metaseg.runs.metrics_log import MetricsLog
from metaseg.runs.run import Run, load, save_weights
from metaseg.runs.training import (
    evaluation,
    feeds,
    output,
    results,
    setup,
    steps,
    undefined,
)
from metaseg.runs.training import members as members_lib
from metaseg.runs.training.setup import Setup
from metaseg.runs.training.steps import Programs

__all__ = ["TrainTask", "train"]


@jax_settings.same_numbers()
def train(
    config: ConfigDict,
    data: Dataset | None = None,
    *,
    workdir: Path | None = None,
    resume: str = "auto",
    profile: tuple[int, int] | None = None,
    watch: signals.Watch | None = None,
    quiet: bool = False,
) -> Run:
    """Trains and evaluates a network, or an ensemble of networks.

    Args:
      config: Settings, see `defaults.get_config`; not changed.
      data: Data set to use in place of the one that `config.data` names.
      workdir: Folder for the results, on a disk or a `files.bucket`; created if it is
        missing. A folder that holds this run resumes from its newest checkpoint; a
        folder that holds anything else is refused. None keeps the results in memory.
      resume: "auto", "must" or "never", see `workdir.check`.
      profile: Steps to trace, those after the first up to the second; needs `workdir`.
      watch: Says when to stop; by default no signal is handled.
      quiet: Whether to print no progress.

    Returns:
      The finished run.

    Raises:
      InputError: If the input is wrong, before any training; or if the loss is not
        finite.
      signals.StoppedError: If `watch` asked the run to stop.
    """
    clock = {"start": time.perf_counter()}
    watch = watch or signals.Watch(handle=False)
    processes.check_backend()
    workdir = None if workdir is None else files.expanded(workdir)
    with progress_lib.quiet_logging(), watch:
        quiet = quiet or not processes.is_primary()
        config_lib.check(config, data)
        layout = setup.build_layout(config)
        with workdir_lib.locked(workdir):
            holds_run = workdir is not None and bool(
                processes.decide(partial(workdir_lib.check, workdir, resume))
            )
            if holds_run:
                resolved: Any = config_lib.resolve(config)
                _compare(workdir, resolved, config_lib.open_fields(config))
            known = sources.blank(config) if data is None else data
            if known is None:
                known = data = sources.load(config)
            resolved = config_lib.resolve(config, known)
            if holds_run and _compare(workdir, resolved):
                assert workdir is not None
                if not quiet:
                    progress_lib.say(f"{workdir} holds this run, finished")
                return load(workdir)
            window = _trace_window(profile, resolved, workdir)
            if data is not None:  # labels are checked before anything is compiled
                made = setup.build(resolved, workdir, data, layout)
                programs = _compile(resolved, known, layout, clock)
            else:  # images are rendered while XLA compiles
                programs = _compile(resolved, known, layout, clock)
                made = setup.build(resolved, workdir, sources.load(config), layout)
            return _run(made, programs, watch, window, quiet, clock)


def _compare(workdir: Path | None, config: Any, ignored: Sequence[str] = ()) -> bool:
    """Returns whether the run in the folder, which has to be this one, is finished."""
    assert workdir is not None
    check = partial(
        workdir_lib.check_config, workdir, config.to_dict(), ignored=ignored
    )
    return bool(processes.decide(check))


def _trace_window(
    profile: tuple[int, int] | None, config: Any, workdir: Path | None
) -> TraceWindow | None:
    if profile is None:
        return None
    last = config.training.steps
    if not 0 <= profile[0] < profile[1] <= last:
        raise InputError(
            f"profile: got {profile[0]}:{profile[1]}, expected two steps START:STOP "
            f"of 0 to {last}, the first one smaller"
        )
    if workdir is None:
        raise InputError("profile: given without workdir, where traces are written")
    return TraceWindow(*profile, workdir / "profile")


def _compile(
    config: FrozenConfigDict, data: Dataset, layout: Layout, clock: dict[str, float]
) -> Programs:
    """Starts to compile the steps, for which the shapes of the data suffice."""
    began = time.perf_counter()
    members = members_lib.configs(config)
    parts = steps.build(members[0])
    feed = feeds.build(members, data.train, layout)
    batches = setup.in_order(config, data, layout, data.val)
    settings = layout.put_settings(members_lib.settings(members))
    state = layout.put_state(setup.blank_state(config, data, parts))
    train_steps, eval_step = steps.functions(members[0], layout, feed.gather)
    shape = (*sources.window(config, data), data.channels)
    with prefixed("config.", "loss", "model", "noise"):  # plug-ins, while they trace
        train = layout.train(train_steps, settings, state, *feed.example(), 1)
    programs = Programs(
        layout=layout,
        settings=settings,
        train=train,
        evaluate=layout.evaluate(eval_step, settings, state, next(iter(batches))),
        compile_evaluate=partial(layout.evaluate, eval_step, settings),
        flops_per_image=3 * parallel.cost.forward_flops(parts.model, shape),
    )
    clock["compile_seconds"] = time.perf_counter() - began
    return programs


def _run(
    made: Setup,
    programs: Programs,
    watch: signals.Watch,
    window: TraceWindow | None,
    quiet: bool,
    clock: dict[str, float],
) -> Run:
    layout, workdir = made.layout, made.workdir
    initial = made.initial_state()
    if processes.is_primary():
        setup.begin_folders(made)
    state = layout.put_state(initial)
    checkpoints = None
    if workdir is not None:
        checkpoints = checkpoint.Checkpoints(workdir / "checkpoints")
    digest = workdir_lib.digest(made.config.to_dict())
    say = (lambda _: None) if quiet else progress_lib.say
    found = resuming.newest(checkpoints, layout.get_state(state), digest, say)
    log = _open_log(made, found, quiet)
    for line in _described(made):
        log.say(line)
    if found.state is not None:
        state = layout.put_state(found.state)
        log.say(resuming.continued(made.config, found.at.step))
    since = time.perf_counter() - clock["start"]
    clock["setup_seconds"] = since - clock["compile_seconds"]
    facts = {"config": digest, "results": results.known(made)}
    try:
        _wait(programs, log, clock)
        trained = _train(
            made, programs, log, state, found.at, checkpoints, facts, watch, window
        )
        _count_time(made, programs, trained.at, clock)
        run = _finish(made, programs, log, trained, checkpoints, clock)
    except BaseException:  # close the log, so that its rows can be read
        with contextlib.suppress(OSError):
            log.close()
        raise
    finally:
        if checkpoints is not None:
            checkpoints.close()
    log.close()
    processes.wait_for_all("finished")
    return run


def _open_log(made: Setup, found: resuming.Resumed, quiet: bool) -> progress_lib.RunLog:
    """Opens the records of the members, and the progress display."""
    histories = found.history or [[]] * len(made.members)
    c, step = made.config.training, found.at.step
    writes = processes.is_primary()
    return progress_lib.RunLog(
        [
            MetricsLog(folder if writes else None, history, step)
            for folder, history in zip(made.folders(), histories, strict=True)
        ],
        total_steps=c.steps,
        batch_size=c.batch_size * len(made.members),
        first_step=step,
        quiet=quiet,
    )


def _described(made: Setup) -> list[str]:
    """Describes a run in a line for the terminal, and what its data leave undefined."""
    config, data = made.config, made.data
    height, width, channels = data.train.shape
    size = "endless" if config.data.endless else len(data.train)
    count = len(made.members)
    where = [f"{len(made.layout.devices)} devices"] * (len(made.layout.devices) > 1)
    where += [f"{processes.count()} processes"] * (processes.count() > 1)
    where += [f"an ensemble of {count}"] * (count > 1)
    where += [f"writing to {made.workdir}"] * (made.workdir is not None)
    line = "; ".join(
        [
            f"{data.name}: {size} + {len(data.val)} + {len(data.test)} images "
            f"(train, val, test) of {height} x {width} x {channels}, "
            f"{data.num_classes} classes",
            f"noise: {config.noise.name}",
            *where,
        ]
    )
    started = [] if made.initial is None else [str(made.initial)]
    return [
        *data.notes,
        line,
        *started,
        *(f"warning: {said}" for said in made.warnings),
    ]


class _Trained(NamedTuple):
    """The end of training.

    Attributes:
      state: Final state, laid out.
      at: Where the loop ended.
      best_state: Laid-out state of the best validation, where no checkpoint keeps it.
    """

    state: Any
    at: LoopState
    best_state: Any


def _wait(
    programs: Programs, log: progress_lib.RunLog, clock: dict[str, float]
) -> None:
    """Waits until the steps are compiled; prepares the end of the run meanwhile."""
    log.say("compiling the training step")
    output.prepare()
    began = time.perf_counter()
    for program in (programs.train, programs.evaluate):
        program.compiled.result()
    clock["compile_seconds"] += time.perf_counter() - began


def _train(
    made: Setup,
    programs: Programs,
    log: progress_lib.RunLog,
    state: Any,
    at: LoopState,
    checkpoints: checkpoint.Checkpoints | None,
    facts: Mapping[str, Any],
    watch: signals.Watch,
    window: TraceWindow | None,
) -> _Trained:
    """Takes the steps of the run."""
    feed = feeds.build(made.members, made.data.train, made.layout)
    feed.seek(at.step)
    try:
        batches = setup.in_order(made.config, made.data, made.layout, made.data.val)
        task = TrainTask(made, log, programs, feed, batches)
        loop = Loop(
            task,
            log=log,
            checkpoints=checkpoints,
            facts=facts,
            at=at,
            trace=window,
        )
        log.begin()
        state = loop.run(state, watch)
    finally:
        feed.close()
    return _Trained(state, loop.at, task.best_state)


class TrainTask(Task):
    """Training on labels: validates on the way.

    Attributes:
      best_state: State of the best validation so far, of a run in memory whose weights
        are the best; else None.
    """

    best_state: Any = None

    def __init__(
        self,
        made: Setup,
        log: progress_lib.RunLog,
        programs: Programs,
        feed: feeds.Feed,
        val_batches: InOrder,
    ) -> None:
        """Takes the parts of a run, its compiled steps and its examples."""
        self.members = len(made.members)
        self.total_steps = made.config.training.steps
        self._made, self._log, self._programs = made, log, programs
        self._feed, self._val_batches = feed, val_batches
        self._c = made.config.training
        self._validates = made.labels["val"].labelled
        self._chooses = made.labels["val"].chooses
        self._keeps_best = made.workdir is None and self._c.weights == "best"
        self._best_score = -math.inf
        self._learning_rates = [
            optimizers.schedule(m.optimizer, m.training.steps) for m in made.members
        ]

    @property
    def waited(self) -> float:  # type: ignore[override]
        """Seconds spent waiting for examples."""
        return self._feed.waited

    def next_event(self, step: int) -> int:
        """Returns the step of the next loss, validation or checkpoint."""
        c = self._c
        due = (c.log_every, c.eval_every, c.checkpoint_every)
        return min(step - step % n + n for n in due)

    def take(
        self, state: Any, step: int, count: int, asked: Callable[[int], bool]
    ) -> tuple[Any, np.ndarray]:
        """Takes steps on batches of the feed."""
        programs = self._programs
        return take_steps(
            programs.train,
            programs.layout.to_host,
            programs.settings,
            state,
            self._feed.dispatches(step, count),
            step,
            asked,
        )

    def reports(self, step: int) -> bool:
        """Returns whether a loss or a validation is due."""
        due = 0 in (step % self._c.log_every, step % self._c.eval_every)
        return due or step == self.total_steps

    def report(
        self, state: Any, at: LoopState, losses: np.ndarray, steps_per_second: float
    ) -> Report:
        """Writes the mean losses, and a validation where it is due."""
        c, step = self._c, at.step
        means = [math.fsum(each) / len(each) for each in losses.T]
        speed = self._speed(steps_per_second * c.batch_size)
        for record, loss, rate in zip(
            self._log.records, means, self._learning_rates, strict=True
        ):
            values = {"loss": loss, "learning_rate": float(rate(step - 1)), **speed}
            record.write(step, "train", values)
        shown, score = {"loss": _range(means)}, None
        due = step % c.eval_every == 0 or step == self.total_steps
        if due and self._validates:
            scores, measure = self._validate(state, step)
            shown[f"val {measure}"] = _range(scores)
            pairs = zip(scores, at.diverged, strict=True)
            if self._chooses:
                score = float(np.mean([score for score, bad in pairs if not bad]))
            if self._keeps_best and score is not None and score >= self._best_score:
                self._best_score = score
                self.best_state = jax.tree.map(jnp.copy, state)  # steps donate theirs
        self._log.progress(step, force=len(shown) > 1, **shown)
        return Report(state, score)

    def _validate(self, state: Any, step: int) -> tuple[list[float], str]:
        count = len(self._made.data.val)
        rows = evaluation.validate(self._programs, state, self._val_batches, count)
        labels = self._made.labels["val"]
        for record, values in zip(self._log.records, rows, strict=True):
            null = [name for name, value in values.items() if not np.isfinite(value)]
            why = {name: undefined.measure_reason(labels, name) for name in null}
            record.write(step, "val", values, why_null=why)
        measure = evaluation.measure_of(rows[0])
        return [values[measure] for values in rows], measure

    def _speed(self, images_per_second: float) -> dict[str, float]:
        """Returns images per second of each member, and the use of the devices."""
        speed = {"images_per_second": images_per_second}
        rate = images_per_second * self.members * self._programs.flops_per_image
        peak = _peak_flops(self._made)
        return speed if peak is None else {**speed, "flops_utilisation": rate / peak}

    def saves(self, step: int) -> bool:
        """Returns whether `training.checkpoint_every` steps or all steps are over."""
        return step % self._c.checkpoint_every == 0 or step == self.total_steps

    def saved(self, state: Any) -> Any:
        """Returns the train state as any layout can restore it."""
        return self._programs.layout.get_state(state)

    def learning_rate(self, member: int) -> float:
        """Returns `optimizer.learning_rate` of a member."""
        return self._made.members[member].optimizer.learning_rate


def _range(values: Sequence[float]) -> str:
    """Formats a value, or the lowest and highest of several that are defined."""
    values = [value for value in values if not math.isnan(value)]
    if not values:
        return "undefined"
    if len(values) == 1:
        return f"{values[0]:.4f}"
    return f"{min(values):.4f}..{max(values):.4f}"


def _peak_flops(made: Setup) -> float | None:
    """Returns the peak FLOP/s of all devices of a run; None where it is not known."""
    total = 0.0
    for device in made.layout.devices:
        peak = parallel.cost.peak_flops(device, made.config.model.dtype)
        if peak is None:
            return None
        total += peak
    return total


def _count_time(
    made: Setup, programs: Programs, at: LoopState, clock: dict[str, float]
) -> None:
    """Fills in the time of training, and the use of the devices."""
    c, seconds = made.config.training, at.stepping
    images = c.steps * c.batch_size * len(made.members)
    clock["train_seconds"] = at.training
    clock["step_seconds"] = seconds / c.steps
    clock["images_per_second"] = images / seconds
    clock["flops_per_second"] = images / seconds * programs.flops_per_image
    peak = _peak_flops(made)
    if peak is not None:
        clock["flops_utilisation"] = clock["flops_per_second"] / peak
    clock["data_wait_share"] = at.waiting / seconds


def _chosen(
    made: Setup,
    log: progress_lib.RunLog,
    trained: _Trained,
    checkpoints: checkpoint.Checkpoints | None,
) -> tuple[Any, evaluation.Choice]:
    """Returns the laid-out state that the run measures and ships, and which it is."""
    c, layout, state = made.config.training, made.layout, trained.state
    histories = [record.history for record in log.records]
    scores = evaluation.validation_scores(histories, trained.at.diverged)
    lack = made.labels["val"].lack()
    choice = evaluation.choose(c.weights, scores, trained.at.step, lack=lack)
    if choice.step == trained.at.step:
        return state, choice
    if checkpoints is None:
        return trained.best_state, choice
    try:
        found = checkpoints.restore(choice.step, layout.get_state(state))
    except (DamagedError, OSError) as error:
        reason = " ".join(str(error).split())[:200]
        note = (
            f"the checkpoint of step {choice.step}, the best, cannot be read "
            f"({reason}): the last weights are taken"
        )
        return state, evaluation.Choice(choice.rule, trained.at.step, note)
    return layout.put_state(found.state), choice


def _finish(
    made: Setup,
    programs: Programs,
    log: progress_lib.RunLog,
    trained: _Trained,
    checkpoints: checkpoint.Checkpoints | None,
    clock: dict[str, float],
) -> Run:
    """Evaluates every member, and writes results and reports."""
    began = time.perf_counter()
    state, choice = _chosen(made, log, trained, checkpoints)
    if choice.note:
        log.say(f"warning: training.weights is 'best', but {choice.note}")
    scores = _evaluated(made, programs, state)
    clock["evaluate_seconds"] = time.perf_counter() - began
    final = jax.tree.map(programs.layout.to_host, made.layout.get_state(state))
    if len(made.members) > 1 and made.workdir is not None:
        _save_members(made, final, choice.step)
    start = clock.pop("start")
    clock["total_seconds"] = time.perf_counter() - start
    memory = {
        "peak_bytes": results.peak_memory(),
        "device_peak_bytes": parallel.cost.memory(jax.local_devices()),
        "device_step_bytes": programs.train.device_bytes(),
    }
    members = [
        results.finished(
            made,
            i,
            scores[i],
            history=log.records[i].history,
            state=_member_state(final, i, len(made.members)),
            weights=choice,
            diverged=trained.at.diverged[i],
            facts={"time": dict(clock), "memory": memory},
        )
        for i in range(len(made.members))
    ]
    run = members[0]
    if len(members) > 1:
        run = results.ensemble(made, members)
    if processes.is_primary():
        if made.workdir is not None:
            output.write(run)
        for line in results.conclusion(run):
            log.say(line)
    return run


def _evaluated(made: Setup, programs: Programs, state: Any) -> list[results.Scores]:
    """Evaluates validation and test split with each member."""
    data, keep = made.data, min(made.config.report.images, len(made.data.test))
    whole = partial(
        evaluation.evaluate_as_predicted,
        programs,
        state,
        in_order=partial(setup.in_order, made.config, data, made.layout),
        grain=prediction.grain(made.parts.model),
        compiled={},
    )
    validated, tested = whole(data.val), whole(data.test, keep=keep)
    return [
        results.Scores(val, *test)
        for (val, _), test in zip(validated, tested, strict=True)
    ]


def _member_state(final: Any, member: int, count: int) -> Any:
    return final if count == 1 else jax.tree.map(lambda x: x[member], final)


def _save_members(made: Setup, final: Any, step: int) -> None:
    """Saves a checkpoint of each member's chosen weights, for prediction."""
    for i, folder in enumerate(made.folders()):
        assert folder is not None
        save_weights(folder / "checkpoints", step, _member_state(final, i, 2))
