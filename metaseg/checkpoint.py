"""Checkpoints of a run, written by Orbax: in the background, atomic, verified.

A checkpoint holds the train state and, in JSON, the progress of the run: plain values
such as the step, the history of metrics and a hash of the config. No iterator is saved,
since the order of the examples follows from the step. A digest of the arrays shows
whether they are read back as they were written. The newest checkpoints and the best one
are kept. May import `errors` and `parallel.processes`.
"""

import contextlib
import copy
import logging as python_logging
import math
import zlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import orbax.checkpoint as ocp
from absl import logging
from orbax.checkpoint import checkpoint_managers

from metaseg.errors import DamagedError, InputError, decoder_errors
from metaseg.parallel import processes

__all__ = ["Checkpoints", "Restored", "best_step", "digest"]

KEPT = 2  # newest checkpoints: if the last one is damaged, there is another


class Restored(NamedTuple):
    """The contents of a checkpoint.

    Attributes:
      step: Number of steps taken before it was saved.
      state: The tree of arrays that was saved.
      progress: The plain values that were saved.
    """

    step: int
    state: Any
    progress: dict[str, Any]


class Checkpoints:
    """The checkpoints in one folder.

    A checkpoint is there as a whole or not at all: Orbax writes it under another name
    and renames it. It is written in the background while the next steps run. An error,
    such as a full disk, is raised by the next call.
    """

    def __init__(self, folder: Path, *, read_only: bool = False) -> None:
        """Opens a folder.

        Args:
          folder: Folder of the checkpoints; created if it is missing, unless
            `read_only`.
          read_only: Whether nothing may be written or deleted.
        """
        self._folder = folder.absolute()
        # Each array has a task with an error of its own, and Orbax raises one of them:
        # asyncio need not log the others.
        python_logging.getLogger("asyncio").setLevel(python_logging.CRITICAL)
        with _only_errors_logged():  # it warns of what read_only means
            options = ocp.CheckpointManagerOptions(
                create=not read_only,
                read_only=read_only,
                cleanup_tmp_directories=not read_only,
                best_fn=lambda metrics: metrics["score"],  # or none are written
                preservation_policy=checkpoint_managers.AnyPreservationPolicy(
                    [
                        checkpoint_managers.LatestN(KEPT),
                        checkpoint_managers.BestN(
                            get_metric_fn=lambda metrics: metrics["score"],
                            n=1,
                            keep_checkpoints_without_metrics=False,
                        ),
                    ]
                ),
            )
            self._manager = ocp.CheckpointManager(self._folder, options=options)

    def save(
        self,
        step: int,
        state: Any,
        progress: Mapping[str, Any],
        score: float | None = None,
    ) -> None:
        """Starts to write a checkpoint; the arrays may be donated afterwards.

        Args:
          step: Number of steps taken; an existing checkpoint of this step is kept.
          state: Tree of arrays, such as a `TrainState`.
          progress: Plain values, which are written as JSON.
          score: Score of the validation at this step, if there was one; higher is
            better.

        Raises:
          OSError: If this or an earlier checkpoint cannot be written.
        """
        if step in self._manager.all_steps():
            return
        # Orbax would write from the arrays' own memory on a CPU, which the next step
        # overwrites, since the arrays are donated to it.
        state = jax.tree.map(jnp.copy, state)
        # Orbax writes the values later, when the next steps may have added to them.
        values = copy.deepcopy(dict(progress))
        facts = {"step": step, "digest": digest(state), "progress": values}
        self._manager.save(
            step,
            args=ocp.args.Composite(
                state=ocp.args.StandardSave(state), progress=ocp.args.JsonSave(facts)
            ),
            metrics=None if score is None else {"score": float(score)},
            force=True,
        )

    def steps(self) -> list[int]:
        """Returns the steps that have a checkpoint, in increasing order."""
        return sorted(self._manager.all_steps())

    def restore_newest(
        self, like: Any, report: Callable[[str], None] = print
    ) -> Restored | None:
        """Reads the newest checkpoint that can be read.

        Args:
          like: Tree of the same structure, of arrays or of `jax.ShapeDtypeStruct` with
            shardings. The devices may differ from those of the saved arrays.
          report: Function that takes a line about each damaged checkpoint.

        Returns:
          The contents of the checkpoint, or None if there is no checkpoint.

        Raises:
          InputError: If there are checkpoints, but none can be read.
        """
        steps = self.steps()
        for step in reversed(steps):
            try:
                return self.restore(step, like)
            except (DamagedError, OSError) as error:
                reason = " ".join(str(error).split())[:200]
                report(
                    f"checkpoint {self._folder / str(step)} is damaged ({reason}); "
                    "going back to the one before"
                )
        if steps:
            raise InputError(
                f"{self._folder}: none of the checkpoints of steps "
                f"{', '.join(map(str, steps))} can be read; expected one that can, or "
                "an empty work folder"
            )
        return None

    def restore(self, step: int, like: Any) -> Restored:
        """Reads the checkpoint of one step.

        Args:
          step: One of `steps`.
          like: As in `restore_newest`.

        Returns:
          The contents of the checkpoint.

        Raises:
          DamagedError: If files are damaged, or the arrays differ from those that were
            saved.
          OSError: If a file is missing or cannot be read.
        """
        target = jax.tree.map(ocp.utils.to_shape_dtype_struct, like)
        args = ocp.args.Composite(
            state=ocp.args.StandardRestore(target), progress=ocp.args.JsonRestore()
        )
        with decoder_errors():  # Orbax raises whatever the damage leads to
            found = self._manager.restore(step, args=args)
        facts = found["progress"] or {}
        if facts.get("digest") != digest(found["state"]):
            raise DamagedError("its arrays are not those that were saved")
        return Restored(step, found["state"], facts["progress"])

    def progress(self, step: int) -> dict[str, Any]:
        """Reads the plain values of the checkpoint of one step, without its arrays."""
        args = ocp.args.Composite(progress=ocp.args.JsonRestore())
        return self._manager.restore(step, args=args)["progress"]["progress"]

    def wait(self) -> None:
        """Waits until everything is on disk; raises the error of a failed write."""
        self._manager.wait_until_finished()
        self._manager.check_for_errors()

    def close(self) -> None:
        """Waits and closes the folder; raises no error of a write, as `wait` does."""
        with contextlib.suppress(Exception):
            self._manager.close()


