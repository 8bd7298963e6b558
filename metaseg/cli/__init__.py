"""The `metaseg` command: one subcommand for each kind of job.

Jax is imported once the flags are known to be right. May import `cli`, `errors`,
`host`, `runs`, `text`, `version`, `noise.__main__` for its list, and
`data.file_options` for its fields.
"""

import gc
import importlib
import sys
from collections.abc import Sequence

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
    from metaseg import host

    given = list(sys.argv[1:] if arguments is None else arguments)
    with host.unread_output_is_dropped():
        if given and given[0] in COMMANDS:
            return _run(given[0], given[1:])
        return _without_command(given)


def _run(name: str, arguments: Sequence[str]) -> int:
    """Runs a subcommand; signals are handled before anything else is imported."""
    from metaseg.runs import signals

    with signals.ending() if name in ("train", "igtt") else signals.raising():
        try:
            from metaseg.cli import parsing

            command = importlib.import_module(f"metaseg.cli.{name}")
            return parsing.run(command, arguments)
        except KeyboardInterrupt as error:
            status = getattr(error, "status", signals.INTERRUPTED)
        gc.collect()  # what the error held, such as the semaphores of a pool
        # XLA may be compiling, so an ordinary exit could crash.
        return signals.leave(status, "stopped; run the same command again to continue")


def _without_command(given: Sequence[str]) -> int:
    from metaseg import text

    if given and given[0] in ("--help", "-h", "-help"):
        print(_usage())
        return 0
    if given and given[0] == "--version":
        from metaseg import version  # reads the installed metadata

        print(f"metaseg {version.__version__}")
        return 0
    said = f"got '{given[0]}'" if given else "not given"
    hint = text.did_you_mean(given[0], COMMANDS) if given else ""
    print(
        f"error: command: {said}, expected one of {', '.join(COMMANDS)}; see "
        f"--help{hint}",
        file=sys.stderr,
    )
    return 2


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
