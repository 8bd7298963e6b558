"""From logits of the clean class to those of noisy labels: forward loss correction.

Patrini et al., "Making Deep Neural Networks Robust to Label Noise: A Loss Correction
Approach", CVPR 2017. May import `typing`.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Float, Float32

from metaseg.typing import AnyArray, Matrix

__all__ = ["apply"]

_SMALLEST = 1e-30  # probability; its logarithm is finite


def apply(
    logits: Float[AnyArray, "*batch C"], matrix: Matrix
) -> Float32[jax.Array, "*batch C"]:
    """Converts logits of the clean class to logits of the noisy label.

    With p the clean class probabilities and T the matrix, the label has the
    probabilities `p @ T`, rescaled if rows of T sum to less than 1.

    Args:
      logits: Float `[..., 1]` (two classes: of the foreground) or `[..., K]`.
      matrix: Noise transition matrix T, `[K, K]`; may be traced. It is not checked.

    Returns:
      float32 logits of the shape of `logits`.
    """
    logits = jnp.asarray(logits, jnp.float32)
    if logits.shape[-1] == 1:
        clean = jax.nn.sigmoid(jnp.concatenate([-logits, logits], axis=-1))
    else:
        clean = jax.nn.softmax(logits, axis=-1)
    noisy = jnp.matmul(clean, jnp.asarray(matrix, jnp.float32), precision="highest")
    logarithm = jnp.log(jnp.maximum(noisy, _SMALLEST))
    if logits.shape[-1] == 1:
        return logarithm[..., 1:] - logarithm[..., :1]
    return logarithm
