"""The command line of entry points that run a config: overrides, errors, work folders.

Imports no jax.
"""

import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from absl import flags
from ml_collections import ConfigDict, config_flags

from metaseg.errors import InputError

__all__ = ["failed", "fresh_workdir", "parse"]


def fresh_workdir(config_file: str) -> Path:
    """A folder under runs/ that no other run has."""
    stamp = time.strftime("%Y%m%d-%H%M%S")
    return Path("runs") / f"{Path(config_file).stem}-{stamp}-{os.getpid()}"


def parse(argv: Sequence[str]) -> list[str]:
    """Parses flags for `app.run`; exits with status 2 and a line if one is wrong."""
    try:
        _check_overrides(argv)
        return flags.FLAGS(list(argv))
    except (InputError, flags.Error) as error:
        sys.exit(failed(error))


def failed(error: Exception) -> int:
    """Prints what is wrong in a line; returns the exit status."""
    print(f"error: {_said(error)}", file=sys.stderr)
    return 2


def _fields(config: ConfigDict, prefix: str) -> list[str]:
    return [f"{prefix}.{name}" for name in sorted(config)]


def _check_overrides(argv: Sequence[str]) -> None:
    """Names a config file or field that does not exist, before flags are parsed."""
    given = [a.lstrip("-") for a in argv[1:] if a.startswith("-")]
    file = next((a.partition("=")[2] for a in given if a.startswith("config=")), None)
    if file is None:
        return
    path = file.partition(":")[0]
    if not Path(path).is_file():
        known = ", ".join(sorted(str(p) for p in Path("configs").glob("*.py")))
        raise InputError(
            f"--config: no file '{path}'; there are {known or 'none here'}"
        )
    values = flags.FlagValues()
    config = config_flags.DEFINE_config_file("known", file, "", flag_values=values)
    values(["main"])
    for argument in given:
        name = argument.partition("=")[0]
        if not name.startswith("config."):
            continue
        here, prefix = config.value, "config"
        for part in name.split(".")[1:]:
            if not isinstance(here, ConfigDict) or part not in here:
                known = ", ".join(
                    _fields(here, prefix) if isinstance(here, ConfigDict) else [prefix]
                )
                raise InputError(f"--{name}: no such field; known: {known}")
            here, prefix = here[part], f"{prefix}.{part}"


def _said(error: Exception) -> str:
    """The message; of what a config file says is wrong, its own line alone."""
    return str(error).rpartition("InputError: ")[2].strip()
