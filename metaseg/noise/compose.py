"""Combinations of noises: chained, chosen at random, per example, built from a config.

A noise is a pure function `(key, labels) -> labels`. To add one to the package, write a
function with keyword-only parameters, decorate it with `parameters.checked` and add a
line to `NOISES`. A parameter with a new name also needs a line in `parameters.CHECKS`.
"""

import inspect
from collections.abc import Callable, Mapping, Sequence
from functools import partial, reduce
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Integer, Real, UInt32

from metaseg import checks, ntm, registry
from metaseg.errors import InputError
from metaseg.labels import VOID
from metaseg.noise import (
    draw,
    objects,
    parameters,
    perturb,
    polygons,
    random_labels,
    randomize,
    warp,
)
from metaseg.typing import AnyArray, Labels, PRNGKey

__all__ = [
    "NOISES",
    "Noise",
    "NoiseFn",
    "build",
    "build_matrix",
    "chain",
    "choose",
    "clean",
    "only",
    "per_example",
]

NoiseFn = Callable[[jax.Array, jax.Array], jax.Array]


class Noise(NamedTuple):
    """A noise that a config can name.

    Attributes:
      fn: Function `(key, labels, *, parameters) -> labels`. `build` fills in a
        parameter `num_classes`.
      matrix: Function `(num_classes, *, parameters) -> [K, K]` that returns the noise
        transition matrix. None if what happens to a pixel depends on its place.
    """

    fn: Callable[..., jax.Array]
    matrix: Callable[..., jax.Array | None] | None = None


class _Built(NamedTuple):
    """A noise with its parameters, and its matrix."""

    fn: NoiseFn
    matrix: jax.Array | None


def clean(
    key: PRNGKey, labels: Real[AnyArray, "*batch H W"]
) -> Real[jax.Array, "*batch H W"]:
    """Returns the clean labels.

    Args:
      key: Not used.
      labels: Class ids or soft targets `[..., H, W]`.

    Returns:
      The labels.
    """
    del key
    return jnp.asarray(labels)


def chain(*noise_fns: NoiseFn) -> NoiseFn:
    """Applies noises one after the other, each with its own key.

    Args:
      *noise_fns: Noises, in the order in which they are applied.

    Returns:
      The noise `(key, labels) -> labels`.

    Raises:
      InputError: If a noise lacks a parameter.

    Example:
      >>> from functools import partial
      >>> grow_and_flip = chain(
      ...     partial(perturb.dilate, radius=2), partial(randomize.flip, rate=0.1)
      ... )
      >>> noisy = grow_and_flip(jax.random.key(0), jnp.zeros((8, 8), jnp.uint8))
    """
    for noise_fn in noise_fns:
        _check_complete(noise_fn)

    def chained(key: PRNGKey, labels: Labels) -> Integer[jax.Array, "*batch H W"]:
        noisy = jnp.asarray(labels)
        for index, noise_fn in enumerate(noise_fns):
            noisy = noise_fn(jax.random.fold_in(key, index), noisy)
        return noisy

    return chained


def choose(
    *noise_fns: NoiseFn,
    weights: Real[AnyArray, "N"] | Sequence[float] | None = None,
) -> NoiseFn:
    """Applies one of several noises, drawn at random at each call.

    Within `per_example` the noise is drawn for each example, and all noises are
    computed.

    Args:
      *noise_fns: Noises to choose from.
      weights: Odds of the noises, >= 0 and not all 0; by default all equal. May be
        traced.

    Returns:
      The noise `(key, labels) -> labels`.

    Raises:
      InputError: If there is no noise, a noise lacks a parameter, or the weights are
        not valid.
    """
    if not noise_fns:
        raise InputError("noise_fns: got none, expected at least one noise")
    for noise_fn in noise_fns:
        _check_complete(noise_fn)
    if weights is not None:
        parameters.check({"noises": noise_fns, "weights": weights}, None)

    def chosen(key: PRNGKey, labels: Labels) -> Integer[jax.Array, "*batch H W"]:
        parameters.check_labels(labels, *noise_fns)
        pick, inner = jax.random.split(key)
        odds = _odds(weights, len(noise_fns))
        index = draw.categorical(pick, jnp.int32(0), odds[None]).astype(jnp.int32)
        if not checks.is_traced(index):  # `switch` would compile all noises
            return noise_fns[int(index)](inner, jnp.asarray(labels))
        return jax.lax.switch(index, noise_fns, inner, jnp.asarray(labels))

    return chosen


