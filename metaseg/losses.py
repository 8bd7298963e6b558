"""Training losses: logits and label maps to one number.

May import `labels`, `checks`, `registry`, `typing` and `errors`.

A loss is `(logits, labels) -> scalar`, a mean over the labelled pixels or images; void
pixels never count. A training step takes the mean as two sums,
`(logits, labels) -> Sums`, since sums add up over the parts of a batch that lie on
different devices or are computed one after the other. To add a loss, write the function
of the sums and its line in `LOSSES`.

With one logit, labels may be soft: floats in [0, 1], the share of the foreground in
each pixel, where 255 and negative numbers are void too. Labels that are neither void
nor a class, or above 1 if soft, are an `InputError`, and void where they are traced.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Float, Float32, Real

from metaseg import checks, registry
from metaseg import labels as labels_lib
from metaseg.errors import InputError
from metaseg.typing import AnyArray

__all__ = [
    "LOSSES",
    "Sums",
    "SumsFn",
    "build",
    "cross_entropy",
    "cross_entropy_sums",
    "dmi",
    "dmi_iou",
    "dmi_iou_sums",
    "dmi_sums",
    "soft_iou",
    "soft_iou_sums",
]


class Sums(NamedTuple):
    """A mean that has not been taken yet.

    Attributes:
      total: Sum of the terms.
      weight: Number of terms; it does not depend on the logits.
    """

    total: jax.Array
    weight: jax.Array

    def mean(self) -> jax.Array:
        """Returns the mean; 0 if there is no term."""
        return self.total / jnp.maximum(self.weight, 1)


Logits: TypeAlias = Float[AnyArray, "*batch H W C"]
Targets: TypeAlias = Real[AnyArray, "*batch H W"]  # class ids, or soft labels
SumsFn = Callable[[Any, Any], Sums]


def cross_entropy(logits: Logits, labels: Targets) -> Float32[jax.Array, ""]:
    """Computes the mean cross-entropy over the labelled pixels.

    It is `-mean(y log p + (1 - y) log(1 - p))` with p the sigmoid of one logit, and
    `-mean(log p[y])` with p the softmax of K logits.

    Args:
      logits: Float `[..., H, W, 1]` (binary) or `[..., H, W, K]`.
      labels: Integer `[..., H, W]`, or soft; void (255 or negative) does not count.

    Returns:
      float32 scalar in nats; 0 if every pixel is void.

    Raises:
      InputError: If shapes differ, labels are no classes of the logits, or are soft
        and there is more than one logit.
    """
    return cross_entropy_sums(logits, labels).mean()


def cross_entropy_sums(logits: Logits, labels: Targets) -> Sums:
    """Sums the terms of `cross_entropy`: one for each labelled pixel.

    Args:
      logits: Float `[..., H, W, 1]` (binary) or `[..., H, W, K]`.
      labels: Integer `[..., H, W]`, or soft; void (255 or negative) does not count.

    Returns:
      The sum of the terms and their number.

    Raises:
      InputError: If shapes differ, labels are no classes of the logits, or are soft
        and there is more than one logit.
    """
    target, labelled = _targets(logits, labels)
    logits = logits.astype(jnp.float32)
    if logits.shape[-1] == 1:
        loss = optax.sigmoid_binary_cross_entropy(
            logits[..., 0], target.astype(jnp.float32)
        )
    else:
        loss = optax.softmax_cross_entropy_with_integer_labels(
            logits, target.astype(jnp.int32)
        )
    return Sums(
        jnp.sum(jnp.where(labelled, loss, 0.0)), jnp.sum(labelled, dtype=jnp.int32)
    )


def soft_iou(logits: Logits, labels: Targets) -> Float32[jax.Array, ""]:
    """Computes one minus the soft intersection over union, averaged over the images.

    With p the probability of the foreground, q the label and sums over the labelled
    pixels of an image, the loss is `1 - sum(p q) / (sum(p^2) + sum(q^2) - sum(p q))`,
    which is 0 only if p = q; for hard labels `q^2` equals q. With K logits, p is the
    softmax and the loss the mean over the K classes. A class that the label of an image
    lacks contributes 1, without a gradient. Source: Luo et al., AAAI 2022.

    Args:
      logits: Float `[..., H, W, 1]` (binary) or `[..., H, W, K]`.
      labels: Integer `[..., H, W]`, or soft; void (255 or negative) does not count.

    Returns:
      float32 scalar in [0, 1]; 0 if every pixel is void.

    Raises:
      InputError: If shapes differ, labels are no classes of the logits, or are soft
        and there is more than one logit.
    """
    return soft_iou_sums(logits, labels).mean()


def soft_iou_sums(logits: Logits, labels: Targets) -> Sums:
    """Sums the terms of `soft_iou`: one for each image with a labelled pixel.

    Args:
      logits: Float `[..., H, W, 1]` (binary) or `[..., H, W, K]`.
      labels: Integer `[..., H, W]`, or soft; void (255 or negative) does not count.

    Returns:
      The sum of the terms and their number.

    Raises:
      InputError: If shapes differ, labels are no classes of the logits, or are soft
        and there is more than one logit.
    """
    p, q, labelled = _planes(logits, labels)
    shared = _over_image(p * q)
    union = _over_image(p**2) + _over_image(q**2) - shared
    return _of_images(1 - shared / jnp.maximum(union, _TINY), labelled)


def dmi(logits: Logits, labels: Targets) -> Float32[jax.Array, ""]:
    """Computes the determinant-based mutual information loss, averaged over the images.

    With M the 2 x 2 joint matrix of prediction and label, `[[sum(p q), sum(p (1 - q))],
    [sum((1 - p) q), sum((1 - p) (1 - q))]]` over the n labelled pixels of an image, the
    loss is `-log(|det M| + 1e-3)`, and det M is `n sum(q (p - mean(p)))`. The loss is
    the same for p and 1 - p, so that scores may come out inverted. With K logits, p is
    the softmax and the loss the mean over the K classes, each against the rest: a K x K
    determinant would be 0 for every image that lacks a class. A class that the label of
    an image lacks, or that is its only one, contributes -log(1e-3), without a gradient.
    Sources: Luo et al., AAAI 2022; Xu et al., "L_DMI: A Novel Information-theoretic
    Loss Function for Training Deep Nets Robust to Label Noise", NeurIPS 2019.

    Args:
      logits: Float `[..., H, W, 1]` (binary) or `[..., H, W, K]`.
      labels: Integer `[..., H, W]`, or soft; void (255 or negative) does not count.

    Returns:
      float32 scalar; 0 if every pixel is void.

    Raises:
      InputError: If shapes differ, labels are no classes of the logits, or are soft
        and there is more than one logit.
    """
    return dmi_sums(logits, labels).mean()


def dmi_sums(logits: Logits, labels: Targets) -> Sums:
    """Sums the terms of `dmi`: one for each image with a labelled pixel.

    Args:
      logits: Float `[..., H, W, 1]` (binary) or `[..., H, W, K]`.
      labels: Integer `[..., H, W]`, or soft; void (255 or negative) does not count.

    Returns:
      The sum of the terms and their number.

    Raises:
      InputError: If shapes differ, labels are no classes of the logits, or are soft
        and there is more than one logit.
    """
    p, q, labelled = _planes(logits, labels)
    count = _over_image(labelled)[..., None].astype(jnp.float32)
    mean_q = _over_image(q) / jnp.maximum(count, 1)
    # Centred, as a difference of products of large sums would lose all digits.
    apart = _over_image((q - mean_q[..., None, None]) * p)
    return _of_images(-jnp.log(jnp.abs(count * apart) + 1e-3), labelled)


def dmi_iou(logits: Logits, labels: Targets) -> Float32[jax.Array, ""]:
    """Returns `dmi + soft_iou`.

    Source: Luo et al., AAAI 2022.

    Args:
      logits: Float `[..., H, W, 1]` (binary) or `[..., H, W, K]`.
      labels: Integer `[..., H, W]`, or soft; void (255 or negative) does not count.

    Returns:
      float32 scalar; 0 if every pixel is void.

    Raises:
      InputError: If shapes differ, labels are no classes of the logits, or are soft
        and there is more than one logit.
    """
    return dmi_iou_sums(logits, labels).mean()


def dmi_iou_sums(logits: Logits, labels: Targets) -> Sums:
    """Sums the terms of `dmi_iou`: one for each image with a labelled pixel.

    Args:
      logits: Float `[..., H, W, 1]` (binary) or `[..., H, W, K]`.
      labels: Integer `[..., H, W]`, or soft; void (255 or negative) does not count.

    Returns:
      The sum of the terms and their number.

    Raises:
      InputError: If shapes differ, labels are no classes of the logits, or are soft
        and there is more than one logit.
    """
    information, overlap = dmi_sums(logits, labels), soft_iou_sums(logits, labels)
    return Sums(information.total + overlap.total, information.weight)


_TINY = 1e-10  # keeps 0 / 0 away, in gradients (its square) too


def _planes(
    logits: AnyArray, labels: AnyArray
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Prediction, label and the pixels that are labelled.

    Returns:
      `(p, q, labelled)`: float32 `[..., C, H, W]` twice, 0 where void, with C = 1 (the
      foreground) for one logit, else K; boolean `[..., H, W]`.
    """
    labels, labelled = _targets(logits, labels)
    logits = jnp.moveaxis(jnp.asarray(logits, jnp.float32), -1, -3)
    num_classes = logits.shape[-3]
    if num_classes == 1:
        p, q = jax.nn.sigmoid(logits), labels[..., None, :, :].astype(jnp.float32)
    else:
        ids = jnp.arange(num_classes)[:, None, None]
        p = jax.nn.softmax(logits, axis=-3)
        q = (labels[..., None, :, :] == ids).astype(jnp.float32)
    kept = labelled[..., None, :, :]
    return jnp.where(kept, p, 0), jnp.where(kept, q, 0), labelled


