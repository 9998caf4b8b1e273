"""Lets `python -m recovar` do what `recovar` does."""

import sys

from recovar.cli import main

if __name__ == "__main__":
    sys.exit(main())
