"""Sides of an image -> overlapping tiles and the weights that blend them. NumPy only.

Along each side a tile hands over to the next inside their overlap, by weights that sum
to one. A pixel nearer to a cut than the network's radius sees the cut, so weights are
zero there, as far as the overlap allows.
"""

import functools
import math
from typing import NamedTuple

import numpy as np

from metaseg.errors import InputError

__all__ = ["GRAIN", "Axis", "Plan", "cut", "extended", "plan"]

GRAIN = 16  # sides are extended to multiples of it, to bound the number of programs
TILE = 1024  # pixels a side unless given


class Plan(NamedTuple):
    """How images are cut.

    Attributes:
      tile: side of a tile at most, a multiple of `grain`.
      overlap: of neighbouring tiles at least, a multiple of `stride`.
      radius: pixels from a cut that may be wrong.
      stride: tiles start at its multiples.
      grain: sides of images are extended to its multiples.
    """

    tile: int
    overlap: int
    radius: int
    stride: int
    grain: int


class Axis(NamedTuple):
    """One side of an image, cut.

    Attributes:
      length: of each tile.
      starts: of the tiles.
      weights: float32 `[length]` of each; over all tiles they sum to 1.
      supports: first and last but one pixel of each that has weight.
    """

    length: int
    starts: tuple[int, ...]
    weights: tuple[np.ndarray, ...]
    supports: tuple[tuple[int, int], ...]


def extended(side: int, grain: int) -> int:
    """The side as a multiple of `grain`."""
    return -(-side // grain) * grain


def plan(
    stride: int, radius: int, *, tile: int | None = None, overlap: int | None = None
) -> Plan:
    """Chooses tiles.

    Args:
      stride: of the network.
      radius: pixels from a cut within which the network's output may see it.
      tile: side in pixels, rounded up to a multiple of the grain; by default 1024, or
        more for radii that need it.
      overlap: in pixels, rounded up to a multiple of the stride; by default what makes
        the result exact, and three quarters of a given tile at most.

    Raises:
      InputError: a size out of range.
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
    return Plan(side, lap, radius, stride, grain)


@functools.lru_cache(maxsize=256)
def cut(side: int, plan: Plan) -> Axis:
    """Cuts one side, a multiple of `plan.grain`, into as few tiles as will do."""
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


def _weights(starts: np.ndarray, plan: Plan) -> list[np.ndarray]:
    """Each tile's weights: one, less what its neighbours on both sides take over."""
    overlaps = starts[:-1] + plan.tile - starts[1:]
    exact = overlaps / 2 - plan.radius
    half = np.where(exact >= 0, exact, overlaps / 4)  # at least clear of the cuts
    half = np.minimum(half, np.diff(starts).min() / 2)  # one handover at a time
    centre = starts[1:] + overlaps / 2
    pixels = np.arange(plan.tile) + 0.5

    def risen(handover: int, start: int) -> np.ndarray:
        distance = start + pixels - centre[handover]
        x = np.clip(distance / max(2 * half[handover], 1e-9) + 0.5, 0, 1)
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
