"""Training losses: logits and label maps to one number.

May import `labels`, `registry` and `errors`.

A loss is `(logits, labels) -> scalar`, a mean over what is labelled; void pixels count
in none of them. A training step wants the mean's two sums, `(logits, labels) -> Sums`,
as these add up over the parts of a batch that lie on other devices or come later. To
add one, write that function and its line in `LOSSES`.

The labels of one logit may be soft: floats in [0, 1], the foreground's share of each
pixel, with 255 for void as ever.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from metaseg import labels as labels_lib
from metaseg import registry
from metaseg.errors import InputError

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
      labels: integer `[..., H, W]`, or soft; pixels with 255 (void) do not count.

    Returns:
      float32 scalar in nats; 0 if every pixel is void.

    Raises:
      InputError: soft labels with more than one logit.
    """
    return cross_entropy_sums(logits, labels).mean()


def cross_entropy_sums(logits: jax.Array, labels: jax.Array) -> Sums:
    """Sums the terms of `cross_entropy`: one for each labelled pixel.

    Args:
      logits: float `[..., H, W, 1]` (binary) or `[..., H, W, K]`.
      labels: integer `[..., H, W]`, or soft; pixels with 255 (void) do not count.

    Returns:
      The sum of the terms and their number.

    Raises:
      InputError: soft labels with more than one logit.
    """
    _check_soft(logits, labels)
    labelled = ~labels_lib.is_void(labels)
    target = jnp.where(labelled, labels, 0)
    logits = logits.astype(jnp.float32)
    if logits.shape[-1] == 1:
        loss = optax.sigmoid_binary_cross_entropy(
            logits[..., 0], target.astype(jnp.float32)
        )
    else:
        loss = optax.softmax_cross_entropy_with_integer_labels(
            logits, target.astype(jnp.int32)
        )
    return Sums(jnp.sum(jnp.where(labelled, loss, 0.0)), jnp.sum(labelled))


