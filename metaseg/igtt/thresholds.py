"""The threshold of a score map whose mask agrees best with the scores.

One pass over the pixels evaluates all thresholds. To add a criterion, write its two
functions, add a line to `CRITERIA` and its formula to `agreement`. May import
`masked`, `checks` and `typing`.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float, Real

from metaseg import checks
from metaseg.igtt.masked import count, extremes, floats, total, unit
from metaseg.typing import AnyArray, Masks

__all__ = ["CRITERIA", "agreement", "best_mask", "best_threshold"]

_TINY = 1e-30


class _Foreground(NamedTuple):
    """Pixels and summed weights above each threshold, `[..., thresholds]`."""

    pixels: jax.Array
    total: jax.Array


class _Criterion(NamedTuple):
    """A criterion: the weights it sums over the foreground, and its value.

    Attributes:
      weight: `(scores, valid) -> weights`, `[..., H, W]`.
      value: `(scores, valid, above) -> agreement`, `[..., thresholds]`.
    """

    weight: Callable[[jax.Array, jax.Array], jax.Array]
    value: Callable[[jax.Array, jax.Array, _Foreground], jax.Array]


def _centred(scores: jax.Array, valid: jax.Array) -> jax.Array:
    mean = total(scores, valid) / count(valid)
    return scores - mean[..., None, None]


def _determinant(scores: jax.Array, valid: jax.Array, above: _Foreground) -> jax.Array:
    del scores
    return jnp.abs(above.total) / count(valid)[..., None]


def _between_variance(
    scores: jax.Array, valid: jax.Array, above: _Foreground
) -> jax.Array:
    del scores
    below = count(valid)[..., None] - above.pixels
    return above.total**2 / jnp.maximum(above.pixels * below, 1)


def _overlap(scores: jax.Array, valid: jax.Array, above: _Foreground) -> jax.Array:
    squares = total(scores**2, valid)[..., None]
    return above.total / jnp.maximum(squares + above.pixels - above.total, _TINY)


def _log_odds(scores: jax.Array, valid: jax.Array) -> jax.Array:
    del valid
    miss = jnp.log(jnp.maximum(1 - scores, _TINY))
    return jnp.log(jnp.maximum(scores, _TINY)) - miss


def _log_likelihood(
    scores: jax.Array, valid: jax.Array, above: _Foreground
) -> jax.Array:
    miss = total(jnp.log(jnp.maximum(1 - scores, _TINY)), valid)[..., None]
    return (above.total + miss) / count(valid)[..., None]


CRITERIA: dict[str, _Criterion] = {
    "dmi": _Criterion(_centred, _determinant),
    "iou": _Criterion(lambda scores, valid: scores, _overlap),
    "bce": _Criterion(_log_odds, _log_likelihood),
    "otsu": _Criterion(_centred, _between_variance),
}


def agreement(
    scores: Real[AnyArray, "*batch H W"],
    valid: Masks | None = None,
    *,
    criterion: str = "dmi",
    num_thresholds: int = 30,
) -> Float[jax.Array, "*batch thresholds"]:
    """Computes how well the mask of each threshold agrees with its scores.

    Threshold i = 0, ..., k - 1 gives the mask
    `scores > low + i / (k - 1) * (high - low)`, where low and high are the lowest and
    highest score of the map. Let p be the scores, q the mask, n the number of valid
    pixels, and m1 and m0 the means of p inside and outside the mask. All sums are over
    valid pixels. The criteria are

    - dmi: |det| of the 2 x 2 joint matrix of prediction and mask, divided by n^2. It
      equals `sum(q * (p - mean(p))) / n`, so the best threshold is next to the mean;
    - iou: `sum(p * q) / (sum(p^2) + sum(q) - sum(p * q))`;
    - bce: the mean of `q * log(p) + (1 - q) * log(1 - p)`, where probabilities below
      1e-30 count as 1e-30. The best threshold is next to 1/2, or the one nearest to it;
    - otsu: `sum(q) * sum(1 - q) / n^2 * (m1 - m0)^2`, for scores of any scale.

    The pixels between neighbouring thresholds are counted and summed in one pass; the
    values of all thresholds are cumulative sums of these.

    Args:
      scores: Float `[..., H, W]`: foreground probabilities, or any numbers for "otsu".
      valid: Boolean `[..., H, W]`, false at padding; None means all pixels are valid.
      criterion: One of `CRITERIA`, static.
      num_thresholds: Number of evenly spaced thresholds, static, >= 3. The first and
        the last are left out.

    Returns:
      float32 `[..., num_thresholds - 2]`, larger is better. Finite for constant and
      saturated scores, and for maps without valid pixels.

    Raises:
      InputError: If `criterion` is unknown, or `num_thresholds` is below 3 or no
        integer.
    """
    checks.choice("criterion", criterion, CRITERIA)
    scores, valid = floats(scores, valid)
    weight, value = CRITERIA[criterion]
    exceeded = _exceeded(scores, valid, num_thresholds)
    above = _above(exceeded, weight(scores, valid), valid, num_thresholds)
    return value(scores, valid, above)


def best_mask(
    scores: Real[AnyArray, "*batch H W"],
    valid: Masks | None = None,
    *,
    criterion: str = "dmi",
    num_thresholds: int = 30,
) -> Bool[jax.Array, "*batch H W"]:
    """Applies the threshold whose mask agrees best with the scores.

    Of several best thresholds, the lowest is applied.

    Args:
      scores: Float `[..., H, W]`: foreground probabilities, or any numbers for "otsu".
      valid: Boolean `[..., H, W]`, false at padding; None means all pixels are valid.
      criterion: One of `CRITERIA`, static; see `agreement`.
      num_thresholds: Number of evenly spaced thresholds, static, >= 3.

    Returns:
      Boolean `[..., H, W]`, false where not valid. A map of constant scores, or without
      valid pixels, has an empty mask.

    Raises:
      InputError: If `criterion` is unknown, or `num_thresholds` is below 3 or no
        integer.

    Example:
      >>> import jax.numpy as jnp
      >>> best_mask(jnp.array([[0.1, 0.2, 0.8, 0.9]])).tolist()
      [[False, False, True, True]]
    """
    found = agreement(scores, valid, criterion=criterion, num_thresholds=num_thresholds)
    exceeded = _exceeded(*floats(scores, valid), num_thresholds)
    return exceeded > jnp.argmax(found, axis=-1)[..., None, None] + 1


def best_threshold(
    scores: Real[AnyArray, "*batch H W"],
    valid: Masks | None = None,
    *,
    criterion: str = "dmi",
    num_thresholds: int = 30,
) -> Float[jax.Array, "*batch"]:
    """Returns the threshold that `best_mask` applies.

    Args:
      scores: Float `[..., H, W]`: foreground probabilities, or any numbers for "otsu".
      valid: Boolean `[..., H, W]`, false at padding; None means all pixels are valid.
      criterion: One of `CRITERIA`, static; see `agreement`.
      num_thresholds: Number of evenly spaced thresholds, static, >= 3.

    Returns:
      float32 `[...]`; NaN where the scores are constant or no pixel is valid.

    Raises:
      InputError: If `criterion` is unknown, or `num_thresholds` is below 3 or no
        integer.
    """
    found = agreement(scores, valid, criterion=criterion, num_thresholds=num_thresholds)
    scores, valid = floats(scores, valid)
    low, high = extremes(scores, valid)
    best = jnp.argmax(found, axis=-1).astype(jnp.float32)
    share = (best + 1) / (num_thresholds - 1)
    return jnp.where(high > low, low + share * (high - low), jnp.nan)


def _exceeded(scores: jax.Array, valid: jax.Array, num_thresholds: int) -> jax.Array:
    """Counts the thresholds 0, 1, ... below each score, int32; 0 where not valid."""
    checks.integer("num_thresholds", num_thresholds, 3)
    level = unit(scores, valid) * (num_thresholds - 1)
    return jnp.clip(jnp.ceil(level).astype(jnp.int32), 0, num_thresholds - 1)


def _above(
    exceeded: jax.Array, weights: jax.Array, valid: jax.Array, num_thresholds: int
) -> _Foreground:
    """Sums pixels and weights above thresholds 1 to k - 2, `[..., k - 2]`."""
    *batch, height, width = exceeded.shape
    flat = (math.prod(batch), height * width)
    pairs = jnp.stack([valid.astype(jnp.float32), jnp.where(valid, weights, 0)], -1)

    def between(exceeded: jax.Array, pairs: jax.Array) -> jax.Array:
        return (
            jnp.zeros((num_thresholds, 2), jnp.float32)
            .at[exceeded]
            .add(pairs, mode="clip")
        )

    # One scatter-add of both: 30 comparisons per pixel take five times as long.
    sums = jax.vmap(between)(exceeded.reshape(flat), pairs.reshape(*flat, 2))
    upper = jnp.cumsum(sums[:, :1:-1], axis=1)[:, ::-1].reshape(
        *batch, num_thresholds - 2, 2
    )
    return _Foreground(upper[..., 0], upper[..., 1])
