"""Lists the noises that a config can name, with their parameters and defaults.

    python -m metaseg.noise [NAME ...]

With names, prints the documentation of these noises.
"""

import inspect
import sys
from collections.abc import Sequence

from metaseg import host, text
from metaseg.errors import InputError
from metaseg.noise.compose import NOISES
from metaseg.noise.parameters import keyword_only


def _signature(name: str) -> str:
    shown = [
        str(parameter.replace(annotation=parameter.empty))
        for field, parameter in keyword_only(NOISES[name].fn).items()
        if field != "num_classes"
    ]
    return f"{name}({', '.join(shown)})"


def show(names: Sequence[str], *, command: str) -> None:
    """Prints the list, or the documentation of some noises.

    Args:
      names: Names of noises; none for the list.
      command: Command that lists the noises.

    Raises:
      InputError: If a name is unknown.
    """
    for name in names:
        if name not in NOISES:
            raise InputError(
                f"NAME: got {name!r}, expected one of {', '.join(NOISES)}"
                + text.did_you_mean(name, NOISES)
            )
    for name in names:
        print(f"{_signature(name)}\n\n{inspect.getdoc(NOISES[name].fn)}\n")
    if names:
        return
    for name, noise in NOISES.items():
        print(_signature(name))
        print(f"    {(inspect.getdoc(noise.fn) or '').partition(chr(10))[0]}")
    print(
        "\nIn a config: config.noise.name and config.noise.PARAMETER. A parameter "
        "without a default must\nbe given. `noises` is a tuple with a mapping for each "
        f"noise. `{command} NAME` prints the\ndocumentation of a noise."
    )


def main(arguments: Sequence[str]) -> int:
    """Runs the command.

    Args:
      arguments: Names of noises, or --help.

    Returns:
      Exit status: 2 for a name that is unknown.
    """
    if {"--help", "-h"} & set(arguments):
        print((__doc__ or "").strip())
        return 0
    try:
        for argument in arguments:
            if argument.startswith("-"):
                raise InputError(f"{argument}: no such flag, expected names of noises")
        show(arguments, command="python -m metaseg.noise")
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    with host.unread_output_is_dropped():
        status = main(sys.argv[1:])
    sys.exit(status)
