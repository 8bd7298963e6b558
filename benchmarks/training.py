"""Images per second of a training step: metaseg's U-Net against PyTorch's.

    pip install -e .[bench]
    python benchmarks/training.py --width=8 --batch=8 --size=128
    python benchmarks/training.py --device=gpu --dtype=bfloat16 --compile --width=64
    python benchmarks/training.py --ensemble=8
    python benchmarks/training.py --inference --size=1024 --batch=2

Both sides hold the same network with the same weights (checked: equal logits), take
the same batch, and do forward, BCE, backward and SGD with momentum. They take turns, so
that a busy machine slows both. PyTorch runs channels_last; `--dtype=bfloat16` is its
autocast, and metaseg's dtype of activations and products. In float32 a GPU multiplies
in TF32 on both sides. On a CPU metaseg spreads the batch over a device for each core,
as a run does. `--compile` times torch.compile and `--flax` a plain Flax port as
well.

`--ensemble=N` needs no PyTorch: N networks trained side by side, by one step vmapped
over them, against the same N one after the other.

`--inference` times the network alone, with the running statistics of batch norm:
PyTorch's in eval mode under inference_mode.
"""

import argparse
import copy
import glob
import importlib
import importlib.util
import math
import os
import sys
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NoReturn
from unittest import mock

from metaseg import host

# Takes so many training steps, and waits until they are done.
Run = Callable[[int], Any]


def fail(message: str) -> NoReturn:
    """Stops with one line."""
    print(f"benchmarks/training.py: {message}", file=sys.stderr)
    sys.exit(2)


class Parser(argparse.ArgumentParser):
    """A parser whose errors are one line."""

    def error(self, message: str) -> NoReturn:
        """Stops without a summary of the usage."""
        fail(message)


def parse() -> argparse.Namespace:
    """Reads the command line."""
    parser = Parser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--device", choices=("cpu", "gpu"), help="default: what jax has")
    add("--dtype", choices=("float32", "bfloat16"), default="float32")
    add("--width", type=int, default=8, help="channels of level one")
    add("--depth", type=int, default=4, help="number of poolings")
    add("--size", type=int, default=128, help="sides of the images")
    add("--batch", type=int, default=8, help="images a step; of each network")
    add("--threads", type=int, default=2, help="cores; of no effect on a GPU")
    add("--rounds", type=int, default=10)
    add("--steps", type=int, help="steps in a round; default: a second's")
    add("--compile", action="store_true", help="time torch.compile as well")
    add("--flax", action="store_true", help="time a plain port as well")
    add("--ensemble", type=int, metavar="N", help="networks side by side")
    add("--inference", action="store_true", help="time the network, not training")
    args = parser.parse_args()
    for name in ("width", "depth", "size", "batch", "threads", "rounds", "steps"):
        if (value := getattr(args, name)) is not None and value < 1:
            parser.error(f"--{name}: got {value}, expected at least 1")
    if args.ensemble is not None and args.ensemble < 2:
        parser.error(f"--ensemble: got {args.ensemble}, expected at least 2")
    if args.ensemble and (args.compile or args.flax or args.inference):
        parser.error("--ensemble: got --compile, --flax or --inference too")
    if args.size % 2**args.depth:
        parser.error(
            f"--size: got {args.size}, expected a multiple of {2**args.depth}, as "
            f"--depth={args.depth} halves the sides so often"
        )
    return args


def prepare(args: argparse.Namespace) -> None:
    """Sets what the host process must know before jax asks for it."""
    host.keep_freed_memory()
    if args.device is None and (
        glob.glob("/dev/nvidia[0-9]*") or os.path.exists("/dev/kfd")
    ):
        args.device = "gpu"
    if args.device == "gpu":
        # jax takes three quarters of the memory if it may; PyTorch needs as much.
        if not args.ensemble:
            os.environ.setdefault("XLA_CLIENT_MEM_FRACTION", "0.45")
        return
    if args.device == "cpu":
        os.environ["JAX_PLATFORMS"] = "cpu"
    if hasattr(os, "sched_setaffinity"):  # thread pools are as large as this says
        cores = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, cores[: args.threads])
    if not args.ensemble:
        host.split_processor(args.batch)


if __name__ == "__main__":
    ARGS = parse()
    prepare(ARGS)