def only(classes: Sequence[int], noise_fn: NoiseFn) -> NoiseFn:
    """Applies a noise to the pixels of some classes; all other pixels stay.

    The noise gets all other pixels as void. So `only((2,), flip)` flips pixels of class
    2 only, and `only((0, 2), dilate)` dilates class 2 into background: a noise that
    moves a border needs the classes on both sides.

    Args:
      classes: Class ids, static.
      noise_fn: The noise.

    Returns:
      The noise `(key, labels) -> labels`.

    Raises:
      InputError: If `classes` are not class ids, each once, or the noise lacks a
        parameter.
    """
    _check_complete(noise_fn)
    parameters.check({"classes": classes}, None)

    def restricted(key: PRNGKey, labels: Labels) -> Integer[jax.Array, "*batch H W"]:
        parameters.check_labels(labels, noise_fn)
        labels = jnp.asarray(labels)
        seen = reduce(jnp.logical_or, [labels == class_id for class_id in classes])
        noisy = noise_fn(key, jnp.where(seen, labels, jnp.full_like(labels, VOID)))
        return jnp.where(seen, noisy, labels)

    return restricted


def per_example(
    noise_fn: NoiseFn,
) -> Callable[[jax.Array, AnyArray, AnyArray], jax.Array]:
    """Makes noise for a batch, in which each example's draw depends only on its id.

    Args:
      noise_fn: Noise of one map.

    Returns:
      `(key, labels, ids) -> labels` for labels `[B, H, W]` and integer ids `[B]`. The
      key is folded with each id, so the order and size of the batch and the number of
      devices change no bit. Ids may have 64 bits.

    Raises:
      InputError: If the noise lacks a parameter.

    Example:
      >>> from functools import partial
      >>> noise_fn = per_example(partial(randomize.flip, rate=0.1))
      >>> labels = np.zeros((2, 8, 8), np.uint8)
      >>> noise_fn(jax.random.key(0), labels, np.array([7, 9])).shape
      (2, 8, 8)
    """
    _check_complete(noise_fn)

    def one(
        key: PRNGKey,
        labels: Integer[AnyArray, "H W"],
        low: Integer[AnyArray, ""],
        high: UInt32[AnyArray, ""] | None,
    ) -> Integer[jax.Array, "H W"]:
        own = jax.random.fold_in(key, low)
        if high is not None:
            own = jnp.where(high == 0, own, jax.random.fold_in(own, high))
        return noise_fn(own, jnp.asarray(labels))

    def each(
        key: PRNGKey,
        labels: Integer[AnyArray, "B H W"],
        ids: Integer[AnyArray, "B"],
    ) -> Integer[jax.Array, "B H W"]:
        parameters.check_labels(labels, noise_fn)
        low, high = _halves(ids)
        return jax.vmap(one, in_axes=(None, 0, 0, 0))(
            key, jnp.asarray(labels), low, high
        )

    return each


def _halves(ids: AnyArray) -> tuple[AnyArray, AnyArray | None]:
    """Ids as 32 bits, and the upper half of those beyond 32 bits, else 0 or None."""
    if ids.dtype.itemsize < 8:
        return ids, None
    low, high = (ids & 0xFFFFFFFF).astype(np.uint32), (ids >> 32).astype(np.uint32)
    if ids.dtype.kind == "i":  # a negative int32 is extended by ones
        high = high * ((ids >> 31) != -1)
    if not checks.is_traced(ids) and not np.any(high):
        return low, None
    return low, high


