"""The training and evaluation steps: pure functions of state, data and keys.

Noise, augmentation, network, loss and update are one program, so that labels are
corrupted on device when they are needed and one call runs many steps. May import
`batch`, `decoding`, `losses`, `errors` and `typing`.
"""

from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache, partial
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import struct
from jaxtyping import Integer

from metaseg import decoding
from metaseg.batch import Batch
from metaseg.errors import InputError
from metaseg.losses import SumsFn
from metaseg.typing import AnyArray, Matrix

__all__ = [
    "Step",
    "TrainState",
    "create_state",
    "default_steps_per_dispatch",
    "eval_step",
    "evaluate",
    "gather",
    "mapped",
    "state_shapes",
    "train_step",
    "train_steps",
]

NoiseFn = Callable[[jax.Array, jax.Array], jax.Array]
AugmentFn = Callable[
    [jax.Array, jax.Array, jax.Array, jax.Array], tuple[jax.Array, jax.Array]
]


class TrainState(struct.PyTreeNode):
    """Everything that a step changes.

    Attributes:
      step: Number of steps taken, int32 scalar.
      params: Parameters of the network.
      batch_stats: Running statistics of batch norm; empty for other norms.
      opt_state: State of the optimizer.
      ema_params: Exponential moving average of `params` and `batch_stats`, which is
        evaluated in their place; None if no average is kept.
    """

    step: jax.Array
    params: Any
    batch_stats: Any
    opt_state: optax.OptState
    ema_params: Any = None

    def variables(self) -> dict[str, Any]:
        """Returns the variables to evaluate: the average if one is kept."""
        if self.ema_params is not None:
            return dict(self.ema_params)
        return {"params": self.params, "batch_stats": self.batch_stats}


def gather(data: Batch, rows: Integer[AnyArray, "B"]) -> Batch:
    """Takes examples by their rows from data on the device.

    Args:
      data: All examples.
      rows: Rows, integer `[B]`.

    Returns:
      A batch of B examples.
    """
    return jax.tree.map(lambda x: x[rows], data)


class Step(NamedTuple):
    """The static parts of a training step, which are the same during a run.

    Attributes:
      model: Flax network, `images -> logits`.
      optimizer: Optax gradient transformation.
      loss: `(logits, labels) -> losses.Sums`; a step minimises the mean of the sums.
      noise: `(key, label) -> label` for one example.
      augment: `(key, image, label, valid_size) -> (image, label)` for one example.
      online: Whether the noise of an example is drawn anew in each step; otherwise it
        is the same in every epoch.
      ema_decay: Decay of the moving average of the weights; 0 keeps none.
      gather: `(data, rows) -> batch`; by default takes `rows` of the arrays of `data`.
        For examples rendered on the device, `rows` may be their ids.
      grad_accum_steps: Number of parts of a batch that are differentiated one after the
        other for one update. Batch norm sees each part alone; everything else is as for
        the whole batch.
      axis_name: Name of the mapped axis along which the batch continues on other
        devices, for `jax.pmap`; None for `jax.jit`, whose arrays are global.
    """

    model: nn.Module
    optimizer: optax.GradientTransformation
    loss: SumsFn
    noise: NoiseFn
    augment: AugmentFn
    online: bool = False
    ema_decay: float = 0.0
    gather: Callable[[Any, jax.Array], Batch] = gather
    grad_accum_steps: int = 1
    axis_name: str | None = None


def mapped(parts: Step, axis_name: str | None) -> Step:
    """Returns the step for a batch that is spread over a mapped axis.

    Args:
      parts: Static parts of the step.
      axis_name: Name of the axis of `jax.pmap`; None for a batch in one piece.

    Returns:
      The static parts, with the network told of the axis too.

    Raises:
      InputError: If the network has no field `axis_name`.
    """
    if axis_name is None:
        return parts
    if not hasattr(parts.model, "axis_name"):
        raise InputError(
            f"parallel.partitioner: got 'pmap', but {type(parts.model).__name__} has "
            "no field axis_name; expected 'jit'"
        )
    model = parts.model.clone(axis_name=axis_name)
    return parts._replace(model=model, axis_name=axis_name)


