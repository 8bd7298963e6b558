"""What bounds a training step on a GPU or TPU: a roofline, without having one.

    python benchmarks/roofline.py
    python benchmarks/roofline.py --width=128 --dtype=float32

The step is traced, not compiled. `metaseg.parallel.traffic` divides it into passes and
counts the FLOPs and bytes of each. A pass takes at least the larger of its FLOPs over
the peak rate and its bytes over the bandwidth of the memory; the bound of the step is
the sum. A TPU keeps channels in lanes, in multiples of 128: its rows come twice, as if
it did not, and with arrays and products padded. With `--compile` the bytes are also
those of XLA's cost analysis for a CPU.
"""

import argparse
import math
from collections.abc import Sequence
from functools import partial
from types import SimpleNamespace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from metaseg import training
from metaseg.batch import Batch
from metaseg.parallel import cost, traffic
from metaseg.runs import defaults
from metaseg.runs.training import steps

WIDTHS = (8, 16, 32, 64, 128)
LANES = 128  # of a TPU's registers, and sides of its matrix unit


class Device(NamedTuple):
    """A device as its maker states it.

    Attributes:
      name: Name in tables.
      kind: `device_kind` of JAX, for the peak rate.
      bandwidth: Bytes per second of its memory.
      lanes: Number of channels to a multiple of which arrays and products are padded.
    """

    name: str
    kind: str
    bandwidth: float
    lanes: int = 1

    def peak(self, dtype: Any) -> float:
        """FLOP/s of products of numbers of a type."""
        rate = cost.peak_flops(SimpleNamespace(device_kind=self.kind), dtype)
        assert rate is not None
        return rate


DEVICES = (
    Device("H100", "NVIDIA H100 80GB HBM3", 3.35e12),
    Device("A100", "NVIDIA A100-SXM4-80GB", 2.039e12),
    Device("TPU v5e", "TPU v5 lite", 0.819e12),
    Device("v5e, padded", "TPU v5 lite", 0.819e12, LANES),
)


class Bound(NamedTuple):
    """The least time of some passes on a device, in seconds."""

    compute: float
    memory: float
    in_turn: float  # each pass by what bounds it


def bound(passes: Sequence[traffic.Pass], device: Device, dtype: Any) -> Bound:
    """Returns the least time of passes."""
    times = [
        (
            padded_flops(one, device.lanes) / device.peak(dtype),
            padded_bytes(one, device.lanes) / device.bandwidth,
        )
        for one in passes
    ]
    compute, memory = (sum(part) for part in zip(*times, strict=True))
    return Bound(compute, memory, sum(map(max, times)))


def padded(size: int, multiple: int) -> int:
    """Returns the next multiple; of one channel 1, as other axes take its lanes."""
    return 1 if size == 1 else math.ceil(size / multiple) * multiple


def padded_bytes(one: traffic.Pass, lanes: int) -> int:
    """Bytes of a pass if the channels of feature maps fill whole lanes."""
    return sum(
        math.prod(each.shape[:-1])
        * padded(each.shape[-1], lanes if len(each.shape) > 3 else 1)
        * each.dtype.itemsize
        for each in (*one.read, *one.written)
        if each.shape
    )


def padded_flops(one: traffic.Pass, lanes: int) -> float:
    """FLOPs of a pass if the channels on both sides of a kernel fill whole lanes."""
    kernels = [each.shape for each in (*one.read, *one.written) if is_kernel(each)]
    if not one.flops or not kernels:
        return one.flops
    before, after = kernels[0][-2:]
    fill = before * after / (padded(before, lanes) * padded(after, lanes))
    return one.flops / fill


def is_kernel(array: Any) -> bool:
    """Tells kernels `[3, 3, C, D]`, `[2, 2, C, D]` and `[C, D]` from feature maps."""
    shape = array.shape
    return len(shape) == 2 or (len(shape) == 4 and shape[0] == shape[1] < 4)


def trace(args: argparse.Namespace) -> tuple[Any, tuple[Any, ...]]:
    """Returns the step and the shapes of its arguments."""
    config = defaults.get_config()
    config.model.width, config.model.depth = args.width, args.depth
    config.model.dtype = args.dtype
    config.noise.name, config.noise.rate = "flip", 0.3
    config.optimizer.name = "adam"
    config.augment.crop = 0
    parts = steps.build(config)

    def state(key: jax.Array) -> training.TrainState:
        image = jnp.zeros((1, args.size, args.size, 1))
        kept = dict(parts.model.init(key, image, train=False))
        opt_state = parts.optimizer.init(kept["params"])
        average = kept if parts.ema_decay else None
        return training.TrainState(
            jnp.int32(0), **kept, opt_state=opt_state, ema_params=average
        )

    def array(*shape: int, dtype: Any = np.float32) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct((args.batch, *shape), dtype)

    size = args.size
    batch = Batch(
        array(size, size, 1),
        array(size, size, dtype=np.uint8),
        array(dtype=np.uint32),
        array(2, dtype=np.int32),
    )
    key = jax.eval_shape(lambda: jax.random.key(0))
    shapes = (jax.eval_shape(state, key), batch, key, key)
    return partial(training.train_step, parts), shapes