def _check_complete(noise_fn: Any) -> None:
    """Raises InputError if a noise has a parameter that has no value yet."""
    if not callable(noise_fn):
        raise InputError(
            f"noise_fn: got {checks.shown(noise_fn)}, "
            "expected a function (key, labels) -> labels"
        )
    try:
        known = parameters.keyword_only(noise_fn)
    except (TypeError, ValueError):  # no signature
        return
    missing = [name for name, given in known.items() if given.default is given.empty]
    if missing:
        name = getattr(noise_fn, "__name__", checks.shown(noise_fn))
        values = ", ".join(f"{parameter}=..." for parameter in missing)
        raise InputError(
            f"noise_fn: got {name} without {' and '.join(missing)}, "
            f"expected functools.partial({name}, {values})"
        )


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
    return ntm.sampling(num_classes, fraction, classes=classes, fill=fill)


def _transition_matrix(num_classes: int, *, matrix: Any) -> jax.Array:
    return ntm.as_matrix(matrix, num_classes, void=False)


def _constant_matrix(num_classes: int, *, fill: int = 0) -> jax.Array:
    if fill == VOID:
        return jnp.zeros((num_classes, num_classes), jnp.float32)
    return ntm.uniform(
        num_classes, jax.nn.one_hot(fill, num_classes, dtype=jnp.float32)
    )


def _omit_matrix(num_classes: int, *, rate: Any, fill: int = 0) -> jax.Array:
    """The probability of each pixel, though the pixels of an object depend."""
    kept = 1 - jnp.broadcast_to(jnp.asarray(rate, jnp.float32), (num_classes,))
    return ntm.sampling(num_classes, kept[1:], fill=fill)


def _chain_from(
    key: PRNGKey, labels: Labels, *, noises: Sequence[_Built]
) -> Integer[jax.Array, "*batch H W"]:
    """Applies noises one after the other, each with its own key."""
    return chain(*(noise.fn for noise in noises))(key, jnp.asarray(labels))


def _chain_matrix(num_classes: int, *, noises: Sequence[_Built]) -> jax.Array | None:
    matrices = [noise.matrix for noise in noises]
    known = [matrix for matrix in matrices if matrix is not None]
    if len(known) < len(matrices):
        return None
    return reduce(ntm.compose, known, jnp.eye(num_classes, dtype=jnp.float32))


def _choose_from(
    key: PRNGKey,
    labels: Labels,
    *,
    noises: Sequence[_Built],
    weights: Real[AnyArray, "N"] | Sequence[float] | None = None,
) -> jax.Array:
    """Applies one of several noises, drawn at random for each example."""
    chosen = choose(*(noise.fn for noise in noises), weights=weights)
    return chosen(key, jnp.asarray(labels))


def _choose_matrix(
    num_classes: int,
    *,
    noises: Sequence[_Built],
    weights: Real[AnyArray, "N"] | Sequence[float] | None = None,
) -> jax.Array | None:
    del num_classes
    known = [noise.matrix for noise in noises if noise.matrix is not None]
    if len(known) < len(noises):
        return None
    return jnp.einsum("n,nij->ij", _odds(weights, len(known)), jnp.stack(known))


def _only_from(
    key: PRNGKey,
    labels: Labels,
    *,
    classes: Sequence[int],
    noises: Sequence[_Built],
) -> jax.Array:
    """Applies noises to the pixels of some classes; all other pixels stay."""
    restricted = only(classes, chain(*(noise.fn for noise in noises)))
    return restricted(key, jnp.asarray(labels))


def _only_matrix(
    num_classes: int, *, classes: Sequence[int], noises: Sequence[_Built]
) -> jax.Array | None:
    matrix = _chain_matrix(num_classes, noises=noises)
    if matrix is None:
        return None
    seen = jnp.isin(jnp.arange(num_classes), jnp.asarray(classes))
    return jnp.where(seen[:, None], matrix, jnp.eye(num_classes, dtype=jnp.float32))


def _odds(weights: Any, count: int) -> jax.Array:
    odds = jnp.asarray([1] * count if weights is None else weights, jnp.float32)
    return odds / jnp.sum(odds)


