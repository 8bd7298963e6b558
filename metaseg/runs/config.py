"""The settings of a run: checks of every field, and the frozen copy that a run uses.

`fields` has the checks that need no jax.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from ml_collections import ConfigDict, FrozenConfigDict

from metaseg import checks, igtt, noise
from metaseg.data.dataset import Dataset
from metaseg.errors import InputError, prefixed
from metaseg.runs import fields, sources, training, workdir
from metaseg.runs.training import members

__all__ = [
    "DEFAULT_CROP",
    "check",
    "check_igtt",
    "has_open_length",
    "open_fields",
    "resolve",
]

STARTS = ("black", "intensity", "contrast")
DEFAULT_CROP = 64  # largest side in pixels of the windows that the data decide
_OPEN = 1_000_000_000  # stands for a length that the data decide


def check(config: ConfigDict, data: Dataset | None = None) -> None:
    """Checks the settings of a training run, as far as they do not depend on the data.

    Args:
      config: Settings with the fields of `defaults.get_config`.
      data: Data set given in place of the one that `config.data` names.

    Raises:
      InputError: If a field is wrong; the message names it.
    """
    fields.check(config, data)
    with prefixed("config."):
        _check_steps(config)


def check_igtt(
    config: ConfigDict, data: Dataset | None = None, *, baselines: bool = False
) -> None:
    """Checks the settings of a run of iGTT, as far as they do not depend on the data.

    Args:
      config: Settings with the fields of `defaults.get_igtt_config`.
      data: Data set given in place of the one that `config.data` names.
      baselines: Whether other methods are measured too.

    Raises:
      InputError: If a field is wrong; the message names it.
    """
    fields.check_igtt(config, data, baselines=baselines)
    with prefixed("config."):
        _check_igtt_section(config.igtt)
        _check_steps(config)


def has_open_length(config: Mapping[str, Any]) -> bool:
    """Returns whether the number of steps depends on the size of the data set.

    Args:
      config: Settings, nested mappings.
    """
    return bool(config["training"]["epochs"] or config["optimizer"]["step_epochs"])


def open_fields(config: Mapping[str, Any]) -> tuple[str, ...]:
    """Returns the names of fields that `resolve` sets by the data.

    Args:
      config: Settings, nested mappings.
    """
    crop = ("augment.crop",) if config["augment"]["crop"] is None else ()
    return crop + (workdir.LENGTHS if has_open_length(config) else ())


def resolve(config: ConfigDict, data: Dataset | None = None) -> FrozenConfigDict:
    """Returns the settings that a run uses: complete, checked and frozen.

    Lengths in epochs become steps, and 0 becomes the default that it stands for where
    that does not depend on the machine.

    Args:
      config: Checked settings; not changed.
      data: Data set of the run. Without it, lengths in epochs stay open, and what
        depends on them is not checked.

    Raises:
      InputError: If a field does not suit the data; the message names it.
    """
    found = members.thawed(config)
    c = found.training
    if "igtt" in found:
        c.steps = found.igtt.rounds * found.igtt.steps_per_round
    if data is not None and has_open_length(found):
        per_epoch = len(data.train) / c.batch_size
        if c.epochs:
            c.steps = max(1, round(c.epochs * per_epoch))
        if found.optimizer.step_epochs:
            every = max(1, round(found.optimizer.step_epochs * per_epoch))
            found.optimizer.step_every = every
    c.checkpoint_every = c.checkpoint_every or c.eval_every
    if data is not None and found.augment.crop is None:
        found.augment.crop = min(DEFAULT_CROP, int(data.train.valid_size.min()))
    with prefixed("config."):
        if data is not None:
            _check_classes(found, data)
            sources.check_window(found, data)
        if data is not None or not has_open_length(found):
            for member in members.configs(found):
                training.steps.build(member)
    return _frozen(found)


def _check_classes(config: ConfigDict, data: Dataset) -> None:
    if data.num_classes != config.data.num_classes:
        raise InputError(
            f"data.num_classes: got {config.data.num_classes}, expected "
            f"{data.num_classes}, the number of classes of '{data.name}'"
        )


def _frozen(config: ConfigDict) -> FrozenConfigDict:
    """Freezes a config and the mappings in its sequences."""
    found = ConfigDict(config)
    with found.ignore_type():
        for field, value in config.items():
            if isinstance(value, ConfigDict):
                found[field] = ConfigDict(_frozen(value))
            else:
                found[field] = _frozen_value(value)
    return FrozenConfigDict(found)


def _frozen_value(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return tuple(_frozen_value(item) for item in value)
    if isinstance(value, Mapping | ConfigDict):
        return MappingProxyType({k: _frozen_value(v) for k, v in value.items()})
    return value


def _check_steps(config: ConfigDict) -> None:
    """Builds noise, network, loss and optimizer, which check their own fields."""
    for member in members.configs(config):
        checks.seed("seed", member.seed)
        checks.seed("noise.seed", member.noise.seed)
        # Before networks and optimizers are imported, which takes half a second.
        noise.build(member.noise, config.data.num_classes)
        if has_open_length(config):
            member = members.thawed(member)
            member.training.steps = _OPEN
        training.steps.build(member)


def _check_igtt_section(c: ConfigDict) -> None:
    where = "igtt."
    checks.choice(f"{where}start", c.start, STARTS)
    checks.choice(f"{where}target", c.target, igtt.TARGETS)
    checks.choice(f"{where}criterion", c.criterion, igtt.CRITERIA)
    checks.choice(f"{where}polarity", c.polarity, igtt.POLARITIES)
    checks.integer(f"{where}radius", c.radius, 0, "pixels")
    checks.integer(f"{where}min_radius", c.min_radius, 0, "pixels")
    checks.number(f"{where}boundary_sigma", c.boundary_sigma, 0, unit="pixels")
    checks.integer(f"{where}num_thresholds", c.num_thresholds, 3)
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
