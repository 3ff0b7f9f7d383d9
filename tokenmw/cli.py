"""The `tokenmw` command."""

from __future__ import annotations

import argparse
import os
import sys
from importlib.util import find_spec
from typing import TYPE_CHECKING, Final

import tokenmw
from tokenmw.errors import TokenmwError

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["main"]

_INSTALL: Final = 'pip install "tokenmw[demo]"'
_NEEDED: Final = ("uvicorn", "cryptography")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command with these arguments, or with those of the process, and return its exit code.

    0: all went well. 1: something went wrong, which stderr tells. 2: the command line is wrong, or an extra is
    missing. 128 + n: ended by signal n before there was a result.

    >>> main(["demo", "--once"])                                           # doctest: +SKIP
    0
    """
    options = _parser().parse_args(arguments)
    missing = [name for name in _NEEDED if find_spec(name) is None]
    if missing:
        print(f"tokenmw demo needs {' and '.join(missing)}: {_INSTALL}", file=sys.stderr)
        return 2
    try:
        from tokenmw.demo.run import run_demo

        return run_demo(once=options.once)
    except TokenmwError as error:
        print(f"tokenmw demo: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        # While the demo is imported, or after the time in which it takes signals itself.
        return 130
    except BrokenPipeError:
        # Whoever read our output has gone. Python flushes once more at its end, and must not fail then.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="tokenmw", description="Shared access tokens and stable session ids for ASGI services."
    )
    parser.add_argument("--version", action="version", version=f"tokenmw {tokenmw.__version__}")
    commands = parser.add_subparsers(title="commands", dest="command", required=True, metavar="COMMAND")
    demo = commands.add_parser(
        "demo",
        help="start two workers, a Valkey server and a token server, and show what the workers share",
        description="Start two workers of one service on this machine, a Valkey server between them, and a token "
        "server. Everything ends with the command.",
    )
    demo.add_argument(
        "--once",
        action="store_true",
        help="send the requests, print what came back, and end: 0 if everything was shared, else 1",
    )
    return parser
