"""The compiled functions of iGTT: steps, scores, labels of scores, masks of scores."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from metaseg import decoding, igtt, noise, training
from metaseg.batch import Batch
from metaseg.parallel import Layout, Program
from metaseg.runs.igtt.images import Images, in_batches
from metaseg.runs.training import feeds, steps
from metaseg.runs.training.setup import Setup

__all__ = [
    "INITIAL_THRESHOLDS",
    "IgttPrograms",
    "Placed",
    "build",
    "first_masks",
    "joined",
    "label_dtype",
    "label_key",
    "labels",
    "place",
    "read",
    "reader",
    "thresholds",
]

PIXELS = 1 << 22  # most pixels scored at once; larger images make smaller batches
INITIAL_THRESHOLDS = 256  # for the first labels, whose scores span the whole range


class Placed(NamedTuple):
    """A batch of images, and its pixels on the device for scoring.

    Attributes:
      images: The images.
      pixels: Their pixels as the layout has put them.
    """

    images: Images
    pixels: Any


class IgttPrograms(NamedTuple):
    """Compiled functions that every variant of a run shares.

    Attributes:
      train: `(settings, state, data, rows, count) -> (state, losses)`.
      score: `(settings, state, pixels) -> ((), foreground probability)`.
      first: `images -> masks` that the image alone gives.
      update: See `_update`.
      steps: Number of steps that `train` takes at once.
    """

    train: Program
    score: Program
    first: Callable[..., Any]
    update: Callable[..., Any]
    steps: int


def label_dtype(config: ConfigDict) -> Any:
    """Returns the type of the labels trained on: class ids, or soft.

    Args:
      config: Settings of a run.
    """
    return np.float32 if config.igtt.target_sigma else np.uint8


def place(config: ConfigDict, layout: Layout, images: Images) -> list[Placed]:
    """Splits images into batches for scoring and puts their pixels on the device.

    Args:
      config: Settings of a run.
      layout: How the run is laid out over devices.
      images: The images.

    Returns:
      The batches.
    """
    height, width = images.valid.shape[1:]
    most = max(1, PIXELS // (height * width))
    size = layout.round_up(min(config.training.eval_batch_size, most))
    return [
        Placed(batch, layout.put_batch(batch.pixels))
        for batch in in_batches(images, size)
    ]


def build(made: Setup, state: Any, data: Batch, placed: Placed) -> IgttPrograms:
    """Compiles training and scoring for a state and data laid out like these.

    Args:
      made: Parts of the run.
      state: Train state.
      data: Training images with labels.
      placed: A batch of images for scoring.

    Returns:
      The compiled programs.
    """
    config, layout = made.members[0], made.layout
    train_steps, _ = steps.functions(config, layout, training.gather)
    settings = layout.put_settings(made.settings)
    count = feeds.steps_per_dispatch(config)
    rows = layout.put_rows(np.zeros((count, config.training.batch_size), np.int32))

    def score(settings: Any, state: Any, pixels: Any) -> tuple[tuple[()], jax.Array]:
        del settings
        model = made.parts.model
        logits: Any = model.apply(state.variables(), pixels, train=False)
        return (), decoding.probabilities(logits)[..., 1]

    return IgttPrograms(
        layout.train(train_steps, settings, state, data, rows, 1),
        layout.evaluate(score, settings, state, placed.pixels),
        jax.jit(partial(first_masks, config, config.igtt.start)),
        jax.jit(partial(_update, config)),
        count,
    )


def label_key(config: ConfigDict, round_: int) -> jax.Array:
    """Returns the key of the labels of a round; the first labels have round 0.

    Args:
      config: Settings of a run.
      round_: Number of the round.
    """
    key = jax.random.split(jax.random.key(config.seed), 3)[2]
    return jax.random.fold_in(key, round_)


def labels(config: ConfigDict, target: str) -> Callable[..., Any]:
    """Compiles the function from masks to labels.

    Args:
      config: Settings of a run.
      target: Part of a mask that becomes the label, one of `igtt.TARGETS`.

    Returns:
      `(key, masks, images) -> labels`.
    """
    c = config.igtt
    keep = noise.per_example(igtt.target(target, radius=c.radius, fraction=c.fraction))

    def label(key: jax.Array, masks: jax.Array, images: Images) -> jax.Array:
        found = keep(key, igtt.to_labels(masks, images.valid), images.ids)
        return (
            igtt.soft_targets(found, bandwidth=c.target_sigma)
            if c.target_sigma
            else found
        )

    return jax.jit(label)


def first_masks(
    config: ConfigDict, start: str, images: Images, *, refined: bool = True
) -> jax.Array:
    """Computes the masks that the images alone give.

    Args:
      config: Settings of a run.
      start: Method, see `config.igtt.start`.
      images: B images.
      refined: Whether small objects are dropped and boundaries moved.

    Returns:
      Boolean `[B, H, W]`.
    """
    c = config.igtt
    if start == "black":
        return jnp.zeros(images.valid.shape, bool)
    if start == "intensity":
        scores = igtt.intensity(images.pixels)
    else:
        scores = igtt.local_contrast(
            images.pixels, images.valid, sigma_coarse=c.sigma_coarse
        )
    own = {"criterion": "otsu", "num_thresholds": INITIAL_THRESHOLDS}
    return _masks(config, scores, images, refined=refined, **own)


def read(
    config: ConfigDict, scores: jax.Array, images: Images, *, supervised: bool = False
) -> jax.Array:
    """Computes masks from scores.

    Args:
      config: Settings of a run.
      scores: Probabilities of the foreground, `[B, H, W]`.
      images: B images.
      supervised: Whether the network was trained on true labels: then the threshold is
        one half, else the best one of each image.

    Returns:
      Boolean `[B, H, W]`.
    """
    if supervised:
        half = decoding.argmax_threshold()
        return decoding.is_foreground(scores, *half) & images.valid
    return _masks(config, scores, images, refined=True)


def thresholds(
    config: ConfigDict, scores: jax.Array, images: Images
) -> tuple[jax.Array, jax.Array]:
    """Computes the best threshold of the scores of each image.

    Args:
      config: Settings of a run.
      scores: Probabilities of the foreground, `[B, H, W]`.
      images: B images.

    Returns:
      Thresholds `[B]`, NaN where there is none, and boolean `[B]`, whether foreground
      is below the threshold.
    """
    c = config.igtt
    own = {"criterion": c.criterion, "num_thresholds": c.num_thresholds}
    above = igtt.best_mask(scores, images.valid, **own)
    mask = igtt.orient(above, images.valid, images.pixels, polarity=c.polarity)
    inverted = (mask & ~above).any(axis=(-2, -1))
    return igtt.best_threshold(scores, images.valid, **own), inverted


def _masks(
    config: ConfigDict,
    scores: jax.Array,
    images: Images,
    *,
    refined: bool,
    **changes: Any,
) -> jax.Array:
    c = config.igtt
    settings: dict[str, Any] = {
        "criterion": c.criterion,
        "num_thresholds": c.num_thresholds,
        "polarity": c.polarity,
    }
    if refined:
        settings |= {"min_radius": c.min_radius, "boundary_sigma": c.boundary_sigma}
    return igtt.masks(scores, images.valid, images.pixels, **(settings | changes))


def _update(
    config: ConfigDict,
    round_: jax.Array,
    scores: jax.Array,
    ema_scores: jax.Array | None,
    before: jax.Array,
    images: Images,
) -> tuple[jax.Array, jax.Array | None, jax.Array]:
    """The masks of a round from its scores.

    Args:
      config: of the run.
      round_: counted from 0.
      scores: `[B, H, W]`.
      ema_scores: Average of the scores of all rounds before, or None to keep none.
      before: masks of the round before.
      images: that are scored.

    Returns:
      Masks, the new average, and the stability of each mask.
    """
    if ema_scores is not None:
        decay = config.igtt.ema_decay
        scores = ema_scores = igtt.ema(ema_scores, scores, round_, decay=decay)
    masks = read(config, scores, images)
    return masks, ema_scores, igtt.stability(masks, before)


def joined(layout: Layout, parts: Sequence[Any], count: int) -> Any:
    """Joins the results of consecutive batches on the host.

    Args:
      layout: How the run is laid out over devices.
      parts: Results of the batches.
      count: Number of images; what follows filled up the last batch.

    Returns:
      The joined arrays.
    """
    return jax.tree.map(
        lambda *x: np.concatenate([layout.to_host(each) for each in x])[:count], *parts
    )


def reader(config: ConfigDict, *, supervised: bool) -> Callable[..., jax.Array]:
    """Compiles `read`.

    Args:
      config: Settings of a run.
      supervised: As in `read`.

    Returns:
      `(scores, images) -> masks`.
    """
    return jax.jit(partial(read, config, supervised=supervised))
