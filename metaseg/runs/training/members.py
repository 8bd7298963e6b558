"""The members of an ensemble: runs that are trained side by side. One is a run itself.

`config.parallel.ensemble` is their number, `config.parallel.vary` lists the fields in
which they differ. The settings of a member are those of the same run by itself.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from ml_collections import ConfigDict, FrozenConfigDict

from metaseg import noise
from metaseg.errors import InputError

__all__ = [
    "TRACED",
    "VARIABLE",
    "StepSettings",
    "bind",
    "configs",
    "differences",
    "keys",
    "settings",
    "thawed",
]

SEEDS = ("seed", "noise.seed")
# Numbers that one compiled program takes as arguments, so that members may differ.
TRACED = (
    "noise.rate",
    "noise.fraction",
    "noise.matrix",
    "noise.prior",
    "noise.theta1",
    "noise.theta2",
    "noise.theta3",
    "optimizer.learning_rate",
    "optimizer.weight_decay",
)
VARIABLE = SEEDS + TRACED


class StepSettings(NamedTuple):
    """Arguments of the compiled steps that differ between members, NumPy arrays.

    Attributes:
      noise_key: Data of the key of the noise.
      augment_key: Data of the key of the augmentation.
      matrix: Noise transition matrix, or None.
      values: Values of the `TRACED` fields in which members differ, by field.
    """

    noise_key: np.ndarray
    augment_key: np.ndarray
    matrix: np.ndarray | None
    values: dict[str, np.ndarray]


def configs(config: ConfigDict) -> list[ConfigDict]:
    """Returns the config of each member of an ensemble.

    Args:
      config: Settings of the ensemble.

    Raises:
      InputError: `config.parallel.ensemble` or `vary` is wrong.
    """
    count = config.parallel.ensemble
    if count < 1:
        raise InputError(
            f"parallel.ensemble: got {count}, expected a number of runs >= 1"
        )
    if count == 1:
        if config.parallel.vary:
            raise InputError(
                "parallel.vary: given, but parallel.ensemble is 1; "
                "expected as many runs as there are values"
            )
        return [config]
    varied = _varied(config)
    members = []
    for i in range(count):
        member = thawed(config)
        member.parallel.ensemble = 1
        member.parallel.vary = None
        with member.ignore_type():
            member.update_from_flattened_dict({f: v[i] for f, v in varied.items()})
        members.append(member)
    return members


def _varied(config: ConfigDict) -> dict[str, Sequence[Any]]:
    """The values of each field that members differ in; by default they count seeds."""
    count, given = config.parallel.ensemble, config.parallel.vary
    if not given:
        return {
            "seed": [config.seed + i for i in range(count)],
            "noise.seed": [config.noise.seed + i for i in range(count)],
        }
    if len(given) == 2 and isinstance(given[0], str):
        given = (given,)
    varied: dict[str, Sequence[Any]] = {}
    for pair in given:
        if not isinstance(pair, Sequence) or len(pair) != 2:
            raise InputError(f"parallel.vary: got {pair!r}, expected (field, values)")
        field, values = pair
        if field not in VARIABLE:
            raise InputError(
                f"parallel.vary: members cannot differ in {field!r}; expected "
                f"one of {', '.join(VARIABLE)}"
            )
        if not isinstance(values, Sequence) or len(values) != count:
            raise InputError(
                f"parallel.vary: {field} has {values!r}, expected {count} "
                "values, as parallel.ensemble says"
            )
        varied[field] = values
    return varied


def thawed(config: ConfigDict) -> ConfigDict:
    """Returns a copy of a config, frozen or not, whose fields can be set.

    Args:
      config: Settings of a run.
    """
    if isinstance(config, FrozenConfigDict):
        return ConfigDict(config.to_dict())  # ConfigDict(config) would share sections
    return ConfigDict(config.copy_and_resolve_references())


def _get(config: ConfigDict, field: str) -> Any:
    section, _, name = field.rpartition(".")
    return config[section][name] if section else config[name]


def keys(config: ConfigDict) -> tuple[jax.Array, jax.Array]:
    """Returns the keys of the weights and of the augmentation.

    Args:
      config: Settings of a run.
    """
    weights, augmentation = jax.random.split(jax.random.key(config.seed))
    return weights, augmentation


def settings(members: Sequence[ConfigDict]) -> StepSettings:
    """Returns what the steps are told; with several members as leading axis.

    Args:
      members: Settings of each member.
    """
    each = []
    for member in members:
        matrix = noise.build_matrix(member.noise, member.data.num_classes)
        each.append(
            StepSettings(
                np.asarray(jax.random.key_data(jax.random.key(member.noise.seed))),
                np.asarray(jax.random.key_data(keys(member)[1])),
                None if matrix is None else np.asarray(matrix),
                {},
            )
        )
    if len(each) == 1:
        return each[0]
    values = {}
    for field in TRACED:
        found = [_get(member, field) for member in members]
        if any(value != found[0] for value in found):
            # One rate for all classes beside one for each of them.
            numbers = [np.asarray(value, np.float32) for value in found]
            values[field] = np.stack(np.broadcast_arrays(*numbers))
    together: StepSettings = jax.tree.map(lambda *x: np.stack(x), *each)
    return together._replace(values=values)


def bind(config: ConfigDict, values: Mapping[str, Any]) -> ConfigDict:
    """Returns the config with values that may be traced.

    Args:
      config: Settings of a run.
      values: Values by field, such as "noise.rate".
    """
    if not values:
        return config
    bound = thawed(config)
    with bound.ignore_type():
        bound.update_from_flattened_dict(dict(values))
    return bound


def differences(config: ConfigDict) -> list[dict[str, Any]]:
    """Returns the fields in which each member differs, with its values.

    Args:
      config: Settings of the ensemble.
    """
    varied = _varied(config)
    return [
        {field: values[i] for field, values in varied.items()}
        for i in range(config.parallel.ensemble)
    ]
