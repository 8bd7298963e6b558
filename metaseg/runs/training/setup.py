"""The parts of a run, put together from its settings and its data."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from ml_collections import ConfigDict, FrozenConfigDict

from metaseg import checks, files, models, parallel, training
from metaseg.data.dataset import SPLITS, Dataset, Examples
from metaseg.data.pipeline import InOrder
from metaseg.errors import InputError, prefixed
from metaseg.parallel import Layout, processes
from metaseg.runs import initial as initial_lib
from metaseg.runs import labelled, sources
from metaseg.runs import workdir as workdir_lib
from metaseg.runs.training import members as members_lib
from metaseg.runs.training import results, steps

__all__ = [
    "Setup",
    "begin_folders",
    "blank_state",
    "build",
    "build_layout",
    "in_order",
]


class Setup(NamedTuple):
    """The parts of a run.

    Attributes:
      config: Settings of the run, resolved.
      workdir: Folder for the results; None keeps them in memory.
      members: Settings of the runs that are trained side by side.
      data: Examples.
      layout: Layout of all arrays.
      parts: Static parts of the step, without the values in which members differ.
      settings: Arrays that tell the compiled steps in what members differ.
      labels: Labels of the splits by name, of `labelled.survey`.
      warnings: What the labels leave undefined.
      initial: Weights of another run that training starts from, or None.
    """

    config: FrozenConfigDict
    workdir: Path | None
    members: Sequence[ConfigDict]
    data: Dataset
    layout: Layout
    parts: training.Step
    settings: members_lib.StepSettings
    labels: Mapping[str, labelled.SplitLabels]
    warnings: Sequence[str]
    initial: initial_lib.Initial | None

    def folders(self) -> list[Path | None]:
        """Returns the folder of each member's results."""
        count = len(self.members)
        if count == 1 or self.workdir is None:
            return [self.workdir] * count
        width = len(str(count - 1))
        return [self.workdir / "members" / f"{i:0{width}}" for i in range(count)]

    def matrix(self, member: int) -> np.ndarray | None:
        """Returns the noise transition matrix of a member, if its noise has one."""
        matrix = self.settings.matrix
        return matrix if matrix is None or matrix.ndim == 2 else matrix[member]

    def initial_state(self) -> training.TrainState:
        """Returns the weights before the first step.

        They are drawn, or those of another run. With several members, leaves lead with
        the members.

        Raises:
          InputError: If the weights of another run do not fit.
        """
        given = _network(self.config, self.data, self.parts)
        states = [
            training.create_state(key=members_lib.keys(member)[0], **given)
            for member in self.members
        ]
        if self.initial is not None:
            states = [self.initial.put_into(state) for state in states]
        if len(states) == 1:
            return states[0]
        return jax.tree.map(lambda *x: np.stack(x), *states)


def blank_state(
    config: ConfigDict, data: Dataset, parts: training.Step
) -> training.TrainState:
    """Returns a state of zeros, of the shapes and types that `initial_state` has.

    Args:
      config: Resolved settings of the run.
      data: Examples; only their shapes matter.
      parts: Static parts of the step.
    """
    shapes = training.state_shapes(**_network(config, data, parts))
    count = config.parallel.ensemble
    leading = () if count == 1 else (count,)
    return jax.tree.map(lambda x: np.zeros((*leading, *x.shape), x.dtype), shapes)


def _network(config: ConfigDict, data: Dataset, parts: training.Step) -> dict[str, Any]:
    """Returns the arguments of `training.create_state` without the key."""
    return {
        "model": parts.model,
        "optimizer": parts.optimizer,
        "image_shape": (*sources.window(config, data), data.channels),
        "ema": parts.ema_decay > 0,
    }


def build(
    config: FrozenConfigDict, workdir: Path | None, data: Dataset, layout: Layout
) -> Setup:
    """Puts the parts of a run together.

    Args:
      config: Resolved settings.
      workdir: Folder for the results, or None.
      data: Examples.
      layout: Of `build_layout`.

    Returns:
      The parts.

    Raises:
      InputError: If nothing can be learned from the training labels.
    """
    labels = labelled.survey(data, _read_splits(config))
    if "train" in labels:
        field = "labels" if config.data.name == "arrays" else "config.data"
        labelled.check_training(labels["train"], field)
    members = members_lib.configs(config)
    return Setup(
        config=config,
        workdir=workdir,
        members=members,
        data=data,
        layout=layout,
        parts=steps.build(members[0]),
        settings=members_lib.settings(members),
        labels=labels,
        warnings=labelled.warnings(labels, chooses=_chooses(config)),
        initial=_initial(config),
    )


