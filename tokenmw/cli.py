"""The `tokenmw` command."""

from __future__ import annotations

import os
import sys
from importlib.util import find_spec
from typing import TYPE_CHECKING, Final

import tokenmw
from tokenmw.commands.parsers import Parser, add_parsers
from tokenmw.errors import TokenmwError

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Sequence

__all__ = ["main"]

_INSTALL: Final = 'pip install "tokenmw[demo]"'
_REQUIRED: Final = ("uvicorn", "cryptography")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command with these arguments, or with those of the process, and return its exit code.

    0: success. 1: an error, which is on stderr. 2: there are only warnings. 64: the command line is wrong.
    130: interrupted before there was a result.

    >>> main(["demo", "--once"])                                           # doctest: +SKIP
    0
    """
    options, unknown = _parser().parse_known_args(arguments)
    if unknown:
        options.parser.error(f"unrecognized arguments: {' '.join(unknown)}")
    missing = [name for name in _REQUIRED if find_spec(name) is None] if options.command == "demo" else []
    if missing:
        print(f"tokenmw demo needs {' and '.join(missing)}: {_INSTALL}", file=sys.stderr)
        return 1
    try:
        run: Callable[[argparse.Namespace], int] = options.run
        return run(options)
    except TokenmwError as error:
        print(f"tokenmw {options.command}: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # The reader of our output has exited. Python flushes stdout once more at exit, which must not fail.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = Parser(prog="tokenmw", description="Shared access tokens and stable session ids for ASGI services.")
    parser.add_argument("--version", action="version", version=f"tokenmw {tokenmw.__version__}")
    commands = parser.add_subparsers(title="commands", dest="command", required=True, metavar="COMMAND")
    demo = commands.add_parser(
        "demo",
        help="start two workers, a Valkey server and a token server, and show what the workers share",
        description="Start two workers of one service on this machine, a Valkey server that they share, and a token "
        "server. Everything stops with the command.",
    )
    demo.add_argument(
        "--once",
        action="store_true",
        help="send requests before, during and after an outage of Redis, print the answers, and exit: "
        "0 if everything was shared, else 1",
    )
    demo.set_defaults(parser=demo, run=_run_demo)
    add_parsers(commands)
    return parser


def _run_demo(options: argparse.Namespace) -> int:
    from tokenmw.demo.run import run_demo

    return run_demo(once=options.once)
