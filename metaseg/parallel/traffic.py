"""What a step moves through the memory of a device: its passes, if it is fused well.

The rule: every convolution, matrix product, sort, gather and loop is a pass of its own,
which reads its operands and writes its results. All other operations fuse. A fused pass
writes what later passes read, and computes it from arrays in memory, each of which it
reads once. A reduction ends a pass, as nothing can use its result before the last
number is added. Fused passes that are ready at the same time are one pass if one of
them reads all that the other one reads. Reshaping, transposing and reversing are free.
Nothing stays in a cache from one pass to the next.

May import `cost` and jax.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import jax
from jax.extend import core

from metaseg.parallel import cost

__all__ = ["Pass", "passes"]

_ALONE = (
    *(
        "conv_general_dilated",
        "dot_general",
        "sort",
        "gather",
        "scatter",
        "scatter-add",
    ),
    *("dynamic_slice", "dynamic_update_slice", "scan", "while", "cond"),
)
_REDUCTIONS = ("reduce_", "argmax", "argmin", "cum")  # starts of names
_FREE = ("reshape", "squeeze", "expand_dims", "transpose", "rev", "copy")


class Pass(NamedTuple):
    """One pass over the memory.

    Attributes:
      name: Name of the operation, or "fused".
      flops: Operations of a convolution or matrix product; 0 for fused passes, whose
        arithmetic is hidden behind the memory.
      read: Shapes and types of the arrays that it reads.
      written: Those of the arrays that it writes.
    """

    name: str
    flops: int
    read: tuple[Any, ...]
    written: tuple[Any, ...]

    @property
    def bytes_moved(self) -> int:
        """Bytes that the pass reads and writes."""
        return sum(map(_bytes, (*self.read, *self.written)))


class _Equation(NamedTuple):
    """An operation on numbered values; literals are left out."""

    name: str
    flops: int
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]


def passes(fn: Callable[..., Any], *args: Any) -> list[Pass]:
    """Divides a function into the passes of a well fused program.

    What happens inside of a loop does not count. Where the code depends on the
    platform, the default code counts, as in `cost.flops`.

    Args:
      fn: A function of arrays.
      *args: Its arguments, arrays or `jax.ShapeDtypeStruct`.

    Returns:
      The passes, in an order in which they can run.

    Example:
      >>> import jax.numpy as jnp
      >>> x = jnp.zeros((3, 5))
      >>> [p.name for p in passes(lambda x: (2 * x) @ (x + 1).T, x)]
      ['fused', 'dot_general']
    """
    jaxpr = jax.make_jaxpr(fn)(*args).jaxpr
    program = _Program()
    inputs = program.number(jaxpr.invars)
    outputs = {each for each in program.flatten(jaxpr, inputs) if each is not None}
    return _divide(program.values, program.live(outputs), outputs)


class _Program:
    """A program without calls: equations on numbered values."""

    def __init__(self) -> None:
        """Starts with no value and no equation."""
        self.values: list[Any] = []
        self.equations: list[_Equation] = []

    def number(self, variables: Sequence[Any]) -> list[int]:
        """Returns numbers for new values."""
        first = len(self.values)
        self.values.extend(each.aval for each in variables)
        return list(range(first, len(self.values)))

    def flatten(
        self, jaxpr: core.Jaxpr, inputs: Sequence[int | None]
    ) -> list[int | None]:
        """Appends the equations of a program; returns the numbers of its results."""
        place: dict[Any, int | None] = dict(zip(jaxpr.invars, inputs, strict=True))
        constants = self.number(jaxpr.constvars)
        place.update(zip(jaxpr.constvars, constants, strict=True))

        def of(variables: Sequence[Any]) -> list[int | None]:
            return [
                None if isinstance(each, core.Literal) else place[each]
                for each in variables
            ]

        for equation in jaxpr.eqns:
            operands, inner = of(equation.invars), _called(equation)
            if inner is not None:
                own = operands[len(operands) - len(inner.invars) :]
                results = self.flatten(inner, own)
            else:
                results = [*self.number(equation.outvars)]
                self.equations.append(
                    _Equation(
                        equation.primitive.name,
                        cost.flops_of(equation),
                        tuple(each for each in operands if each is not None),
                        tuple(each for each in results if each is not None),
                    )
                )
            place.update(zip(equation.outvars, results, strict=True))
        return of(jaxpr.outvars)

    def live(self, outputs: set[int]) -> list[_Equation]:
        """Returns the equations that the results depend on."""
        needed, found = set(outputs), []
        for equation in reversed(self.equations):
            if needed.intersection(equation.outputs):
                needed.update(equation.inputs)
                found.append(equation)
        return found[::-1]


def _called(equation: core.JaxprEqn) -> core.Jaxpr | None:
    """Returns the program that an equation calls once, or None."""
    inner = list(core.jaxprs_in_params(equation.params))
    if equation.primitive.name == "cond":
        # Of `jax.lax.platform_dependent`; None is the platform of the default.
        platforms = equation.params.get("branches_platforms") or ()
        return inner[platforms.index(None)] if None in platforms else None
    if equation.primitive.name in _ALONE:
        return None
    # Some primitives, such as reductions, hold programs for a pair of numbers.
    return inner[0] if inner and equation.primitive.name[:6] != "reduce" else None


class _Sink(NamedTuple):
    """What one fused pass may write: an array in memory."""

    level: int
    value: int
    roots: frozenset[int]


def _divide(
    values: list[Any], equations: list[_Equation], outputs: set[int]
) -> list[Pass]:
    same: dict[int, int] = {}  # values that are another one in another shape or order
    for equation in equations:
        if equation.name in _FREE:
            same[equation.outputs[0]] = same.get(equation.inputs[0], equation.inputs[0])

    def stored(numbers: Iterable[int]) -> set[int]:
        return {same.get(each, each) for each in numbers}

    alone = [each for each in equations if each.name in _ALONE]
    read = stored(each for equation in alone for each in equation.inputs)
    roots: dict[int, frozenset[int]] = {}  # arrays in memory that a value comes from
    level: dict[int, int] = {}  # passes before an array in memory
    found: list[tuple[int, Pass]] = []
    sinks: list[_Sink] = []

    def needed(equation: _Equation) -> frozenset[int]:
        each = stored(equation.inputs)
        return frozenset().union(*(roots.get(i, frozenset([i])) for i in each))

    for equation in equations:
        if equation.name in _FREE:
            continue
        if equation.name in _ALONE:
            operands = stored(equation.inputs)
            ready = 1 + max((level.get(each, 0) for each in operands), default=0)
            level.update(dict.fromkeys(equation.outputs, ready))
            moved = (_shapes(values, operands), _shapes(values, equation.outputs))
            found.append((ready, Pass(equation.name, equation.flops, *moved)))
            continue
        come_from = needed(equation)
        ready = 1 + max((level.get(each, 0) for each in come_from), default=0)
        ends = equation.name.startswith(_REDUCTIONS)
        for value in equation.outputs:
            if ends or value in read:
                level[value] = ready
            else:
                roots[value] = come_from
            if ends or value in read or value in stored(outputs):
                sinks.append(_Sink(ready, value, come_from))
    found += _fuse(values, sinks)
    return [each for _, each in sorted(found, key=lambda pair: pair[0])]


def _fuse(values: list[Any], sinks: Sequence[_Sink]) -> list[tuple[int, Pass]]:
    """Returns fused passes with the number of passes before each."""
    groups: list[list[_Sink]] = []
    for sink in sorted(sinks, key=lambda sink: (sink.level, -len(sink.roots))):
        for group in groups:
            if group[0].level == sink.level and group[0].roots >= sink.roots:
                group.append(sink)
                break
        else:
            groups.append([sink])
    return [
        (
            group[0].level,
            Pass(
                "fused",
                0,
                _shapes(values, group[0].roots),
                _shapes(values, [sink.value for sink in group]),
            ),
        )
        for group in groups
    ]


def _shapes(values: list[Any], numbers: Iterable[int]) -> tuple[Any, ...]:
    return tuple(values[each] for each in sorted(numbers))


def _bytes(value: Any) -> int:
    return math.prod(value.shape) * value.dtype.itemsize