import flax.linen as nn  # noqa: E402
import jax  # noqa: E402
import jax.numpy as jnp  # noqa: E402
import numpy as np  # noqa: E402
import optax  # noqa: E402
from jax.sharding import AxisType, NamedSharding  # noqa: E402
from jax.sharding import PartitionSpec as P  # noqa: E402

from metaseg import models  # noqa: E402
from metaseg.parallel import cost  # noqa: E402

torch: Any = (
    importlib.import_module("torch") if importlib.util.find_spec("torch") else None
)


class PlainUNet(nn.Module):
    """The same network of Flax's own layers."""

    width: int
    depth: int
    dtype: Any

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        """Maps `[N, H, W, 1]` images to float32 logits of the same shape."""
        conv = partial(nn.Conv, dtype=self.dtype)
        norm = partial(nn.BatchNorm, not train, momentum=0.9, dtype=self.dtype)

        def level(x: jax.Array, features: int) -> jax.Array:
            for _ in range(2):
                x = nn.relu(norm()(conv(features, (3, 3))(x)))
            return x

        skips = []
        for i in range(self.depth):
            skips.append(level(x, self.width << i))
            x = nn.max_pool(skips[-1], (2, 2), (2, 2))
        x = level(x, self.width << self.depth)
        for i in reversed(range(self.depth)):
            features = self.width << i
            x = nn.ConvTranspose(features, (2, 2), (2, 2), dtype=self.dtype)(x)
            x = level(jnp.concatenate([skips[i], x], -1), features)
        return conv(1, (1, 1))(x).astype(jnp.float32)


def torch_layers(width: int, depth: int) -> Any:
    """The same network of PyTorch's layers, named as metaseg's."""
    names: dict[str, Any] = {}

    def level(name: str, before: int, after: int) -> None:
        for i, channels in enumerate((before, after)):
            names[f"{name}_conv{i}"] = torch.nn.Conv2d(channels, after, 3, padding=1)
            names[f"{name}_norm{i}"] = torch.nn.BatchNorm2d(after)

    for i in range(depth):
        level(f"down{i}", 1 if i == 0 else width << (i - 1), width << i)
    level("bottom", width << (depth - 1), width << depth)
    for i in range(depth):
        before, after = width << (i + 1), width << i
        names[f"up{i}"] = torch.nn.ConvTranspose2d(before, after, 2, stride=2)
        level(f"up{i}", before, after)
    names["head"] = torch.nn.Conv2d(width, 1, 1)
    return torch.nn.ModuleDict(names).train()


def torch_apply(layers: Any, depth: int, x: Any) -> Any:
    """Maps `[N, 1, H, W]` images to logits of the same shape."""

    def level(x: Any, name: str) -> Any:
        for i in range(2):
            x = torch.relu_(layers[f"{name}_norm{i}"](layers[f"{name}_conv{i}"](x)))
        return x

    skips = []
    for i in range(depth):
        skips.append(level(x, f"down{i}"))
        x = torch.nn.functional.max_pool2d(skips[-1], 2)
    x = level(x, "bottom")
    for i in reversed(range(depth)):
        x = level(torch.cat([skips[i], layers[f"up{i}"](x)], 1), f"up{i}")
    return layers["head"](x)


def torch_load(layers: Any, params: Any) -> None:
    """Copies the parameters of metaseg's network."""
    with torch.no_grad():
        for name, leaves in params.items():
            layer = layers[name]
            if "kernel" not in leaves:
                layer.weight.copy_(torch.tensor(np.asarray(leaves["scale"])))
            else:
                kernel = np.asarray(leaves["kernel"])
                if kernel.ndim == 2:
                    kernel = kernel[None, None]
                transposed = isinstance(layer, torch.nn.ConvTranspose2d)
                axes = (2, 3, 0, 1) if transposed else (3, 2, 0, 1)
                layer.weight.copy_(torch.tensor(kernel.transpose(axes)))
            layer.bias.copy_(torch.tensor(np.asarray(leaves["bias"])))


OPTIMISER = optax.sgd(0.01, momentum=0.9)


def start_state(variables: Any) -> Any:
    """A new train state: a copy, as steps are given theirs to reuse."""
    variables = jax.tree.map(jnp.copy, variables)
    params = variables["params"]
    return params, variables["batch_stats"], OPTIMISER.init(params)


