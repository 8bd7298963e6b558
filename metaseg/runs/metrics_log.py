"""The metrics of a run in files: metrics.jsonl and TensorBoard events.

The work folder is on a disk, or in a bucket, where files can only be written whole.
"""

import json
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from metaseg import files

__all__ = ["MetricsLog"]

SEND_SECONDS = 120  # between copies of a growing file to a bucket


class MetricsLog:
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
        if files.in_bucket(folder):
            self._scratch = tempfile.TemporaryDirectory()
            self._disk = Path(self._scratch.name)
        self._disk.mkdir(parents=True, exist_ok=True)
        path = self._disk / "metrics.jsonl"
        files.write_text(
            path, "".join(json.dumps(files.plain(r)) + "\n" for r in self.history)
        )
        self._metrics = path.open("a", encoding="utf-8")
        from tensorboardX import SummaryWriter  # late: imports PyTorch if it is there

        purge = {"purge_step": first_step + 1} if first_step else {}
        self._events = SummaryWriter(str(self._disk), **purge)
        self._send()

    def write(
        self,
        step: int,
        split: str,
        values: Mapping[str, float],
        *,
        why_null: Mapping[str, str] | None = None,
    ) -> None:
        """Records the values of one split at one step.

        Args:
          step: Number of steps taken.
          split: Name of the split.
          values: Values by name.
          why_null: Why values are NaN, by their names; NaN is null in the file.
        """
        row: dict[str, Any] = {"step": step, "split": split, **values}
        if why_null:
            row["why_null"] = dict(why_null)
        self.history.append(row)
        if self._metrics is None:
            return
        self._metrics.write(json.dumps(files.plain(row)) + "\n")
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
            files.upload(self._folder / path.name, path.read_bytes())

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
