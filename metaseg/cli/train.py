"""Trains a network on labels corrupted on device, and reports what happened.

    metaseg train --config=cell_flip
    metaseg train --config=nuclei:noise=flip,rate=0.4 --config.data.dir=DIR
    metaseg train --config=default --config.model.width=16 --workdir=DIR

All devices of the machine are used. Several processes do one run together with
--distributed, where TPU pod, Slurm or Kubernetes number them, or with --coordinator,
--num_processes and --process_id. Compiled programs are kept in the user's cache folder
for the next run, or in the folder that the environment variable METASEG_CACHE names;
METASEG_CACHE=off keeps none. Exit status 2: wrong input; 75: stopped and saved, run
the same command again; 76: another process of the run was lost, start all of them
again.
"""

from absl import flags
from ml_collections import ConfigDict

from metaseg import host
from metaseg.cli import parsing
from metaseg.errors import InputError
from metaseg.runs import signals

FLAGS = flags.FlagValues()
_CONFIG = flags.DEFINE_string(
    "config",
    None,
    "Config of the run: a file, or the name of a config that the package brings; with "
    "arguments, NAME:noise=flip,rate=0.4. --config.FIELD=VALUE sets a field.",
    flag_values=FLAGS,
)
_WORKDIR = flags.DEFINE_string(
    "workdir",
    None,
    "Folder for all results, on a disk or gs://BUCKET/FOLDER; by default a fresh one "
    "under runs/.",
    flag_values=FLAGS,
)
_RESUME = flags.DEFINE_string(
    "resume",
    "auto",
    "auto: resume the run of this config in --workdir, if there is one; must: refuse "
    "to begin anew; never: refuse a folder that is not empty.",
    flag_values=FLAGS,
)
_PROFILE = flags.DEFINE_string(
    "profile",
    None,
    "START:STOP: trace the steps after START, up to STOP, into profile/ of the work "
    "folder, for TensorBoard (pip install xprof) or ui.perfetto.dev.",
    flag_values=FLAGS,
)
_DISTRIBUTED = flags.DEFINE_bool(
    "distributed",
    False,
    "This is one of several processes of a run; their number and the coordinator "
    "follow from the environment, unless flags give them.",
    flag_values=FLAGS,
)
_COORDINATOR = flags.DEFINE_string(
    "coordinator",
    None,
    "HOST:PORT of process 0, which listens there.",
    flag_values=FLAGS,
)
_NUM_PROCESSES = flags.DEFINE_integer(
    "num_processes", None, "Number of processes of the run.", flag_values=FLAGS
)
_PROCESS_ID = flags.DEFINE_integer(
    "process_id",
    None,
    "Number of this process, from 0; process 0 writes the results.",
    flag_values=FLAGS,
)


def run(config: ConfigDict) -> int:
    """Trains; returns the exit status."""
    from metaseg.runs import fields, jobs, sources  # late: --help needs none of them
    from metaseg.runs import workdir as workdir_lib

    address = _WORKDIR.value or str(parsing.fresh_workdir(_CONFIG.value))
    profile = _steps(_PROFILE.value)
    if profile is not None and "://" in address:
        raise InputError("profile: traces go to a disk, expected a --workdir on one")
    given = (_COORDINATOR.value, _NUM_PROCESSES.value, _PROCESS_ID.value)
    together = _DISTRIBUTED.value or given != (None, None, None)
    if together and _WORKDIR.value is None:
        raise InputError("workdir: not given, expected a folder that all processes see")
    workdir = jobs.folder(address)
    fields.check(config)
    sources.check_folder(config)
    if not together and "://" not in address:
        workdir_lib.check(workdir, _RESUME.value)
    host.keep_freed_memory()
    host.cache_compiled_programs()
    if together:
        jobs.connect(*given)
    else:
        parsing.split_processor(config)

    def job(watch: signals.Watch) -> None:
        from metaseg.runs import config as config_lib  # late: imports jax

        config_lib.check(config)
        from metaseg.runs.training.run import train  # later: imports flax, optax, orbax

        train(
            config,
            workdir=workdir,
            resume=_RESUME.value,
            profile=profile,
            watch=watch,
        )

    return jobs.run(job, workdir, parsing.failed)


def _steps(text: str | None) -> tuple[int, int] | None:
    """The two steps of --profile."""
    if text is None:
        return None
    start, _, stop = text.partition(":")
    if not (start.isdecimal() and stop.isdecimal()):
        raise InputError(f"profile: got '{text}', expected two steps START:STOP")
    return int(start), int(stop)
