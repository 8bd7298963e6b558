"""Noise and morphology on device, against what a user would write or install.

    pip install -e .[test]
    python benchmarks/noise.py

Every row is one function on a batch of label maps, on the device of jax and on the
host: vectorised NumPy (one thread, and one thread per core: the faster counts), a loop
over pixels in Python (timed on one map), scipy or scikit-image map by map. Ours and the
reference take turns, so that a busy machine slows both; medians over `--rounds`.
"of copy" is the time that a copy of the same labels takes, over ours.
"""

import argparse
import os
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import scipy.ndimage as ndi
from skimage.morphology import disk
from skimage.morphology import skeletonize as skimage_skeletonize
from timing import Row, Run, medians

from metaseg import morphology, noise, ntm
from metaseg.data import synthetic

RATE, FRACTION, CLASSES, RADIUS = 0.4, 0.1, 5, 3


def parse() -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--batch", type=int, default=64, help="maps at a time")
    parser.add_argument("--size", type=int, default=256, help="sides of the maps")
    parser.add_argument("--rounds", type=int, default=7, help="turns of each side")
    parser.add_argument("--only", default="", help="rows whose name holds this")
    return parser.parse_args()


def cell_masks(batch: int, size: int) -> np.ndarray:
    """Label maps of the built-in cells, uint8 `[B, S, S]`."""
    render = partial(synthetic.cells, height=size, width=size)
    keys = jax.random.split(jax.random.key(0), batch)
    return np.asarray(jax.lax.map(lambda key: render(key)[1], keys))


def regions(batch: int, size: int, num_classes: int) -> np.ndarray:
    """Label maps of smooth regions of several classes, uint8 `[B, S, S]`."""
    grids = jax.random.normal(jax.random.key(1), (batch, 16, 16, num_classes))
    fields = jax.image.resize(grids, (batch, size, size, num_classes), "cubic")
    return np.asarray(jnp.argmax(fields, axis=-1).astype(jnp.uint8))


def threaded(fn: Callable[..., np.ndarray], labels: np.ndarray) -> Run:
    """`fn(rng, labels)` on a thread per core, each with its share of the batch."""
    count = os.cpu_count() or 1
    pool = ThreadPoolExecutor(count)
    parts = np.array_split(labels, count)
    rngs = [np.random.default_rng(i) for i in range(count)]
    return lambda: np.concatenate(list(pool.map(fn, rngs, parts)))


def numpy_flip(rng: np.random.Generator, labels: np.ndarray) -> np.ndarray:
    """Binary flips."""
    return np.where(rng.random(labels.shape, np.float32) < RATE, 1 - labels, labels)


def numpy_sample(rng: np.random.Generator, labels: np.ndarray) -> np.ndarray:
    """Keeps a fraction of the foreground."""
    dropped = (labels > 0) & (rng.random(labels.shape, np.float32) >= FRACTION)
    return np.where(dropped, 0, labels).astype(labels.dtype)


def numpy_transition(
    rng: np.random.Generator, labels: np.ndarray, *, matrix: np.ndarray
) -> np.ndarray:
    """Inverts the cumulative distribution of each pixel's row."""
    drawn = rng.random(labels.shape, np.float32)
    cuts = np.cumsum(matrix, axis=1, dtype=np.float32)[:, :-1]
    noisy = np.zeros_like(labels)
    for column in cuts.T:
        noisy += drawn >= column[labels]
    return noisy


def python_loop(rng: np.random.Generator, labels: np.ndarray) -> np.ndarray:
    """Flips pixel by pixel."""
    noisy = labels.copy()
    for row in range(labels.shape[0]):
        for col in range(labels.shape[1]):
            if rng.random() < RATE:
                noisy[row, col] = 1 - noisy[row, col]
    return noisy


def jax_bernoulli(key: jax.Array, labels: jax.Array) -> jax.Array:
    """Flips as one would write them in jax."""
    flipped = jax.random.bernoulli(key, RATE, labels.shape)
    return jnp.where(flipped, 1 - labels, labels)


def numpy_rows(
    name: str, ours: Run, fn: Callable[..., np.ndarray], labels: np.ndarray
) -> Iterator[Row]:
    """A row against one thread and one against all of them."""
    rng = np.random.default_rng(0)
    yield Row(name, ours, "NumPy, 1 thread", lambda: fn(rng, labels), 1.0)
    threads = f"NumPy, {os.cpu_count()} threads"
    yield Row(name, ours, threads, threaded(fn, labels), 1.0)


