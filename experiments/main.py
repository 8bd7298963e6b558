r"""Trains a network on labels corrupted on device, and reports what happened.

    python experiments/main.py --config=configs/cell_flip.py
    python experiments/main.py --config=configs/nuclei.py:noise=flip,rate=0.4 \
        --config.data.dir=DIR

The command `metaseg train` by its place in the repository; `--help` lists the flags.
"""

import sys

try:
    from metaseg import cli
except ModuleNotFoundError as error:
    if error.name != "metaseg":
        raise
    sys.exit(f"error: {error}; install the package first, by make setup")

if __name__ == "__main__":
    sys.exit(cli.main(["train", *sys.argv[1:]]))
