"""From the scores of one round to the labels of the next.

May import `thresholds`, `masked`, `polarity`, `refine`, `targets`, `noise`, `labels`,
`checks`, `errors` and `typing`.
"""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Bool, Float, Integer, Real, Shaped, UInt8

from metaseg import checks, noise
from metaseg.errors import InputError
from metaseg.igtt.masked import validity
from metaseg.igtt.polarity import orient
from metaseg.igtt.refine import fit_boundary, open_masks
from metaseg.igtt.targets import ems
from metaseg.igtt.thresholds import best_mask
from metaseg.labels import VOID
from metaseg.typing import AnyArray, Masks, PRNGKey

__all__ = ["ema", "masks", "stability", "to_labels", "update_labels"]


def masks(
    scores: Real[AnyArray, "*batch H W"],
    valid: Masks | None = None,
    images: Real[AnyArray, "*batch H W C"] | None = None,
    *,
    criterion: str = "dmi",
    num_thresholds: int = 30,
    polarity: str = "smaller",
    min_radius: int = 0,
    boundary_sigma: float = 0.0,
) -> Bool[jax.Array, "*batch H W"]:
    """Converts scores to masks, in the same way during training and after it.

    Applies `best_mask` and `orient`, then `open_masks` and `fit_boundary` if they are
    switched on.

    Args:
      scores: Float `[..., H, W]`: foreground probabilities, or any numbers for "otsu".
      valid: Boolean `[..., H, W]`, false at padding; None means all pixels are valid.
      images: Numbers `[..., H, W, C]`. The polarities "brighter" and "darker" and a
        positive `boundary_sigma` need them.
      criterion: One of `CRITERIA`, static; see `agreement`.
      num_thresholds: Number of evenly spaced thresholds, static, >= 3.
      polarity: One of `POLARITIES`, static; see `orient`.
      min_radius: Radius of the smallest object in pixels, static; see `open_masks`. 0
        keeps all objects.
      boundary_sigma: Bandwidth of `fit_boundary` in pixels, static. 0 moves no
        boundary.

    Returns:
      Boolean `[..., H, W]`, false where not valid.

    Raises:
      InputError: If an option is wrong, or `images` are needed and None.
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


def to_labels(
    mask: Masks, valid: Masks | None = None
) -> UInt8[jax.Array, "*batch H W"]:
    """Converts masks to labels.

    Args:
      mask: Boolean `[..., H, W]`.
      valid: Boolean `[..., H, W]`, false at padding; None means all pixels are valid.

    Returns:
      uint8 `[..., H, W]`: 1 in the mask, 0 outside, void (255) where not valid.

    Raises:
      InputError: If the shapes differ.
    """
    found = jnp.asarray(mask, jnp.uint8)
    if valid is None:
        return found
    return jnp.where(validity(found, valid, "mask"), found, jnp.uint8(VOID))


def update_labels(
    key: PRNGKey,
    scores: Real[AnyArray, "B H W"],
    ids: Integer[AnyArray, "B"],
    images: Real[AnyArray, "B H W C"] | None = None,
    valid: Bool[AnyArray, "B H W"] | None = None,
    *,
    keep: noise.NoiseFn = ems,
    criterion: str = "dmi",
    num_thresholds: int = 30,
    polarity: str = "smaller",
    min_radius: int = 0,
    boundary_sigma: float = 0.0,
) -> UInt8[jax.Array, "B H W"]:
    """Computes the labels of the next round from the scores of this round.

    The random pixels of an example depend on the key and on the id of the example, and
    not on the rest of the batch. Fold the round into the key.

    Args:
      key: Typed PRNG key.
      scores: Float `[B, H, W]`: foreground probabilities, or any numbers for "otsu".
      ids: Integer ids of the examples, `[B]`.
      images: Numbers `[B, H, W, C]`. The polarities "brighter" and "darker" and a
        positive `boundary_sigma` need them.
      valid: Boolean `[B, H, W]`, false at padding; None means all pixels are valid.
      keep: NoiseFn that selects the pixels of the masks: `target(...)`.
      criterion: One of `CRITERIA`, static; see `agreement`.
      num_thresholds: Number of evenly spaced thresholds, static, >= 3.
      polarity: One of `POLARITIES`, static; see `orient`.
      min_radius: Radius of the smallest object in pixels, static; 0 keeps all objects.
      boundary_sigma: Bandwidth of `fit_boundary` in pixels, static. 0 moves no
        boundary.

    Returns:
      uint8 `[B, H, W]`: class ids 0 and 1, void (255) where not valid.

    Raises:
      InputError: If an option is wrong, or `images` are needed and None.
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


def ema(
    previous: Shaped[AnyArray, "*batch H W"],
    new: Shaped[AnyArray, "*batch H W"],
    round_index: ArrayLike,
    *,
    decay: float,
) -> Float[jax.Array, "*batch H W"]:
    """Updates an exponential moving average of masks or scores over rounds.

    The weight of the previous average in round r is `min(decay, r / (r + 1))`. The
    average is thus the plain mean of all rounds until `r / (r + 1)` exceeds the decay.

    Args:
      previous: Average up to the previous round, `[..., H, W]`; ignored in round 0.
      new: Masks or scores of this round, boolean or float `[..., H, W]`.
      round_index: Number of this round, counted from 0; may be traced.
      decay: Largest weight of the previous average, in [0, 1].

    Returns:
      float32 `[..., H, W]`.

    Raises:
      InputError: If `decay` is outside [0, 1], or the shapes differ.
    """
    checks.number("decay", decay, 0, 1)
    checks.same_shape("new", new, jnp.shape(previous), "previous")
    kept = jnp.minimum(decay, round_index / (jnp.asarray(round_index, jnp.float32) + 1))
    return kept * previous + (1 - kept) * jnp.asarray(new, jnp.float32)


def stability(masks: Masks, previous: Masks) -> Float[jax.Array, "*batch"]:
    """Computes the IoU of each mask with the mask of the previous round.

    Masks that no longer change are a stopping criterion that needs no labels. They show
    that the loop has converged, but not that the masks are right.

    Args:
      masks: Boolean `[..., H, W]`.
      previous: Boolean `[..., H, W]`.

    Returns:
      float32 `[...]` in [0, 1]; 1 if both masks are empty.

    Raises:
      InputError: If the shapes differ.
    """
    checks.same_shape("previous", previous, jnp.shape(masks), "masks")
    shared = jnp.sum(masks & previous, axis=(-2, -1), dtype=jnp.float32)
    either = jnp.sum(masks | previous, axis=(-2, -1), dtype=jnp.float32)
    return jnp.where(either > 0, shared / jnp.maximum(either, 1), 1.0)
