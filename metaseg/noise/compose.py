"""Noises put together: chained, per example, and by name from a config.

A noise is any pure `(key, labels) -> labels`. To add one: write the function, with its
parameters keyword-only, and give it a line in `NOISES`; a parameter of a new kind also
gets a line in `_CHECKS`.
"""

import inspect
from collections.abc import Callable, Mapping
from functools import partial
from numbers import Integral
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from metaseg import ntm
from metaseg.errors import InputError
from metaseg.labels import VOID
from metaseg.noise import perturb, randomize, structureless

__all__ = [
    "NOISES",
    "Noise",
    "NoiseFn",
    "build",
    "build_matrix",
    "chain",
    "clean",
    "per_example",
]

NoiseFn = Callable[[jax.Array, jax.Array], jax.Array]


class Noise(NamedTuple):
    """A noise that configs can name.

    Attributes:
      fn: `(key, labels, *, parameters) -> labels`; a parameter `num_classes` is filled
        in by `build`.
      matrix: `(num_classes, *, parameters) -> [K, K]`, its noise transition matrix;
        None if what happens to a pixel depends on where it is.
    """

    fn: Callable[..., jax.Array]
    matrix: Callable[..., jax.Array] | None = None


def clean(key: jax.Array, labels: jax.Array) -> jax.Array:
    """The clean labels themselves; the key is ignored."""
    del key
    return labels


def chain(*noise_fns: NoiseFn) -> NoiseFn:
    """One noise after the other, each with a key of its own."""

    def chained(key: jax.Array, labels: jax.Array) -> jax.Array:
        for index, noise_fn in enumerate(noise_fns):
            labels = noise_fn(jax.random.fold_in(key, index), labels)
        return labels

    return chained


def per_example(
    noise_fn: NoiseFn,
) -> Callable[[jax.Array, jax.Array, jax.Array], jax.Array]:
    """Noise for a batch, in which an example's draw depends on its own id alone.

    Returns:
      `(key, labels, ids) -> labels` for labels `[B, H, W]` and integer ids `[B]`. The
      key is folded with each id, so batch order, size and devices change no bit.
    """

    def one(key: jax.Array, labels: jax.Array, example_id: jax.Array) -> jax.Array:
        return noise_fn(jax.random.fold_in(key, example_id), labels)

    return jax.vmap(one, in_axes=(None, 0, 0))


def _flip_matrix(num_classes: int, *, rate: Any, exact: bool = False) -> jax.Array:
    del exact
    return ntm.symmetric(num_classes, rate)


def _sample_matrix(
    num_classes: int,
    *,
    fraction: Any,
    classes: Any = None,
    fill: int = 0,
    exact: bool = False,
) -> jax.Array:
    del exact
    return ntm.sampling(num_classes, fraction, classes, fill)


def _transition_matrix(num_classes: int, *, matrix: Any) -> jax.Array:
    del num_classes
    return jnp.asarray(matrix, jnp.float32)


NOISES: dict[str, Noise] = {
    "none": Noise(clean, jnp.eye),
    "flip": Noise(randomize.flip, _flip_matrix),
    "sample": Noise(randomize.sample, _sample_matrix),
    "transition": Noise(randomize.transition, _transition_matrix),
    "random": Noise(structureless.random, ntm.uniform),
    "dilate": Noise(perturb.dilate),
    "erode": Noise(perturb.erode),
    "skeletonize": Noise(perturb.skeletonize),
}

# Fields of config.noise that say when and how to draw, whatever the noise.
_OTHER_FIELDS = frozenset({"name", "online", "seed"})


def build(config: Mapping[str, Any], num_classes: int) -> NoiseFn:
    """The noise that a config describes.

    Args:
      config: `config.noise`, a mapping or ConfigDict: `name`, one of `NOISES`, and the
        parameters of that noise; None counts as not given. `online` and `seed` are not
        for the noise itself and may be there.
      num_classes: K.

    Raises:
      InputError: unknown name, a parameter that is missing, not taken, or out of range.
    """
    noise, parameters = _read(config, num_classes)
    if "num_classes" in _parameters(noise.fn):
        parameters["num_classes"] = num_classes
    return partial(noise.fn, **parameters)


def build_matrix(config: Mapping[str, Any], num_classes: int) -> jax.Array | None:
    """The noise transition matrix `[K, K]` of the noise that a config describes.

    Args:
      config: as in `build`.
      num_classes: K.

    Returns:
      float32 `[K, K]`, sub-stochastic where pixels become void; None where what happens
      to a pixel depends on its place, so that no matrix describes it.

    Raises:
      InputError: as in `build`.
    """
    noise, parameters = _read(config, num_classes)
    return None if noise.matrix is None else noise.matrix(num_classes, **parameters)


