"""Compiles steps and lays their arrays out over devices: a mesh, or `jax.pmap`.

A training program is `(settings, state, data, rows, count) -> (state, losses)` and an
evaluation program `(settings, state, batch) -> (evaluation, probability)`; both are
pure. `settings` are the arrays in which one run differs from another, such as keys and
rates. If a layout has several members, each of them is a run, and the first axis of
every array of settings and state is the member.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from metaseg import checks
from metaseg.errors import InputError
from metaseg.parallel import processes

__all__ = ["PARTITIONERS", "Layout", "Program", "build", "in_turns"]

PARTITIONERS = ("jit", "pmap")
MEMBER, DATA = "member", "data"  # axes of the mesh
P = PartitionSpec
# XLA compiles outside of Python's lock, and most of the time on one core.
_COMPILER = ThreadPoolExecutor(2, thread_name_prefix="compile")


class Program:
    """A step that compiles in the background, called like the function it was.

    The function has been traced when the program is made, so that its own errors are
    raised then.

    Attributes:
      compiled: The compiled program of XLA, once it is there.
    """

    def __init__(
        self,
        compiled: "Future[Any]",
        call: Callable[..., Any] | None = None,
    ) -> None:
        """Takes the program of XLA, and what to call in its place."""
        self.compiled, self._call = compiled, call

    @property
    def executable(self) -> Any:
        """The compiled program of XLA; waits for it."""
        return self.compiled.result()

    def __call__(self, *args: Any) -> Any:
        """Runs the step; a training step overwrites the state that it takes."""
        return (self._call or self.compiled.result())(*args)

    def device_bytes(self) -> int | None:
        """Returns the memory in bytes that the step needs on a device, if known."""
        found = self.executable.memory_analysis()
        if found is None:
            return None
        return (
            found.argument_size_in_bytes
            + found.output_size_in_bytes
            + found.temp_size_in_bytes
            - found.alias_size_in_bytes
        )


class Layout(ABC):
    """The devices on which the arrays of a run lie; see `build`.

    Attributes:
      members: Number of runs that are trained side by side; arrays of one run have no
        axis for it.
      axis_name: Name of the mapped axis for `training.mapped`; None for "jit".
      batch_devices: Number of devices over which a batch is spread.
      devices: All devices.
    """

    members: int
    axis_name: str | None
    batch_devices: int
    devices: Sequence[Any]

    @abstractmethod
    def put_settings(self, settings: Any) -> Any:
        """Lays out settings; with members, their first axis is the member."""

    @abstractmethod
    def put_state(self, state: Any) -> Any:
        """Lays out a train state; with members, its first axis is the member."""

    @abstractmethod
    def get_state(self, placed: Any) -> Any:
        """Inverts `put_state`; the result is the same for every layout."""

    @abstractmethod
    def put_data(self, data: Any) -> Any:
        """Copies a whole data set to each device."""

    @abstractmethod
    def put_rows(self, rows: np.ndarray) -> Any:
        """Lays out row numbers `[steps, batch]`, or `[steps, members, batch]`."""

    @abstractmethod
    def put_batch(self, batch: Any) -> Any:
        """Lays out a batch, of which each process passes its own part."""

    @abstractmethod
    def train(self, step: Callable[..., Any], *args: Any) -> Program:
        """Starts to compile a training program for arguments laid out like these."""

    @abstractmethod
    def evaluate(self, step: Callable[..., Any], *args: Any) -> Program:
        """Starts to compile an evaluation program for arguments like these."""

    def part(self) -> tuple[int, int]:
        """Returns which part of a batch this process holds, and of how many parts."""
        return 0, 1

    def to_host(self, x: Any) -> np.ndarray:
        """Copies a whole array to the host; every process has to call it."""
        return processes.to_host(x)

    def round_up(self, batch_size: int) -> int:
        """Returns the smallest batch size from `batch_size` on that divides evenly."""
        return -(-batch_size // self.batch_devices) * self.batch_devices


def build(
    partitioner: str = "jit",
    *,
    devices: Sequence[Any] | None = None,
    members: int = 1,
    compiler_options: Mapping[str, Any] | None = None,
) -> Layout:
    """Lays one run or several runs out over devices.

    "jit" makes a mesh with the axes `member` and `data`. It splits batches along `data`
    and copies weights to all devices; XLA inserts the communication, so that batch norm
    sees the whole batch. Members are split along `member` as evenly as their number
    allows, and the members of one device are vmapped. "pmap" maps one axis, `data`, and
    the step itself communicates; every device has all members, vmapped.

    Args:
      partitioner: One of `PARTITIONERS`.
      devices: Devices; by default all, including those of other processes.
      members: Number of independent runs.
      compiler_options: Options of XLA.

    Returns:
      The layout.

    Raises:
      InputError: If the partitioner is unknown, or "pmap" gets devices of several
        processes.
    """
    devices = jax.devices() if devices is None else list(devices)
    options = dict(compiler_options or {})
    checks.choice("parallel.partitioner", partitioner, PARTITIONERS)
    if partitioner == "jit":
        return _Jit(devices, members, options)
    if len({device.process_index for device in devices}) > 1:
        raise InputError(
            "parallel.partitioner: got 'pmap' with devices of several processes, "
            "expected 'jit'"
        )
    return _Pmap(devices, members, options)


class _Jit(Layout):
    """Global arrays over a mesh."""

    axis_name = None

    def __init__(
        self, devices: Sequence[Any], members: int, options: dict[str, Any]
    ) -> None:
        groups = math.gcd(members, len(devices))
        self.members, self.batch_devices = members, len(devices) // groups
        self.devices = devices
        grid = np.array(devices, object).reshape(groups, self.batch_devices)
        # Auto: XLA propagates shardings, as reshapes in the networks state none.
        self._mesh = Mesh(grid, (MEMBER, DATA), axis_types=(AxisType.Auto,) * 2)
        self._options = options
        self._state = P(MEMBER) if members > 1 else P()

    def _at(self, spec: PartitionSpec) -> NamedSharding:
        return NamedSharding(self._mesh, spec)

    def put_settings(self, settings: Any) -> Any:
        return _put(settings, self._at(self._state))

    def put_state(self, state: Any) -> Any:
        return _put(state, self._at(self._state))

    def get_state(self, placed: Any) -> Any:
        return placed

    def put_data(self, data: Any) -> Any:
        return _put(data, self._at(P()))

    def put_rows(self, rows: np.ndarray) -> Any:
        middle = (MEMBER,) if self.members > 1 else ()
        return _put(rows, self._at(P(None, *middle, DATA)))

    def put_batch(self, batch: Any) -> Any:
        sharding = self._at(P(DATA))
        if sharding.is_fully_addressable:
            return jax.device_put(batch, sharding)
        _, parts = self.part()

        def put(local: np.ndarray) -> jax.Array:
            shape = (len(local) * parts, *local.shape[1:])
            return jax.make_array_from_process_local_data(sharding, local, shape)

        return jax.tree.map(put, batch)

    def part(self) -> tuple[int, int]:
        # Devices are in the order of their processes, so a process has consecutive
        # columns of the mesh or whole rows.
        here = [d.process_index == jax.process_index() for d in self._mesh.devices.flat]
        columns = np.flatnonzero(np.reshape(here, self._mesh.devices.shape).any(axis=0))
        return int(columns[0]) // len(columns), self.batch_devices // len(columns)

    def train(self, step: Callable[..., Any], *args: Any) -> Program:
        step = self._side_by_side(
            step, (P(MEMBER), P(MEMBER), P(), P(None, MEMBER), P()), (0, 1)
        )
        out = self._at(self._state), self._at(P())
        return self._compile(step, out, args, donate_argnums=1)

    def evaluate(self, step: Callable[..., Any], *args: Any) -> Program:
        step = self._side_by_side(step, (P(MEMBER), P(MEMBER), P()), (0, 0))
        out = self._at(P()), self._at(P(*self._state, DATA))
        return self._compile(step, out, args)

    def _side_by_side(
        self,
        step: Callable[..., Any],
        specs: tuple[PartitionSpec, ...],
        out_axes: tuple[int, int],
    ) -> Callable[..., Any]:
        """Maps the step over the members; each group of devices has its own members."""
        if self.members == 1:
            return step
        in_axes = [s.index(MEMBER) if MEMBER in s else None for s in specs]
        step = jax.vmap(step, in_axes, out_axes)
        if self._mesh.shape[MEMBER] == 1:
            return step
        return jax.shard_map(
            step,
            mesh=self._mesh,
            in_specs=specs,
            out_specs=tuple(P(*[None] * axis, MEMBER) for axis in out_axes),
            axis_names={MEMBER},
            check_vma=False,
        )

    def _compile(
        self, step: Callable[..., Any], out: Any, args: tuple[Any, ...], **kwargs: Any
    ) -> Program:
        jitted = jax.jit(
            step, out_shardings=out, compiler_options=self._options, **kwargs
        )
        return Program(_COMPILER.submit(jitted.lower(*args).compile))


class _Pmap(Layout):
    """Arrays whose first axis is the device."""

    axis_name = DATA

    def __init__(
        self, devices: Sequence[Any], members: int, options: dict[str, Any]
    ) -> None:
        self.members, self.batch_devices = members, len(devices)
        self.devices, self._options = devices, options
        mesh = Mesh(np.array(devices, object), (DATA,))
        self._sharding = NamedSharding(mesh, P(DATA))

    def _split(self, x: Any, axis: int) -> Any:
        """Splits one axis into equal parts; their axis becomes the first."""
        size = x.shape[axis] // self.batch_devices
        shape = (*x.shape[:axis], self.batch_devices, size, *x.shape[axis + 1 :])
        return np.moveaxis(x.reshape(shape), axis, 0)

    def _copies(self, x: Any) -> jax.Array:
        # One device after the other, as all copies may not fit on one device.
        shape = (self.batch_devices, *np.shape(x))
        return jax.make_array_from_callback(
            shape, self._sharding, lambda _: np.asarray(x)[None]
        )

    def put_settings(self, settings: Any) -> Any:
        return jax.tree.map(self._copies, settings)

    def put_state(self, state: Any) -> Any:
        return jax.tree.map(self._copies, state)

    def get_state(self, placed: Any) -> Any:
        return jax.tree.map(lambda x: x.addressable_data(0)[0], placed)

    def put_data(self, data: Any) -> Any:
        return jax.tree.map(self._copies, data)

    def put_rows(self, rows: np.ndarray) -> Any:
        return jax.device_put(self._split(rows, rows.ndim - 1), self._sharding)

    def put_batch(self, batch: Any) -> Any:
        split = jax.tree.map(lambda x: self._split(x, 0), batch)
        return jax.device_put(split, self._sharding)

    def train(self, step: Callable[..., Any], *args: Any) -> Program:
        if self.members > 1:
            step = jax.vmap(step, (0, 0, None, 1, None), (0, 1))
        mapped = jax.pmap(
            step,
            axis_name=DATA,
            devices=list(self.devices),
            in_axes=(0, 0, 0, 0, None),
            donate_argnums=1,
        )
        compiled = _COMPILER.submit(
            mapped.lower(*args).compile, compiler_options=self._options
        )

        def call(*args: Any) -> tuple[Any, jax.Array]:
            state, losses = compiled.result()(*args)
            return state, losses.addressable_data(0)[0]

        return Program(compiled, call)

    def evaluate(self, step: Callable[..., Any], *args: Any) -> Program:
        many = self.members > 1
        if many:
            step = jax.vmap(step, (0, 0, None), 0)
        mapped = jax.pmap(step, axis_name=DATA, devices=list(self.devices))
        compiled = _COMPILER.submit(
            mapped.lower(*args).compile, compiler_options=self._options
        )

        @jax.jit
        def joined(tree: Any) -> Any:
            if many:
                tree = jax.tree.map(lambda x: jnp.moveaxis(x, 0, 1), tree)
                return jax.tree.map(lambda x: x.reshape(len(x), -1, *x.shape[3:]), tree)
            return jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), tree)

        return Program(compiled, lambda *args: joined(compiled.result()(*args)))


class _InTurns(Layout):
    """Runs members one after the other with the program of a single run."""

    def __init__(self, one: Layout, members: int) -> None:
        self.members, self._one = members, one
        self.axis_name, self.batch_devices = one.axis_name, one.batch_devices
        self.devices = one.devices

    def _each(self, put: Callable[[Any], Any], tree: Any) -> tuple[Any, ...]:
        return tuple(
            put(jax.tree.map(lambda x, i=i: x[i], tree)) for i in range(self.members)
        )

    def put_settings(self, settings: Any) -> Any:
        return self._each(self._one.put_settings, settings)

    def put_state(self, state: Any) -> Any:
        return self._each(self._one.put_state, state)

    def get_state(self, placed: Any) -> Any:
        return _stacked([self._one.get_state(each) for each in placed])

    def put_data(self, data: Any) -> Any:
        return self._one.put_data(data)

    def put_rows(self, rows: np.ndarray) -> Any:
        return self._each(self._one.put_rows, np.moveaxis(rows, 1, 0))

    def put_batch(self, batch: Any) -> Any:
        return self._one.put_batch(batch)

    def part(self) -> tuple[int, int]:
        return self._one.part()

    def train(self, step: Callable[..., Any], *args: Any) -> Program:
        settings, states, data, rows, count = args
        program = self._one.train(step, settings[0], states[0], data, rows[0], count)

        def call(settings: Any, states: Any, data: Any, rows: Any, count: Any) -> Any:
            found = [
                program(*own, data, row, count)
                for *own, row in zip(settings, states, rows, strict=True)
            ]
            states, losses = zip(*found, strict=True)
            return states, jnp.stack(losses, 1)

        return Program(program.compiled, call)

    def evaluate(self, step: Callable[..., Any], *args: Any) -> Program:
        settings, states, batch = args
        program = self._one.evaluate(step, settings[0], states[0], batch)

        def call(settings: Any, states: Any, batch: Any) -> Any:
            return _stacked(
                [program(*own, batch) for own in zip(settings, states, strict=True)]
            )

        return Program(program.compiled, call)


def in_turns(one: Layout, members: int) -> Layout:
    """Runs several members one after the other by the layout of a single run.

    XLA's CPU backend runs vmapped convolutions, each member with weights of its own,
    slower than one after the other.

    Args:
      one: Layout of a single run.
      members: Number of members.

    Returns:
      The layout of all members.
    """
    return _InTurns(one, members)


def _stacked(trees: Sequence[Any]) -> Any:
    return jax.tree.map(lambda *x: jnp.stack(x), *trees)


def _put(tree: Any, sharding: NamedSharding) -> Any:
    """Lays out arrays that every process holds as a whole."""
    if sharding.is_fully_addressable:
        return jax.device_put(tree, sharding)

    def put(x: Any) -> jax.Array:
        if isinstance(x, jax.Array) and x.sharding == sharding:
            return x
        host = np.asarray(x.addressable_data(0) if isinstance(x, jax.Array) else x)
        return jax.make_array_from_callback(host.shape, sharding, lambda i: host[i])

    return jax.tree.map(put, tree)
