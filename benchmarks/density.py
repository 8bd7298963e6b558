"""Local class densities on device, against what a user would write or install.

    pip install -e .[test]
    python benchmarks/density.py

Ours is `spatial_density` of a batch of binary label maps, void left out. The reference
is `scipy.ndimage.gaussian_filter` of each class's map, divided by their sum, map by
map; for box `uniform_filter` likewise; epanechnikov, which scipy does not have, is
timed against the same gaussian. scikit-learn's `KernelDensity` evaluates on one map of
64 x 64 each class at every pixel, times its share; its time is scaled to the pixels of
the batch, which favours it, as it grows with their square. Its row is left out if
scikit-learn, which nothing here needs, is not installed. Ours and the reference take
turns, so that a busy machine slows both; medians over `--rounds`.
"""

import argparse
import importlib.util
import os
import sys
from collections.abc import Callable, Iterator
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import scipy.ndimage as ndi
from timing import Row, Run, medians

from metaseg import density
from metaseg.data import synthetic

CLASSES, SMALL = 2, 64
TARGETS = {2: 1.0, 32: 3.0}  # bandwidth: how often as fast as scipy, at least


def parse() -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--sizes", default="16x256,3x1024", help="batches, as maps x sides"
    )
    parser.add_argument("--bandwidths", default="2,8,32", help="in pixels")
    parser.add_argument("--rounds", type=int, default=5, help="turns of each side")
    parser.add_argument("--only", default="", help="rows whose name holds this")
    return parser.parse_args()


def cell_masks(batch: int, size: int) -> np.ndarray:
    """Label maps of the built-in cells, uint8 `[B, S, S]`."""
    render = partial(synthetic.cells, height=256, width=256)
    keys = jax.random.split(jax.random.key(0), batch)
    masks = np.asarray(jax.lax.map(lambda key: render(key)[1], keys))
    repeats = -(-size // 256)
    return np.tile(masks, (1, repeats, repeats))[:, :size, :size]


def by_scipy(labels: np.ndarray, smooth: Callable[..., np.ndarray]) -> np.ndarray:
    """Densities `[B, H, W, K]`, class by class and map by map."""
    field = np.zeros((*labels.shape, CLASSES), np.float32)
    for one, out in zip(labels, field, strict=True):
        planes = [smooth((one == k).astype(np.float32)) for k in range(CLASSES)]
        mass = np.stack(planes, axis=-1)
        total = mass.sum(axis=-1, keepdims=True)
        np.divide(mass, total, out=out, where=total > 0)
    return field


def kernel_density(labels: np.ndarray, bandwidth: float) -> Run | None:
    """The same of one map, by scikit-learn; None if that is not installed."""
    try:
        neighbors = importlib.import_module("sklearn.neighbors")
    except ModuleNotFoundError:
        return None
    everywhere = np.argwhere(np.ones(labels.shape, bool))

    def run() -> np.ndarray:
        masses = []
        for class_id in range(CLASSES):
            places = np.argwhere(labels == class_id)
            model = neighbors.KernelDensity(bandwidth=bandwidth).fit(places)
            masses.append(np.exp(model.score_samples(everywhere)) * len(places))
        mass = np.stack(masses, axis=-1)
        return mass / mass.sum(axis=-1, keepdims=True)

    return run


def rows(batch: int, size: int, bandwidths: list[float]) -> Iterator[Row]:
    """All rows of the table for one batch."""
    labels = cell_masks(batch, size)
    on_device = jnp.asarray(labels)
    for width in bandwidths:

        def ours(kernel: str, width: float = width) -> Run:
            compiled = jax.jit(
                partial(
                    density.spatial_density,
                    num_classes=CLASSES,
                    bandwidth=width,
                    kernel=kernel,
                )
            )
            return lambda: compiled(on_device)

        blur = partial(ndi.gaussian_filter, sigma=width, mode="constant")
        mean = partial(ndi.uniform_filter, size=2 * int(width) + 1, mode="constant")
        gaussian: Run = partial(by_scipy, labels, blur)
        box: Run = partial(by_scipy, labels, mean)
        what = f"{batch} of {size}, bandwidth {width:g}"
        target = TARGETS.get(int(width))
        name = f"gaussian, {what}"
        yield Row(name, ours("gaussian"), "scipy gaussian_filter", gaussian, target)
        yield Row(f"box, {what}", ours("box"), "scipy uniform_filter", box)
        name = f"epanechnikov, {what}"
        yield Row(name, ours("epanechnikov"), "scipy gaussian_filter", gaussian)
        crop = labels[0, :SMALL, :SMALL]
        if size == 256 and (estimate := kernel_density(crop, width)):
            scale = labels.size / crop.size
            name = f"gaussian, {what}"
            yield Row(name, ours("gaussian"), "KernelDensity", estimate, scale=scale)


def main() -> int:
    """Prints the table; 1 if a target is missed."""
    args = parse()
    bandwidths = [float(width) for width in args.bandwidths.split(",")]
    print(
        f"K = {CLASSES}, jax {jax.__version__} on {jax.devices()[0].device_kind} "
        f"({jax.default_backend()}), {os.cpu_count()} cores, load "
        f"{os.getloadavg()[0]:.1f}; median of {args.rounds} rounds\n"
    )
    print("| density | ours, ms | reference | ms | ratio | target |")
    print("|---|---|---|---|---|---|")
    missed = 0
    for sizes in args.sizes.split(","):
        batch, size = map(int, sizes.split("x"))
        for row in rows(batch, size, bandwidths):
            if args.only not in row.name:
                continue
            runs = {"ours": row.ours, "reference": row.reference}
            ours, reference = medians(runs, args.rounds).values()
            reference *= row.scale
            ratio = reference / ours
            missed += row.target is not None and ratio < row.target
            target = "" if row.target is None else f"{row.target:g}"
            print(
                f"| {row.name} | {1e3 * ours:.1f} | {row.reference_name} "
                f"| {1e3 * reference:.1f} | {ratio:.2f} | {target} |",
                flush=True,
            )
    if importlib.util.find_spec("sklearn") is None:
        print("\nscikit-learn is not installed: the rows of KernelDensity are left out")
    return int(missed > 0)


if __name__ == "__main__":
    sys.exit(main())
