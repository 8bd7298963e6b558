"""The training and evaluation steps of a run: built from its settings, compiled."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from metaseg import losses, models, noise, optimizers, parallel, training
from metaseg.batch import Batch
from metaseg.data import augment
from metaseg.parallel import Layout
from metaseg.runs.training import feeds, members

__all__ = ["Programs", "build", "functions"]


class Programs(NamedTuple):
    """The compiled steps of a run.

    Attributes:
      layout: Layout of all arguments.
      settings: See `members.StepSettings`; laid out.
      train: `(settings, state, data, rows, count) -> (state, losses)`.
      evaluate: `(settings, state, batch) -> (evaluation, probability)`.
      compile_evaluate: `(state, batch) -> evaluate` for images of another size.
      flops_per_image: FLOPs of the network in training.
    """

    layout: Layout
    settings: Any
    train: parallel.Program
    evaluate: parallel.Program
    compile_evaluate: Callable[[Any, Any], parallel.Program]
    flops_per_image: int


def build(config: ConfigDict) -> training.Step:
    """Builds the static parts of the training step.

    Args:
      config: Settings of one run.

    Returns:
      The parts of the step.

    Raises:
      InputError: If a field of noise, network, loss or optimizer is wrong.
    """
    num_classes = config.data.num_classes
    gather = feeds.renderer(config) if config.data.endless else training.gather
    return training.Step(
        model=models.build(config.model, num_classes),
        optimizer=optimizers.build(config.optimizer, config.training.steps),
        loss=losses.build(config.loss),
        noise=noise.build(config.noise, num_classes),
        augment=_augmentation(config.augment),
        online=config.noise.online,
        ema_decay=config.optimizer.ema_decay,
        gather=gather,
        grad_accum_steps=config.training.grad_accum_steps,
    )


def _augmentation(c: ConfigDict) -> training.AugmentFn:
    def augment_example(
        key: jax.Array, image: jax.Array, label: jax.Array, valid_size: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        k_crop, k_dihedral, k_light = jax.random.split(key, 3)
        if c.crop:
            size = (c.crop, c.crop)
            image, label = augment.crop(k_crop, image, label, valid_size, size=size)
        image, label = augment.dihedral(
            k_dihedral,
            image,
            label,
            flip=c.flip,
            rot90=c.rot90,
            horizontal_flip_only=c.horizontal_flip_only,
        )
        if c.illumination or c.modulation:
            image = augment.illumination(
                jax.random.fold_in(k_light, 1),
                image,
                amplitude=c.illumination,
                modulation=c.modulation,
            )
        image = augment.brightness_contrast(
            k_light, image, brightness=c.brightness, contrast=c.contrast
        )
        return image, label

    return augment_example


def functions(
    config: ConfigDict, layout: Layout, gather: Callable[[Any, jax.Array], Batch]
) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """Returns the training and the evaluation step as pure functions of arrays.

    Args:
      config: Settings of one run.
      layout: Layout of the arguments.
      gather: `training.Step.gather` of the run's feed.

    Returns:
      `(train_steps, eval_step)`; their arguments are those of `Programs`.
    """

    def parts(settings: members.StepSettings) -> training.Step:
        bound = build(members.bind(config, settings.values))
        bound = training.mapped(bound, layout.axis_name)
        return bound._replace(gather=gather)

    def train_steps(
        settings: members.StepSettings, state: Any, data: Any, rows: Any, count: Any
    ) -> Any:
        noise_key, augment_key = (
            jax.random.wrap_key_data(jnp.asarray(key))
            for key in (settings.noise_key, settings.augment_key)
        )
        return training.train_steps(
            parts(settings), state, data, rows, count, noise_key, augment_key
        )

    def eval_step(settings: members.StepSettings, state: Any, batch: Batch) -> Any:
        return training.eval_step(
            parts(settings), state.variables(), batch, settings.matrix
        )

    return train_steps, eval_step
