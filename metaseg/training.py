"""The training and evaluation steps: pure functions of state, data and keys.

Noise, augmentation, network, loss and update are one program, so that labels are
corrupted on device as they are needed and many steps run per dispatch. May import
`labels`, `losses`, `readings` and `models`, never `data` or `report`.
"""

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, NamedTuple

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import struct

from metaseg import readings
from metaseg.batch import Batch

__all__ = [
    "Step",
    "TrainState",
    "create_state",
    "default_steps_per_dispatch",
    "eval_step",
    "evaluate",
    "gather",
    "train_step",
    "train_steps",
]

NoiseFn = Callable[[jax.Array, jax.Array], jax.Array]
AugmentFn = Callable[
    [jax.Array, jax.Array, jax.Array, jax.Array], tuple[jax.Array, jax.Array]
]
LossFn = Callable[[jax.Array, jax.Array], jax.Array]


class TrainState(struct.PyTreeNode):
    """Everything that a step changes.

    Attributes:
      step: int32 scalar, steps taken.
      params: network parameters.
      batch_stats: running statistics of batch norm; empty for other norms.
      opt_state: state of the optax chain.
      average: exponential moving average of `params` and `batch_stats`, evaluated in
        their place; None if no average is kept.
    """

    step: jax.Array
    params: Any
    batch_stats: Any
    opt_state: optax.OptState
    average: Any = None

    def variables(self) -> dict[str, Any]:
        """What to evaluate with: the average if one is kept."""
        if self.average is not None:
            return dict(self.average)
        return {"params": self.params, "batch_stats": self.batch_stats}


def gather(data: Batch, rows: jax.Array) -> Batch:
    """The examples of `rows` `[B]` of data that live on the device."""
    return jax.tree.map(lambda x: x[rows], data)


class Step(NamedTuple):
    """The static parts of a training step, bound once per run.

    Attributes:
      model: Flax network, `images -> logits`.
      optimizer: optax chain.
      loss: `(logits, labels) -> scalar`.
      noise: `(key, label) -> label` for one example.
      augment: `(key, image, label, extent) -> (image, label)` for one example.
      online: whether an example's noise is drawn anew each step (else: the same in
        every epoch).
      average: decay of the moving average of the weights; 0 keeps none.
      fetch: `(data, rows) -> batch`; by default `rows` of the arrays of `data`. Where
        examples are rendered, `rows` may be their ids.
    """

    model: nn.Module
    optimizer: optax.GradientTransformation
    loss: LossFn
    noise: NoiseFn
    augment: AugmentFn
    online: bool = False
    average: float = 0.0
    fetch: Callable[[Any, jax.Array], Batch] = gather


def create_state(
    key: jax.Array,
    model: nn.Module,
    optimizer: optax.GradientTransformation,
    image_shape: tuple[int, int, int],
    *,
    average: bool = False,
) -> TrainState:
    """Draws initial weights.

    Args:
      key: typed PRNG key.
      model: Flax network.
      optimizer: optax chain.
      image_shape: `(H, W, C)` that the network is traced with.
      average: whether to keep a moving average of the weights.

    Returns:
      The state at step 0.
    """
    # Compiled: run eagerly, every operation would be compiled on its own.
    # Unoptimised: it runs once, and drawing random numbers takes long to optimise.
    init = jax.jit(
        partial(model.init, train=False),
        compiler_options={"xla_backend_optimization_level": 0},
    )
    variables = init(key, jnp.zeros((1, *image_shape)))
    params, batch_stats = variables["params"], variables.get("batch_stats", {})
    kept = {"params": params, "batch_stats": batch_stats}
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        params=params,
        batch_stats=batch_stats,
        opt_state=optimizer.init(params),
        average=jax.tree.map(jnp.array, kept) if average else None,
    )