def soft_iou(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """Mean over images of the soft intersection over union's distance to 1.

    With p the foreground's probability, q the label and sums over an image's labelled
    pixels, `1 - sum(p q) / (sum(p^2) + sum(q^2) - sum(p q))`, which is 0 where p = q
    alone; of hard labels `q^2` is q. With K logits, the mean over the K classes, p the
    softmax. A class that an image's label lacks gives 1, without a gradient. Source:
    Luo et al., AAAI 2022.

    Args:
      logits: float `[..., H, W, 1]` (binary) or `[..., H, W, K]`.
      labels: integer `[..., H, W]`, or soft; pixels with 255 (void) do not count.

    Returns:
      float32 scalar in [0, 1]; 0 if every pixel is void.

    Raises:
      InputError: soft labels with more than one logit.
    """
    return soft_iou_sums(logits, labels).mean()


def soft_iou_sums(logits: jax.Array, labels: jax.Array) -> Sums:
    """Sums the terms of `soft_iou`: one for each image with a labelled pixel.

    Args:
      logits: float `[..., H, W, 1]` (binary) or `[..., H, W, K]`.
      labels: integer `[..., H, W]`, or soft; pixels with 255 (void) do not count.

    Returns:
      The sum of the terms and their number.

    Raises:
      InputError: soft labels with more than one logit.
    """
    p, q, labelled = _planes(logits, labels)
    shared = _over_image(p * q)
    union = _over_image(p**2) + _over_image(q**2) - shared
    return _of_images(1 - shared / jnp.maximum(union, _TINY), labelled)


def dmi(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """Mean over images of the mutual information of prediction and label, as a loss.

    With M the 2 x 2 joint matrix of prediction and label, `[[sum(p q), sum(p (1 - q))],
    [sum((1 - p) q), sum((1 - p) (1 - q))]]` over an image's n labelled pixels,
    `-log(|det M| + 1e-3)`; det M is `n sum(q (p - mean(p)))`. It does not tell p from
    1 - p, so that scores may come out inverted. With K logits, the mean over the K
    classes, each against the rest, p the softmax: a K x K determinant would be 0
    wherever an image lacks one of the classes. A class that an image's label lacks, or
    has alone, gives -log(1e-3), without a gradient. Sources: Luo et al., AAAI 2022; Xu
    et al., "L_DMI: A Novel Information-theoretic Loss Function for Training Deep Nets
    Robust to Label Noise", NeurIPS 2019.

    Args:
      logits: float `[..., H, W, 1]` (binary) or `[..., H, W, K]`.
      labels: integer `[..., H, W]`, or soft; pixels with 255 (void) do not count.

    Returns:
      float32 scalar; 0 if every pixel is void.

    Raises:
      InputError: soft labels with more than one logit.
    """
    return dmi_sums(logits, labels).mean()


def dmi_sums(logits: jax.Array, labels: jax.Array) -> Sums:
    """Sums the terms of `dmi`: one for each image with a labelled pixel.

    Args:
      logits: float `[..., H, W, 1]` (binary) or `[..., H, W, K]`.
      labels: integer `[..., H, W]`, or soft; pixels with 255 (void) do not count.

    Returns:
      The sum of the terms and their number.

    Raises:
      InputError: soft labels with more than one logit.
    """
    p, q, labelled = _planes(logits, labels)
    count = _over_image(labelled)[..., None].astype(jnp.float32)
    mean_q = _over_image(q) / jnp.maximum(count, 1)
    # Centred, as a difference of products of large sums would lose all digits.
    apart = _over_image((q - mean_q[..., None, None]) * p)
    return _of_images(-jnp.log(jnp.abs(count * apart) + 1e-3), labelled)


def dmi_iou(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """Returns `dmi + soft_iou`.

    Source: Luo et al., AAAI 2022.

    Args:
      logits: float `[..., H, W, 1]` (binary) or `[..., H, W, K]`.
      labels: integer `[..., H, W]`, or soft; pixels with 255 (void) do not count.

    Returns:
      float32 scalar; 0 if every pixel is void.

    Raises:
      InputError: soft labels with more than one logit.
    """
    return dmi_iou_sums(logits, labels).mean()


def dmi_iou_sums(logits: jax.Array, labels: jax.Array) -> Sums:
    """Sums the terms of `dmi_iou`: one for each image with a labelled pixel.

    Args:
      logits: float `[..., H, W, 1]` (binary) or `[..., H, W, K]`.
      labels: integer `[..., H, W]`, or soft; pixels with 255 (void) do not count.

    Returns:
      The sum of the terms and their number.

    Raises:
      InputError: soft labels with more than one logit.
    """
    information, overlap = dmi_sums(logits, labels), soft_iou_sums(logits, labels)
    return Sums(information.total + overlap.total, information.weight)


_TINY = 1e-10  # keeps 0 / 0 away, in gradients (its square) too


def _planes(
    logits: jax.Array, labels: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Prediction, label and what is labelled.

    Returns:
      `(p, q, labelled)`: float32 `[..., C, H, W]` twice, 0 where void, with C = 1 (the
      foreground) for one logit, else K; boolean `[..., H, W]`.
    """
    _check_soft(logits, labels)
    labelled = ~labels_lib.is_void(labels)
    logits = jnp.moveaxis(logits.astype(jnp.float32), -1, -3)
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
    return Sums(jnp.sum(jnp.where(counts, terms.mean(axis=-1), 0.0)), jnp.sum(counts))


def _check_soft(logits: jax.Array, labels: jax.Array) -> None:
    if logits.shape[-1] > 1 and jnp.issubdtype(labels.dtype, jnp.floating):
        raise InputError(
            f"labels: dtype {labels.dtype} with {logits.shape[-1]} logits a pixel, "
            "expected integer class ids, or one logit"
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
    def checked(logits: jax.Array, labels: jax.Array) -> Sums:
        sums = loss(logits, labels)
        if not isinstance(sums, Sums):
            raise InputError(
                f"loss: got {name!r}, which returns {type(sums).__name__}, expected "
                "metaseg.losses.Sums"
            )
        return sums

    return checked
