"""SIGTERM and SIGINT ask a run to save and end, as when a machine is taken away."""

import os
import signal
from types import FrameType, TracebackType
from typing import Any, Self

from metaseg.parallel import processes

__all__ = ["EXIT_STATUS", "StoppedError", "Watch"]

EXIT_STATUS = 75  # EX_TEMPFAIL of sysexits.h: run the same command again


class StoppedError(Exception):
    """A signal stopped the run; its work up to then is saved, if it has a folder."""


class Watch:
    """Notes SIGTERM and SIGINT during a run, and restores the handlers afterwards.

    A second Ctrl-C ends the program at once. In a run of several processes, JAX listens
    for SIGTERM and stops all of them after the same step; Ctrl-C is sent on as SIGTERM.

    Attributes:
      signal: Name of the signal that has come, or "".
    """

    def __init__(self, *, handle: bool = True) -> None:
        """Handles no signal yet.

        Args:
          handle: Whether to handle signals; False leaves them to the caller.
        """
        self.signal = ""
        self._handle = handle

    def check(self) -> None:
        """Raises StoppedError if a signal has come before the first step."""
        if self.signal:
            raise StoppedError(f"stopped by {self.signal} before the first step")

    def asked(self, step: int) -> bool:
        """Returns whether to stop after a step; has to be called after each step.

        Args:
          step: Number of steps taken.
        """
        if not self.signal and processes.must_stop(step):
            self.signal = signal.SIGTERM.name
        return bool(self.signal)

    def _note(self, number: int, frame: FrameType | None) -> None:
        del frame
        if self.signal and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.signal = signal.Signals(number).name

    def _hand_on(self, number: int, frame: FrameType | None) -> None:
        del number, frame
        os.kill(os.getpid(), signal.SIGTERM)

    def __enter__(self) -> Self:
        handlers: dict[signal.Signals, Any] = {}
        if self._handle and processes.count() > 1:
            handlers = {signal.SIGINT: self._hand_on}
        elif self._handle:
            handlers = {signal.SIGINT: self._note, signal.SIGTERM: self._note}
        self._before = {s: signal.signal(s, h) for s, h in handlers.items()}
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
