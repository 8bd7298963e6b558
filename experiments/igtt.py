"""Segments images without labels: iGTT, a network trained on labels of its own making.

    python experiments/igtt.py --config=configs/cell_igtt.py
    python experiments/igtt.py --config=configs/folder_igtt.py --config.data.dir=DIR

Writes masks/, overlays/ and report.html; with --baselines also what other methods make
of the same images, where there are labels to measure by. Status 2: bad input; 75:
stopped and saved, run the same command again.

Kept short on purpose: flags, errors, one call. The run itself is in `igtt_run.py`.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

from absl import app, flags
from ml_collections import config_flags

from metaseg import host
from metaseg.cli import failed, fresh_workdir, parse
from metaseg.errors import InputError

_CONFIG = config_flags.DEFINE_config_file(
    "config", None, "What to run: configs/NAME_igtt.py.", lock_config=True
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
_BASELINES = flags.DEFINE_bool(
    "baselines",
    False,
    "Also measure classical methods, the same loop with other labels, and the "
    "supervised network; takes five times as long. A finished run goes on with them.",
)


def main(argv: Sequence[str]) -> int:
    """Runs `--config`; returns 2 for bad input and 75 if stopped, named in one line."""
    if len(argv) > 1:
        return failed(InputError(f"'{argv[1]}': expected flags only; see --help"))
    if _CONFIG.value is None:
        return failed(InputError("--config: not given, expected configs/NAME_igtt.py"))
    workdir = Path(
        _WORKDIR.value
        or fresh_workdir(config_flags.get_config_filename(flags.FLAGS["config"]))
    )
    host.keep_freed_memory()
    # Late: jax starts only once the flags are known to be right.
    from metaseg.runs import signals
    from metaseg.runs.igtt import run as igtt_run

    try:
        report = igtt_run.run(_CONFIG.value, workdir, _RESUME.value, _BASELINES.value)
    except InputError as error:
        return failed(error)
    except signals.StoppedError as stopped:
        print(f"{stopped}; go on with --workdir={workdir}", file=sys.stderr)
        return signals.EXIT_STATUS
    except OSError as error:  # a full disk, for one; the last checkpoint is whole
        said = f"--workdir: '{error.filename or workdir}': {error.strerror}"
        return failed(InputError(said))
    print(f"report: {report}")
    return 0


if __name__ == "__main__":
    app.run(main, flags_parser=parse)
