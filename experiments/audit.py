"""Says what a folder of label maps still teaches, which are worst, and what is wrong.

    python experiments/audit.py --labels=DIR --output=DIR

The command `metaseg audit` by its place in the repository; `--help` lists the flags.
"""

import sys

try:
    from metaseg import cli
except ModuleNotFoundError as error:
    if error.name != "metaseg":
        raise
    sys.exit(f"error: {error}; install the package first, by make setup")

if __name__ == "__main__":
    sys.exit(cli.main(["audit", *sys.argv[1:]]))
