"""Lists the noises that a config can name, with their parameters and defaults.

    metaseg noise [NAME ...]

With names, prints the documentation of these noises.
"""

from collections.abc import Sequence

from absl import flags

FLAGS = flags.FlagValues()


def run(names: Sequence[str]) -> int:
    """Prints the list, or the documentation of some noises; returns the exit status."""
    from metaseg.noise import __main__ as noise_list  # late: imports jax

    noise_list.show(names, command="metaseg noise")
    return 0
