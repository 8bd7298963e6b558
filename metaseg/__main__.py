"""`python -m metaseg`: the `metaseg` command."""

import sys

from metaseg import cli

if __name__ == "__main__":
    sys.exit(cli.main())
