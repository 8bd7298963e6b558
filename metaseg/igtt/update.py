"""From the scores of one round to the labels of the next.

May import `thresholds`, `polarity`, `refine`, `targets`, `noise`, `labels`, `checks`
and `errors`.
"""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from metaseg import checks, noise
from metaseg.errors import InputError
from metaseg.igtt.polarity import orient
from metaseg.igtt.refine import fit_boundary, open_masks
from metaseg.igtt.targets import ems
from metaseg.igtt.thresholds import best_mask
from metaseg.labels import VOID

__all__ = ["average", "masks", "stability", "to_labels", "update_labels"]


def masks(
    scores: jax.Array,
    valid: jax.Array | None = None,
    images: jax.Array | None = None,
    *,
    criterion: str = "dmi",
    num_thresholds: int = 30,
    polarity: str = "smaller",
    min_radius: int = 0,
    boundary_sigma: float = 0.0,
) -> jax.Array:
    """`orient(best_mask(scores))`: how scores are read, in training and after it.

    Args:
      scores: as in `agreement`.
      valid: as in `agreement`.
      images: float `[..., H, W, C]`, where polarity or boundary need them.
      criterion: as in `agreement`.
      num_thresholds: as in `agreement`.
      polarity: as in `orient`.
      min_radius: radius of the smallest object, as in `open_masks`; 0 keeps all.
      boundary_sigma: bandwidth of `fit_boundary`, pixels, static; 0 moves no boundary.

    Returns:
      Boolean `[..., H, W]`, false where not valid.

    Raises:
      InputError: as these functions do, or images that are needed are missing.
    """
    found = best_mask(scores, valid, criterion=criterion, num_thresholds=num_thresholds)
    found = orient(found, valid, images, polarity=polarity)
    checks.integer("min_radius", min_radius, 0, "pixels")
    if min_radius:
        found = open_masks(found, valid, min_radius=min_radius)
    checks.number("boundary_sigma", boundary_sigma, 0, unit="pixels")
    if boundary_sigma:
        if images is None:
            raise InputError("images: got None, boundary_sigma needs them")
        found = fit_boundary(found, images, valid, bandwidth=boundary_sigma)
    return found


def to_labels(mask: jax.Array, valid: jax.Array | None = None) -> jax.Array:
    """Masks as labels, uint8 `[..., H, W]`: 1 in the mask, void where not valid."""
    found = mask.astype(jnp.uint8)
    return found if valid is None else jnp.where(valid, found, jnp.uint8(VOID))


def update_labels(
    key: jax.Array,
    scores: jax.Array,
    ids: jax.Array,
    images: jax.Array | None = None,
    valid: jax.Array | None = None,
    *,
    keep: noise.NoiseFn = ems,
    criterion: str = "dmi",
    num_thresholds: int = 30,
    polarity: str = "smaller",
    min_radius: int = 0,
    boundary_sigma: float = 0.0,
) -> jax.Array:
    """The next round's labels of a batch, from the scores of this one.

    What is drawn for an example depends on the key and its id alone, not on the batch:
    fold the round into the key.

    Args:
      key: typed PRNG key.
      scores: float `[B, H, W]`.
      ids: integer `[B]`.
      images: float `[B, H, W, C]`, where polarity or boundary need them.
      valid: boolean `[B, H, W]`; by default every pixel is.
      keep: what is kept of the masks: `target(...)`.
      criterion: as in `agreement`.
      num_thresholds: as in `agreement`.
      polarity: as in `orient`.
      min_radius: as in `masks`.
      boundary_sigma: as in `masks`.

    Returns:
      uint8 `[B, H, W]`, void where not valid.

    Raises:
      InputError: as `masks` does.
    """
    found = masks(
        scores,
        valid,
        images,
        criterion=criterion,
        num_thresholds=num_thresholds,
        polarity=polarity,
        min_radius=min_radius,
        boundary_sigma=boundary_sigma,
    )
    return noise.per_example(keep)(key, to_labels(found, valid), ids)


def average(
    previous: jax.Array, new: jax.Array, round_index: ArrayLike, *, decay: float
) -> jax.Array:
    """Moving average over rounds of masks or scores, float32 `[..., H, W]`.

    Args:
      previous: the average up to the round before; of no effect in round 0.
      new: this round's, float or boolean.
      round_index: counted from 0; may be traced. The plain mean of all rounds at first,
        until its weights reach the decay's.
      decay: weight of what was, in [0, 1]; 0 forgets it.

    Raises:
      InputError: wrong decay.
    """
    checks.number("decay", decay, 0, 1)
    kept = jnp.minimum(decay, round_index / (jnp.asarray(round_index, jnp.float32) + 1))
    return kept * previous + (1 - kept) * new.astype(jnp.float32)


def stability(masks: jax.Array, previous: jax.Array) -> jax.Array:
    """IoU of each mask with that of the round before; 1 if both are empty.

    Masks that no longer change are a reason to stop that needs no label. They say that
    the loop has settled, not that it has settled on the objects.

    Args:
      masks: boolean `[..., H, W]`.
      previous: boolean `[..., H, W]`.

    Returns:
      float32 `[...]`.
    """
    shared = jnp.sum(masks & previous, axis=(-2, -1))
    either = jnp.sum(masks | previous, axis=(-2, -1))
    return jnp.where(either > 0, shared / jnp.maximum(either, 1), 1.0)