@lru_cache(maxsize=8)  # an ensemble calls it once for each member
def _init(model: nn.Module) -> Any:
    # Compiled as a whole, since an eager call would compile each operation alone; not
    # optimised, since it runs once and random numbers take long to optimise.
    return jax.jit(
        partial(model.init, train=False),
        compiler_options={"xla_backend_optimization_level": 0},
    )


def create_state(
    key: jax.Array,
    model: nn.Module,
    optimizer: optax.GradientTransformation,
    image_shape: tuple[int, int, int],
    *,
    ema: bool = False,
) -> TrainState:
    """Draws initial weights.

    Args:
      key: PRNG key.
      model: Flax network.
      optimizer: Optax gradient transformation.
      image_shape: `(H, W, C)` of the image that the network is traced with.
      ema: Whether to keep a moving average of the weights.

    Returns:
      The state at step 0.
    """
    image = jnp.zeros((1, *image_shape), jnp.float32)
    return _fresh(_init(model)(key, image), optimizer, ema)


def state_shapes(
    model: nn.Module,
    optimizer: optax.GradientTransformation,
    image_shape: tuple[int, int, int],
    *,
    ema: bool = False,
) -> TrainState:
    """Returns the shapes and types of what `create_state` returns; draws nothing.

    Args:
      model: Flax network.
      optimizer: Optax gradient transformation.
      image_shape: `(H, W, C)` of the image that the network is traced with.
      ema: Whether there is a moving average of the weights.

    Returns:
      The state, with `jax.ShapeDtypeStruct` in place of arrays.
    """
    image = jax.ShapeDtypeStruct((1, *image_shape), jnp.float32)
    variables = _init(model).eval_shape(jax.random.key(0), image)
    fresh = partial(_fresh, optimizer=optimizer, ema=ema)
    shapes: TrainState = jax.eval_shape(fresh, variables)
    return shapes


def _fresh(
    variables: Any, optimizer: optax.GradientTransformation, ema: bool
) -> TrainState:
    """The state at step 0 of a network with these variables."""
    params, batch_stats = variables["params"], variables.get("batch_stats", {})
    kept = {"params": params, "batch_stats": batch_stats}
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        params=params,
        batch_stats=batch_stats,
        opt_state=optimizer.init(params),
        ema_params=jax.tree.map(jnp.array, kept) if ema else None,
    )


class _Keys(NamedTuple):
    noise: jax.Array
    augment: jax.Array


def _corrupt_and_augment(
    parts: Step, batch: Batch, places: jax.Array, keys: _Keys
) -> tuple[jax.Array, jax.Array]:
    """Noisy, augmented `(images, labels)` of a batch.

    The noise key is folded with the id of an example only, so its noise depends on
    nothing else in the batch. The augmentation key is folded with the place of the
    example in the batch.
    """

    def one(example: Batch, place: jax.Array) -> tuple[jax.Array, jax.Array]:
        noisy = parts.noise(jax.random.fold_in(keys.noise, example.ids), example.labels)
        key = jax.random.fold_in(keys.augment, place)
        return parts.augment(key, example.images, noisy, example.valid_size)

    return jax.vmap(one)(batch, places)


def _sum(parts: Step, tree: Any) -> Any:
    """The sum over all devices of the mapped axis, if there is one."""
    return tree if parts.axis_name is None else jax.lax.psum(tree, parts.axis_name)


class _Gradient(NamedTuple):
    """Gradient of the mean loss over `weight` terms, and the statistics afterwards."""

    weight: jax.Array
    loss: jax.Array
    params: Any
    batch_stats: Any


def _differentiate(
    parts: Step,
    params: Any,
    batch_stats: Any,
    batch: Batch,
    places: jax.Array,
    keys: _Keys,
) -> _Gradient:
    images, labels = _corrupt_and_augment(parts, batch, places, keys)

    def objective(params: Any) -> tuple[jax.Array, Any]:
        logits, updated = parts.model.apply(
            {"params": params, "batch_stats": batch_stats},
            images,
            train=True,
            mutable=["batch_stats"],
        )
        sums = parts.loss(logits, labels)
        # This device's share of the mean over all devices.
        share = sums._replace(weight=_sum(parts, sums.weight)).mean()
        return share, (sums.weight, updated.get("batch_stats", {}))

    (share, (weight, stats)), gradient = jax.value_and_grad(objective, has_aux=True)(
        params
    )
    weight, loss, gradient = _sum(parts, (weight, share, gradient))
    return _Gradient(weight, loss, gradient, stats)


