"""Flags of subcommands, configs with overrides, and errors in one line.

A subcommand is a module with its flags in `FLAGS` and a function `run() -> int`. One
that runs a config has `run(config) -> int` and a flag `config`; one that takes words
has `run(names) -> int`. Imports no jax.
"""

import inspect
import os
import re
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

from absl import flags, logging
from ml_collections import ConfigDict, config_flags

from metaseg import host, text
from metaseg.errors import InputError, prefixed
from metaseg.runs import config_files

__all__ = [
    "failed",
    "fresh_workdir",
    "given_folder",
    "optional_path",
    "run",
    "split_processor",
]


def run(command: ModuleType, arguments: Sequence[str]) -> int:
    """Parses the flags of a subcommand and runs it.

    Args:
      command: Module of the subcommand.
      arguments: Its flags.

    Returns:
      Exit status of the subcommand; 2 for wrong input.
    """
    own: flags.FlagValues = command.FLAGS
    own.unparse_flags()
    if any(argument in ("--help", "-h", "-help") for argument in arguments):
        listed = _listed(own)
        listed = f"\n\nFlags:\n{listed}" if listed else ""
        print(f"{inspect.cleandoc(command.__doc__ or '')}{listed}")
        return 0
    logging.set_verbosity(logging.WARNING)  # what libraries log is for developers
    takes = inspect.signature(command.run).parameters
    try:
        with prefixed("--", *own, "flagfile"):  # functions name their arguments
            given = _expanded(own, arguments)
            if "config" in takes:
                return command.run(_parse_with_config(own, given))
            words = own(["metaseg", *given])[1:]
            if "names" in takes:
                return command.run(words)
            _refuse_words(words)
            return command.run()
    except (InputError, flags.Error) as error:
        return failed(error)


def failed(error: Exception) -> int:
    """Prints what is wrong in one line.

    Args:
      error: The error.

    Returns:
      The exit status, 2.
    """
    said = " ".join(str(error).split()).removeprefix("flag ")
    print(f"error: {said}", file=sys.stderr)
    return 2


def fresh_workdir(spec: str | None) -> Path:
    """Returns a folder under runs/ that no other run has.

    Args:
      spec: Value of `--config`.

    Returns:
      Path with the name of the config, the time and the id of the process.
    """
    name = Path((spec or "").partition(":")[0]).stem
    stamp = time.strftime("%Y%m%d-%H%M%S")
    return Path("runs") / f"{name}-{stamp}-{os.getpid()}"


def given_folder(
    flag: flags.FlagHolder[str | None], expected: str = "a folder"
) -> Path:
    """Returns the folder that a flag names, which has to be given.

    Args:
      flag: The flag.
      expected: What the folder is, for the message.

    Raises:
      InputError: If the flag is not given.
    """
    if not flag.value:
        raise InputError(f"{flag.name}: not given, expected {expected}")
    return Path(flag.value).expanduser()


def optional_path(flag: flags.FlagHolder[str | None]) -> Path | None:
    """Returns the path that a flag names, or None.

    Args:
      flag: The flag.
    """
    return Path(flag.value).expanduser() if flag.value else None


def _expanded(own: flags.FlagValues, arguments: Sequence[str]) -> list[str]:
    """Arguments with the content of --flagfile in its place.

    Raises:
      InputError: If the file cannot be read.
    """
    try:
        return own.read_flags_from_files(list(arguments))
    except flags.CantOpenFlagFileError as error:
        said = str(error).rpartition("] ")[2]
        raise InputError(f"flagfile: {said}; expected a file of flags") from error
    except (UnicodeDecodeError, flags.IllegalFlagValueError) as error:
        raise InputError(f"flagfile: {error}; expected a file of flags") from error


