"""An optax chain from a config: clipping, weight decay, method, schedule."""

from collections.abc import Callable
from typing import Any

import optax

from metaseg import checks
from metaseg.errors import InputError

__all__ = ["METHODS", "SCHEDULES", "build", "schedule"]


def _constant(config: Any, steps: int) -> optax.Schedule:
    del steps
    return optax.constant_schedule(config.learning_rate)


def _cosine(config: Any, steps: int) -> optax.Schedule:
    return optax.cosine_decay_schedule(config.learning_rate, max(1, steps))


def _step(config: Any, steps: int) -> optax.Schedule:
    del steps
    return optax.exponential_decay(
        config.learning_rate,
        transition_steps=config.step_every,
        decay_rate=config.step_factor,
        staircase=True,
    )


SCHEDULES: dict[str, Callable[[Any, int], optax.Schedule]] = {
    "constant": _constant,
    "cosine": _cosine,
    "step": _step,
}


def _sgd(config: Any, rate: optax.Schedule) -> optax.GradientTransformation:
    # Decay is added to the gradient before momentum, as in the source's framework.
    return optax.chain(
        optax.add_decayed_weights(config.weight_decay),
        optax.sgd(rate, momentum=config.momentum or None, nesterov=config.nesterov),
    )


def _adam(config: Any, rate: optax.Schedule) -> optax.GradientTransformation:
    return optax.chain(optax.add_decayed_weights(config.weight_decay), optax.adam(rate))


def _adamw(config: Any, rate: optax.Schedule) -> optax.GradientTransformation:
    return optax.adamw(rate, weight_decay=config.weight_decay)


METHODS: dict[str, Callable[[Any, optax.Schedule], optax.GradientTransformation]] = {
    "sgd": _sgd,
    "adam": _adam,
    "adamw": _adamw,
}


def _lookup(table: dict[str, Any], field: str, name: str) -> Any:
    if name not in table:
        known = ", ".join(sorted(table))
        raise InputError(f"config.optimizer.{field}: unknown '{name}'; known: {known}")
    return table[name]


def schedule(config: Any, steps: int) -> optax.Schedule:
    """The learning rate as a function of the step.

    Args:
      config: `schedule` (one of `SCHEDULES`), `learning_rate`, `warmup` (steps of
        linear increase from 0), and for "step" `step_every` and `step_factor`.
      steps: steps of the whole run; "cosine" ends there at 0.

    Returns:
      An optax schedule. `learning_rate` may be traced.

    Raises:
      InputError: for an unknown name or a learning rate or warm-up below 0.
    """
    make = _lookup(SCHEDULES, "schedule", config.schedule)
    if not checks.is_traced(config.learning_rate) and config.learning_rate <= 0:
        raise InputError(
            f"config.optimizer.learning_rate: got {config.learning_rate}, expected > 0"
        )
    if not 0 <= config.warmup < max(1, steps):
        raise InputError(
            f"config.optimizer.warmup: got {config.warmup}, expected 0 to "
            f"config.training.steps - 1 = {steps - 1}"
        )
    after = make(config, steps - config.warmup)
    if not config.warmup:
        return after
    before = optax.linear_schedule(0.0, config.learning_rate, config.warmup)
    return optax.join_schedules([before, after], [config.warmup])


def build(config: Any, steps: int) -> optax.GradientTransformation:
    """The optimizer of `config.optimizer`.

    Args:
      config: the fields of `schedule`, and `name` (one of `METHODS`), `momentum`,
        `nesterov`, `weight_decay` (may be traced) and `clip` (largest global
        gradient norm, 0 = off).
      steps: steps of the whole run.

    Returns:
      An optax gradient transformation.

    Raises:
      InputError: for an unknown name or a value out of range.
    """
    make = _lookup(METHODS, "name", config.name)
    for field in ("momentum", "weight_decay", "clip"):
        if not checks.is_traced(config[field]) and config[field] < 0:
            raise InputError(
                f"config.optimizer.{field}: got {config[field]}, expected at least 0"
            )
    method = make(config, schedule(config, steps))
    if config.clip:
        return optax.chain(optax.clip_by_global_norm(config.clip), method)
    return method
