"""Rows of a benchmark's table, and how they are timed: both sides taking turns."""

import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np

__all__ = ["Row", "Run", "medians"]

Run = Callable[[], Any]


class Row(NamedTuple):
    """One line of the table."""

    name: str
    ours: Run
    reference_name: str
    reference: Run
    target: float | None = None
    scale: float = 1.0  # of the reference's time, where it is timed on less


def medians(runs: Mapping[str, Run], rounds: int) -> dict[str, float]:
    """Median wall time of each run in seconds, after a call that compiles.

    They take turns, so that a busy machine slows all of them.
    """
    for run in runs.values():
        _seconds(run)
    timed = [[_seconds(run) for run in runs.values()] for _ in range(rounds)]
    return dict(zip(runs, np.median(timed, axis=0).tolist(), strict=True))


def _seconds(run: Run) -> float:
    start = time.perf_counter()
    jax.block_until_ready(run())
    return time.perf_counter() - start
