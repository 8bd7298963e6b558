"""Time and peak memory of experiments/predict.py, on images drawn for the purpose.

    python benchmarks/prediction.py --run=WORKDIR --side=20000
    python benchmarks/prediction.py --run=WORKDIR --side=128 --count=20000

`--count` square 8-bit grey PNGs of `--side` pixels are written to a temporary folder,
predicted by a process of its own, whose peak resident memory is that of the table, and
removed. A second run with the same output, which finds everything done, is timed too.
"""

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image
from scipy import ndimage

SCRIPT = Path(__file__).resolve().parents[1] / "experiments" / "predict.py"
PATCH = 512  # pixels a side of what large images are made of


def parse() -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--run", required=True, help="work folder of a finished run")
    parser.add_argument("--side", type=int, default=1024, help="pixels")
    parser.add_argument("--count", type=int, default=1, help="images")
    parser.add_argument("--folder", help="where the temporary folder goes")
    parser.add_argument("flags", nargs="*", help="for predict.py, after --")
    return parser.parse_args()


def blobs(rng: np.random.Generator) -> np.ndarray:
    """Bright blobs on a dark ground, uint8 `[PATCH, PATCH]`, which tile seamlessly."""
    smooth = ndimage.gaussian_filter(rng.normal(size=(PATCH, PATCH)), 6, mode="wrap")
    bright = 150 * (smooth > smooth.std()) + 40 + rng.normal(0, 8, smooth.shape)
    return bright.clip(0, 255).astype(np.uint8)


def write_images(folder: Path, side: int, count: int) -> None:
    """Writes the images; those that follow each other differ."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    patches = [blobs(rng) for _ in range(16)]
    repeats = -(-side // PATCH)
    for index in range(count):
        patch = np.roll(patches[index % 16], rng.integers(PATCH, size=2), (0, 1))
        image = np.tile(patch, (repeats, repeats))[:side, :side]
        Image.fromarray(image).save(folder / f"{index:06}.png", compress_level=1)


def main() -> None:
    """Writes images, predicts them twice, and prints a line for each."""
    args = parse()
    with tempfile.TemporaryDirectory(dir=args.folder) as scratch:
        images, output = Path(scratch) / "images", Path(scratch) / "output"
        write_images(images, args.side, args.count)
        command = [sys.executable, str(SCRIPT), f"--run={args.run}"]
        command += [f"--images={images}", f"--output={output}", *args.flags]
        mega = args.count * args.side**2 / 1e6
        for what in ("predicted", "found done"):
            start = time.perf_counter()
            subprocess.run(command, check=True)
            seconds = time.perf_counter() - start
            # Of the largest child so far; the second needs no more than the first.
            peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
            peak *= 1 if sys.platform == "darwin" else 1024
            print(
                f"{args.count} x {args.side} x {args.side} {what}: {seconds:.1f} s, "
                f"{args.count / seconds:.3g} images/s, {mega / seconds:.3g} "
                f"megapixels/s, start included; peak {peak / 1e9:.2f} GB"
            )


if __name__ == "__main__":
    main()
