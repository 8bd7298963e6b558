"""Runs on several devices and processes, and the cost of their steps.

- `layout` compiles a step by `jax.jit` over a mesh or by `jax.pmap`, for one run or for
  several runs side by side.
- `processes` connects several processes, on one machine or on many, for one run.
- `cost` counts FLOPs of networks and knows the peak rates of devices.
- `traffic` counts the bytes that a step moves through the memory of a device.

May import `checks` and `errors`.
"""

from typing import TYPE_CHECKING

import lazy_loader

if TYPE_CHECKING:
    from metaseg.parallel import cost, processes, traffic
    from metaseg.parallel.layout import PARTITIONERS, Layout, Program, build, in_turns

__all__ = [
    "PARTITIONERS",
    "Layout",
    "Program",
    "build",
    "cost",
    "in_turns",
    "processes",
    "traffic",
]

__getattr__, __dir__, _ = lazy_loader.attach(
    __name__,
    submodules=("cost", "layout", "processes", "traffic"),
    submod_attrs={
        "layout": ["PARTITIONERS", "Layout", "Program", "build", "in_turns"],
    },
)
