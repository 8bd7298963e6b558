"""Sides of an image -> overlapping tiles and the weights that blend them. NumPy only.

In the overlap of two neighbouring tiles the weight of one falls while that of the other
rises, and their sum is 1. The network's output may be wrong within its radius of a cut,
so weights are zero there, as far as the overlap allows.
"""

import functools
import math
from typing import NamedTuple

import numpy as np

from metaseg.errors import InputError

__all__ = ["GRAIN", "Axis", "Tiling", "cut", "extended", "plan"]

GRAIN = 16  # sides are extended to multiples of it, to bound the number of programs
TILE = 1024  # pixels a side unless given


class Tiling(NamedTuple):
    """How images are cut into tiles; all values in pixels.

    Attributes:
      tile: Longest side of a tile, a multiple of `grain`.
      overlap: Least overlap of neighbouring tiles, a multiple of `stride`.
      radius: Distance from a cut within which the network's output may be wrong.
      stride: Tiles start at multiples of it.
      grain: Sides of images are extended to multiples of it.
    """

    tile: int
    overlap: int
    radius: int
    stride: int
    grain: int


class Axis(NamedTuple):
    """One side of an image, cut into tiles.

    Attributes:
      length: Length of each tile in pixels.
      starts: First pixel of each tile.
      weights: Weights float32 `[length]` of each tile; at each pixel they sum to 1.
      supports: Half-open range `(start, stop)` of the pixels of each that have weight.
    """

    length: int
    starts: tuple[int, ...]
    weights: tuple[np.ndarray, ...]
    supports: tuple[tuple[int, int], ...]


def extended(side: int, grain: int) -> int:
    """Returns `side` rounded up to a multiple of `grain`.

    Args:
      side: Length in pixels.
      grain: The divisor.
    """
    return -(-side // grain) * grain


def plan(
    stride: int, radius: int, *, tile: int | None = None, overlap: int | None = None
) -> Tiling:
    """Chooses the size and overlap of tiles.

    Args:
      stride: Stride of the network in pixels.
      radius: Distance in pixels from a cut within which the network's output may depend
        on the cut.
      tile: Side in pixels, rounded up to a multiple of the grain; by default 1024, or
        more if the radius needs it.
      overlap: Overlap in pixels, rounded up to a multiple of the stride. By default the
        least that makes the result exact, and at most three quarters of a tile.

    Returns:
      The tiling.

    Raises:
      InputError: If a size is out of range.
    """
    grain = math.lcm(stride, GRAIN)
    enough = extended(2 * radius + GRAIN, stride)
    if tile is not None and tile < 1:
        raise InputError(f"tile: got {tile}, expected at least 1 pixel")
    side = extended(max(TILE, 2 * enough) if tile is None else tile, grain)
    if overlap is None:
        overlap = min(enough, 3 * side // 4)
    lap = extended(overlap, stride)
    if overlap < 0 or lap >= side:
        raise InputError(
            f"overlap: got {overlap}, expected 0 to {side - stride} pixels with tiles"
            f" of {side}"
        )
    return Tiling(side, lap, radius, stride, grain)


@functools.lru_cache(maxsize=256)
def cut(side: int, plan: Tiling) -> Axis:
    """Cuts one side, a multiple of `plan.grain`, into the fewest tiles.

    Args:
      side: Length in pixels.
      plan: Sizes of tiles and overlaps.

    Returns:
      The tiles along the side.
    """
    if side <= plan.tile:
        return Axis(side, (0,), (np.ones(side, np.float32),), ((0, side),))
    free = (side - plan.tile) // plan.stride
    steps = -(-free // ((plan.tile - plan.overlap) // plan.stride))
    starts = [plan.stride * (i * free // steps) for i in range(steps + 1)]
    weights = _weights(np.array(starts), plan)
    inside = [np.flatnonzero(weight) for weight in weights]
    return Axis(
        plan.tile,
        tuple(starts),
        tuple(weights),
        tuple((int(found[0]), int(found[-1]) + 1) for found in inside),
    )


def _weights(starts: np.ndarray, plan: Tiling) -> list[np.ndarray]:
    """Returns weights of each tile: 1 less the weights of its neighbours."""
    overlaps = starts[:-1] + plan.tile - starts[1:]
    exact = overlaps / 2 - plan.radius
    half = np.where(exact >= 0, exact, overlaps / 4)  # at least off the cuts
    half = np.minimum(
        half, np.diff(starts).min() / 2
    )  # two transitions may not overlap
    centre = starts[1:] + overlaps / 2
    pixels = np.arange(plan.tile) + 0.5

    def risen(neighbours: int, start: int) -> np.ndarray:
        distance = start + pixels - centre[neighbours]
        x = np.clip(distance / max(2 * half[neighbours], 1e-9) + 0.5, 0, 1)
        return x * x * (3 - 2 * x)

    weights = []
    for i, start in enumerate(starts):
        weight = np.ones(plan.tile)
        if i > 0:
            weight *= risen(i - 1, start)
        if i < len(starts) - 1:
            weight *= 1 - risen(i, start)
        weights.append(weight.astype(np.float32))
    return weights