def side(one: traffic.Pass, batch: int) -> int:
    """Side of the largest feature map that a pass touches; 0 for weights."""
    maps = [
        math.isqrt(math.prod(each.shape[1:-1]))
        for each in (*one.read, *one.written)
        if len(each.shape) > 3 and each.shape[0] == batch
    ]
    return max(maps, default=0)


def print_step(passes: Sequence[traffic.Pass], args: argparse.Namespace) -> None:
    """Prints what bounds the whole step on each device."""
    flops = sum(one.flops for one in passes)
    moved = sum(one.bytes_moved for one in passes)
    alone = [one for one in passes if one.flops]
    products = sum(one.bytes_moved for one in alone)
    print(
        f"{len(alone)} products and {len(passes) - len(alone)} other passes; "
        f"{flops / 1e12:.3f} TFLOP; {moved / 1e9:.1f} GB, of them {products / 1e9:.1f} "
        f"by products; {flops / moved:.0f} FLOP/byte\n"
    )
    print("| device | peak | memory | ridge | compute | memory | in turn | images/s |")
    print("|---|---|---|---|---|---|---|---|")
    for device in DEVICES:
        least, peak = bound(passes, device, args.dtype), device.peak(args.dtype)
        print(
            f"| {device.name} | {peak / 1e12:.0f} TFLOP/s | "
            f"{device.bandwidth / 1e12:.3g} TB/s | {peak / device.bandwidth:.0f} | "
            f"{1e3 * least.compute:.1f} ms | {1e3 * least.memory:.1f} ms | "
            f"{1e3 * least.in_turn:.1f} ms | {args.batch / least.in_turn:.0f} |"
        )


def print_levels(passes: Sequence[traffic.Pass], args: argparse.Namespace) -> None:
    """Prints FLOPs, bytes and what bounds the passes of each level."""
    names = " | ".join(device.name for device in DEVICES)
    print(f"\n| side | passes | GFLOP | GB | FLOP/byte | {names} |")
    print("|---|---|---|---|---|" + "---|" * len(DEVICES))
    for one_side in sorted({side(one, args.batch) for one in passes}, reverse=True):
        level = [one for one in passes if side(one, args.batch) == one_side]
        for name, chosen in (
            ("products", [one for one in level if one.flops]),
            ("fused", [one for one in level if not one.flops]),
        ):
            if not chosen:
                continue
            flops = sum(one.flops for one in chosen)
            moved = sum(one.bytes_moved for one in chosen)
            times = [bound(chosen, device, args.dtype) for device in DEVICES]
            bounds = [
                f"{1e3 * t.in_turn:.2f} ms {'c' if t.compute > t.memory else 'm'}"
                for t in times
            ]
            print(
                f"| {one_side or 'weights'} | {len(chosen)} {name} | "
                f"{flops / 1e9:.0f} | {moved / 1e9:.2f} | {flops / moved:.0f} | "
                f"{' | '.join(bounds)} |"
            )


def print_widths(args: argparse.Namespace) -> None:
    """Prints what share of the products is not padding, by width."""
    print("\n| width | FLOP/byte of a layer | 128 lanes | images/s: H100, v5e padded |")
    print("|---|---|---|---|")
    for width in WIDTHS:
        args.width = width
        step, shapes = trace(args)
        passes = traffic.passes(step, *shapes)
        flops = sum(one.flops for one in passes)
        spent = sum(padded_flops(one, LANES) for one in passes)
        rates = [
            args.batch / bound(passes, device, args.dtype).in_turn
            for device in (DEVICES[0], DEVICES[-1])
        ]
        print(
            f"| {width} | {18 * width / (2 * jnp.dtype(args.dtype).itemsize):.0f} | "
            f"{100 * flops / spent:.1f} % | {rates[0]:.0f}, {rates[1]:.0f} |"
        )


def main() -> None:
    """Prints the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--depth", type=int, default=4)
    parser.add_argument("--size", type=int, default=256, help="sides of the images")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--dtype", default="bfloat16", choices=("bfloat16", "float32"))
    parser.add_argument("--compile", action="store_true", help="compile it for a CPU")
    args = parser.parse_args()
    step, shapes = trace(args)
    passes = traffic.passes(step, *shapes)
    print_step(passes, args)
    print_levels(passes, args)
    if args.compile:
        analysis: Any = jax.jit(step).lower(*shapes).compile().cost_analysis()
        moved = sum(one.bytes_moved for one in passes)
        found = analysis["bytes accessed"]
        print(
            f"\nXLA for a CPU: {found / 1e9:.1f} GB, {found / moved:.2f} of the above"
        )
    print_widths(args)


if __name__ == "__main__":
    main()
