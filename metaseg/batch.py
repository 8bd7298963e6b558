"""The arrays of examples that training steps take. Imports no jax."""

from typing import Any, NamedTuple

__all__ = ["Batch"]


class Batch(NamedTuple):
    """A batch or a whole split; the first axis of each array is the example.

    Attributes:
      images: float32 `[N, H, W, C]`.
      labels: uint8 `[N, H, W]`, clean class ids; 255 is void.
      ids: uint32 `[N]`, from which the noise of an example follows.
      valid_size: int32 `[N, 2]`, height and width in pixels without padding.
    """

    images: Any
    labels: Any
    ids: Any
    valid_size: Any