def rows(batch: int, size: int) -> Iterator[Row]:
    """All rows of the table."""
    binary, many = cell_masks(batch, size), regions(batch, size, CLASSES)
    masks = binary.astype(bool)
    matrix = np.asarray(ntm.symmetric(CLASSES, RATE))
    key, ids = jax.random.key(0), jnp.arange(batch)
    on_device = {id(x): jnp.asarray(x) for x in (binary, many, masks)}

    def noisy(fn: noise.NoiseFn, labels: np.ndarray) -> Run:
        compiled = jax.jit(noise.per_example(fn))
        return lambda: compiled(key, on_device[id(labels)], ids)

    def of_masks(fn: Callable[[jax.Array], jax.Array]) -> Run:
        compiled = jax.jit(fn)
        return lambda: compiled(on_device[id(masks)])

    def each(fn: Callable[[np.ndarray], Any]) -> Run:
        return lambda: [fn(mask) for mask in masks]

    flip = noisy(partial(noise.flip, rate=RATE), binary)
    yield from numpy_rows("flip", flip, numpy_flip, binary)
    plain = jax.jit(jax_bernoulli)
    bernoulli: Run = lambda: plain(key, on_device[id(binary)])  # noqa: E731
    yield Row("flip", flip, "jax.random.bernoulli", bernoulli)
    rng = np.random.default_rng(0)
    loop: Run = lambda: python_loop(rng, binary[0])  # noqa: E731
    yield Row("flip", flip, "Python loop over pixels", loop, 50, scale=batch)
    sample = noisy(partial(noise.sample, fraction=FRACTION), binary)
    yield from numpy_rows("sample", sample, numpy_sample, binary)
    exact = noisy(partial(noise.sample, fraction=FRACTION, exact=True), binary)
    yield from numpy_rows("sample, exact", exact, numpy_exact, binary)
    drawn = noisy(partial(noise.transition, matrix=matrix), many)
    by_matrix = partial(numpy_transition, matrix=matrix)
    yield from numpy_rows(f"transition, K = {CLASSES}", drawn, by_matrix, many)

    dilation = each(partial(ndi.binary_dilation, structure=disk(RADIUS)))
    dilate = noisy(partial(noise.dilate, radius=RADIUS), binary)
    yield Row(f"dilate, radius {RADIUS}", dilate, "scipy", dilation, 3)
    skeleton = of_masks(morphology.skeletonize)
    yield Row("skeleton", skeleton, "scikit-image", each(skimage_skeletonize), 1)
    distance = of_masks(morphology.distance)
    yield Row("distance", distance, "scipy", each(ndi.distance_transform_edt), 1)
    eight = np.ones((3, 3), bool)
    components = of_masks(morphology.components)
    label = each(partial(ndi.label, structure=eight))
    yield Row("components", components, "scipy", label, 0.5)
    fill = of_masks(morphology.fill_holes)
    yield Row("fill holes", fill, "scipy", each(ndi.binary_fill_holes), 1)


def numpy_exact(rng: np.random.Generator, labels: np.ndarray) -> np.ndarray:
    """Keeps an exact share of each map's foreground, map by map."""
    noisy = np.zeros_like(labels)
    for clean, kept in zip(labels, noisy, strict=True):
        places = np.flatnonzero(clean)
        count = int(np.ceil(len(places) * FRACTION))
        kept.ravel()[rng.permutation(places)[:count]] = 1
    return noisy


def main() -> int:
    """Prints the table; 1 if a target is missed."""
    args = parse()
    labels = jnp.zeros((args.batch, args.size, args.size), jnp.uint8)
    copy = partial(jax.jit(lambda x: x ^ 1), labels)
    device = jax.devices()[0]
    print(
        f"{args.batch} maps of {args.size} x {args.size}, jax {jax.__version__} on "
        f"{device.device_kind} ({jax.default_backend()}), {os.cpu_count()} cores; "
        f"median of {args.rounds} rounds\n"
    )
    print("| function | ours, ms | of copy | reference | ms | ratio | target |")
    print("|---|---|---|---|---|---|---|")
    missed = 0
    for row in rows(args.batch, args.size):
        if args.only not in row.name:
            continue
        runs: dict[str, Run] = {"copy": copy, "ours": row.ours}
        runs["reference"] = row.reference
        median = medians(runs, args.rounds)
        median["reference"] *= row.scale
        ratio = median["reference"] / median["ours"]
        missed += row.target is not None and ratio < row.target
        target = "" if row.target is None else f"{row.target:g}"
        print(
            f"| {row.name} | {1e3 * median['ours']:.1f} "
            f"| {median['copy'] / median['ours']:.1%} | {row.reference_name} "
            f"| {1e3 * median['reference']:.1f} | {ratio:.2f} | {target} |",
            flush=True,
        )
    return int(missed > 0)


if __name__ == "__main__":
    sys.exit(main())
