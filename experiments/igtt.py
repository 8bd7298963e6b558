"""Segments images without labels: iGTT, a network trained on its own labels.

    python experiments/igtt.py --config=configs/cell_igtt.py
    python experiments/igtt.py --config=configs/folder_igtt.py --config.data.dir=DIR

The command `metaseg igtt` by its place in the repository; `--help` lists the flags.
"""

import sys

try:
    from metaseg import cli
except ModuleNotFoundError as error:
    if error.name != "metaseg":
        raise
    sys.exit(f"error: {error}; install the package first, by make setup")

if __name__ == "__main__":
    sys.exit(cli.main(["igtt", *sys.argv[1:]]))