def _accumulate(
    parts: Step, state: TrainState, batch: Batch, places: jax.Array, keys: _Keys
) -> _Gradient:
    """The gradient of a batch taken in parts: the weighted mean of their gradients.

    Part j holds every `grad_accum_steps`-th example from the j-th on. So every device
    has an equal share of each part, and a part is the same for any number of devices.
    """
    count = parts.grad_accum_steps

    def in_parts(x: jax.Array) -> jax.Array:
        return x.reshape(-1, count, *x.shape[1:]).swapaxes(0, 1)

    def add(total: _Gradient, part: tuple[Batch, jax.Array]) -> tuple[_Gradient, None]:
        new = _differentiate(parts, state.params, total.batch_stats, *part, keys)
        weight = total.weight + new.weight.astype(jnp.float32)
        share = new.weight / jnp.maximum(weight, 1)
        loss, params = jax.tree.map(
            lambda old, new: old + share * (new - old),
            (total.loss, total.params),
            (new.loss, new.params),
        )
        return _Gradient(weight, loss, params, new.batch_stats), None

    nothing = jax.tree.map(jnp.zeros_like, state.params)
    zero = jnp.float32(0)
    start = _Gradient(zero, zero, nothing, state.batch_stats)

    def over_parts(
        start: _Gradient, work: tuple[Batch, jax.Array], unroll: bool
    ) -> Any:
        return jax.lax.scan(add, start, work, unroll=unroll)[0]

    # XLA's CPU backend is slow at convolutions inside loops. Which form is compiled
    # depends on the platform that the step is lowered for.
    return jax.lax.platform_dependent(
        start,
        jax.tree.map(in_parts, (batch, places)),
        cpu=partial(over_parts, unroll=True),
        default=partial(over_parts, unroll=False),
    )


def train_step(
    parts: Step,
    state: TrainState,
    batch: Batch,
    noise_key: jax.Array,
    augment_key: jax.Array,
) -> tuple[TrainState, jax.Array]:
    """Updates the weights once, on one batch.

    Args:
      parts: Static parts of the step.
      state: State before the step.
      batch: Examples with clean labels, which the step corrupts. With
        `parts.axis_name`, the part of the batch on this device.
      noise_key: PRNG key of the noise, the same for the whole run.
      augment_key: PRNG key of the augmentation, the same for the whole run.

    Returns:
      `(state, loss)`: the state after the step, and the loss before it, a float32
      scalar that is NaN if a gradient is not finite.
    """
    if parts.online:
        noise_key = jax.random.fold_in(noise_key, state.step)
    keys = _Keys(noise_key, jax.random.fold_in(augment_key, state.step))
    places = jnp.arange(len(batch.ids))
    if parts.axis_name is not None:
        places += jax.lax.axis_index(parts.axis_name) * len(places)
    if parts.grad_accum_steps > 1:
        found = _accumulate(parts, state, batch, places, keys)
    else:
        found = _differentiate(
            parts, state.params, state.batch_stats, batch, places, keys
        )
    batch_stats = found.batch_stats
    finite = [jnp.isfinite(x).all() for x in jax.tree.leaves(found.params)]
    loss = jnp.where(jnp.stack(finite).all(), found.loss, jnp.nan)
    updates, opt_state = parts.optimizer.update(
        found.params, state.opt_state, state.params
    )
    params = optax.apply_updates(state.params, updates)
    ema_params = state.ema_params
    if ema_params is not None:
        # A small decay in the first steps soon forgets the initial weights.
        decay = jnp.minimum(parts.ema_decay, (state.step + 1) / (state.step + 10))
        new = {"params": params, "batch_stats": batch_stats}
        # The average and the new weights change places, so that `decay` itself and not
        # `1 - (1 - decay)`, which rounds, multiplies the average.
        ema_params = optax.incremental_update(ema_params, new, decay)
    return (
        TrainState(state.step + 1, params, batch_stats, opt_state, ema_params),
        loss,
    )


