"""Training losses: logits and label maps to one number. May import `labels` only.

A loss is `(logits, labels) -> scalar`; void pixels count in none of them. To add one,
write the function and its line in `LOSSES`.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax

from metaseg import labels as labels_lib
from metaseg.errors import InputError

__all__ = ["LOSSES", "build", "cross_entropy"]

LossFn = Callable[[jax.Array, jax.Array], jax.Array]


def cross_entropy(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """Mean cross-entropy over the labelled pixels, binary or multi-class.

    With p the sigmoid of one logit, `-mean(y log p + (1 - y) log(1 - p))`; with p the
    softmax of K logits, `-mean(log p[y])`.

    Args:
      logits: float `[..., H, W, 1]` (binary) or `[..., H, W, K]`.
      labels: integer `[..., H, W]`; pixels with 255 (void) do not count.

    Returns:
      float32 scalar in nats; 0 if every pixel is void.
    """
    labelled = ~labels_lib.is_void(labels)
    target = jnp.where(labelled, labels, 0).astype(jnp.int32)
    logits = logits.astype(jnp.float32)
    if logits.shape[-1] == 1:
        loss = optax.sigmoid_binary_cross_entropy(
            logits[..., 0], target.astype(jnp.float32)
        )
    else:
        loss = optax.softmax_cross_entropy_with_integer_labels(logits, target)
    total = jnp.sum(jnp.where(labelled, loss, 0.0))
    return total / jnp.maximum(jnp.sum(labelled), 1)


LOSSES: dict[str, LossFn] = {"cross_entropy": cross_entropy}


def build(name: str) -> LossFn:
    """Looks a loss up by `config.loss`; raises InputError with the known names."""
    if name not in LOSSES:
        known = ", ".join(sorted(LOSSES))
        raise InputError(f"config.loss: unknown loss '{name}'; known: {known}")
    return LOSSES[name]
