"""Progress of a run on the terminal: lines, and a bar where there is a terminal."""

import contextlib
import sys
import time
from collections.abc import Iterator, Sequence

from absl import logging
from tqdm import tqdm

from metaseg.runs.metrics_log import MetricsLog

__all__ = ["RunLog", "quiet_logging", "say"]


def say(text: str) -> None:
    """Prints a line to standard error.

    Args:
      text: The line.
    """
    print(text, file=sys.stderr, flush=True)


@contextlib.contextmanager
def quiet_logging() -> Iterator[None]:
    """Silences the log of Orbax, whose failures are raised as exceptions too."""
    before = logging.get_verbosity()
    logging.set_verbosity(logging.FATAL)
    try:
        yield
    finally:
        logging.set_verbosity(before)


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
        records: Sequence[MetricsLog],
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
        self._shown: dict[str, str] = {}  # on the bar
        self._new: dict[str, str] = {}  # since the last line

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
        """Shows how far the run is.

        Args:
          step: Number of steps taken.
          force: Whether a plain line is due.
          **shown: Values by name. A bar shows each until it changes; of plain lines
            each value is in one.
        """
        self._shown |= shown
        self._new |= shown
        if self._bar is not None:
            self._bar.set_postfix(self._shown, refresh=False)
            self._bar.update(step * self._batch_size - self._bar.n)
        elif force or step - self._last_line >= self._total / 10:
            self._last_line = step
            elapsed = time.perf_counter() - self._start
            taken = max(1, step - self._first_step)
            rate = taken * self._batch_size / elapsed
            left = elapsed * (self._total - step) / taken
            values = "  ".join(f"{k} {v}" for k, v in self._new.items())
            self._new = {}
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