def train_steps(
    parts: Step,
    state: TrainState,
    data: Any,
    rows: jax.Array,
    count: jax.Array,
    noise_key: jax.Array,
    augment_key: jax.Array,
) -> tuple[TrainState, jax.Array]:
    """Updates the weights several times in one call, with the data on the device.

    Args:
      parts: Static parts of the step.
      state: State before the first step.
      data: First argument of `parts.gather`; by default the whole training split.
      rows: Integer `[steps, batch]`, rows of `data` that make up each batch.
      count: Number of steps to take, at most `steps`, so that one program serves a last
        call with fewer steps; of no effect if `steps` is 1.
      noise_key: As in `train_step`.
      augment_key: As in `train_step`.

    Returns:
      `(state, losses)`: the state after the last step, and float32 losses `[steps]`, 0
      for steps that were not taken.
    """

    def one(i: jax.Array | int, carry: tuple[TrainState, jax.Array]) -> Any:
        state, losses = carry
        batch = parts.gather(data, rows[i])
        state, loss = train_step(parts, state, batch, noise_key, augment_key)
        return state, losses.at[i].set(loss)

    start = (state, jnp.zeros(len(rows), jnp.float32))
    if len(rows) == 1:
        return one(0, start)
    return jax.lax.fori_loop(0, count, one, start)


def default_steps_per_dispatch(platform: str | None = None) -> int:
    """Returns the number of steps that `train_steps` should take per call.

    A loop of steps saves the host's part of each step. On a CPU the number is 1: XLA's
    CPU backend runs convolutions inside loops seven to eleven times slower than
    outside, and a dispatch there costs little beside a step.

    Args:
      platform: "cpu", "cuda", "tpu", ...; by default that of JAX's default backend.

    Returns:
      The number of steps.
    """
    return 1 if (platform or jax.default_backend()) == "cpu" else 20


class Evaluation(NamedTuple):
    """Scores of images against their clean labels.

    Attributes:
      statistics: Counts of each image, from which the measures follow.
      loss: Loss of each image, float32 `[N]`.
    """

    statistics: decoding.Statistics
    loss: jax.Array


def eval_step(
    parts: Step, variables: Any, batch: Batch, matrix: Matrix | None
) -> tuple[Evaluation, jax.Array]:
    """Scores a batch of whole images against their clean labels.

    Args:
      parts: Static parts of the step, of which it uses network and loss.
      variables: Variables of the network, of `TrainState.variables`.
      batch: Examples; void pixels never count.
      matrix: `[K, K]` noise transition matrix of the training labels, or None.

    Returns:
      `(evaluation, probability)`: statistics and loss of each image, and float32 class
      probabilities `[N, H, W, K]`, which XLA does not compute if they are not used.
    """
    logits: Any = parts.model.apply(variables, batch.images, train=False)
    loss = jax.vmap(parts.loss)(logits, batch.labels).mean()
    statistics = decoding.statistics(logits, batch.labels, matrix)
    return Evaluation(statistics, loss), decoding.probabilities(logits)


def evaluate(
    step: Callable[[Any, Batch], tuple[Evaluation, Any]],
    variables: Any,
    examples: Iterable[Batch],
    count: int,
    *,
    keep: int = 0,
    axis: int = 0,
    to_host: Callable[[Any], np.ndarray] = np.asarray,
) -> tuple[Evaluation, np.ndarray | None]:
    """Runs a compiled evaluation step over a split.

    Args:
      step: `eval_step` with its static parts bound.
      variables: First argument of `step`, such as `TrainState.variables()`.
      examples: Batches of one size; the last one is filled up.
      count: Number of examples in the split.
      keep: Number of leading examples whose probabilities are kept.
      axis: Axis of the results along which the examples lie; 1 if `step` evaluates
        several networks.
      to_host: Function that copies an array of the step to the host.

    Returns:
      `(evaluation, probability)`: NumPy statistics and losses of all examples in the
      order of the split, and class probabilities `[keep, H, W, K]`, or None if `keep`
      is 0.
    """
    found, kept, seen = [], [], 0
    for batch in examples:
        evaluation, probability = step(variables, batch)
        found.append(evaluation)
        if seen < keep:
            kept.append(to_host(probability))
        seen += evaluation.loss.shape[axis]

    def join(parts: Sequence[Any], most: int) -> np.ndarray:
        joined = np.concatenate([to_host(x) for x in parts], axis)
        return joined.take(np.arange(min(most, joined.shape[axis])), axis)

    joined = jax.tree.map(lambda *x: join(x, count), *found)
    return joined, join(kept, min(keep, count)) if kept else None
