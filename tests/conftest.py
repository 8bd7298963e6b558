"""Eight virtual CPU devices, compilation that does not optimise, checked annotations.

Almost all of the suite's time is compilation, so the compiler's backend is told not to
optimise, and every program is compiled once for all workers and subprocesses. The
tests' results do not depend on either.
"""

import os
import shutil
import sys
import tempfile

from hypothesis import settings
from jaxtyping import install_import_hook

_FLAGS = (
    "--xla_force_host_platform_device_count=8",
    "--xla_backend_optimization_level=0",
)
os.environ["XLA_FLAGS"] = " ".join([os.environ.get("XLA_FLAGS", ""), *_FLAGS])
os.environ["JAX_PLATFORMS"] = "cpu"
_CACHE = "JAX_COMPILATION_CACHE_DIR"
if "PYTEST_XDIST_WORKER" not in os.environ:  # they inherit it
    os.environ[_CACHE] = tempfile.mkdtemp(prefix="metaseg-tests-")
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
    os.environ["JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES"] = "-1"

# Without files of bytecode each worker and subprocess would compile all of metaseg and
# rewrite the assertions of all tests again.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False

# Array annotations of metaseg are checked at every call: before its first import.
install_import_hook("metaseg", "typecheck.typechecked")

# Continuous integration draws the same examples every time; elsewhere each run draws
# new ones.
settings.register_profile("repeatable", derandomize=True, deadline=None)
settings.register_profile("fresh", deadline=None)
settings.load_profile("repeatable" if os.environ.get("CI") else "fresh")


def pytest_collection_modifyitems(items: list) -> None:
    """Slow tests begin first, so that none is left to run alone in the end."""
    files = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in files)


def pytest_sessionfinish() -> None:
    """Forgets what was compiled."""
    if "PYTEST_XDIST_WORKER" not in os.environ:
        shutil.rmtree(os.environ[_CACHE], ignore_errors=True)
