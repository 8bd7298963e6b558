"""Where a run's numbers go: progress on the terminal, metrics.jsonl, TensorBoard.

The work folder is on a disk, or in a bucket, where files can only be written whole.
"""

import importlib.util
import json
import math
import os
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self, cast

import fsspec
import numpy as np
from etils.epath import gpath
from tensorboardX import SummaryWriter
from tqdm import tqdm

from metaseg.errors import InputError
from metaseg.report import page

__all__ = [
    "Record",
    "RunLog",
    "bucket",
    "check_empty",
    "check_workdir",
    "say",
    "write_json",
]

SEND_SECONDS = 120  # between copies of a growing file to a bucket


def bucket(address: str) -> Path:
    """A folder in a bucket of Google Cloud Storage.

    Args:
      address: `gs://BUCKET/FOLDER`.

    Returns:
      A path that Orbax takes, and that does what we ask of pathlib's.

    Raises:
      InputError: another address, or a package is missing.
    """
    scheme, _, rest = address.partition("://")
    if scheme != "gs" or not all(rest.rstrip("/").partition("/")):
        raise InputError(
            f"--workdir: got '{address}', expected a folder or gs://BUCKET/FOLDER"
        )
    if importlib.util.find_spec("gcsfs") is None:
        raise InputError(
            f"--workdir: '{address}' needs the package gcsfs, which is not here; "
            "expected pip install --editable '.[gcs]', or a folder"
        )
    # The back end of etils that needs no TensorFlow, and of that the part that needs no
    # rights beyond those to objects. What it remembers of a folder is out of date as
    # soon as Orbax has written arrays there, which goes past it.
    os.environ["EPATH_USE_TF"] = "0"
    os.environ["GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT"] = "0"
    fsspec.config.conf.setdefault("gcs", {})["use_listings_cache"] = False
    return cast(Path, _Bucket(address))


class _Bucket(gpath.PosixGPath):
    def absolute(self) -> Self:
        """This; etils would prepend the working directory."""
        return self


def check_workdir(workdir: Path) -> None:
    """Raises InputError unless `workdir` can be written to."""
    if page.in_bucket(workdir):
        _check_bucket(workdir)
        return
    if workdir.exists() and not workdir.is_dir():
        raise InputError(f"--workdir: '{workdir}' is a file, expected a folder")
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


def _check_bucket(workdir: Path) -> None:
    trial = workdir / f".trial.{os.getpid()}"
    try:
        page.upload(trial, b"")
        trial.unlink()  # Orbax has to delete too
    except Exception as error:  # network and credentials have many ways to fail
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"--workdir: cannot write to '{workdir}': {reason}") from None


def check_empty(workdir: Path) -> None:
    """Raises InputError if `workdir` holds anything."""
    # Hidden files are scratch of a run that was killed as it began.
    if workdir.is_dir() and any(
        not path.name.startswith(".") for path in workdir.iterdir()
    ):
        raise InputError(
            f"--workdir: '{workdir}' is not empty, expected a new or empty folder"
        )


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
    page.write(path, json.dumps(_plain(value), indent=2) + "\n")


class Record:
    """The metrics of one run: rows in memory, metrics.jsonl, TensorBoard events.

    Where the folder is in a bucket, the files grow on this machine's disk and are
    copied now and then; a run that is killed in between writes the rows anew from its
    checkpoint.

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
        self._folder, self._disk = folder, folder
        if page.in_bucket(folder):
            self._scratch = tempfile.TemporaryDirectory()
            self._disk = Path(self._scratch.name)
        self._disk.mkdir(parents=True, exist_ok=True)
        path = self._disk / "metrics.jsonl"
        page.write(path, "".join(json.dumps(_plain(r)) + "\n" for r in self.history))
        self._metrics = path.open("a", encoding="utf-8")
        purge = {"purge_step": first_step + 1} if first_step else {}
        self._events = SummaryWriter(str(self._disk), **purge)
        self._send()

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
        if time.monotonic() - self._sent > SEND_SECONDS:
            self._send()

    def _send(self) -> None:
        """Copies the files to the bucket, if that is where they belong."""
        self._sent = time.monotonic()
        if self._disk == self._folder:
            return
        self._events.flush()
        for path in self._disk.iterdir():
            page.upload(self._folder / path.name, path.read_bytes())

    def close(self) -> None:
        """Closes the files."""
        if self._metrics is not None:
            self._metrics.close()
            self._metrics = None
            try:
                self._events.close()
            except OSError:  # a full disk; it would be tried, and fail, again at exit
                writer = self._events.file_writer.event_writer
                writer._worker.stop()
                writer.close = lambda: None
                raise
            self._send()


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
