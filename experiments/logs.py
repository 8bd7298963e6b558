"""Where a run's numbers go: progress on the terminal, metrics.jsonl, TensorBoard."""

import json
import math
import os
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tensorboardX import SummaryWriter
from tqdm import tqdm

from metaseg.errors import InputError

__all__ = ["Record", "RunLog", "check_workdir", "say", "write_json"]


def check_workdir(workdir: Path, *, empty: bool = True) -> None:
    """Raises InputError unless `workdir` can be written to, and is `empty` if so."""
    if workdir.exists() and not workdir.is_dir():
        raise InputError(f"--workdir: '{workdir}' is a file, expected a folder")
    # Hidden files are scratch of a run that was killed as it began.
    if (
        empty
        and workdir.is_dir()
        and any(not path.name.startswith(".") for path in workdir.iterdir())
    ):
        raise InputError(
            f"--workdir: '{workdir}' is not empty, expected a new or empty folder"
        )
    nearest = workdir.absolute()
    while not nearest.exists():
        nearest = nearest.parent
    try:
        with tempfile.TemporaryFile(dir=nearest):
            pass
    except OSError as error:
        raise InputError(
            f"--workdir: cannot write to '{nearest}': {error.strerror}"
        ) from None


def say(text: str) -> None:
    """Prints a line where progress goes."""
    print(text, file=sys.stderr, flush=True)


def _plain(value: Any) -> Any:
    """The value with NumPy types as Python's, and NaN as None (JSON has no NaN)."""
    if isinstance(value, dict):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    if isinstance(value, np.ndarray | np.generic):
        return _plain(value.tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def write_json(path: Path, value: Any) -> None:
    """Writes `value` so that the file is there whole or not at all."""
    scratch = path.with_name(f".{path.name}.{os.getpid()}")
    scratch.write_text(json.dumps(_plain(value), indent=2) + "\n", encoding="utf-8")
    scratch.replace(path)


class Record:
    """The metrics of one run: rows in memory, metrics.jsonl, TensorBoard events.

    Attributes:
      history: all rows.
    """

    def __init__(
        self,
        folder: Path | None,
        history: Sequence[Mapping[str, Any]] = (),
        first_step: int = 0,
    ) -> None:
        """Opens the files.

        Args:
          folder: made if it is missing; None writes nothing.
          history: rows that a resumed run had written; later ones are forgotten.
          first_step: steps taken before.
        """
        self.history: list[dict[str, Any]] = [dict(row) for row in history]
        self._metrics: Any = None
        if folder is None:
            return
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / "metrics.jsonl"
        scratch = path.with_name(f".{path.name}.{os.getpid()}")
        rows = [json.dumps(_plain(row)) + "\n" for row in self.history]
        scratch.write_text("".join(rows), encoding="utf-8")
        scratch.replace(path)
        self._metrics = path.open("a", encoding="utf-8")
        purge = {"purge_step": first_step + 1} if first_step else {}
        self._events = SummaryWriter(str(folder), **purge)

    def write(self, step: int, split: str, values: Mapping[str, float]) -> None:
        """Records the values of one split at one step."""
        row = {"step": step, "split": split, **values}
        self.history.append(row)
        if self._metrics is None:
            return
        self._metrics.write(json.dumps(_plain(row)) + "\n")
        self._metrics.flush()
        for name, value in values.items():
            self._events.add_scalar(f"{split}/{name}", value, step)

    def close(self) -> None:
        """Closes the files."""
        if self._metrics is not None:
            self._metrics.close()
            self._events.close()


class RunLog:
    """Progress of a run, and the records of its members.

    On a terminal a progress bar shows loss, validation IoU, images per second and the
    time left; elsewhere a plain line appears at every validation and every tenth of
    the run.

    Attributes:
      records: one for each member.
    """

    def __init__(
        self,
        records: Sequence[Record],
        *,
        total_steps: int,
        batch_size: int,
        first_step: int = 0,
        quiet: bool = False,
    ) -> None:
        """Opens the logs.

        Args:
          records: of the members.
          total_steps: of the whole run.
          batch_size: examples per step, of all members.
          first_step: steps taken before.
          quiet: whether nothing is to be shown, as another process shows it.
        """
        self.records = list(records)
        self._first_step = self._last_line = first_step
        self._total, self._batch_size, self._quiet = total_steps, batch_size, quiet
        self._bar: tqdm | None = None
        self._start = 0.0
        self._shown: dict[str, str] = {}

    def say(self, text: str) -> None:
        """Prints a line above the progress bar."""
        if self._quiet:
            return
        if self._bar is not None:
            self._bar.write(text, file=sys.stderr)
        else:
            say(text)

    def begin(self) -> None:
        """Starts the clock and, on a terminal, the progress bar."""
        self._start = time.perf_counter()
        if sys.stderr.isatty() and not self._quiet:
            self._bar = tqdm(
                total=self._total * self._batch_size,
                initial=self._first_step * self._batch_size,
                unit="img",
                unit_scale=True,
                dynamic_ncols=True,
            )

    def progress(self, step: int, *, force: bool = False, **shown: str) -> None:
        """Shows how far the run is; `shown` stays until it is shown anew."""
        self._shown |= shown
        if self._bar is not None:
            self._bar.set_postfix(self._shown, refresh=False)
            self._bar.update(step * self._batch_size - self._bar.n)
        elif force or step - self._last_line >= self._total / 10:
            self._last_line = step
            elapsed = time.perf_counter() - self._start
            taken = max(1, step - self._first_step)
            rate = taken * self._batch_size / elapsed
            left = elapsed * (self._total - step) / taken
            values = "  ".join(f"{k} {v}" for k, v in self._shown.items())
            self.say(
                f"step {step}/{self._total}  {values}  "
                f"{rate:.0f} img/s  {left:.0f} s left"
            )

    def close(self) -> None:
        """Closes bar and files."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None
        for record in self.records:
            record.close()
