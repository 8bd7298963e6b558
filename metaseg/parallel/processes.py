"""Several processes for one run: one process for each host or device.

JAX's distributed runtime connects the processes, notices when one of them dies, and
finds the step at which all of them stop. May import `errors` only.
"""

import os
import sys
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from absl import logging
from jax.experimental import multihost_utils

from metaseg.errors import InputError

__all__ = [
    "HEARTBEAT_SECONDS",
    "check_backend",
    "count",
    "decide",
    "initialize",
    "is_primary",
    "leave",
    "must_stop",
    "name",
    "to_host",
    "wait_for_all",
]

# A process that sends no heartbeat for this time counts as dead. The heartbeat comes
# from a thread of its own, so long steps do not delay it.
HEARTBEAT_SECONDS = 30


def initialize(
    coordinator: str | None = None,
    num_processes: int | None = None,
    process_id: int | None = None,
) -> None:
    """Connects this process to the others of a run, before jax is used.

    Args:
      coordinator: `host:port` of process 0. Without it, all three arguments follow from
        the environment of a TPU pod, Slurm, Open MPI or a Kubernetes indexed Job.
      num_processes: Number of processes.
      process_id: Number of this process, from 0.

    Raises:
      InputError: If the arguments do not fit together, there is no such environment, or
        the other processes cannot be reached.
    """
    given = {
        "coordinator": coordinator,
        "num_processes": num_processes,
        "process_id": process_id,
    }
    missing = [name for name, value in given.items() if value is None]
    if 0 < len(missing) < 3:
        raise InputError(
            f"{missing[0]}: not given; expected all of {', '.join(given)}, or none of "
            "them where the environment says it"
        )
    if not missing:
        _check(str(coordinator), int(num_processes or 0), int(process_id or 0))
    logging.set_verbosity(logging.ERROR)  # jax logs each address twice
    try:
        jax.distributed.initialize(
            coordinator,
            num_processes,
            process_id,
            # Given arguments are complete: jax need not look at the environment.
            cluster_detection_method=None if missing else "deactivate",
            heartbeat_timeout_seconds=HEARTBEAT_SECONDS,
        )
    except (ValueError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise InputError(
            f"distributed: the processes cannot be connected ({reason}); expected "
            "coordinator, num_processes and process_id, or the environment of a TPU "
            "pod, Slurm, Open MPI or a Kubernetes indexed Job"
        ) from error


def _check(coordinator: str, num_processes: int, process_id: int) -> None:
    host, _, port = coordinator.rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) < 1 << 16:
        raise InputError(f"coordinator: got '{coordinator}', expected HOST:PORT")
    if num_processes < 1:
        raise InputError(f"num_processes: got {num_processes}, expected at least 1")
    if not 0 <= process_id < num_processes:
        raise InputError(
            f"process_id: got {process_id}, expected 0 to {num_processes - 1}"
        )


def check_backend() -> None:
    """Checks that jax finds the devices that it is told to use.

    Raises:
      InputError: If the backend that `JAX_PLATFORMS` names is not there.
    """
    try:
        jax.devices()
    except (AssertionError, RuntimeError) as error:  # jax raises either
        config: Any = jax.config
        wanted = config.jax_platforms
        if not wanted:
            raise
        raise InputError(
            f"JAX_PLATFORMS: got '{wanted}', but the backend {wanted} is not available "
            "on this machine; expected cpu, or no such variable for the best backend"
        ) from error


def count() -> int:
    """Returns the number of processes of the run."""
    return jax.process_count()


def name() -> str:
    """Returns the name of this process for messages, such as "process 0 of 2"."""
    return f"process {jax.process_index()} of {count()}"


def is_primary() -> bool:
    """Returns whether this is process 0, which alone writes logs and results."""
    return jax.process_index() == 0


def decide(primary: Callable[[], int]) -> int:
    """Finds a number in process 0 and sends it to all others.

    Args:
      primary: Function that returns the number, at least 0; called in process 0.

    Returns:
      The number.

    Raises:
      InputError: In the other processes, if process 0 raised an error.
    """
    if count() == 1:
        return primary()
    failed: Exception | None = None
    found = -1
    if is_primary():
        try:
            found = primary()
        except Exception as error:  # raised below, after the others were told
            failed = error
    found = int(multihost_utils.broadcast_one_to_all(np.int32(found)))
    if failed is not None:
        raise failed
    if found < 0:
        raise InputError("process 0 stopped the run; its message says why")
    return found


def to_host(x: Any) -> np.ndarray:
    """Copies an array to the host, from all devices and processes that hold parts.

    Every process has to call it.

    Args:
      x: Array.

    Returns:
      The whole array.
    """
    if not isinstance(x, jax.Array) or x.is_fully_addressable:
        return np.asarray(x)
    if x.is_fully_replicated:
        return np.asarray(x.addressable_data(0))
    return np.asarray(multihost_utils.process_allgather(x, tiled=True))


def must_stop(step: int) -> bool:
    """Returns whether all processes are to stop after this step.

    Every process has to call it after each step, and all get the same answer.

    Args:
      step: Number of the step.

    Returns:
      True once one of the processes got SIGTERM.
    """
    return count() > 1 and multihost_utils.reached_preemption_sync_point(step)


def wait_for_all(where: str) -> None:
    """Waits until all processes have called it.

    Args:
      where: Name of the place in the program, the same in all processes.
    """
    if count() > 1:
        multihost_utils.sync_global_devices(where)


def leave(status: int) -> None:
    """Ends this process at once.

    An ordinary exit would wait minutes for processes that may have died.

    Args:
      status: Exit status.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)
