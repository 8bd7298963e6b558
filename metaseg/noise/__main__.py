"""Lists the noises that a config can name, with their parameters and defaults.

    python -m metaseg.noise [NAME ...]

With names, prints the documentation of these noises.
"""

import argparse
import inspect
import sys
from collections.abc import Sequence

from metaseg.noise.compose import NOISES
from metaseg.noise.parameters import keyword_only


def _signature(name: str) -> str:
    shown = [
        str(parameter.replace(annotation=parameter.empty))
        for field, parameter in keyword_only(NOISES[name].fn).items()
        if field != "num_classes"
    ]
    return f"{name}({', '.join(shown)})"


def main(
    arguments: Sequence[str] | None = None, *, prog: str = "python -m metaseg.noise"
) -> int:
    """Prints the list.

    Args:
      arguments: Names of noises; those of the process by default.
      prog: Name of the command, for its help.

    Returns:
      Exit status: 2 for a name that is unknown.
    """
    parser = argparse.ArgumentParser(
        prog=prog, description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument(
        "names",
        nargs="*",
        metavar="NAME",
        help="print the documentation of these noises",
    )
    names = parser.parse_args(arguments).names
    for name in names:
        if name not in NOISES:
            known = ", ".join(NOISES)
            print(
                f"error: NAME: got {name!r}, expected one of {known}", file=sys.stderr
            )
            return 2
        print(f"{_signature(name)}\n\n{inspect.getdoc(NOISES[name].fn)}\n")
    if names:
        return 0
    for name, noise in NOISES.items():
        print(_signature(name))
        print(f"    {(inspect.getdoc(noise.fn) or '').partition(chr(10))[0]}")
    print(
        "\nIn a config: config.noise.name and config.noise.PARAMETER. A parameter "
        "without a default must\nbe given. `noises` is a tuple with a mapping for each "
        f"noise. `{prog} NAME` prints the\ndocumentation of a noise."
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
