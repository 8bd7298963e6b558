"""Does the audit name the right family? Every noise of the library, three strengths.

    pip install -e .[test]
    python benchmarks/audit_verdicts.py --nuclei=DIR

Corrupts 32 built-in cell masks of 128 x 128 and, with `--nuclei`, the label maps of a
folder (pixels that are not 0 are foreground), asks `auditing.verdict` of each set, and
prints the confusion table as Markdown, the misses, how often bootstrap intervals hold a
known transition matrix, and the time that a pair of 512 x 512 takes. The thresholds of
`metaseg.auditing` were chosen on cells of seed 11 and on nuclei of a training folder;
the cells here are of another seed. Exit status 1 if fewer than 95 % are right.
"""

import argparse
import sys
import time
from collections import Counter
from collections.abc import Mapping
from functools import reduce
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image

from metaseg import auditing, noise, ntm
from metaseg.data import synthetic
from metaseg.labels import VOID

TARGET = 0.95
Maps = list[np.ndarray]
Parameters = Mapping[str, Any]


def _steps(name: str, *values: Any, **fixed: Any) -> tuple[Parameters, ...]:
    return tuple({name: value, **fixed} for value in values)


# Expected family: noise: strengths, as in docs/noise.md. "first" erodes before, "then"
# dilates after, "draw" only draws again.
STRENGTHS: dict[str, dict[str, tuple[Parameters, ...]]] = {
    "randomised": {
        "flip": _steps("rate", 0.1, 0.4, 0.9),
        "sample": _steps("fraction", 0.5, 0.1, 0.01),
        "transition": tuple(
            {"matrix": ((1 - r, r), (r, 1 - r))} for r in (0.1, 0.3, 0.6)
        ),
    },
    "perturbed": {
        "dilate": _steps("radius", 1, 3, 6),
        "erode": _steps("radius", 1, 3, 6),
        "random_boundary": _steps("radius", 2, 4, 8, per="object"),
        "skeletonize": ({}, {"then": 1}, {"then": 2}),
        "shift_pixels": _steps("radius", 1, 3, 6),
        "markov": _steps("steps", 20, 60, 180, theta1=0.8),
        "coarsen": _steps("factor", 2, 4, 8),
        "jitter_vertices": _steps("sigma", 0.5, 1.5, 3.0),
        "simplify": _steps("tolerance", 1.0, 3.0, 6.0),
        "translate": _steps("shift", 3, 8, 20),
        "affine": (
            {"angle": 5, "scale": 0.05, "shear": 3, "shift": 2},
            {"angle": 15, "scale": 0.15, "shear": 8, "shift": 5},
            {"angle": 45, "scale": 0.3, "shear": 15, "shift": 10},
        ),
        "elastic": _steps("amplitude", 1.0, 3.0, 8.0),
    },
    "objects": {
        "omit": _steps("rate", 0.2, 0.5, 0.8),
        "add": _steps("rate", 0.2, 0.5, 1.0),
        "merge": _steps("radius", 2, 5, 10),
        "boxes": ({}, {"first": 2}, {"first": 4}),
    },
    "sparse": {
        "points": _steps("radius", 0, 1, 3),
        "scribbles": _steps("length", 10.0, 40.0, 120.0),
    },
    "random": {
        "random": _steps("prior", 0.1, 0.3, 0.5),
        "shuffle": _steps("draw", 1, 2, 3),
        "constant": _steps("fill", 0, 1, VOID),
    },
}


class Case(NamedTuple):
    """One corrupted set and what the audit says of it."""

    data: str
    name: str
    strength: str
    expected: str
    verdict: auditing.Verdict


def parse() -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--nuclei", type=Path, help="folder of label images")
    parser.add_argument("--seed", type=int, default=2026, help="of cells and noises")
    parser.add_argument("--only", default="", help="noises whose name holds this")
    parser.add_argument("--rounds", type=int, default=200, help="of the coverage")
    return parser.parse_args()


def cells(seed: int, count: int = 32, size: int = 128) -> Maps:
    """Masks of built-in cells."""

    def mask(key: jax.Array) -> jax.Array:
        return synthetic.cells(key, height=size, width=size)[1]

    return list(
        np.asarray(jax.lax.map(mask, jax.random.split(jax.random.key(seed), count)))
    )


def folder(path: Path) -> Maps:
    """Binary label maps of a folder."""
    files = sorted(path.glob("*.png"))
    if not files:
        raise SystemExit(f"{path}: no .png file, expected label images")
    return [(np.asarray(Image.open(file)) > 0).astype(np.uint8) for file in files]


def corrupt(name: str, strength: Parameters, maps: Maps, seed: int) -> Maps:
    """The maps under a noise, each with a draw of its own."""
    parameters = dict(strength)
    first, then = parameters.pop("first", 0), parameters.pop("then", 0)
    key = jax.random.fold_in(jax.random.key(seed), parameters.pop("draw", 0))
    fn = noise.build({"name": name, **parameters}, 2)

    @jax.jit
    def one(labels: jax.Array, index: jax.Array) -> jax.Array:
        own = jax.random.fold_in(key, index)
        noisy = fn(own, noise.erode(own, labels, radius=first))
        return noise.dilate(own, noisy, radius=then)

    return [np.asarray(one(labels, index)) for index, labels in enumerate(maps)]


def judge(noisy: Maps, clean: Maps) -> auditing.Verdict:
    """The verdict on a set."""
    pairs = [auditing.compare(a, b, 2) for a, b in zip(noisy, clean, strict=True)]
    return auditing.verdict(reduce(auditing.add, pairs))


