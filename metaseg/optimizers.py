"""An optax chain from a config: clipping, weight decay, method, schedule.

Imports jax, optax, `checks` and `errors` only.
"""

from collections.abc import Callable
from typing import Any

import jax
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


def _muon(config: Any, rate: optax.Schedule) -> optax.GradientTransformation:
    if config.momentum >= 1:
        raise InputError(
            f"optimizer.momentum: got {config.momentum}, expected a number in [0, 1)"
        )
    # A list of coefficients, all alike, makes the five iterations a loop, which
    # compiles faster.
    return optax.contrib.muon(
        rate,
        ns_coeffs=_NEWTON_SCHULZ,
        beta=config.momentum,
        weight_decay=config.weight_decay,
        adam_weight_decay=config.weight_decay,
        muon_weight_dimension_numbers=_as_matrices,
    )


_NEWTON_SCHULZ = ((3.4445, -4.7750, 2.0315),) * 5  # of the source


def _as_matrices(params: Any) -> Any:
    """Says how Muon sees each parameter: None leaves it to Adam.

    The kernel of a convolution, `[h, w, in, out]`, is a matrix of `h w in` rows.
    """
    kernel = optax.contrib.MuonDimensionNumbers((0, 1, 2), 3)
    return jax.tree.map(lambda x: kernel if x.ndim == 4 else None, params)


METHODS: dict[str, Callable[[Any, optax.Schedule], optax.GradientTransformation]] = {
    "sgd": _sgd,
    "adam": _adam,
    "adamw": _adamw,
    "muon": _muon,
}


def schedule(config: Any, steps: int) -> optax.Schedule:
    """Returns the learning rate as a function of the step.

    Args:
      config: Section `optimizer` of a config, with the fields `schedule` (one of
        `SCHEDULES`), `learning_rate` (a number above 0, which may be traced), `warmup`
        (steps of linear increase from 0, fewer than `steps`), and for "step"
        `step_every` (steps) and `step_factor`.
      steps: Number of steps of the whole run; "cosine" reaches 0 there.

    Returns:
      An optax schedule.

    Raises:
      InputError: If a name is unknown or a number is out of range.
    """
    checks.choice("optimizer.schedule", config.schedule, SCHEDULES)
    checks.number("optimizer.learning_rate", config.learning_rate, 0, open_ends=True)
    checks.integer("optimizer.warmup", config.warmup, 0, "steps")
    if config.warmup and config.warmup >= steps:
        raise InputError(
            f"optimizer.warmup: got {config.warmup}, expected fewer than the {steps} "
            "steps of the run"
        )
    if config.schedule == "step":
        checks.integer("optimizer.step_every", config.step_every, 1, "steps")
        checks.number("optimizer.step_factor", config.step_factor, 0)
    after = SCHEDULES[config.schedule](config, steps - config.warmup)
    if not config.warmup:
        return after
    before = optax.linear_schedule(0.0, config.learning_rate, config.warmup)
    return optax.join_schedules([before, after], [config.warmup])


def build(config: Any, steps: int) -> optax.GradientTransformation:
    """Builds the optimizer that a config describes.

    Args:
      config: Section `optimizer` of a config, with the fields that `schedule` reads,
        and `name` (one of `METHODS`), `momentum` (muon, sgd; 0 = off), `nesterov`
        (sgd), `weight_decay` (may be traced) and `clip` (largest global gradient norm,
        0 = off).
      steps: Number of steps of the whole run.

    Returns:
      An optax gradient transformation.

    Raises:
      InputError: If a name is unknown or a number is out of range.
    """
    checks.choice("optimizer.name", config.name, METHODS)
    for field in ("momentum", "weight_decay", "clip"):
        checks.number(f"optimizer.{field}", config[field], 0)
    checks.flag("optimizer.nesterov", config.nesterov)
    method = METHODS[config.name](config, schedule(config, steps))
    if config.clip:
        return optax.chain(optax.clip_by_global_norm(config.clip), method)
    return method