def _read(config: Mapping[str, Any], num_classes: int) -> tuple[Noise, dict[str, Any]]:
    """Look up the noise and check its parameters, on the host."""
    name = config.get("name")
    if name not in NOISES:
        raise InputError(
            f"config.noise.name: unknown noise {name!r}, expected one of "
            + ", ".join(NOISES)
        )
    known = _parameters(NOISES[name].fn)
    known.pop("num_classes", None)
    given = {
        field: _plain(value)
        for field, value in config.items()
        if value is not None and field not in _OTHER_FIELDS
    }
    for field in given:
        if field not in known:
            takes = ", ".join(known) or "no parameters"
            raise InputError(
                f"config.noise.{field}: noise {name!r} takes {takes}; set it to None"
            )
    for field, parameter in known.items():
        if field not in given and parameter.default is parameter.empty:
            raise InputError(f"config.noise.{field}: missing, noise {name!r} needs it")
    for field, check in _CHECKS.items():
        if field in given:
            check(f"config.noise.{field}", given[field], num_classes, given)
    return NOISES[name], given


def _parameters(fn: Callable[..., jax.Array]) -> dict[str, inspect.Parameter]:
    return {
        name: parameter
        for name, parameter in inspect.signature(fn).parameters.items()
        if parameter.kind is inspect.Parameter.KEYWORD_ONLY
    }


def _plain(value: Any) -> Any:
    """Sequences of a config as tuples, which partials can hash and show."""
    if isinstance(value, list | tuple):
        return tuple(_plain(item) for item in value)
    return value


def _check_shares(where: str, value: Any, count: int | None) -> np.ndarray:
    """Numbers in [0, 1]: a scalar, or `count` of them (None: a scalar only)."""
    expected = "expected a number" + (f" or {count} of them" if count else "")
    try:
        shares = np.asarray(value, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise InputError(f"{where}: got {value!r}, {expected} in [0, 1]") from error
    if shares.shape not in ((), (count,)):
        raise InputError(f"{where}: got {value!r}, {expected} in [0, 1]")
    if not ((shares >= 0) & (shares <= 1)).all():
        raise InputError(f"{where}: got {value!r}, expected values in [0, 1]")
    return shares


def _check_rate(where: str, value: Any, num_classes: int, given: Any) -> None:
    del given
    _check_shares(where, value, num_classes)


def _check_fraction(where: str, value: Any, num_classes: int, given: Any) -> None:
    classes = given.get("classes")
    count = num_classes - 1
    if isinstance(classes, tuple):
        count = len(classes)
    _check_shares(where, value, count)


def _check_prior(where: str, value: Any, num_classes: int, given: Any) -> None:
    del given
    shares = _check_shares(where, value, num_classes)
    if shares.ndim == 0 and num_classes != 2:
        raise InputError(
            f"{where}: got {value!r}, expected {num_classes} values, one per class"
        )
    if shares.ndim == 1 and abs(shares.sum() - 1) > 1e-5:
        raise InputError(f"{where}: sums to {shares.sum():g}, expected 1")


def _check_matrix(where: str, value: Any, num_classes: int, given: Any) -> None:
    del given
    ntm.validate(value, num_classes, where)


def _check_radius(where: str, value: Any, num_classes: int, given: Any) -> None:
    del num_classes, given
    if not _is_integer(value) or value < 0:
        raise InputError(f"{where}: got {value!r}, expected an integer >= 0 (pixels)")


def _check_classes(where: str, value: Any, num_classes: int, given: Any) -> None:
    del given
    known = range(num_classes)
    if not isinstance(value, tuple) or not all(
        _is_integer(item) and item in known for item in value
    ):
        raise InputError(
            f"{where}: got {value!r}, expected class ids in 0..{num_classes - 1}"
        )
    if not value or len(set(value)) < len(value):
        raise InputError(f"{where}: got {value!r}, expected each class once")


def _check_fill(where: str, value: Any, num_classes: int, given: Any) -> None:
    del given
    if not _is_integer(value) or not (0 <= value < num_classes or value == VOID):
        raise InputError(
            f"{where}: got {value!r}, "
            f"expected a class id in 0..{num_classes - 1} or {VOID} (void)"
        )


def _check_exact(where: str, value: Any, num_classes: int, given: Any) -> None:
    del num_classes, given
    if not isinstance(value, bool):
        raise InputError(f"{where}: got {value!r}, expected True or False")


def _is_integer(value: Any) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool)


_CHECKS: dict[str, Callable[[str, Any, int, Mapping[str, Any]], None]] = {
    "classes": _check_classes,  # first, as the number of fractions depends on it
    "rate": _check_rate,
    "fraction": _check_fraction,
    "prior": _check_prior,
    "matrix": _check_matrix,
    "radius": _check_radius,
    "fill": _check_fill,
    "exact": _check_exact,
}
