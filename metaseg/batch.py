"""Examples in arrays, as training steps take them. Imports no jax."""

from typing import Any, NamedTuple

__all__ = ["Batch"]


class Batch(NamedTuple):
    """A batch, or a whole split; each leaf has the examples along its first axis.

    Attributes:
      images: float32 `[N, H, W, C]`.
      labels: uint8 `[N, H, W]`, clean.
      ids: uint32 `[N]`.
      valid_size: int32 `[N, 2]`, height and width without padding.
    """

    images: Any
    labels: Any
    ids: Any
    valid_size: Any
