"""Prepares a data set: checks every pair, writes ArrayRecord shards that train fast.

    python experiments/prepare.py --source=camvid --path=DIR --data_dir=DATA

The command `metaseg prepare` by its place in the repository; `--help` lists the flags.
"""

import sys

try:
    from metaseg import cli
except ModuleNotFoundError as error:
    if error.name != "metaseg":
        raise
    sys.exit(f"error: {error}; install the package first, by make setup")

if __name__ == "__main__":
    sys.exit(cli.main(["prepare", *sys.argv[1:]]))
