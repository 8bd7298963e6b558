"""Trains a network on labels corrupted on device, and reports what happened.

    python experiments/main.py --config=configs/cell_flip.py
    python experiments/main.py --config=configs/nuclei.py --config.data.dir=DIR

All devices of the machine are used. Several processes do one run together with
--distributed, where TPU pod, Slurm or Kubernetes say who is who, or with --coordinator,
--num_processes and --process_id. Status 2: bad input; 75: stopped and saved, run the
same command again; 76: another process of the run was lost, start all of them again.

Kept short on purpose: flags, errors, one call. The run itself is in `train.py`.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

from absl import app, flags
from ml_collections import ConfigDict, config_flags

from metaseg import files, host
from metaseg.cli import failed, fresh_workdir, parse
from metaseg.errors import InputError

_CONFIG = config_flags.DEFINE_config_file(
    "config", None, "What to run: a file of configs/.", lock_config=True
)
_WORKDIR = flags.DEFINE_string(
    "workdir",
    None,
    "Folder for all results, on a disk or gs://BUCKET/FOLDER; default: a fresh one "
    "under runs/.",
)
_RESUME = flags.DEFINE_string(
    "resume",
    "auto",
    "auto: go on with the run of this config in --workdir, if there is one; must: "
    "refuse to begin anew; never: refuse a folder that is not empty.",
)


_PROFILE = flags.DEFINE_string(
    "profile",
    None,
    "START:STOP: trace the steps after START, up to STOP, into profile/ of the work "
    "folder, for TensorBoard (pip install xprof) or ui.perfetto.dev.",
)
_DISTRIBUTED = flags.DEFINE_bool(
    "distributed",
    False,
    "This is one of several processes of a run; who is who follows from the "
    "environment, if not from --coordinator, --num_processes and --process_id.",
)
_COORDINATOR = flags.DEFINE_string(
    "coordinator", None, "HOST:PORT of process 0, which listens there."
)
_NUM_PROCESSES = flags.DEFINE_integer(
    "num_processes", None, "How many processes the run has."
)
_PROCESS_ID = flags.DEFINE_integer(
    "process_id", None, "Which of them this is, from 0; 0 writes the results."
)

LOST_STATUS = 76  # EX_PROTOCOL of sysexits.h


def _drop_parameters_of_another_noise(config: ConfigDict) -> None:
    """Forgets the file's noise parameters if the command line names another noise."""
    given = config_flags.get_override_values(flags.FLAGS["config"])
    if "noise.name" not in given:
        return
    for field in config.noise:
        shared = field in ("name", "seed", "online")
        if not shared and f"noise.{field}" not in given:
            config.noise[field] = None


def main(argv: Sequence[str]) -> int:
    """Runs `--config`; returns 2 for bad input and 75 if stopped, named in one line."""
    if len(argv) > 1:
        return failed(InputError(f"'{argv[1]}': expected flags only; see --help"))
    if _CONFIG.value is None:
        return failed(InputError("--config: not given, expected a file of configs/"))
    config = _CONFIG.value
    _drop_parameters_of_another_noise(config)
    workdir = _WORKDIR.value or fresh_workdir(
        config_flags.get_config_filename(flags.FLAGS["config"])
    )
    host.keep_freed_memory()
    try:
        place = _place(str(workdir))
        profile = _steps(_PROFILE.value)
        _connect()
    except InputError as error:
        return failed(error)
    return _run(config, place, profile)


def _place(workdir: str) -> Path:
    """The folder of --workdir, on a disk or in a bucket."""
    if "://" not in workdir:
        return Path(workdir)
    if _PROFILE.value is not None:
        raise InputError("--profile: traces go to a disk; expected a --workdir on one")
    return files.bucket(workdir)


def _steps(text: str | None) -> tuple[int, int] | None:
    """The two steps of --profile."""
    if text is None:
        return None
    start, _, stop = text.partition(":")
    if not (start.isdecimal() and stop.isdecimal()):
        raise InputError(f"--profile: got '{text}', expected two steps START:STOP")
    return int(start), int(stop)


def _connect() -> None:
    """Joins the other processes of the run, if there are any."""
    given = (_COORDINATOR.value, _NUM_PROCESSES.value, _PROCESS_ID.value)
    if not _DISTRIBUTED.value and given == (None, None, None):
        return
    if _WORKDIR.value is None:
        raise InputError(
            "--workdir: not given, expected a folder that all processes see"
        )
    from metaseg.parallel import processes

    processes.initialize(*given)


def _run(config: ConfigDict, workdir: Path, profile: tuple[int, int] | None) -> int:
    # Late: jax starts only once the flags are known to be right.
    from metaseg.parallel import processes
    from metaseg.runs import signals
    from metaseg.runs.train import run as train

    try:
        report = train.run(config, workdir, _RESUME.value, profile)
    except InputError as error:
        return _end(failed(error))
    except signals.StoppedError as stopped:
        if processes.is_primary():
            print(f"{stopped}; go on with --workdir={workdir}", file=sys.stderr)
        return signals.EXIT_STATUS
    except OSError as error:  # a full disk, for one; the last checkpoint is whole
        said = f"--workdir: '{error.filename or workdir}': {error.strerror}"
        return _end(failed(InputError(said)))
    except Exception as error:
        if processes.count() == 1:
            raise
        return _end(_lost(error, workdir))
    if processes.is_primary():
        print(f"report: {report}")
    return 0


def _lost(error: Exception, workdir: Path) -> int:
    """Says that the run cannot go on without a process, or with an error in this."""
    from metaseg.parallel import processes

    reason = " ".join(f"{type(error).__name__}: {error}".split())[:300]
    print(
        f"error: {processes.name()} cannot go on: another process has ended, or this "
        f"one failed ({reason}); start all of them again with --workdir={workdir}, and "
        "the run goes on from its newest checkpoint",
        file=sys.stderr,
    )
    return LOST_STATUS


def _end(status: int) -> int:
    """Ends one of several processes at once, as the others may be gone."""
    from metaseg.parallel import processes

    if processes.count() > 1:
        processes.leave(status)
    return status


if __name__ == "__main__":
    app.run(main, flags_parser=parse)
