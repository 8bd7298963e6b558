"""Images per second of one training step: metaseg's U-Net against PyTorch's.

    pip install -e .[bench]
    python benchmarks/throughput.py --width=8 --batch=8 --size=128

Both sides hold the same network with the same weights (checked: equal logits), take
the same batch, and do forward, BCE, backward and SGD with momentum in float32 on
`--threads` cores. They take turns, so that a busy machine slows both. PyTorch runs
channels_last, its fastest layout on a CPU. `--flax` times a plain Flax port as well.
"""

import argparse
import os
import sys
import time
from collections.abc import Callable
from typing import Any

from metaseg import host

Run = Callable[[int], None]


def parse() -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--width", type=int, default=8, help="channels of level one")
    parser.add_argument("--depth", type=int, default=4, help="number of poolings")
    parser.add_argument("--size", type=int, default=128, help="sides of the images")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--steps", type=int, default=5, help="steps in a round")
    parser.add_argument("--flax", action="store_true", help="time a plain port as well")
    return parser.parse_args()


host.keep_freed_memory()
ARGS = parse() if __name__ == "__main__" else argparse.Namespace(threads=2)
if hasattr(os, "sched_setaffinity"):  # before any thread pool asks how many there are
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: ARGS.threads])

import flax.linen as nn  # noqa: E402
import jax  # noqa: E402
import jax.numpy as jnp  # noqa: E402
import numpy as np  # noqa: E402
import optax  # noqa: E402

from metaseg import models  # noqa: E402

try:
    import torch
except ImportError:
    sys.exit("benchmarks/throughput.py needs PyTorch: pip install -e .[bench]")


class PlainUNet(nn.Module):
    """The same network of Flax's own layers."""

    width: int
    depth: int

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        """Maps `[N, H, W, 1]` images to logits of the same shape."""

        def level(x: jax.Array, features: int) -> jax.Array:
            for _ in range(2):
                x = nn.Conv(features, (3, 3))(x)
                x = nn.relu(nn.BatchNorm(not train, momentum=0.9)(x))
            return x

        skips = []
        for i in range(self.depth):
            skips.append(level(x, self.width << i))
            x = nn.max_pool(skips[-1], (2, 2), (2, 2))
        x = level(x, self.width << self.depth)
        for i in reversed(range(self.depth)):
            x = nn.ConvTranspose(self.width << i, (2, 2), (2, 2))(x)
            x = level(jnp.concatenate([skips[i], x], -1), self.width << i)
        return nn.Conv(1, (1, 1))(x)


class TorchUNet(torch.nn.Module):
    """The same network of PyTorch's layers, named as metaseg's."""

    def __init__(self, width: int, depth: int) -> None:
        """Makes the layers."""
        super().__init__()
        self.depth = depth
        names: dict[str, torch.nn.Module] = {}

        def level(name: str, before: int, after: int) -> None:
            for i, channels in enumerate((before, after)):
                names[f"{name}_conv{i}"] = torch.nn.Conv2d(
                    channels, after, 3, padding=1
                )
                names[f"{name}_norm{i}"] = torch.nn.BatchNorm2d(after)

        for i in range(depth):
            level(f"down{i}", 1 if i == 0 else width << (i - 1), width << i)
        level("bottom", width << (depth - 1), width << depth)
        for i in range(depth):
            names[f"up{i}"] = torch.nn.ConvTranspose2d(
                width << (i + 1), width << i, 2, stride=2
            )
            level(f"up{i}", width << (i + 1), width << i)
        names["head"] = torch.nn.Conv2d(width, 1, 1)
        self.layers = torch.nn.ModuleDict(names)

    def forward(self, x: Any) -> Any:
        """Maps `[N, 1, H, W]` images to logits of the same shape."""

        def level(x: Any, name: str) -> Any:
            for i in range(2):
                x = self.layers[f"{name}_conv{i}"](x)
                x = torch.relu_(self.layers[f"{name}_norm{i}"](x))
            return x

        skips = []
        for i in range(self.depth):
            skips.append(level(x, f"down{i}"))
            x = torch.nn.functional.max_pool2d(skips[-1], 2)
        x = level(x, "bottom")
        for i in reversed(range(self.depth)):
            x = torch.cat([skips[i], self.layers[f"up{i}"](x)], 1)
            x = level(x, f"up{i}")
        return self.layers["head"](x)

    def load(self, params: Any) -> None:
        """Copies the parameters of metaseg's network."""
        with torch.no_grad():
            for name, leaves in params.items():
                layer = self.layers[name]
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