def _corrupt_and_augment(
    parts: Step, batch: Batch, noise_key: jax.Array, augment_key: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Noisy, augmented `(images, labels)` of a batch.

    The noise key of an example is folded with its id alone, so its noise depends on
    nothing else in the batch; the augmentation key with its place in the batch.
    """

    def one(example: Batch, place: jax.Array) -> tuple[jax.Array, jax.Array]:
        noisy = parts.noise(jax.random.fold_in(noise_key, example.id), example.label)
        key = jax.random.fold_in(augment_key, place)
        return parts.augment(key, example.image, noisy, example.extent)

    return jax.vmap(one)(batch, jnp.arange(batch.id.shape[0]))


def train_step(
    parts: Step,
    state: TrainState,
    batch: Batch,
    noise_key: jax.Array,
    augment_key: jax.Array,
) -> tuple[TrainState, jax.Array]:
    """One update on one batch.

    Args:
      parts: static parts of the step.
      state: before the step.
      batch: examples with clean labels; corrupted here.
      noise_key: typed key of the noise, the same for the whole run.
      augment_key: typed key of the augmentation, the same for the whole run.

    Returns:
      `(state, loss)` after the step; the loss is NaN if any gradient is not finite.
    """
    if parts.online:
        noise_key = jax.random.fold_in(noise_key, state.step)
    augment_key = jax.random.fold_in(augment_key, state.step)
    images, labels = _corrupt_and_augment(parts, batch, noise_key, augment_key)

    def objective(params: Any) -> tuple[jax.Array, Any]:
        logits, updated = parts.model.apply(
            {"params": params, "batch_stats": state.batch_stats},
            images,
            train=True,
            mutable=["batch_stats"],
        )
        return parts.loss(logits, labels), updated.get("batch_stats", {})

    (loss, batch_stats), gradient = jax.value_and_grad(objective, has_aux=True)(
        state.params
    )
    finite = [jnp.isfinite(x).all() for x in jax.tree.leaves(gradient)]
    loss = jnp.where(jnp.stack(finite).all(), loss, jnp.nan)
    updates, opt_state = parts.optimizer.update(gradient, state.opt_state, state.params)
    params = optax.apply_updates(state.params, updates)
    average = state.average
    if average is not None:
        # The plain mean at first, so that the initial weights are soon forgotten.
        decay = jnp.minimum(parts.average, (state.step + 1) / (state.step + 10))
        new = {"params": params, "batch_stats": batch_stats}
        average = jax.tree.map(lambda a, x: decay * a + (1 - decay) * x, average, new)
    return (
        TrainState(state.step + 1, params, batch_stats, opt_state, average),
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
    """Several updates in one dispatch, on a data set that lives on the device.

    Args:
      parts: static parts of the step.
      state: before the first step.
      data: what `parts.fetch` takes, by default the whole training split.
      rows: `[steps, batch]`, the rows of `data` that make up each batch.
      count: how many of the steps to take, so that one program serves a shorter rest;
        of no effect if `rows` holds a single step.
      noise_key: as in `train_step`.
      augment_key: as in `train_step`.

    Returns:
      `(state, losses)`, the losses `[steps]`, 0 for steps not taken.
    """

    def one(i: jax.Array | int, carry: tuple[TrainState, jax.Array]) -> Any:
        state, losses = carry
        batch = parts.fetch(data, rows[i])
        state, loss = train_step(parts, state, batch, noise_key, augment_key)
        return state, losses.at[i].set(loss)

    start = (state, jnp.zeros(len(rows)))
    if len(rows) == 1:
        return one(0, start)
    return jax.lax.fori_loop(0, count, one, start)


def default_steps_per_dispatch() -> int:
    """Steps that `train_steps` should take at once on the default backend.

    A loop of steps saves the host's part of each step, but XLA's CPU backend runs
    convolutions inside loops seven to eleven times slower than outside, while its
    dispatch costs nothing beside a step: there, one.
    """
    return 1 if jax.default_backend() == "cpu" else 20


class Evaluation(NamedTuple):
    """Statistics per image, and the loss against the clean labels."""

    statistics: readings.Statistics
    loss: jax.Array


def eval_step(
    parts: Step, variables: Any, batch: Batch, matrix: chex.Array | None
) -> tuple[Evaluation, jax.Array]:
    """Scores a batch of whole images against their clean labels.

    Args:
      parts: static parts of the step (network and loss are used).
      variables: of `TrainState.variables`.
      batch: examples; void pixels count in nothing.
      matrix: noise transition matrix of the training labels, or None.

    Returns:
      `(evaluation, probability)`: per-image statistics and losses `[N]`, and class
      probabilities `[N, H, W, K]`, which cost nothing where they are not used.
    """
    logits: Any = parts.model.apply(variables, batch.image, train=False)
    loss = jax.vmap(parts.loss)(logits, batch.label)
    statistics = readings.statistics(logits, batch.label, matrix)
    return Evaluation(statistics, loss), readings.probabilities(logits)


def evaluate(
    step: Callable[[Any, Batch], tuple[Evaluation, jax.Array]],
    variables: Any,
    examples: Iterable[Batch],
    count: int,
    *,
    keep: int = 0,
) -> tuple[Evaluation, np.ndarray | None]:
    """Runs a compiled evaluation step over a split.

    Args:
      step: `eval_step` with its static parts bound.
      variables: of `TrainState.variables`.
      examples: the split in batches of one size, filled up at the end.
      count: examples in the split.
      keep: of how many leading examples to keep the probabilities.

    Returns:
      NumPy statistics and losses of all examples in the split's order, and class
      probabilities `[keep, H, W, K]` or None.
    """
    found, kept, seen = [], [], 0
    for batch in examples:
        evaluation, probability = step(variables, batch)
        found.append(evaluation)
        if seen < keep:
            kept.append(np.asarray(probability))
        seen += len(batch.id)
    joined = jax.tree.map(lambda *x: np.concatenate(x)[:count], *found)
    return joined, np.concatenate(kept)[: min(keep, count)] if kept else None