NOISES: dict[str, Noise] = {
    "none": Noise(clean, partial(jnp.eye, dtype=jnp.float32)),
    "flip": Noise(randomize.flip, _flip_matrix),
    "sample": Noise(randomize.sample, _sample_matrix),
    "transition": Noise(randomize.transition, _transition_matrix),
    "dilate": Noise(perturb.dilate),
    "erode": Noise(perturb.erode),
    "random_boundary": Noise(perturb.random_boundary),
    "skeletonize": Noise(perturb.skeletonize),
    "shift_pixels": Noise(perturb.shift_pixels),
    "markov": Noise(perturb.markov),
    "coarsen": Noise(perturb.coarsen),
    "translate": Noise(warp.translate),
    "affine": Noise(warp.affine),
    "elastic": Noise(warp.elastic),
    "jitter_vertices": Noise(polygons.jitter_vertices),
    "simplify": Noise(polygons.simplify),
    "omit": Noise(objects.omit, _omit_matrix),
    "add": Noise(objects.add),
    "merge": Noise(objects.merge),
    "boxes": Noise(objects.boxes),
    "points": Noise(objects.points),
    "scribbles": Noise(objects.scribbles),
    "random": Noise(random_labels.random, ntm.uniform),
    "shuffle": Noise(random_labels.shuffle),
    "constant": Noise(random_labels.constant, _constant_matrix),
    "chain": Noise(_chain_from, _chain_matrix),
    "choose": Noise(_choose_from, _choose_matrix),
    "only": Noise(_only_from, _only_matrix),
}

# Fields of a noise's config that say when and with which key it is drawn.
_OTHER_FIELDS = frozenset({"name", "online", "parameters", "seed"})


def build(
    config: Mapping[str, Any], num_classes: int, *, field: str = "noise"
) -> NoiseFn:
    """Builds the noise that a config describes.

    Args:
      config: Mapping or `ConfigDict` with the `name` of the noise and its parameters.
        The name is a key of `NOISES` or a plug-in, `"package.module:name"`: a function
        `(key, labels, *, ...) -> labels` or a `Noise`. An attribute `matrix` of such a
        function is that of `Noise`. `parameters`, a mapping, holds more parameters. A
        parameter that is None is not passed. `online` and `seed` are ignored.
      num_classes: K.
      field: Name of `config` in error messages.

    Returns:
      The noise, `(key, labels) -> labels`.

    Raises:
      InputError: If the name is unknown, if a parameter is missing or not one of the
        noise, or if a parameter of a built-in noise is out of range.

    Example:
      >>> import jax, numpy as np
      >>> config = {"name": "constant", "fill": 1}
      >>> noise_fn = build(config, num_classes=2)
      >>> noise_fn(jax.random.key(0), np.array([[0, 0, 255]]))
      Array([[  1,   1, 255]], dtype=int32)
    """
    return _build(config, num_classes, field).fn


def build_matrix(
    config: Mapping[str, Any], num_classes: int, *, field: str = "noise"
) -> jax.Array | None:
    """Returns the noise transition matrix of the noise that a config describes.

    Args:
      config: As in `build`.
      num_classes: K.
      field: Name of `config` in error messages.

    Returns:
      float32 `[K, K]`. Rows sum to less than 1 where pixels become void. None if what
      happens to a pixel depends on its place, so that no matrix describes the noise.

    Raises:
      InputError: As in `build`; or if the matrix of a plug-in is not `[K, K]`.

    Example:
      >>> build_matrix({"name": "sample", "fraction": 0.25}, num_classes=2)
      Array([[1.  , 0.  ],
             [0.75, 0.25]], dtype=float32)
    """
    return _build(config, num_classes, field).matrix