def jax_run(
    model: nn.Module,
    variables: Any,
    images: np.ndarray,
    labels: np.ndarray,
    options: dict[str, Any],
) -> tuple[Run, float]:
    """Compiles a training step; returns what runs it n times, and compile seconds."""
    x, y = jnp.asarray(images), jnp.asarray(labels)
    optimiser = optax.sgd(0.01, momentum=0.9)

    def step(state: Any, x: jax.Array, y: jax.Array) -> tuple[Any, jax.Array]:
        params, stats, slots = state

        def loss(params: Any) -> tuple[jax.Array, Any]:
            logits, updated = model.apply(
                {"params": params, "batch_stats": stats},
                x,
                train=True,
                mutable=["batch_stats"],
            )
            return optax.sigmoid_binary_cross_entropy(logits, y).mean(), updated

        (value, updated), gradients = jax.value_and_grad(loss, has_aux=True)(params)
        updates, slots = optimiser.update(gradients, slots, params)
        params = optax.apply_updates(params, updates)
        return (params, updated["batch_stats"], slots), value

    variables = jax.tree.map(jnp.copy, variables)  # the step is given them to reuse
    params = variables["params"]
    state = (params, variables["batch_stats"], optimiser.init(params))
    start = time.perf_counter()
    compiled = (
        jax.jit(step, donate_argnums=0, compiler_options=options)
        .lower(state, x, y)
        .compile()
    )
    seconds = time.perf_counter() - start

    def run(steps: int) -> None:
        nonlocal state
        for _ in range(steps):
            state, value = compiled(state, x, y)
        value.block_until_ready()

    return run, seconds


def torch_run(network: TorchUNet, images: np.ndarray, labels: np.ndarray) -> Run:
    """Returns what runs n training steps in PyTorch."""
    network.to(memory_format=torch.channels_last)
    network.train()
    layout = torch.channels_last
    x = torch.tensor(images.transpose(0, 3, 1, 2)).contiguous(memory_format=layout)
    y = torch.tensor(labels.transpose(0, 3, 1, 2)).contiguous(memory_format=layout)
    optimiser = torch.optim.SGD(network.parameters(), lr=0.01, momentum=0.9)
    loss = torch.nn.BCEWithLogitsLoss()

    def run(steps: int) -> None:
        for _ in range(steps):
            optimiser.zero_grad(set_to_none=True)
            loss(network(x), y).backward()
            optimiser.step()

    return run


def check_equal(
    model: nn.Module, variables: Any, network: TorchUNet, images: np.ndarray
) -> None:
    """Stops unless both networks have the same size and, in training mode, output."""
    ours = sum(leaf.size for leaf in jax.tree.leaves(variables["params"]))
    theirs = sum(parameter.numel() for parameter in network.parameters())
    logits, _ = model.apply(variables, images, train=True, mutable=["batch_stats"])
    with torch.no_grad():
        output = network.train()(torch.tensor(images.transpose(0, 3, 1, 2)))
    difference = np.abs(np.asarray(logits) - output.numpy().transpose(0, 2, 3, 1)).max()
    scale = max(1.0, float(np.abs(logits).max()))
    print(f"parameters: metaseg {ours:_}, torch {theirs:_}")
    print(f"largest difference of logits: {difference:.1e} (of {scale:.1f})")
    if ours != theirs or difference > 1e-4 * scale:
        sys.exit("the two networks are not the same; the ratio would mean nothing")


def main() -> None:
    """Builds both sides, lets them take turns and prints the ratio."""
    torch.set_num_threads(ARGS.threads)
    generator = np.random.default_rng(0)
    shape = (ARGS.batch, ARGS.size, ARGS.size, 1)
    images = generator.normal(size=shape).astype(np.float32)
    labels = generator.integers(0, 2, shape).astype(np.float32)

    model = models.UNet(width=ARGS.width, depth=ARGS.depth)
    initialise = jax.jit(lambda key: model.init(key, images, train=False))
    variables = initialise(jax.random.key(0))
    network = TorchUNet(ARGS.width, ARGS.depth)
    network.load(variables["params"])
    check_equal(model, variables, network, images)

    runs = {"torch": torch_run(network, images, labels)}
    options: dict[str, Any] = dict(models.COMPILER_OPTIONS)
    runs["metaseg"], seconds = jax_run(model, variables, images, labels, options)
    print(f"metaseg: compiled in {seconds:.1f} s")
    if ARGS.flax:
        plain = PlainUNet(ARGS.width, ARGS.depth)
        start = jax.jit(lambda key: plain.init(key, images, train=False))
        runs["flax"], seconds = jax_run(
            plain, start(jax.random.key(0)), images, labels, {}
        )
        print(f"plain flax: compiled in {seconds:.1f} s")

    times: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(ARGS.rounds):
        for name, run in runs.items():
            run(1)  # wakes this side's threads, lets the other's go to sleep
            start_time = time.perf_counter()
            run(ARGS.steps)
            times[name].append((time.perf_counter() - start_time) / ARGS.steps)

    print(
        f"width {ARGS.width}, {ARGS.size} x {ARGS.size}, batch {ARGS.batch}, "
        f"{ARGS.threads} threads, {ARGS.rounds} rounds of {ARGS.steps} steps"
    )
    for name, values in times.items():
        ratios = np.array(times["torch"]) / np.array(values)
        print(
            f"{name:8s} {ARGS.batch / np.median(values):7.1f} images/s (median), "
            f"{ARGS.batch / min(values):7.1f} (best); throughput / torch "
            f"{np.median(ratios):.2f} ({ratios.min():.2f} to {ratios.max():.2f})"
        )


if __name__ == "__main__":
    main()
