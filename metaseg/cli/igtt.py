"""Segments images without labels: iGTT, a network trained on its own labels.

    metaseg igtt --config=cell_igtt
    metaseg igtt --config=folder_igtt --config.data.dir=DIR

Writes masks/, overlays/ and report.html; with --baselines also the results of other
methods on the same images, if there are labels to measure them by. Exit status 2: wrong
input; 75: stopped and saved, run the same command again.
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
    "Config of the run: a file, or the name of a config that the package brings, such "
    "as folder_igtt. --config.FIELD=VALUE sets a field.",
    flag_values=FLAGS,
)
_WORKDIR = flags.DEFINE_string(
    "workdir",
    None,
    "Folder for all results; by default a fresh one under runs/.",
    flag_values=FLAGS,
)
_RESUME = flags.DEFINE_string(
    "resume",
    "auto",
    "auto: resume the run of this config in --workdir, if there is one; must: refuse "
    "to begin anew; never: refuse a folder that is not empty.",
    flag_values=FLAGS,
)
_BASELINES = flags.DEFINE_bool(
    "baselines",
    False,
    "Also measure classical methods, the same training with other labels, and the "
    "supervised network; takes five times as long. With --workdir of a finished run, "
    "only measure these.",
    flag_values=FLAGS,
)


def run(config: ConfigDict) -> int:
    """Runs iGTT; returns the exit status."""
    from metaseg.runs import fields, jobs, sources  # late: --help needs none of them
    from metaseg.runs import workdir as workdir_lib

    address = _WORKDIR.value or str(parsing.fresh_workdir(_CONFIG.value))
    if "://" in address:
        raise InputError(f"workdir: got '{address}', expected a folder on a disk")
    workdir = jobs.folder(address)
    fields.check_igtt(config, baselines=_BASELINES.value)
    sources.check_folder(config)
    workdir_lib.check(workdir, _RESUME.value)
    host.keep_freed_memory()
    host.cache_compiled_programs()
    parsing.split_processor(config)

    def job(watch: signals.Watch) -> None:
        from metaseg.runs import config as config_lib  # late: imports jax

        config_lib.check_igtt(config, baselines=_BASELINES.value)
        from metaseg.runs.igtt.run import segment  # later: imports flax, optax, orbax

        segment(
            config,
            workdir=workdir,
            resume=_RESUME.value,
            baselines=_BASELINES.value,
            watch=watch,
        )

    return jobs.run(job, workdir, parsing.failed)