def jax_step(model: nn.Module, state: Any, x: jax.Array, y: jax.Array) -> Any:
    """One update; returns the new state and the loss."""
    params, stats, slots = state

    def loss(params: Any) -> tuple[jax.Array, Any]:
        variables = {"params": params, "batch_stats": stats}
        logits, updated = model.apply(variables, x, train=True, mutable=["batch_stats"])
        return optax.sigmoid_binary_cross_entropy(logits, y).mean(), updated

    (value, updated), gradients = jax.value_and_grad(loss, has_aux=True)(params)
    updates, slots = OPTIMISER.update(gradients, slots, params)
    return (optax.apply_updates(params, updates), updated["batch_stats"], slots), value


def compile_step(step: Any, name: str, options: dict[str, Any], *args: Any) -> Any:
    """Compiles a step and says how long that took."""
    start = time.perf_counter()
    state, *_ = args
    placed = jax.tree.map(lambda leaf: leaf.sharding, state)
    jitted = jax.jit(
        step, donate_argnums=0, compiler_options=options, out_shardings=(placed, None)
    )
    compiled = jitted.lower(*args).compile()
    print(f"{name}: compiled in {time.perf_counter() - start:.1f} s")
    return compiled


def jax_run(step: Any, state: Any, x: jax.Array, y: jax.Array) -> Run:
    """Returns what runs n training steps; the run returns the last loss."""

    def run(steps: int) -> Any:
        nonlocal state
        for _ in range(steps):
            state, value = step(state, x, y)
        return jax.block_until_ready((state, value))[1]

    return run


def torch_run(
    args: argparse.Namespace, layers: Any, images: Any, labels: Any, compiled: bool
) -> Run:
    """Returns what runs n training steps in PyTorch."""
    gpu = jax.default_backend() == "gpu"
    device, layout = "cuda" if gpu else "cpu", torch.channels_last
    layers = copy.deepcopy(layers).to(device, memory_format=layout)
    x, y = (
        torch.tensor(each.transpose(0, 3, 1, 2))
        .to(device)
        .contiguous(memory_format=layout)
        for each in (images, labels)
    )
    optimiser = torch.optim.SGD(layers.parameters(), lr=0.01, momentum=0.9)
    half = args.dtype == "bfloat16"

    def loss(x: Any, y: Any) -> Any:
        with torch.autocast(device, torch.bfloat16, enabled=half):
            logits = torch_apply(layers, args.depth, x)
        return torch.nn.functional.binary_cross_entropy_with_logits(logits.float(), y)

    if compiled:
        loss = torch.compile(loss)

    if args.inference:
        return torch_inference(args, layers, x, compiled)

    def run(steps: int) -> None:
        for _ in range(steps):
            optimiser.zero_grad(set_to_none=True)
            loss(x, y).backward()
            optimiser.step()
        if gpu:
            torch.cuda.synchronize()

    return run


def torch_inference(
    args: argparse.Namespace, layers: Any, x: Any, compiled: bool
) -> Run:
    """Returns what predicts n times in PyTorch."""
    layers = layers.eval()

    def apply(x: Any) -> Any:
        with torch.autocast(x.device.type, torch.bfloat16, args.dtype == "bfloat16"):
            return torch_apply(layers, args.depth, x)

    if compiled:
        apply = torch.compile(apply)

    def run(calls: int) -> None:
        with torch.inference_mode():
            for _ in range(calls):
                apply(x)
        if x.is_cuda:
            torch.cuda.synchronize()

    return run


def jax_inference(
    model: nn.Module, options: dict[str, Any], weights: Any, x: jax.Array
) -> Run:
    """Returns what predicts n times."""
    apply = partial(model.apply, train=False)
    jitted = jax.jit(apply, compiler_options=options, out_shardings=x.sharding)
    compiled = jitted.lower(weights, x).compile()

    def run(calls: int) -> None:
        for _ in range(calls):
            logits = compiled(weights, x)
        jax.block_until_ready(logits)

    return run


