"""SIGTERM and SIGINT ask a command to end, as when a machine is taken away.

Python runs its handlers between two instructions of the main thread, which may wait
minutes for a compiler. Here a thread hears signals at once. Imports no jax.
"""

import contextlib
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType, TracebackType
from typing import NoReturn, Self

from metaseg import text

__all__ = [
    "EXIT_STATUS",
    "INTERRUPTED",
    "InterruptedBySignal",
    "StoppedError",
    "Watch",
    "ending",
    "leave",
    "raising",
    "resume_hint",
]

EXIT_STATUS = 75  # EX_TEMPFAIL of sysexits.h: run the same command again
INTERRUPTED = 130  # what shells report for a program that Ctrl-C ended
_NUMBERS = (signal.SIGINT, signal.SIGTERM)
_AGAIN = "run the same command again"
_open: list[socket.socket] = []  # of the blocks that listen now


class StoppedError(Exception):
    """A signal stopped the run; its work up to then is saved, if it has a folder."""


class InterruptedBySignal(KeyboardInterrupt):
    """A signal asks the command to end.

    Attributes:
      status: Exit status of the command.
    """

    def __init__(self, number: int) -> None:
        super().__init__(f"stopped by {signal.Signals(number).name}")
        self.status = INTERRUPTED if number == signal.SIGINT else EXIT_STATUS


def leave(status: int, said: str) -> NoReturn:
    """Prints a line and ends the process at once, from any thread.

    Files are written under other names and then renamed, so none is left half-written.

    Args:
      status: Exit status.
      said: The line, for standard error.
    """
    _write(said)
    os._exit(status)


def _write(said: str) -> None:
    """Writes a line to standard error, which the main thread may be using."""
    with contextlib.suppress(OSError, ValueError):  # closed, or no file
        os.write(sys.stderr.fileno(), f"{said}\n".encode(errors="backslashreplace"))


@contextlib.contextmanager
def _listening(
    heard: Callable[[int], None],
    handler: Callable[[int, FrameType | None], None] = lambda number, frame: None,
) -> Iterator[None]:
    """Hears SIGINT and SIGTERM in the block; restores what was there before it.

    Args:
      heard: Is called with the number of each signal, in another thread, at once.
      handler: Is called as well, in the main thread, between two of its instructions.
    """
    if threading.current_thread() is not threading.main_thread():
        yield  # Python lets the main thread alone handle signals
        return
    receiver, sender = socket.socketpair()
    sender.setblocking(False)
    thread = threading.Thread(target=_hear, args=(receiver, heard), daemon=True)
    thread.start()
    before = {number: signal.signal(number, handler) for number in _NUMBERS}
    pipe = signal.set_wakeup_fd(sender.fileno(), warn_on_full_buffer=False)
    _open.append(sender)
    try:
        yield
    finally:
        for number, old in before.items():
            signal.signal(number, old)
        signal.set_wakeup_fd(pipe)
        _open.remove(sender)
        sender.close()  # which ends the thread
        thread.join()
        receiver.close()


def _hear(receiver: socket.socket, heard: Callable[[int], None]) -> None:
    while numbers := receiver.recv(64):
        for number in numbers:
            if number in _NUMBERS:
                heard(number)


def _forget() -> None:
    """Leaves the signals of a forked process to that process."""
    if _open:
        _open.clear()
        signal.set_wakeup_fd(-1)  # or the parent would hear them
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)


@contextlib.contextmanager
def ending() -> Iterator[None]:
    """Ends the process with `EXIT_STATUS` at a signal: nothing has been started yet."""

    def heard(number: int) -> None:
        name = signal.Signals(number).name
        leave(EXIT_STATUS, f"stopped by {name} before anything was started; {_AGAIN}")

    with _listening(heard):
        yield


@contextlib.contextmanager
def raising() -> Iterator[None]:
    """Raises `InterruptedBySignal` at a signal, and ends the process at the second.

    Raises:
      InterruptedBySignal: At the first signal, wherever the main thread is.
    """
    came: list[int] = []
    raised = False

    def heard(number: int) -> None:
        came.append(number)
        if len(came) > 1:
            leave(InterruptedBySignal(number).status, f"ended at once; {_AGAIN}")

    def handler(number: int, frame: FrameType | None) -> None:
        nonlocal raised
        del frame
        if not raised:  # another thread ends the process at the second
            raised = True
            raise InterruptedBySignal(number)

    with _listening(heard, handler):
        yield


class Watch:
    """Says when SIGTERM or SIGINT asks a run to stop; restores the handlers at its end.

    While a run takes steps, a signal is noted: the run saves and ends after the current
    step, and a second Ctrl-C ends the process at once. Before the first and after the
    last step, a signal ends the process: nothing is lost. In a run of several
    processes, JAX listens for SIGTERM and stops all of them after the same step; Ctrl-C
    is sent on as SIGTERM.

    Attributes:
      signal: Name of the signal that has come, or "".
    """

    def __init__(self, *, handle: bool = True, workdir: Path | None = None) -> None:
        """Handles no signal yet.

        Args:
          handle: Whether to handle signals; False leaves them to the caller.
          workdir: Work folder of the run, for messages.
        """
        self.signal = ""
        self._handle = handle
        self._where, self._stepping = "before the first step", False
        self._again = _AGAIN if workdir is None else resume_hint(workdir)
        self._block = contextlib.ExitStack()

    @contextlib.contextmanager
    def stepping(self) -> Iterator[None]:
        """Lets the run save at a signal in the block, which takes the steps."""
        self._stepping = True
        try:
            yield
        finally:
            self._where, self._stepping = "after the last step", False

    def asked(self, step: int) -> bool:
        """Returns whether to stop after a step; has to be called after each step.

        Args:
          step: Number of steps taken.
        """
        from metaseg.parallel import processes  # imports jax

        if not self.signal and processes.must_stop(step):
            self.signal = signal.SIGTERM.name
        return bool(self.signal)

    def _heard(self, number: int) -> None:
        name = signal.Signals(number).name
        if not self._stepping:
            leave(EXIT_STATUS, f"stopped by {name} {self._where}; {self._again}")
        if self.signal and number == signal.SIGINT:
            said = f"ended at once by {name}; the last checkpoint is whole"
            leave(INTERRUPTED, f"{said}; {self._again}")
        self.signal = name
        if number == signal.SIGINT:
            _write("saving and ending after this step; Ctrl-C again ends at once")

    def __enter__(self) -> Self:
        from metaseg.parallel import processes  # imports jax

        if self._handle and processes.count() > 1:
            if threading.current_thread() is threading.main_thread():
                self._block.callback(signal.set_wakeup_fd, signal.set_wakeup_fd(-1))
                before = signal.signal(signal.SIGINT, _hand_on)
                self._block.callback(signal.signal, signal.SIGINT, before)
        elif self._handle:
            self._block.enter_context(_listening(self._heard))
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._block.close()


def resume_hint(workdir: Path) -> str:
    """Returns what to do to continue a run, for messages.

    Args:
      workdir: Work folder of the run.
    """
    return f"resume with --workdir={text.quoted(workdir)}"


def _hand_on(number: int, frame: FrameType | None) -> None:
    del number, frame
    os.kill(os.getpid(), signal.SIGTERM)
