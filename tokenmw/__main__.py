"""Lets `python -m tokenmw` run the `tokenmw` command."""

from __future__ import annotations

import sys

from tokenmw.cli import main

if __name__ == "__main__":
    sys.exit(main())
