"""The `metaseg` command: one subcommand for each kind of job.

Jax is imported once the flags are known to be right. May import `cli`, `errors`,
`host`, `runs`, `version`, `noise` for its list, and `data.file_options` for its fields.
"""

import importlib
import sys
from collections.abc import Sequence

from metaseg.cli import parsing
from metaseg.errors import InputError

__all__ = ["COMMANDS", "main"]

COMMANDS = {
    "train": "train a network on labels corrupted on device, and report the result",
    "igtt": "segment images without labels (iGTT)",
    "predict": "segment images with a trained run",
    "audit": "say what a folder of label maps still teaches, and what is wrong",
    "prepare": "check a data set and write it in a form that trains fast",
    "noise": "list the noises that configs can name",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a subcommand.

    Args:
      arguments: Name of the subcommand and its flags; those of the process by default.

    Returns:
      Exit status: 0; 1 if some files were bad; 2 for wrong input, which is named in one
      line; 75 if the job was stopped and has saved its state, 76 if another process of
      the run was lost; 130 if it was interrupted.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    known = ", ".join(COMMANDS)
    if not given:
        return parsing.failed(
            InputError(f"command: not given, expected one of {known}; see --help")
        )
    name, rest = given[0], given[1:]
    if name in ("--help", "-h"):
        print(_usage())
        return 0
    if name == "--version":
        from metaseg import version  # reads the installed metadata

        print(f"metaseg {version.__version__}")
        return 0
    if name not in COMMANDS:
        return parsing.failed(
            InputError(f"command: got '{name}', expected one of {known}; see --help")
        )
    if name == "noise":
        from metaseg.noise import __main__ as noise_list  # imports jax

        return noise_list.main(rest, prog="metaseg noise")
    return parsing.run(importlib.import_module(f"metaseg.cli.{name}"), rest)


def _usage() -> str:
    lines = [f"  {name:8} {what}" for name, what in COMMANDS.items()]
    return "\n".join(
        [
            "Segmentation from absurdly noisy labels, in JAX and Flax.",
            "",
            "usage: metaseg COMMAND [FLAGS] | --help | --version",
            "",
            *lines,
            "",
            "`metaseg COMMAND --help` lists the flags of a command.",
        ]
    )
