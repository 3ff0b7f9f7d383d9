"""Print one block of commands of README.md, so that CI runs what the README says and not a copy of it.

    commands.py README.md "pytest"

prints the lines of the only fenced ```bash block whose last command ends in `pytest`. Runs on any Python 3.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

FENCED = re.compile(r"^( *)```bash[ \t]*\n(.*?)^\1```[ \t]*$", re.MULTILINE | re.DOTALL)


def commands(text: str, ending: str) -> str:
    """Return the commands of the only block whose last line ends in `ending`. Raises ValueError otherwise."""
    blocks = [strip(block) for _, block in FENCED.findall(text)]
    fitting = [block for block in blocks if block and block[-1].endswith(ending)]
    if len(fitting) != 1:
        raise ValueError(f"{len(fitting)} of {len(blocks)} ```bash blocks end in {ending!r}; exactly one must.")
    return "\n".join(fitting[0])


def strip(block: str) -> list[str]:
    """Return the lines of a block without what is there for the reader: comments, prompts, empty lines."""
    lines = [re.sub(r"^\$ +|\s+#.*$", "", line.strip()) for line in block.splitlines()]
    return [line for line in lines if line and not line.startswith("#")]


if __name__ == "__main__":
    file, ending = sys.argv[1:]
    try:
        print(commands(Path(file).read_text(encoding="utf-8"), ending))
    except (OSError, ValueError) as error:
        sys.exit(f"{file}: {error}")