def check_equal(args: argparse.Namespace, variables: Any, layers: Any, x: Any) -> None:
    """Stops unless both networks have the same size and, in training mode, output.

    In full float32, whatever is timed; PyTorch's network is on the CPU still.
    """
    ours = sum(leaf.size for leaf in jax.tree.leaves(variables["params"]))
    theirs = sum(parameter.numel() for parameter in layers.parameters())
    model = models.UNet(width=args.width, depth=args.depth)
    with jax.default_matmul_precision("highest"):
        forward = jax.jit(partial(model.apply, train=True, mutable=["batch_stats"]))
        logits = np.asarray(forward(variables, x)[0])
    with torch.no_grad():
        output = torch_apply(
            copy.deepcopy(layers), args.depth, torch.tensor(x.transpose(0, 3, 1, 2))
        )
    difference = np.abs(logits - output.numpy().transpose(0, 2, 3, 1)).max()
    scale = max(1.0, float(np.abs(logits).max()))
    print(f"parameters: metaseg {ours:_}, torch {theirs:_}")
    print(f"largest difference of logits: {difference:.1e} (of {scale:.1f})")
    if ours != theirs or difference > 1e-4 * scale:
        fail("the two networks are not the same; the ratio would mean nothing")


def against_torch(args: argparse.Namespace) -> tuple[dict[str, Run], int]:
    """The contenders, PyTorch first, and the images that a step of each takes."""
    if torch is None:
        fail("PyTorch is not installed: pip install -e .[bench], or use --ensemble")
    if jax.default_backend() == "gpu":
        if not torch.cuda.is_available():
            fail(f"--device: got gpu, but PyTorch {torch.__version__} has none")
        torch.backends.cudnn.benchmark = True
        torch.set_float32_matmul_precision("high")  # TF32, as jax by default
    else:
        torch.set_num_threads(args.threads)
    images, labels = batches(args, 1)
    images, labels = images[0], labels[0]
    model, variables = network(args)
    layers = torch_layers(args.width, args.depth)
    torch_load(layers, variables["params"])
    check_equal(args, variables, layers, images[:2, :128, :128])

    runs = {"torch": torch_run(args, layers, images, labels, compiled=False)}
    if args.compile:
        run = torch_run(args, layers, images, labels, compiled=True)
        runs["torch.compile"] = first_call(run)
    spread = jax.make_mesh((jax.device_count(),), ("data",), (AxisType.Auto,))
    first = jax.make_mesh((1,), ("data",), (AxisType.Auto,), devices=jax.devices()[:1])
    options = models.compiler_options(jax.device_count())
    contenders = {"metaseg": (model, variables, options, spread)}
    if args.flax:
        plain = PlainUNet(args.width, args.depth, model.dtype)
        weights = initial(plain)(jax.random.key(0), images[:1])
        contenders["flax"] = (plain, weights, {}, first)
    for name, (each, weights, options, mesh) in contenders.items():
        split, whole = (NamedSharding(mesh, P(*axis)) for axis in (("data",), ()))
        x, y = jax.device_put((images, labels), split)
        if args.inference:
            weights = jax.device_put(weights, whole)
            runs[name] = jax_inference(each, options, weights, x)
            continue
        state = jax.device_put(start_state(weights), whole)
        step = compile_step(partial(jax_step, each), name, options, state, x, y)
        runs[name] = jax_run(step, state, x, y)
    return runs, args.batch


def first_call(run: Run) -> Run:
    """Has torch.compile compile, and says how long that took."""
    start = time.perf_counter()
    try:
        run(1)
    except RuntimeError as error:  # no C++ compiler, for one
        line = next(iter(str(error).splitlines()), "")
        fail(f"--compile: {type(error).__name__}: {line}")
    print(f"torch.compile: compiled in {time.perf_counter() - start:.1f} s")
    return run


def side_by_side(args: argparse.Namespace) -> tuple[dict[str, Run], int]:
    """N networks in turns and together, and the images that a step of all takes."""
    model, _ = network(args)
    x, y = map(jnp.asarray, batches(args, args.ensemble))
    draw = initial(model)
    keys = jax.random.split(jax.random.key(0), args.ensemble)
    states = [start_state(draw(key, x[0, :1])) for key in keys]
    stacked = jax.tree.map(lambda *each: jnp.stack(each), *states)
    step, options = partial(jax_step, model), models.compiler_options()
    one = compile_step(step, "in turns", options, states[0], x[0], y[0])
    all_of_them = compile_step(jax.vmap(step), "together", options, stacked, x, y)
    members = [jax_run(one, *each) for each in zip(states, x, y, strict=True)]

    def in_turns(steps: int) -> list[Any]:
        return [run(steps) for run in members]

    runs = {"in turns": in_turns, "together": jax_run(all_of_them, stacked, x, y)}
    losses = [np.asarray(run(2)) for run in runs.values()]
    difference = np.abs(losses[0] - losses[1]).max()
    print(f"largest difference of second losses: {difference:.1e}")
    if difference > {"float32": 5e-3, "bfloat16": 3e-2}[args.dtype]:
        fail("the two ways do not train the same; the ratio would mean nothing")
    return runs, args.batch * args.ensemble