def _over_image(values: jax.Array) -> jax.Array:
    return jnp.sum(values, axis=(-2, -1))


def _of_images(terms: jax.Array, labelled: jax.Array) -> Sums:
    """Terms `[..., C]`, averaged over C, of the images with a labelled pixel."""
    counts = labelled.any(axis=(-2, -1))
    return Sums(
        jnp.sum(jnp.where(counts, terms.mean(axis=-1), 0.0)),
        jnp.sum(counts, dtype=jnp.int32),
    )


_ROUNDING = 1e-3  # by which soft labels may lie outside [0, 1]


def _targets(logits: AnyArray, labels: AnyArray) -> tuple[jax.Array, jax.Array]:
    """Checks labels; returns them with 0 for void, and where they are not void."""
    if logits.ndim < 2 or not logits.shape[-1]:
        raise InputError(f"logits: got shape {logits.shape}, expected [..., H, W, C]")
    as_what = f"logits {tuple(logits.shape)}"
    checks.same_shape("labels", labels, logits.shape[:-1], as_what)
    if not jnp.issubdtype(labels.dtype, jnp.floating):
        num_classes = max(logits.shape[-1], 2)
        labels_lib.check_ids(labels, num_classes)
        labels = jnp.asarray(labels)
        labelled = ~labels_lib.is_void(labels, num_classes)
    else:
        _check_soft(logits, labels)
        labels = jnp.asarray(labels)
        labelled = ~((labels < -_ROUNDING) | (labels > 1 + _ROUNDING))
    return jnp.where(labelled, labels, 0), labelled