def run(data: str, maps: Maps, args: argparse.Namespace) -> list[Case]:
    """All cases on one data set."""
    cases = []
    for expected, group in STRENGTHS.items():
        for name, strengths in group.items():
            if args.only not in name:
                continue
            for strength in strengths:
                verdict = judge(corrupt(name, strength, maps, args.seed), maps)
                shown = ", ".join(f"{k} {v}" for k, v in strength.items()) or "as it is"
                cases.append(Case(data, name, shown, expected, verdict))
                print(f"{data} {name} {shown}: {verdict.family}", file=sys.stderr)
    return cases


def table(cases: list[Case]) -> str:
    """Confusion table, expected by rows."""
    counts = Counter((case.expected, case.verdict.family) for case in cases)
    lines = [f"| expected | {' | '.join(auditing.FAMILIES)} |", "|---" * 7 + "|"]
    for expected in STRENGTHS:
        row = [counts[expected, family] for family in auditing.FAMILIES]
        lines.append(f"| {expected} | {' | '.join(str(n) if n else '' for n in row)} |")
    return "\n".join(lines)


def report(data: str, cases: list[Case]) -> float:
    """Prints table, share right and misses; returns the share."""
    misses = [case for case in cases if case.verdict.family != case.expected]
    right = 1 - len(misses) / max(len(cases), 1)
    print(f"\n{data}: {right:.1%} of {len(cases)} cases right\n\n{table(cases)}\n")
    for case in misses:
        shares = case.verdict.kinds
        print(
            f"- miss: {case.data}, {case.name}, {case.strength}: expected "
            f"{case.expected}, got {case.verdict.family} (independent "
            f"{shares.independent:.2f}, boundary {shares.boundary:.2f}, objects "
            f"{shares.objects:.2f}; {case.verdict.evidence['disagreement']:.2%} wrong)"
        )
    return right


def coverage(data: str, maps: Maps, args: argparse.Namespace) -> None:
    """Prints how often 95 % intervals hold T, over fresh draws of the noise.

    Entries that are 0 or 1 by construction are left out.
    """
    sizes = Counter(one.shape for one in maps)
    shape, count = sizes.most_common(1)[0]
    clean = jnp.asarray(np.stack([one for one in maps if one.shape == shape]))
    count_pairs = jax.jit(
        jax.vmap(lambda a, b: ntm.joint_counts(a, b, 2)),
    )
    settings: tuple[tuple[str, Parameters], ...] = (
        ("flip", {"rate": 0.4}),
        ("sample", {"fraction": 0.1}),
        ("transition", {"matrix": ((0.9, 0.1), (0.3, 0.7))}),
        ("omit", {"rate": 0.5}),
    )
    for name, parameters in settings:
        config = {"name": name, **parameters}
        truth = np.asarray(noise.build_matrix(config, 2), np.float64)
        fn = jax.jit(noise.per_example(noise.build(config, 2)))
        uncertain = (truth > 1e-6) & (truth < 1 - 1e-6)
        held: dict[str, list[float]] = {"bootstrap": [], "Wilson": []}
        for index in range(args.rounds):
            key = jax.random.fold_in(jax.random.key(args.seed + 1), index)
            noisy = fn(key, clean, jnp.arange(count))
            joints = np.asarray(count_pairs(clean, noisy))
            ours = auditing.bootstrap(joints, seed=index)
            wilson = ntm.from_counts(joints.sum(axis=0))
            for kind, ends in (("bootstrap", ours), ("Wilson", wilson)):
                low, high = np.asarray(ends.low), np.asarray(ends.high)
                inside = (low <= truth) & (truth <= high)
                held[kind].append(float(inside[uncertain].mean()))
        print(
            f"| {data}, {count} maps | {name} | {np.mean(held['bootstrap']):.1%} "
            f"| {np.mean(held['Wilson']):.1%} |",
            flush=True,
        )


def time_pair(args: argparse.Namespace) -> None:
    """Prints what a pair of 512 x 512 costs, in this process."""
    clean = cells(args.seed, count=4, size=512)
    for name, strength in (("dilate", {"radius": 3}), ("flip", {"rate": 0.4})):
        noisy = corrupt(name, strength, clean, args.seed)
        spent: dict[str, list[float]] = {"examine": [], "compare": []}
        for labels, reference in zip(noisy, clean, strict=True):
            start = time.perf_counter()
            auditing.examine(labels, 2)
            middle = time.perf_counter()
            auditing.compare(labels, reference, 2)
            spent["examine"].append(middle - start)
            spent["compare"].append(time.perf_counter() - middle)
        shown = ", ".join(
            f"{what} {1e3 * min(times):.0f} ms" for what, times in spent.items()
        )
        print(f"512 x 512 under {name}: {shown}")


def main() -> int:
    """Prints everything; 1 if the target is missed."""
    args = parse()
    sets = {"cells": cells(args.seed)}
    if args.nuclei:
        sets["nuclei"] = folder(args.nuclei)
    cases = [case for data, maps in sets.items() for case in run(data, maps, args)]
    for data in sets:
        report(data, [case for case in cases if case.data == data])
    right = report("all", cases)
    print(
        "\n| data | noise | bootstrap interval holds T | Wilson's |\n|---|---|---|---|"
    )
    for data, maps in sets.items():
        coverage(data, maps, args)
    print()
    time_pair(args)
    return int(right < TARGET)


if __name__ == "__main__":
    sys.exit(main())
