"""Time of an import by one and by two worker processes, and of 20 000 small images.

    python benchmarks/importing.py
    python benchmarks/importing.py --format=jpg
    python benchmarks/importing.py --size=32 --count=20000 --rounds=1

Writes RGB images and label maps in a temporary folder and imports them whole:
finding, reading, checking, and TFDS's own part, which one process does. The two take
turns, so that a busy machine slows both. Target: two workers at least 1.7 times as
fast as one, for images whose decoding is most of the work. Workers import this file:
it imports little.
"""

import contextlib
import io
import resource
import shutil
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from absl import app, flags
from PIL import Image

from metaseg.data import importers

_SIZE = flags.DEFINE_integer("size", 1000, "Height and width of the images.")
_COUNT = flags.DEFINE_integer("count", 60, "Images.")
_FORMAT = flags.DEFINE_enum(
    "format", "png", ["png", "jpg"], "Of the images; JPEG is encoded anew as PNG."
)
_ROUNDS = flags.DEFINE_integer("rounds", 5, "Imports by each number of workers.")

WORKERS = (1, 2)
PROCESSES = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)


def _write(root: Path) -> None:
    """Images as smooth and as noisy as photographs, labels of four classes."""
    rng = np.random.default_rng(0)
    side = _SIZE.value
    for kind in ("images", "labels"):
        (root / kind).mkdir(parents=True)
    for i in range(_COUNT.value):
        coarse = rng.integers(0, 256, (side // 8 + 1, side // 8 + 1, 3), dtype=np.uint8)
        smooth = np.asarray(Image.fromarray(coarse).resize((side, side)), np.int16)
        noisy = (smooth + rng.integers(-4, 5, smooth.shape)).clip(0, 255)
        image = Image.fromarray(noisy.astype(np.uint8))
        image.save(root / f"images/{i:05d}.{_FORMAT.value}", compress_level=1)
        label = Image.fromarray((smooth[..., 0] // 64).astype(np.uint8))
        label.save(root / f"labels/{i:05d}.png")


def _seconds(root: Path, data_dir: Path, workers: int) -> tuple[float, float, float]:
    """Wall time of an import, CPU time of this process and of its workers."""
    before = [time.perf_counter(), *map(_cpu, PROCESSES)]
    settings = importers.ImportRequest("folder", root, data_dir, workers=workers)
    with contextlib.redirect_stderr(io.StringIO()):
        importers.prepare(settings, lambda K: [(40 * i, 0, 0) for i in range(K + 1)])
    after = [time.perf_counter(), *map(_cpu, PROCESSES)]
    shutil.rmtree(data_dir)
    wall, own, others = np.subtract(after, before)
    return wall, own, others


def _cpu(processes: int) -> float:
    used = resource.getrusage(processes)
    return used.ru_utime + used.ru_stime


def main(argv: Sequence[str]) -> None:
    """Prints seconds of each, the ratio of their medians and bests, and memory."""
    del argv
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch, "pairs")
        _write(root)
        _seconds(root, Path(scratch, "data"), 1)  # imports modules, warms the cache
        timed = np.array(
            [
                [_seconds(root, Path(scratch, "data"), workers) for workers in WORKERS]
                for _ in range(_ROUNDS.value)
            ]
        )
    medians, bests = np.median(timed, axis=0), timed.min(axis=0)
    print(f"{_COUNT.value} images of {_SIZE.value} x {_SIZE.value}")
    for workers, median, best in zip(WORKERS, medians, bests, strict=True):
        print(f"{workers} workers: median {median[0]:.2f} s, best {best[0]:.2f} s")
    print(f"ratio of medians: {medians[0, 0] / medians[1, 0]:.2f}")
    print(f"ratio of bests: {bests[0, 0] / bests[1, 0]:.2f}")
    _, own, shared = medians[0]
    print(
        f"CPU seconds: {own:.2f} of this process, {shared:.2f} of one worker; with a"
        f" core for each worker that is a ratio of"
        f" {(own + shared) / (own + shared / 2):.2f}"
    )
    peak, child = (resource.getrusage(who).ru_maxrss / 1024**2 for who in PROCESSES)
    print(f"peak memory: {peak:.2f} GiB, and {child:.2f} GiB in the largest worker")


if __name__ == "__main__":
    app.run(main)
