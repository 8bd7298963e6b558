"""SIGTERM and SIGINT ask a run to save and end, as when a machine is taken away."""

import signal
from types import FrameType, TracebackType
from typing import Self

__all__ = ["EXIT_STATUS", "StoppedError", "Watch"]

EXIT_STATUS = 75  # EX_TEMPFAIL of sysexits.h: run the same command again


class StoppedError(Exception):
    """A run that was asked to stop, and has saved what it had done."""


class Watch:
    """Notes the signals while a run goes on, and gives the handlers back afterwards.

    A second Ctrl-C ends the program at once, as it would without us.

    Attributes:
      signal: name of the signal that has come, or "".
    """

    SIGNALS = (signal.SIGTERM, signal.SIGINT)

    def __init__(self) -> None:
        self.signal = ""

    def _note(self, number: int, frame: FrameType | None) -> None:
        del frame
        if self.signal and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.signal = signal.Signals(number).name

    def __enter__(self) -> Self:
        self._before = {s: signal.signal(s, self._note) for s in self.SIGNALS}
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
