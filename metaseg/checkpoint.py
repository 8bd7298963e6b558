"""Checkpoints of a run on Orbax: asynchronous, atomic, the newest and the best kept.

A checkpoint holds the train state, and in JSON the progress that goes with it: metric
history, state of the data iterator, hash of the config. Its digest tells whether what
is read back is what was written. May import `errors` and `parallel.processes`.
"""

import contextlib
import logging as python_logging
import zlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import orbax.checkpoint as ocp
from absl import logging
from orbax.checkpoint import checkpoint_managers

from metaseg.errors import InputError
from metaseg.parallel import processes

__all__ = ["Checkpoints", "Restored", "digest"]

KEPT = 2  # newest ones, so that a damaged one has another before it


class Restored(NamedTuple):
    """What a checkpoint held.

    Attributes:
      step: steps that had been taken.
      state: the tree that was saved.
      progress: plain values, as they were given to `save`.
    """

    step: int
    state: Any
    progress: dict[str, Any]


class Checkpoints:
    """The checkpoints in one folder.

    A checkpoint appears whole or not at all: Orbax writes under another name and
    renames. Saving goes on in the background while the next steps are taken; an error
    there, such as a full disk, is raised by the next call.
    """

    def __init__(self, folder: Path, *, read_only: bool = False) -> None:
        """Opens a folder.

        Args:
          folder: made if it is missing, unless `read_only`.
          read_only: whether nothing is to be written or deleted.
        """
        self._folder = folder.absolute()
        # Orbax leaves what went wrong in each array's own task; one of them is raised.
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
          step: steps taken; a checkpoint of this step that is there is kept as it is.
          state: any tree of arrays, a `TrainState` for one.
          progress: plain values that go with it.
          score: of the validation at this step, if there was one: higher is better.

        Raises:
          OSError: this or an earlier checkpoint could not be written.
        """
        if step in self._manager.all_steps():
            return
        # A copy: on CPU the arrays' own memory would be written while the next step,
        # to which they are donated, overwrites it.
        state = jax.tree.map(jnp.copy, state)
        facts = {"step": step, "digest": digest(state), "progress": dict(progress)}
        self._manager.save(
            step,
            args=ocp.args.Composite(
                state=ocp.args.StandardSave(state), progress=ocp.args.JsonSave(facts)
            ),
            metrics=None if score is None else {"score": float(score)},
            force=True,
        )

    def steps(self) -> list[int]:
        """Steps that have a checkpoint, oldest first."""
        return sorted(self._manager.all_steps())

    def restore_newest(
        self, like: Any, report: Callable[[str], None] = print
    ) -> Restored | None:
        """Reads the newest checkpoint that can be read.

        Args:
          like: a tree of the same structure, of arrays or `jax.ShapeDtypeStruct` with
            shardings; the devices may be others than those of the saved arrays.
          report: is told of each checkpoint that is damaged.

        Returns:
          What it held, or None if there is no checkpoint.

        Raises:
          InputError: there are checkpoints, but none can be read.
        """
        steps = self.steps()
        for step in reversed(steps):
            try:
                return self.restore(step, like)
            except Exception as error:  # damaged bytes raise whatever they lead to
                reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
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

        Raises:
          ValueError: what was read is not what was written.
        """
        target = jax.tree.map(ocp.utils.to_shape_dtype_struct, like)
        found = self._manager.restore(
            step,
            args=ocp.args.Composite(
                state=ocp.args.StandardRestore(target), progress=ocp.args.JsonRestore()
            ),
        )
        facts = found["progress"]
        if facts["digest"] != digest(found["state"]):
            raise ValueError("its arrays are not those that were saved")
        return Restored(step, found["state"], facts["progress"])

    def progress(self, step: int) -> dict[str, Any]:
        """The plain values of a checkpoint, without its arrays."""
        args = ocp.args.Composite(progress=ocp.args.JsonRestore())
        return self._manager.restore(step, args=args)["progress"]["progress"]

    def best_step(self) -> int | None:
        """The step with the highest score; the newest one if none has a score."""
        scores = {
            step: metrics["score"]
            for step in self._manager.all_steps()
            if (metrics := self._manager.metrics(step))
        }
        if not scores:
            return self._manager.latest_step()
        return max(scores, key=lambda step: (scores[step], -step))

    def wait(self) -> None:
        """Returns when everything is on disk; raises what went wrong."""
        self._manager.wait_until_finished()
        self._manager.check_for_errors()

    def close(self) -> None:
        """Waits and lets go of the folder; what goes wrong is for `wait` to raise."""
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


def digest(tree: Any) -> int:
    """Computes the CRC-32 of the bytes of all arrays of a tree, in their order.

    The same wherever the arrays lie; every process of a run has to ask for it.

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
