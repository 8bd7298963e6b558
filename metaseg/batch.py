"""What steps take: examples side by side. Imports no jax: workers start fast."""

from typing import Any, NamedTuple

__all__ = ["Batch"]


class Batch(NamedTuple):
    """A batch, or a whole split; each leaf has the examples along its first axis.

    Attributes:
      image: float32 `[N, H, W, C]`.
      label: uint8 `[N, H, W]`, clean.
      id: uint32 `[N]`.
      extent: int32 `[N, 2]`, height and width that are not padding.
    """

    image: Any
    label: Any
    id: Any
    extent: Any
