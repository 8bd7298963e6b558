"""Strong and weak scaling of the training step over devices.

    python benchmarks/scaling.py                 # virtual CPU devices, as in the tests
    python benchmarks/scaling.py --devices=1,2,4 --width=64 --depth=4 --batch=32

Strong scaling keeps the batch, weak scaling the batch of each device. All numbers of
devices alternate in rounds, so that a busy machine slows all of them equally. A row
gives images per second as a ratio to one device (median, and range, over rounds). The
bytes that devices exchange in a step are read from the compiled program. Virtual
devices share the cores of the machine. A single one uses all cores; several use one
each.
"""

import argparse
import math
import os
import re
import statistics
import time
from collections.abc import Callable
from typing import Any

SIZES = {"f32": 4, "s32": 4, "u32": 4, "bf16": 2, "f16": 2, "pred": 1, "u8": 1}


def parse() -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--devices", default="1,2,4,8", help="numbers of devices")
    parser.add_argument("--partitioner", default="jit", choices=("jit", "pmap"))
    parser.add_argument("--width", type=int, default=8)
    parser.add_argument("--depth", type=int, default=3)
    parser.add_argument("--size", type=int, default=64, help="sides of the images")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--steps", type=int, default=3, help="steps in a round")
    return parser.parse_args()


ARGS = parse() if __name__ == "__main__" else argparse.Namespace(devices="1")
COUNTS = [int(n) for n in ARGS.devices.split(",")]
if "XLA_FLAGS" not in os.environ:  # of no effect where there are real devices
    os.environ["XLA_FLAGS"] = f"--xla_force_host_platform_device_count={max(COUNTS)}"

import jax  # noqa: E402
import numpy as np  # noqa: E402
import optax  # noqa: E402

from metaseg import losses, models, noise, parallel, training  # noqa: E402
from metaseg.batch import Batch  # noqa: E402


def exchanged(program: parallel.Program) -> int:
    """Returns the bytes that a step sums over devices, from its compiled text."""
    total = 0
    for line in program.executable.as_text().splitlines():
        found = re.match(r"\s*\S+ = (.*?) all-reduce(-start)?\(", line)
        if found is None:
            continue
        for kind, shape in re.findall(r"(\w+)\[([\d,]*)\]", found[1]):
            total += SIZES[kind] * math.prod(int(n) for n in shape.split(",") if n)
    return total


def contender(devices: int, batch: int) -> tuple[Callable[[int], None], int]:
    """Returns a function that takes some steps, and the bytes exchanged in each."""
    model = models.UNet(width=ARGS.width, depth=ARGS.depth)
    options = models.compiler_options(devices)
    layout = parallel.build(
        ARGS.partitioner,
        devices=jax.devices()[:devices],
        compiler_options=options,
    )
    step = training.Step(
        model=model,
        optimizer=optax.sgd(0.05, momentum=0.9),
        loss=losses.cross_entropy_sums,
        noise=noise.build({"name": "flip", "rate": 0.4}, 2),
        augment=lambda key, image, label, valid_size: (image, label),
    )
    step = training.mapped(step, layout.axis_name)

    def take(settings: Any, state: Any, data: Any, rows: Any, count: Any) -> Any:
        keys = [jax.random.wrap_key_data(key) for key in settings]
        return training.train_steps(step, state, data, rows, count, *keys)

    rng = np.random.default_rng(0)
    shape = (64, ARGS.size, ARGS.size)
    label = rng.integers(0, 2, shape).astype(np.uint8)
    image = rng.normal(size=(*shape, 1)).astype(np.float32)
    ids = np.arange(64, dtype=np.uint32)
    data = layout.put_data(Batch(image, label, ids, np.full((64, 2), ARGS.size)))
    first = training.create_state(
        jax.random.key(0), model, step.optimizer, (ARGS.size, ARGS.size, 1)
    )
    key = np.asarray(jax.random.key_data(jax.random.key(1)))
    told, state = layout.put_settings((key, key)), layout.put_state(first)
    rows = layout.put_rows(rng.integers(0, 64, (1, batch)).astype(np.int32))
    program = layout.train(take, told, state, data, rows, 1)

    def run(steps: int) -> None:
        nonlocal state
        for _ in range(steps):
            state, found = program(told, state, data, rows, 1)
        jax.block_until_ready(found)

    return run, exchanged(program)


def main() -> None:
    """Prints both tables."""
    for name, batches in (
        ("strong", [ARGS.batch for _ in COUNTS]),
        ("weak", [ARGS.batch // max(COUNTS) * n for n in COUNTS]),
    ):
        made = [contender(n, b) for n, b in zip(COUNTS, batches, strict=True)]
        for run, _ in made:
            run(2)
        speeds: list[list[float]] = [[] for _ in COUNTS]
        for _ in range(ARGS.rounds):
            for i, (run, _) in enumerate(made):
                began = time.perf_counter()
                run(ARGS.steps)
                seconds = time.perf_counter() - began
                speeds[i].append(ARGS.steps * batches[i] / seconds)
        print(f"{name}: devices, batch, images/s as a ratio to one device, bytes/step")
        for i, n in enumerate(COUNTS):
            ratios = [a / b for a, b in zip(speeds[i], speeds[0], strict=True)]
            print(
                f"  {n:3d} {batches[i]:5d}   {statistics.median(ratios):5.2f} "
                f"({min(ratios):.2f} to {max(ratios):.2f})   {made[i][1]:,}"
            )


if __name__ == "__main__":
    main()
