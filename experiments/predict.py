"""Segments images of any size with a trained run.

    python experiments/predict.py --run=WORKDIR --images=DIR --output=DIR

The command `metaseg predict` by its place in the repository; `--help` lists the flags.
"""

import sys

try:
    from metaseg import cli
except ModuleNotFoundError as error:
    if error.name != "metaseg":
        raise
    sys.exit(f"error: {error}; install the package first, by make setup")

if __name__ == "__main__":
    sys.exit(cli.main(["predict", *sys.argv[1:]]))