def _check_soft(logits: AnyArray, labels: AnyArray) -> None:
    if logits.shape[-1] > 1:
        raise InputError(
            f"labels: dtype {labels.dtype} with {logits.shape[-1]} logits a pixel, "
            "expected integer class ids, or one logit"
        )
    if checks.is_traced(labels):
        return
    values = np.asarray(labels, np.float32)
    wrong = ~((values <= 1 + _ROUNDING) | (values == labels_lib.VOID))  # NaN too
    if wrong.any():
        raise InputError(
            f"labels: got {values[wrong][0]:g}, expected soft labels in [0, 1] or "
            f"{labels_lib.VOID} (void)"
        )


LOSSES: dict[str, SumsFn] = {
    "cross_entropy": cross_entropy_sums,
    "dmi": dmi_sums,
    "dmi_iou": dmi_iou_sums,
    "soft_iou": soft_iou_sums,
}


def build(name: str) -> SumsFn:
    """Returns the loss that a config names.

    A plug-in is a function `(logits, labels) -> Sums` as those of `LOSSES` are: logits
    float `[N, H, W, 1]` (binary) or `[N, H, W, K]`, labels integer `[N, H, W]` with 255
    for void, which must not count.

    Args:
      name: One of `LOSSES`, or "package.module:name" of a plug-in.

    Returns:
      The loss as a pair of sums.

    Raises:
      InputError: If the name is unknown or the plug-in cannot be called. The loss of a
        plug-in raises it if its result is not a `Sums`.

    Example:
      >>> build("dmi") is dmi_sums
      True
    """
    loss: Any = registry.lookup(name, LOSSES, field="loss")
    if not registry.is_plugin(name):
        return loss
    if not callable(loss):
        raise InputError(
            f"loss: got {name!r}, a {type(loss).__name__}, expected a function "
            "(logits, labels) -> metaseg.losses.Sums"
        )

    @functools.wraps(loss)
    def checked(logits: Logits, labels: Targets) -> Sums:
        sums = loss(logits, labels)
        if not isinstance(sums, Sums):
            raise InputError(
                f"loss: got {name!r}, which returns {type(sums).__name__}, expected "
                "metaseg.losses.Sums"
            )
        return sums

    return checked
