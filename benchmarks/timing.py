"""Rows of a benchmark's table, and their timing: both sides alternate in rounds."""

import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np

__all__ = ["Row", "Run", "medians"]

Run = Callable[[], Any]


class Row(NamedTuple):
    """One line of the table.

    Attributes:
      name: Name of our side.
      ours: Function of our side.
      reference_name: Name of the reference.
      reference: Function of the reference.
      target: Ratio that the line should reach, if any.
      scale: Factor of the reference's time, if it is timed on less work.
    """

    name: str
    ours: Run
    reference_name: str
    reference: Run
    target: float | None = None
    scale: float = 1.0


def medians(runs: Mapping[str, Run], rounds: int) -> dict[str, float]:
    """Returns the median wall time of each run in seconds, compilation excluded.

    The runs alternate, so that a busy machine slows all of them.
    """
    for run in runs.values():
        _seconds(run)
    timed = [[_seconds(run) for run in runs.values()] for _ in range(rounds)]
    return dict(zip(runs, np.median(timed, axis=0).tolist(), strict=True))


def _seconds(run: Run) -> float:
    start = time.perf_counter()
    jax.block_until_ready(run())
    return time.perf_counter() - start