@contextlib.contextmanager
def _only_errors_logged() -> Iterator[None]:
    before = logging.get_verbosity()
    logging.set_verbosity(logging.ERROR)
    try:
        yield
    finally:
        logging.set_verbosity(before)


def best_step(scores: Mapping[int, float]) -> int | None:
    """Chooses the step with the highest score, the latest one of equals.

    Args:
      scores: Score of the validation at some steps; NaN where it is undefined.

    Returns:
      The step. None if no score is finite, or if several are finite and all are equal:
      such scores choose nothing.

    Example:
      >>> best_step({100: 0.2, 200: 0.7, 300: 0.7, 400: float("nan")})
      300
      >>> best_step({100: 0.0, 200: 0.0}) is None
      True
    """
    finite = {step: score for step, score in scores.items() if math.isfinite(score)}
    if not finite or (len(finite) > 1 and len(set(finite.values())) == 1):
        return None
    return max(finite, key=lambda step: (finite[step], step))


def digest(tree: Any) -> int:
    """Computes the CRC-32 of the bytes of all arrays of a tree, in their order.

    It does not depend on the devices of the arrays. Every process of a run has to call
    it.

    Args:
      tree: Tree of arrays.

    Returns:
      The checksum.
    """
    crc = 0
    for leaf in jax.tree.leaves(tree):
        if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            leaf = jax.random.key_data(leaf)
        crc = zlib.crc32(processes.to_host(leaf).tobytes(), crc)
    return crc