def _parse_with_config(own: flags.FlagValues, arguments: Sequence[str]) -> ConfigDict:
    """Parses flags, among them `--config` and overrides of its fields.

    Returns:
      The config with the overrides; its fields are locked.
    """
    spec, rest = _split_config(_joined(arguments))
    if spec is None:
        others = [a for a in rest if not a.lstrip("-").startswith("config.")]
        _refuse_words(own(["metaseg", *others])[1:])
        known = ", ".join(config_files.names())
        raise InputError(f"config: not given, expected a file, or one of {known}")
    config = config_files.load(spec)
    _check_fields(config, rest)
    noise = config.noise.name if "noise" in config else None
    together = flags.FlagValues()
    for name in own:
        if name != "config":
            together[name] = own[name]
    config_flags.DEFINE_config_dict(
        "config", config, flag_values=together, sys_argv=["metaseg", *rest]
    )
    _refuse_words(together(["metaseg", *rest])[1:])
    own["config"].parse(spec)
    own.mark_as_parsed()
    given = config_flags.get_override_values(together["config"])
    if given.get("noise.name", noise) != noise:
        _drop_parameters(config, given)
    return config


def _refuse_words(words: Sequence[str]) -> None:
    """Raises InputError if something is left after flags were parsed."""
    if words:
        raise InputError(
            f"'{words[0]}': expected flags only, and patterns in quotes; see --help"
        )


def _joined(arguments: Sequence[str]) -> list[str]:
    """Arguments with `--config.FIELD VALUE` as `--config.FIELD=VALUE`."""
    joined: list[str] = []
    for argument in arguments:
        open_flag = joined and re.fullmatch(r"--?config(\.[^=]*)?", joined[-1])
        if open_flag and not argument.startswith("--"):
            joined[-1] += f"={argument}"
        else:
            joined.append(argument)
    return joined


def _split_config(arguments: Sequence[str]) -> tuple[str | None, list[str]]:
    """The value of `--config`, and the other arguments."""
    spec, rest = None, []
    for argument in arguments:
        found = re.fullmatch(r"--?config(?:=(.*))?", argument, re.DOTALL)
        if found is None:
            rest.append(argument)
        elif not found[1]:
            raise InputError("config: got no value, expected --config=FILE")
        else:
            spec = found[1]
    return spec, rest


def split_processor(config: ConfigDict) -> None:
    """Makes jax see a device of the CPU for each core that a run can use.

    Args:
      config: Config of the run; its fields may still be wrong.
    """
    parts = max(1, config.training.grad_accum_steps)
    size = config.training.batch_size // parts
    host.split_processor(max(1, size), max(0, config.parallel.devices))


def _check_fields(config: ConfigDict, arguments: Sequence[str]) -> None:
    """Raises InputError if an override names a field that the config lacks."""
    for argument in arguments:
        name = argument.lstrip("-").partition("=")[0].removeprefix("no")
        if not argument.startswith("-") or not name.startswith("config."):
            continue
        here, prefix = config, "config"
        for part in name.split(".")[1:]:
            if not isinstance(here, ConfigDict) or part not in here:
                fields = sorted(here) if isinstance(here, ConfigDict) else []
                known = [f"{prefix}.{field}" for field in fields] or [prefix]
                raise InputError(
                    f"{name}: no such field, expected one of {', '.join(known)}"
                    + text.did_you_mean(f"{prefix}.{part}", known)
                )
            here, prefix = here[part], f"{prefix}.{part}"
        if isinstance(here, ConfigDict):
            known = [f"{name}.{field}" for field in sorted(here)]
            raise InputError(
                f"{name}: is a section, expected one of {', '.join(known)}"
            )


def _drop_parameters(config: ConfigDict, given: dict[str, object]) -> None:
    """Forgets the noise parameters of the file; those on the command line stay."""
    for field in config.noise:
        shared = field in ("name", "seed", "online")
        if not shared and f"noise.{field}" not in given:
            config.noise[field] = None


def _listed(own: flags.FlagValues) -> str:
    """Help on flags, in the order of their names."""
    lines = []
    for name in sorted(own):
        flag = own[name]
        default = "" if flag.default is None else f" (default: {flag.default_as_str})"
        lines.append(flags.text_wrap(f"{flag.help}{default}", 80, "      ", "      "))
        lines[-1] = f"  --{'[no]' if flag.boolean else ''}{name}\n{lines[-1]}"
    return "\n".join(lines)