def _build(config: Mapping[str, Any], num_classes: int, field: str) -> _Built:
    """Looks up the noise, checks its parameters on the host and binds them."""
    name = config.get("name")
    noise = _look_up(name, field)
    known = parameters.keyword_only(noise.fn)
    takes_classes = known.pop("num_classes", None) is not None
    given, fields = _given(config, field)
    for parameter in given:
        if parameter not in known:
            takes = ", ".join(known) or "no parameters"
            raise InputError(
                f"{fields[parameter]}: got {checks.shown(given[parameter])}, "
                f"expected None, as noise {name!r} takes {takes}"
            )
    for parameter, signature in known.items():
        if parameter not in given and signature.default is signature.empty:
            place = field
            if registry.is_plugin(name) and parameter not in config:
                place = f"{field}.parameters"
            raise InputError(
                f"{place}.{parameter}: got None, expected a value, as noise {name!r} "
                "needs it"
            )
    if "noises" in given:
        given["noises"] = _build_each(given["noises"], num_classes, fields["noises"])
    if not registry.is_plugin(name):
        parameters.check(given, num_classes, fields)
    matrix = None if noise.matrix is None else noise.matrix(num_classes, **given)
    if matrix is not None and np.shape(matrix) != (num_classes, num_classes):
        raise InputError(
            f"{field}.name: got {name!r}, whose matrix has shape {np.shape(matrix)}, "
            f"expected {(num_classes, num_classes)}"
        )
    if matrix is not None and registry.is_plugin(name):
        where = f"{field}.name: matrix of {name!r}"
        matrix = ntm.as_matrix(matrix, num_classes, where=where)
    if takes_classes:
        given["num_classes"] = num_classes
    fn = partial(noise.fn, **given)
    if registry.is_plugin(name):
        _check_result(fn, str(name), field)
    return _Built(fn, matrix)


def _check_result(fn: NoiseFn, name: str, field: str) -> None:
    """Raises InputError if a plug-in does not return label maps like those it gets."""
    labels = jax.ShapeDtypeStruct((64, 96), jnp.uint8)
    found = jax.eval_shape(fn, jax.random.key(0), labels)
    shape, dtype = getattr(found, "shape", None), getattr(found, "dtype", None)
    if shape != labels.shape or dtype != labels.dtype:
        raise InputError(
            f"{field}.name: got {name!r}, which makes {dtype} of shape {shape} of "
            f"{labels.dtype} labels {labels.shape}, expected the same shape and dtype"
        )


def _look_up(name: Any, field: str) -> Noise:
    """The built-in noise of this name, or a plug-in whose signature is a noise's."""
    field = f"{field}.name"
    found: Any = registry.lookup(name, NOISES, field=field)
    if not isinstance(found, Noise):
        found = Noise(found, getattr(found, "matrix", None))
    try:
        signature = inspect.signature(found.fn)
        keywords = dict.fromkeys(parameters.keyword_only(found.fn))
        signature.bind(None, None, **keywords)
    except (TypeError, ValueError) as error:
        raise InputError(
            f"{field}: got {name!r}, expected a function (key, labels, *, parameters)"
        ) from error
    return found


def _given(
    config: Mapping[str, Any], field: str
) -> tuple[dict[str, Any], dict[str, str]]:
    """Parameters of a config that are not None, and the name of each in messages."""
    more = config.get("parameters")
    if more is None:
        more = {}
    if not hasattr(more, "items") or not all(isinstance(key, str) for key in more):
        raise InputError(
            f"{field}.parameters: got {checks.shown(more)}, expected a mapping of names"
        )
    own = {key: value for key, value in config.items() if key not in _OTHER_FIELDS}
    given: dict[str, Any] = {}
    fields: dict[str, str] = {}
    for values, prefix in ((own, field), (more, f"{field}.parameters")):
        for name, value in values.items():
            if value is None:
                continue
            if name in given:
                raise InputError(
                    f"{prefix}.{name}: got {checks.shown(value)}, expected None, as "
                    f"{fields[name]} is given"
                )
            given[name], fields[name] = _plain(value), f"{prefix}.{name}"
    return given, fields


def _build_each(configs: Any, num_classes: int, field: str) -> tuple[_Built, ...]:
    """Builds the noises inside another noise."""
    expected = "expected a mapping with a name for each noise"
    if not isinstance(configs, tuple) or not configs:
        raise InputError(f"{field}: got {checks.shown(configs)}, {expected}")
    for config in configs:
        if not hasattr(config, "items"):  # a ConfigDict is no Mapping
            raise InputError(f"{field}: got {checks.shown(config)}, {expected}")
    return tuple(
        _build(config, num_classes, f"{field}[{index}]")
        for index, config in enumerate(configs)
    )


def _plain(value: Any) -> Any:
    """Returns lists of a config as tuples, which can be hashed."""
    if isinstance(value, list | tuple):
        return tuple(_plain(item) for item in value)
    return value
