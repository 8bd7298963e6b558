"""Training losses: logits and label maps to one number. May import `labels` only.

A loss is `(logits, labels) -> scalar`, a mean over what is labelled; void pixels count
in none of them. A training step wants the mean's two sums, `(logits, labels) -> Sums`,
as these add up over the parts of a batch that lie on other devices or come later. To
add one, write that function and its line in `LOSSES`.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from metaseg import labels as labels_lib
from metaseg.errors import InputError

__all__ = ["LOSSES", "SumsFn", "Sums", "build", "cross_entropy", "cross_entropy_sums"]


class Sums(NamedTuple):
    """A mean that has not been taken yet.

    Attributes:
      total: sum of the terms.
      weight: how many there are; it does not depend on the logits.
    """

    total: jax.Array
    weight: jax.Array

    def mean(self) -> jax.Array:
        """The mean; 0 if there is no term."""
        return self.total / jnp.maximum(self.weight, 1)


SumsFn = Callable[[jax.Array, jax.Array], Sums]


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
    return cross_entropy_sums(logits, labels).mean()


def cross_entropy_sums(logits: jax.Array, labels: jax.Array) -> Sums:
    """`cross_entropy` before its mean: a term for each labelled pixel."""
    labelled = ~labels_lib.is_void(labels)
    target = jnp.where(labelled, labels, 0).astype(jnp.int32)
    logits = logits.astype(jnp.float32)
    if logits.shape[-1] == 1:
        loss = optax.sigmoid_binary_cross_entropy(
            logits[..., 0], target.astype(jnp.float32)
        )
    else:
        loss = optax.softmax_cross_entropy_with_integer_labels(logits, target)
    return Sums(jnp.sum(jnp.where(labelled, loss, 0.0)), jnp.sum(labelled))


LOSSES: dict[str, SumsFn] = {"cross_entropy": cross_entropy_sums}


def build(name: str) -> SumsFn:
    """Looks a loss up by `config.loss`; raises InputError with the known names."""
    if name not in LOSSES:
        known = ", ".join(sorted(LOSSES))
        raise InputError(f"config.loss: unknown loss '{name}'; known: {known}")
    return LOSSES[name]
