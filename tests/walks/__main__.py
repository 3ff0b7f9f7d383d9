"""Print the walks: `python -m tests.walks`, with `--json` as JSON."""

from __future__ import annotations

import asyncio
import json
import logging
import sys
from dataclasses import asdict

from tests.walks.walks import walks


def main(arguments: list[str]) -> None:
    """Do the walks and print what was counted."""
    logging.getLogger("tokenmw").addHandler(logging.NullHandler())
    found = asyncio.run(walks())
    if "--json" in arguments:
        print(json.dumps({name: asdict(walk) for name, walk in found.items()}, indent=2))
        return
    print(f"{'walk':<16}{'files':>6}{'awaited':>9}{'moves':>7}")
    for name, walk in found.items():
        print(f"{name:<16}{len(walk.files):>6}{len(walk.awaited):>9}{walk.moves:>7}")
    for name, walk in found.items():
        print(f"\n{name}, in order of first call (* a coroutine runs in it):")
        for file in walk.files:
            print(f"  {'*' if file in walk.awaited else ' '} {file}")


if __name__ == "__main__":
    main(sys.argv[1:])
