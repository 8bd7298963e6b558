"""The settings of a run: checks of every field, and the frozen copy that a run uses."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from ml_collections import ConfigDict, FrozenConfigDict

from metaseg import checks, igtt
from metaseg.data.dataset import Dataset
from metaseg.errors import InputError, prefixed
from metaseg.runs import defaults, sources, workdir
from metaseg.runs.training import evaluation, members, steps

__all__ = [
    "DEFAULT_CROP",
    "check",
    "check_igtt",
    "has_open_length",
    "open_fields",
    "resolve",
]

STARTS = ("black", "intensity", "contrast")
LABEL_USES = ("none", "measure", "choose")
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
    _check_complete(config, defaults.get_config())
    if "igtt" in config:
        raise InputError(
            "config: has a section igtt, for segmentation without labels; expected "
            "it at `metaseg igtt` (experiments/igtt.py)"
        )
    with prefixed("config."):
        if data is None:
            sources.check(config.data)
            sources.check_files(config)
        _check_numbers(config)
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
    if "igtt" not in config:
        raise InputError(
            "config: has no section igtt; expected a config such as cell_igtt"
        )
    _check_complete(config, defaults.get_igtt_config())
    with prefixed("config."):
        _check_igtt_section(config.igtt)
        _check_igtt_data(config, data)
        _check_numbers(config)
        for field, got, expected, why in (
            ("noise.name", config.noise.name, "none", "labels come from the scores"),
            ("parallel.ensemble", config.parallel.ensemble, 1, "a run has one network"),
            ("training.epochs", config.training.epochs, 0, "rounds give the length"),
            (
                "training.weights",
                config.training.weights,
                "last",
                "igtt.labels='choose' takes the best round",
            ),
        ):
            if got != expected:
                raise InputError(f"{field}: got {got!r}, expected {expected!r}: {why}")
        _check_steps(config)
    if baselines and config.igtt.labels == "none":
        raise InputError(
            "baselines: config.igtt.labels is 'none', expected 'measure' or 'choose': "
            "other methods are compared by labels"
        )


def _check_complete(
    config: ConfigDict, expected: ConfigDict, where: str = "config"
) -> None:
    """Raises InputError if a section or a field is missing."""
    for field, value in expected.items():
        if field not in config:
            raise InputError(
                f"{where}: has no field '{field}', expected the fields of "
                "metaseg.runs.defaults"
            )
        if isinstance(value, ConfigDict):
            found = config[field]
            if not isinstance(found, ConfigDict):
                raise InputError(
                    f"{where}.{field}: got {checks.shown(found)}, expected a section"
                )
            _check_complete(found, value, f"{where}.{field}")


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
                steps.build(member)
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
        if has_open_length(config):
            member = members.thawed(member)
            member.training.steps = _OPEN
        steps.build(member)


def _check_numbers(config: ConfigDict) -> None:
    for field in ("workers", "memory_gb"):
        checks.number(f"data.{field}", config.data[field], 0)
    checks.seed("data.seed", config.data.seed)
    checks.integer("parallel.devices", config.parallel.devices, 0)
    checks.integer("report.images", config.report.images, 0)
    checks.integer("optimizer.step_every", config.optimizer.step_every, 1)
    may_be_off = ("epochs", "steps_per_dispatch", "checkpoint_every")
    for field, value in config.training.items():
        if field not in ("weights", "init_from"):
            checks.number(f"training.{field}", value, 0 if field in may_be_off else 1)
    checks.choice("training.weights", config.training.weights, evaluation.WEIGHTS)
    decay = config.optimizer.ema_decay
    checks.number("optimizer.ema_decay", decay, 0, 1)
    if decay == 1:
        raise InputError(
            f"optimizer.ema_decay: got {decay}, expected a number in [0, 1)"
        )
    checks.number("optimizer.step_epochs", config.optimizer.step_epochs, 0)
    if config.augment.rot90 and config.augment.horizontal_flip_only:
        raise InputError(
            "augment.horizontal_flip_only: got True with augment.rot90 True, expected "
            "at most one of them"
        )
    if config.augment.crop is not None:
        checks.integer("augment.crop", config.augment.crop, 0, "pixels")
    for field in ("brightness", "contrast", "illumination", "modulation"):
        checks.number(f"augment.{field}", config.augment[field], 0)


def _check_igtt_section(c: ConfigDict) -> None:
    where = "igtt."
    checks.choice(f"{where}start", c.start, STARTS)
    checks.choice(f"{where}target", c.target, igtt.TARGETS)
    checks.choice(f"{where}criterion", c.criterion, igtt.CRITERIA)
    checks.choice(f"{where}polarity", c.polarity, igtt.POLARITIES)
    checks.choice(f"{where}labels", c.labels, LABEL_USES)
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


def _check_igtt_data(config: ConfigDict, data: Dataset | None) -> None:
    if data is None and config.data.name != sources.IMAGES:
        sources.check(config.data)
    if data is None:
        sources.check_files(config)
    if config.data.name == sources.IMAGES and config.igtt.labels != "none":
        raise InputError(
            f"igtt.labels: got '{config.igtt.labels}', but images alone have no "
            "labels; expected 'none'"
        )
    if config.data.num_classes != 2:
        raise InputError(
            f"data.num_classes: got {config.data.num_classes}, expected 2: iGTT "
            "separates foreground and background"
        )
    if config.data.endless:
        raise InputError(
            "data.endless: got True, expected False: iGTT needs the same images in "
            "every round"
        )
