"""The cut of a score map whose mask agrees best with the scores, all cuts in one pass.

May import `masked` and `checks`. To add a criterion, write its two functions, its line
in `CRITERIA` and its formula in `agreement`.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from metaseg import checks
from metaseg.igtt.masked import count, extremes, floats, total, unit

__all__ = ["CRITERIA", "agreement", "best_mask", "best_threshold"]

_TINY = 1e-30


class _Side(NamedTuple):
    """Pixels and summed weights of the foreground of each cut, `[..., cuts]`."""

    pixels: jax.Array
    total: jax.Array


class _Criterion(NamedTuple):
    """What a criterion sums over the foreground of a cut, and makes of the sums.

    Attributes:
      weight: `(scores, valid) -> weights`, `[..., H, W]`.
      value: `(scores, valid, above) -> agreement`, `[..., cuts]`.
    """

    weight: Callable[[jax.Array, jax.Array], jax.Array]
    value: Callable[[jax.Array, jax.Array, _Side], jax.Array]


def _centred(scores: jax.Array, valid: jax.Array) -> jax.Array:
    mean = total(scores, valid) / count(valid)
    return scores - mean[..., None, None]


def _determinant(scores: jax.Array, valid: jax.Array, above: _Side) -> jax.Array:
    del scores
    return jnp.abs(above.total) / count(valid)[..., None]


def _between_variance(scores: jax.Array, valid: jax.Array, above: _Side) -> jax.Array:
    del scores
    below = count(valid)[..., None] - above.pixels
    return above.total**2 / jnp.maximum(above.pixels * below, 1)


def _overlap(scores: jax.Array, valid: jax.Array, above: _Side) -> jax.Array:
    squares = total(scores**2, valid)[..., None]
    return above.total / jnp.maximum(squares + above.pixels - above.total, _TINY)


def _log_odds(scores: jax.Array, valid: jax.Array) -> jax.Array:
    del valid
    miss = jnp.log(jnp.maximum(1 - scores, _TINY))
    return jnp.log(jnp.maximum(scores, _TINY)) - miss


def _log_likelihood(scores: jax.Array, valid: jax.Array, above: _Side) -> jax.Array:
    miss = total(jnp.log(jnp.maximum(1 - scores, _TINY)), valid)[..., None]
    return (above.total + miss) / count(valid)[..., None]


CRITERIA: dict[str, _Criterion] = {
    "dmi": _Criterion(_centred, _determinant),
    "iou": _Criterion(lambda scores, valid: scores, _overlap),
    "bce": _Criterion(_log_odds, _log_likelihood),
    "otsu": _Criterion(_centred, _between_variance),
}


def agreement(
    scores: jax.Array,
    valid: jax.Array | None = None,
    *,
    criterion: str = "dmi",
    num_thresholds: int = 30,
) -> jax.Array:
    """How well the mask of each cut agrees with the scores it was cut from.

    Threshold i of n, `scores > low + i / (n - 1) (high - low)`, lies between an image's
    lowest and highest score. With p the scores, q the mask, sums over the n valid
    pixels and means m1 of p inside, m0 outside of q, the criteria are

    - dmi: |det| of the 2 x 2 joint matrix of prediction and mask, divided by n^2. It is
      `sum(q (p - mean(p))) / n`, so that the best cut is next to the mean score;
    - iou: `sum(p q) / (sum(p^2) + sum(q) - sum(p q))`;
    - bce: the mean of `q log p + (1 - q) log(1 - p)`, where p below 1e-30 counts as
      1e-30; the best cut is the one next to 1/2, or the one nearest to it;
    - otsu: `sum(q) sum(1 - q) / n^2 (m1 - m0)^2`, for scores of any scale.

    All cuts come from one pass: counts and sums of the pixels between two cuts, and
    their cumulative sums.

    Args:
      scores: float `[..., H, W]`, foreground probabilities (otsu: any).
      valid: boolean `[..., H, W]`; by default every pixel is.
      criterion: one of `CRITERIA`, static.
      num_thresholds: cuts, static, >= 3; the first and the last are left out.

    Returns:
      float32 `[..., num_thresholds - 2]`, larger is better; no NaN for constant
      and saturated scores and for images without a valid pixel.

    Raises:
      InputError: wrong criterion or num_thresholds.
    """
    checks.choice("criterion", criterion, CRITERIA)
    scores, valid = floats(scores, valid)
    weight, value = CRITERIA[criterion]
    passed = _cuts_passed(scores, valid, num_thresholds)
    above = _above(passed, weight(scores, valid), valid, num_thresholds)
    return value(scores, valid, above)


def best_mask(
    scores: jax.Array,
    valid: jax.Array | None = None,
    *,
    criterion: str = "dmi",
    num_thresholds: int = 30,
) -> jax.Array:
    """The mask of the cut that agrees best with the scores; of equals, the lowest.

    Arguments and errors are those of `agreement`.

    Returns:
      Boolean `[..., H, W]`; all false where the scores are constant or no pixel is
      valid, and false where a pixel is not.
    """
    found = agreement(scores, valid, criterion=criterion, num_thresholds=num_thresholds)
    passed = _cuts_passed(*floats(scores, valid), num_thresholds)
    return passed > jnp.argmax(found, axis=-1)[..., None, None] + 1


def best_threshold(
    scores: jax.Array,
    valid: jax.Array | None = None,
    *,
    criterion: str = "dmi",
    num_thresholds: int = 30,
) -> jax.Array:
    """The score that `best_mask` cuts at.

    Arguments and errors are those of `agreement`.

    Returns:
      float32 `[...]`; NaN where the scores are constant or no pixel is valid.
    """
    found = agreement(scores, valid, criterion=criterion, num_thresholds=num_thresholds)
    scores, valid = floats(scores, valid)
    low, high = extremes(scores, valid)
    share = (jnp.argmax(found, axis=-1) + 1) / (num_thresholds - 1)
    return jnp.where(high > low, low + share * (high - low), jnp.nan)


def _cuts_passed(scores: jax.Array, valid: jax.Array, num_thresholds: int) -> jax.Array:
    """How many of the cuts 0, 1, ... each score is above, int32; 0 where not valid."""
    checks.integer("num_thresholds", num_thresholds, 3, "cuts")
    level = unit(scores, valid) * (num_thresholds - 1)
    return jnp.clip(jnp.ceil(level).astype(jnp.int32), 0, num_thresholds - 1)


def _above(
    passed: jax.Array, weights: jax.Array, valid: jax.Array, num_thresholds: int
) -> _Side:
    """Pixels and weights above thresholds 1 to num_thresholds - 2, `[..., n - 2]`."""
    *batch, height, width = passed.shape
    flat = (-1, height * width)
    pairs = jnp.stack([valid.astype(jnp.float32), jnp.where(valid, weights, 0)], -1)

    def between(passed: jax.Array, pairs: jax.Array) -> jax.Array:
        return jnp.zeros((num_thresholds, 2)).at[passed].add(pairs, mode="clip")

    # A scatter-add of both at once: 30 comparisons a pixel take five times as long.
    sums = jax.vmap(between)(passed.reshape(flat), pairs.reshape(*flat, 2))
    upper = jnp.cumsum(sums[:, :1:-1], axis=1)[:, ::-1].reshape(*batch, -1, 2)
    return _Side(upper[..., 0], upper[..., 1])
