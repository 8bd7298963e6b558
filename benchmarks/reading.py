"""Time of reading image files, compared with the reader of another checkout.

    git worktree add ../before COMMIT
    python benchmarks/reading.py --against=../before
    python benchmarks/reading.py --against=../before --without=imagecodecs

Each version reads in a process of its own. The two take turns file by file, so that a
busy machine slows both, and CPU time is measured. `--without` hides a package from the
other version, which may be older than its use.
"""

import contextlib
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from absl import app, flags
from PIL import Image
from scipy import ndimage

_AGAINST = flags.DEFINE_string("against", None, "Checkout to compare with.")
_WITHOUT = flags.DEFINE_string("without", "", "Package that it does not see.")
_ROUNDS = flags.DEFINE_integer("rounds", 15, "Turns of each version at each file.")
_SIZES = flags.DEFINE_list("sizes", ["256", "1024"], "Heights and widths.")

PLANES = 50  # of a stack, of 16 bits

_WORKER = """
import sys, time
from pathlib import Path
if sys.argv[1]:
    sys.modules[sys.argv[1]] = None
from metaseg.data.image_files import read_image
for line in sys.stdin:
    path, times, page = line.rstrip("\\n").rsplit(" ", 2)
    page = int(page) if page else None
    start = time.process_time()
    for _ in range(int(times)):
        read_image(Path(path), page=page)
    print((time.process_time() - start) / int(times), flush=True)
"""


class Reader:
    """A process that reads files with one version."""

    def __init__(self, checkout: Path, without: str) -> None:
        """Starts it; `without` is hidden from it."""
        self._process = subprocess.Popen(
            [sys.executable, "-c", _WORKER, without],
            env=os.environ | {"PYTHONPATH": str(checkout.resolve())},
            cwd=checkout,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def seconds(self, path: Path, times: int, page: int | None) -> float:
        """Returns the mean CPU time of reading a file, or a page, some times."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        shown = "" if page is None else page
        print(path, times, shown, file=self._process.stdin, flush=True)
        return float(self._process.stdout.readline())

    def close(self) -> None:
        """Ends the process."""
        self._process.communicate()


def _files(folder: Path, side: int) -> Iterator[tuple[str, Path, int | None]]:
    """Writes files; yields the name of each, its path and the page to read.

    Images are grey or RGB, as smooth and noisy as micrographs.
    """
    rng = np.random.default_rng(0)
    smooth = ndimage.gaussian_filter(rng.normal(size=(side, side)), 3)
    smooth = (smooth - smooth.min()) / np.ptp(smooth) * 60_000
    wide = (smooth + rng.integers(0, 400, smooth.shape)).astype(np.uint16)
    grey = (wide >> 8).astype(np.uint8)
    images = {"8 bit": grey, "16 bit": wide, "RGB": np.dstack([grey, 255 - grey, grey])}
    compressions = {None: None, "lzw": "tiff_lzw", "deflate": "tiff_deflate"}
    for name, image in images.items():
        path = folder / f"{name}.png"
        Image.fromarray(image).save(path)
        yield f"PNG, {name}", path, None
        for ours, pillows in compressions.items():
            title = f"TIFF, {ours or 'uncompressed'}, {name}"
            path = folder / f"{name}-{ours}-tifffile.tif"
            kind = "rgb" if image.ndim == 3 else "minisblack"
            tifffile.imwrite(path, image, compression=ours, photometric=kind)
            yield f"{title}, tifffile's", path, None
            path = folder / f"{name}-{ours}-pillow.tif"
            Image.fromarray(image).save(path, compression=pillows)
            yield f"{title}, pillow's", path, None
    if side <= 256:
        yield from _stacks(folder, np.stack([wide] * PLANES))


def _stacks(folder: Path, planes: np.ndarray) -> Iterator[tuple[str, Path, int | None]]:
    """Writes a stack with each kind of metadata; a page in its middle is read."""
    axes = {"axes": "ZYX"}
    described: dict[str, dict[str, Any]] = {
        "tifffile's": {"metadata": axes},
        "ImageJ's": {"metadata": axes, "imagej": True},
        "OME's": {"metadata": axes, "ome": True},
        "no": {"metadata": None},
    }
    for whose, options in described.items():
        path = folder / f"stack-{whose[:2]}.tif"
        tifffile.imwrite(path, planes, photometric="minisblack", **options)
        yield f"page of a stack, {whose} metadata", path, len(planes) // 2


def main(argv: Sequence[str]) -> None:
    """Prints the milliseconds of both versions and their ratio for each file."""
    del argv
    here = Path(__file__).resolve().parents[1]
    other = Path(_AGAINST.value) if _AGAINST.value else here
    with (
        contextlib.closing(Reader(here, "")) as ours,
        contextlib.closing(Reader(other, _WITHOUT.value)) as theirs,
        tempfile.TemporaryDirectory() as scratch,
    ):
        print("| file | pixels | before, ms | now, ms | ratio |\n|---|---|---|---|---|")
        for side in map(int, _SIZES.value):
            times = max(1, 1024 // side)
            for name, path, page in _files(Path(scratch), side):
                turns = [
                    [reader.seconds(path, times, page) for reader in (theirs, ours)]
                    for _ in range(_ROUNDS.value + 1)
                ]
                before, now = np.median(turns[1:], axis=0) * 1e3
                ratio = before / now
                print(f"| {name} | {side}² | {before:.2f} | {now:.2f} | {ratio:.2f} |")


if __name__ == "__main__":
    app.run(main)