def _initial(config: ConfigDict) -> initial_lib.Initial | None:
    """Loads the weights to start from."""
    source = config.training.init_from
    if not source:
        return None
    with prefixed("config.training.init_from: "):
        return initial_lib.load(source, config.data.num_classes)


def _read_splits(config: ConfigDict) -> tuple[str, ...]:
    """Returns the splits whose labels may be read: iGTT learns without them."""
    if "igtt" not in config:
        return SPLITS
    return () if config.igtt.labels == "none" else ("val", "test")


def _chooses(config: ConfigDict) -> str:
    """Returns the setting by which validation chooses the weights, if there is one."""
    if "igtt" in config:
        return "igtt.labels='choose'" if config.igtt.labels == "choose" else ""
    return "training.weights='best'" if config.training.weights == "best" else ""


def build_layout(config: ConfigDict) -> Layout:
    """Lays a run out over the devices that `config.parallel` asks for.

    Args:
      config: Settings of a run.

    Returns:
      The layout.

    Raises:
      InputError: If a field does not suit the devices of this machine.
    """
    with prefixed("config."):
        return _layout(config)


def _layout(config: ConfigDict) -> Layout:
    c, there = config.parallel, jax.devices()
    if not 0 <= c.devices <= len(there):
        raise InputError(
            f"parallel.devices: got {c.devices}, but there are {len(there)}; expected "
            "at most as many, or 0 for all"
        )
    if c.devices and processes.count() > 1:
        raise InputError(
            f"parallel.devices: got {c.devices} with {processes.count()} processes; "
            "expected 0, all devices"
        )
    if c.ensemble_by:
        checks.choice("parallel.ensemble_by", c.ensemble_by, ("vmap", "turns"))
    by = c.ensemble_by or ("turns" if jax.default_backend() == "cpu" else "vmap")
    turns = by == "turns" and c.ensemble > 1
    devices = there[: c.devices or None]
    layout = parallel.build(
        c.partitioner,
        devices=devices,
        members=1 if turns else max(1, c.ensemble),
        compiler_options=models.compiler_options(len(devices)),
    )
    if turns:
        layout = parallel.in_turns(layout, c.ensemble)
    parts = layout.batch_devices * config.training.grad_accum_steps
    if config.training.batch_size % parts:
        raise InputError(
            f"training.batch_size: got {config.training.batch_size}, expected a "
            f"multiple of {parts} ({layout.batch_devices} devices times "
            f"training.grad_accum_steps = {config.training.grad_accum_steps})"
        )
    return layout


def begin_folders(setup: Setup) -> None:
    """Writes config.json and environment.json into the folders of a run.

    The results of a run that is to be trained for longer get another name.

    Args:
      setup: Parts of the run.
    """
    if setup.workdir is None:
        return
    setup.workdir.mkdir(parents=True, exist_ok=True)
    for folder in {setup.workdir, *setup.folders()}:
        assert folder is not None
        workdir_lib.set_aside(folder, setup.config.training.steps)
    environment = results.environment()
    files.write_json(setup.workdir / "config.json", setup.config.to_dict())
    files.write_json(setup.workdir / "environment.json", environment)
    if len(setup.members) > 1:
        for folder, member in zip(setup.folders(), setup.members, strict=True):
            assert folder is not None
            folder.mkdir(parents=True, exist_ok=True)
            files.write_json(folder / "config.json", member.to_dict())


def in_order(
    config: ConfigDict, data: Dataset, layout: Layout, split: Examples
) -> InOrder:
    """Returns a split in batches for evaluation.

    Args:
      config: Settings of a run.
      data: Examples of the run.
      layout: Layout of the batches.
      split: The split. In place of an empty one stands a training image, with which
        steps can be compiled.
    """
    place: Any = layout.put_batch
    if not len(split):
        split = data.train.take([0])
    size = layout.round_up(config.training.eval_batch_size)
    return InOrder(split, size, place=place, part=layout.part())