def network(args: argparse.Namespace) -> tuple[Any, Any]:
    """The network of metaseg and its weights."""
    model = models.UNet(width=args.width, depth=args.depth, dtype=jnp.dtype(args.dtype))
    image = jnp.zeros((1, args.size, args.size, 1))
    return model, initial(model)(jax.random.key(0), image)


def initial(model: nn.Module) -> Callable[..., Any]:
    """What draws weights; unoptimised, as it would take minutes to compile."""
    options = {"xla_backend_optimization_level": 0}
    return jax.jit(partial(model.init, train=False), compiler_options=options)


def batches(args: argparse.Namespace, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Images and labels, `[count, batch, H, W, 1]` float32, at random."""
    generator = np.random.default_rng(0)
    shape = (count, args.batch, args.size, args.size, 1)
    images = generator.normal(size=shape).astype(np.float32)
    return images, generator.integers(0, 2, shape).astype(np.float32)


def seconds(run: Run, steps: int) -> float:
    """Wall time of a step."""
    start = time.perf_counter()
    run(steps)
    return (time.perf_counter() - start) / steps


def in_rounds(
    runs: Mapping[str, Run], rounds: int, steps: int | None
) -> dict[str, np.ndarray]:
    """Seconds a step of each, `[rounds]`, taking turns; by default a second a turn."""
    counts = {}
    for name, run in runs.items():
        run(3)  # the first steps of a process are slower
        counts[name] = steps or math.ceil(1 / seconds(run, 2))
    timed: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(rounds):
        for name, run in runs.items():
            run(1)  # wakes this side's threads, lets the other's go to sleep
            timed[name].append(seconds(run, counts[name]))
    return {name: np.array(values) for name, values in timed.items()}


def flops(args: argparse.Namespace) -> int:
    """FLOPs of a step for each image."""
    model, shape = models.UNet(width=args.width, depth=args.depth), (args.size,) * 2
    # On a CPU metaseg does a third more products than a network of few channels has.
    with mock.patch("jax.default_backend", return_value="gpu"):
        forward = cost.forward_flops(model, (*shape, 1))
    return forward if args.inference else 3 * forward


def table(
    args: argparse.Namespace, times: Mapping[str, np.ndarray], images: int
) -> list[str]:
    """Lines of the result; ratios are of throughputs in the same round."""
    first = next(iter(times))
    peak = cost.peak_flops(jax.devices()[0], jnp.dtype(args.dtype))

    def spread(values: np.ndarray, digits: int) -> str:
        three = values.min(), np.median(values), values.max()
        return " ".join(f"{value:9.{digits}f}" for value in three)

    lines = [
        f"{'':14}{'images/s':>29}  {f'throughput / {first}':>29}",
        f"{'':14}{'min    median       max':>29}  {'min    median       max':>29}"
        f"{'TFLOP/s':>11}{'of peak':>9}",
    ]
    for name, each in times.items():
        rate = images / np.median(each) * flops(args)
        share = f"{rate / peak:9.1%}" if peak else f"{'unknown':>9}"
        lines.append(
            f"{name:14}{spread(images / each, 1)}  {spread(times[first] / each, 2)}"
            f"{rate / 1e12:11.3f}{share}"
        )
    return lines


def main(args: argparse.Namespace) -> None:
    """Builds the contenders, lets them take turns and prints the table."""
    device = jax.devices()[0]
    if device.platform != (args.device or device.platform):
        fail(
            f"--device: expected {args.device}, but jax has only {device.platform}; "
            f"say --device={device.platform}"
        )
    build = side_by_side if args.ensemble else against_torch
    runs, images = build(args)
    times = in_rounds(runs, args.rounds, args.steps)
    where = (
        f"{args.threads} threads" if device.platform == "cpu" else device.device_kind
    )
    members = f"{args.ensemble} networks, " if args.ensemble else ""
    steps = f"{args.steps} steps" if args.steps else "a second each"
    print(
        f"{members}width {args.width}, depth {args.depth}, {args.size} x {args.size}, "
        f"batch {args.batch}, {args.dtype}, {where}, {args.rounds} rounds of {steps}"
    )
    print("\n".join(table(args, times, images)))


if __name__ == "__main__":
    main(ARGS)
