"""How a run is spread over devices and processes, and what its steps cost.

- `layout`: one step, compiled by `jax.jit` over a mesh or by `jax.pmap`, for one run or
  for many of them side by side.
- `processes`: several processes, on one machine or many, that do one run together.
- `cost`: FLOPs of a network, and what devices can do.

May import `checks` and `errors`.
"""

from metaseg.parallel import cost, processes
from metaseg.parallel.layout import PARTITIONERS, Layout, Program, build, in_turns

__all__ = [
    "PARTITIONERS",
    "Layout",
    "Program",
    "build",
    "cost",
    "in_turns",
    "processes",
]
