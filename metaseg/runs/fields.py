"""Checks of the fields of a config, before jax is imported.

Imports no jax. `config` checks the rest: it builds noise, network, loss and optimizer.
"""

from ml_collections import ConfigDict

from metaseg import checks
from metaseg.data.dataset import Dataset
from metaseg.errors import InputError, prefixed
from metaseg.runs import defaults, sources

__all__ = ["WEIGHTS", "check", "check_igtt"]

WEIGHTS = ("last", "best")  # rules of config.training.weights
LABEL_USES = ("none", "measure", "choose")  # of config.igtt.labels


def check(config: ConfigDict, data: Dataset | None = None) -> None:
    """Checks the fields of a training run, but for what its parts check themselves.

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


def check_igtt(
    config: ConfigDict, data: Dataset | None = None, *, baselines: bool = False
) -> None:
    """Checks the fields of a run of iGTT, but for what its parts check themselves.

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
        checks.choice("igtt.labels", config.igtt.labels, LABEL_USES)
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
    checks.choice("training.weights", config.training.weights, WEIGHTS)
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
