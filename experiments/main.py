"""Trains a network on labels corrupted on device, and reports what happened.

    python experiments/main.py --config=configs/cell_flip.py
    python experiments/main.py --config=configs/nuclei_flip.py --config.data.dir=DIR

Kept short on purpose: flags, errors, one call. The run itself is in `train.py`.
"""

import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from absl import app, flags
from ml_collections import ConfigDict, config_flags

from metaseg import host
from metaseg.errors import InputError

ROOT = Path(__file__).resolve().parents[1]

_CONFIG = config_flags.DEFINE_config_file(
    "config", None, "What to run: a file of configs/.", lock_config=True
)
_WORKDIR = flags.DEFINE_string(
    "workdir", None, "Folder for all results; default: a fresh one under runs/."
)
_RESUME = flags.DEFINE_string(
    "resume",
    "auto",
    "auto: go on with the run of this config in --workdir, if there is one; must: "
    "refuse to begin anew; never: refuse a folder that is not empty.",
)


def _fresh_workdir(config_file: str) -> Path:
    stamp = time.strftime("%Y%m%d-%H%M%S")
    return Path("runs") / f"{Path(config_file).stem}-{stamp}-{os.getpid()}"


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


def _drop_parameters_of_another_noise(config: ConfigDict) -> None:
    """Forgets the file's noise parameters if the command line names another noise."""
    given = config_flags.get_override_values(flags.FLAGS["config"])
    if "noise.name" not in given:
        return
    for field in config.noise:
        shared = field in ("name", "seed", "online")
        if not shared and f"noise.{field}" not in given:
            config.noise[field] = None


def _parse(argv: Sequence[str]) -> list[str]:
    try:
        _check_overrides(argv)
        return flags.FLAGS(list(argv))
    except (InputError, flags.Error) as error:
        sys.exit(_failed(error))


def _said(error: Exception) -> str:
    """The message; of what a config file says is wrong, its own line alone."""
    return str(error).rpartition("InputError: ")[2].strip()


def _failed(error: Exception) -> int:
    print(f"error: {_said(error)}", file=sys.stderr)
    return 2


def main(argv: Sequence[str]) -> int:
    """Runs `--config`; returns 2 for bad input and 75 if stopped, named in one line."""
    if len(argv) > 1:
        return _failed(InputError(f"'{argv[1]}': expected flags only; see --help"))
    if _CONFIG.value is None:
        return _failed(InputError("--config: not given, expected a file of configs/"))
    config = _CONFIG.value
    _drop_parameters_of_another_noise(config)
    workdir = _WORKDIR.value or _fresh_workdir(
        config_flags.get_config_filename(flags.FLAGS["config"])
    )
    host.keep_freed_memory()
    import stopping
    import train  # late: jax starts only once the flags are known to be right

    try:
        report = train.run(config, Path(workdir), _RESUME.value)
    except InputError as error:
        return _failed(error)
    except stopping.StoppedError as stopped:
        print(f"{stopped}; go on with --workdir={workdir}", file=sys.stderr)
        return stopping.EXIT_STATUS
    except OSError as error:  # a full disk, for one; the last checkpoint is whole
        return _failed(
            InputError(f"--workdir: '{error.filename or workdir}': {error.strerror}")
        )
    print(f"report: {report}")
    return 0


if __name__ == "__main__":
    sys.path.append(str(ROOT))  # for configs that import configs.default
    app.run(main, flags_parser=_parse)
