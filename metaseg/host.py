"""Settings of the host process, which entry points make before they import jax."""

import contextlib
import ctypes
import hashlib
import io
import multiprocessing
import os
import platform
import signal
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import platformdirs

__all__ = [
    "cache_compiled_programs",
    "keep_freed_memory",
    "split_processor",
    "start_worker",
    "unread_output_is_dropped",
]

_CACHE_BYTES = 1 << 30
_CACHE_FILES = 10_000  # listing them takes 50 ms; a run has about a hundred


def cache_compiled_programs() -> Path | None:
    """Makes jax keep compiled programs on disk, so that later runs load them.

    Programs go to the user's cache folder, or to the folder that the environment
    variable `METASEG_CACHE` names; `METASEG_CACHE=off` keeps none. The oldest are
    deleted when the folder holds more than 1 GB or 10 000 of them. A cache that the
    user has set up for jax (`JAX_COMPILATION_CACHE_DIR`) is left as it is. A loaded
    program computes the same bits as a compiled one: jax tells programs apart by their
    code, the options of the compiler and its version, and here each kind of processor
    has its own folder.

    Returns:
      The folder; None if this function set up no cache, which includes a folder that
      cannot be written.
    """
    choice = os.environ.get("METASEG_CACHE", "")
    jax = sys.modules.get("jax")  # may be imported already, but not by this module
    taken = os.environ.get("JAX_COMPILATION_CACHE_DIR")
    if jax is not None:
        taken = jax.config.jax_compilation_cache_dir
    if taken or choice.lower() == "off":
        return None
    root = platformdirs.user_cache_path("metaseg")
    if choice:
        root = Path(choice).expanduser().absolute()
    folder = root / f"programs-{_processor()}"
    try:
        # For the user alone: programs in this folder run with the user's rights.
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        _delete_oldest(folder, _CACHE_BYTES, _CACHE_FILES)
    except OSError:
        return None
    if not os.access(folder, os.R_OK | os.W_OK | os.X_OK):
        return None
    settings = {
        "jax_compilation_cache_dir": str(folder),
        "jax_persistent_cache_min_compile_time_secs": 0,  # a run has 80 that take 20 ms
    }
    for name, value in settings.items():
        if jax is not None:
            jax.config.update(name, value)
        else:
            os.environ.setdefault(name.upper(), str(value))
    return folder


def split_processor(batch_size: int, devices: int = 0) -> int | None:
    """Makes jax see the processor as several devices, which share a batch.

    XLA's fastest convolutions on a CPU run in one thread of a device, so a device for
    each core is faster than one device for all of them: `docs/benchmarks.md` has the
    ratios. It has to be called before jax starts its backend. A number of devices that
    the user has set up for jax (`JAX_NUM_CPU_DEVICES`, or `XLA_FLAGS`) is left as it
    is. GPUs and TPUs are not affected.

    Args:
      batch_size: Number of examples that a step takes at once.
      devices: Number of devices; 0: the largest divisor of `batch_size`, up to the
        number of cores, that leaves at least two examples to each.

    Returns:
      The number of devices; None if this function set up none.
    """
    if (
        "JAX_NUM_CPU_DEVICES" in os.environ
        or "host_platform_device_count" in os.environ.get("XLA_FLAGS", "")
    ):
        return None
    most = min(_cores(), batch_size // 2)
    count = devices or max(
        (n for n in range(1, most + 1) if batch_size % n == 0), default=1
    )
    jax = sys.modules.get("jax")
    if jax is None:
        os.environ["JAX_NUM_CPU_DEVICES"] = str(count)
        return count
    try:
        jax.config.update("jax_num_cpu_devices", count)
    except RuntimeError:  # the backend has started
        return None
    return count


def _cores() -> int:
    """Number of cores that this process may use."""
    known = hasattr(os, "sched_getaffinity")
    return len(os.sched_getaffinity(0)) if known else os.cpu_count() or 1


def _processor() -> str:
    """Identifies the kind and the cores of the processor that programs are for."""
    kind = platform.machine()
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        wanted = ("model name", "flags", "Features")
        kind += "".join(sorted({line for line in lines if line.startswith(wanted)}))
    except OSError:  # no Linux
        kind += platform.processor()
    return hashlib.sha256(f"{kind} {_cores()}".encode()).hexdigest()[:8]


def _delete_oldest(folder: Path, limit: int, files: int) -> None:
    """Deletes the files used longest ago, down to `limit` bytes and `files` files."""
    found = [(path, path.stat()) for path in folder.iterdir()]
    found.sort(key=lambda item: max(item[1].st_atime, item[1].st_mtime), reverse=True)
    total = 0
    for rank, (path, status) in enumerate(found):
        total += status.st_size
        if total > limit or rank >= files:
            path.unlink(missing_ok=True)


def keep_freed_memory() -> None:
    """Makes glibc reuse the buffers of a step instead of returning them to Linux.

    XLA's CPU backend allocates all temporaries of a step anew, 84 MB for the width-8
    U-Net on eight 128 x 128 images. By default Linux then maps and clears 21 000 pages
    in each step. With this setting, system time fell from 72 to 4 ms a step and user
    time rose from 365 to 400 ms: a fifteenth of the CPU time is saved. glibc gets one
    arena, since it bounds the others to 64 MB. Other C libraries are left alone.
    """
    if sys.platform != "linux" or not hasattr(ctypes.CDLL(None), "mallopt"):
        return
    trim_threshold, top_pad, mmap_threshold, arena_max = -1, -2, -3, -8  # malloc.h
    libc = ctypes.CDLL(None)
    for option, value in (
        (arena_max, 1),
        (mmap_threshold, 1 << 30),
        (trim_threshold, 1 << 30),
        (top_pad, 1 << 26),
    ):
        libc.mallopt(option, value)


def start_worker() -> None:
    """Ties a process of a pool to its parent; an initializer of the pool.

    The terminal sends Ctrl-C to all processes: the parent alone answers. Workers of a
    parent that is killed would wait for ever.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    assert parent is not None

    def end_with_parent() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=end_with_parent, daemon=True).start()


class _Dropping:
    """A stream that drops what nobody reads: `metaseg noise | head` closes its pipe."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        """Writes text, or drops it."""
        try:
            return self._stream.write(text)
        except BrokenPipeError:
            self._drop()
            return len(text)

    def flush(self) -> None:
        """Writes what is buffered, or drops it."""
        try:
            self._stream.flush()
        except BrokenPipeError:
            self._drop()

    def _drop(self) -> None:
        """Sends this output and all that follows, also of libraries, to nowhere."""
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, self._stream.fileno())
        os.close(nowhere)


def _dropping(stream: Any) -> Any:
    return _Dropping(stream)


@contextlib.contextmanager
def unread_output_is_dropped() -> Iterator[None]:
    """Lets a command go on in the block when the reader of its output has gone.

    Names of files that the terminal cannot show are printed with escapes.
    """
    before = sys.stdout, sys.stderr
    for stream in before:
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    sys.stdout, sys.stderr = map(_dropping, before)
    try:
        yield
    finally:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        sys.stdout, sys.stderr = before
