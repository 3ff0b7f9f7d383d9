"""The `tokenmw` command."""

from __future__ import annotations

import argparse
import os
import sys
from importlib.util import find_spec
from typing import TYPE_CHECKING, Final, NoReturn

import tokenmw
from tokenmw.errors import TokenmwError

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["main"]

_INSTALL: Final = 'pip install "tokenmw[demo]"'
_USAGE: Final = 64  # as sysexits.h has it: 2 is a report with warnings
_REQUIRED: Final = ("uvicorn", "cryptography")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command with these arguments, or with those of the process, and return its exit code.

    0: success. 1: an error, which is on stderr. 2: the command line is wrong, or an extra is not installed.
    130: interrupted before there was a result. `check` returns 1 if something failed, 2 if there are only warnings, and
    64 for a wrong command line.

    >>> main(["demo", "--once"])                                           # doctest: +SKIP
    0
    """
    options, unknown = _parser().parse_known_args(arguments)
    if unknown:
        options.parser.error(f"unrecognized arguments: {' '.join(unknown)}")
    missing = [name for name in _REQUIRED if find_spec(name) is None] if options.command == "demo" else []
    if missing:
        print(f"tokenmw demo needs {' and '.join(missing)}: {_INSTALL}", file=sys.stderr)
        return 2
    try:
        if options.command == "check":
            from tokenmw.commands.check import run_check

            return run_check(options.broker, processes=options.processes, json=options.json)
        from tokenmw.demo.run import run_demo

        return run_demo(once=options.once)
    except TokenmwError as error:
        print(f"tokenmw {options.command}: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # The reader of our output has exited. Python flushes stdout once more at exit, which must not fail.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


class _Parser(argparse.ArgumentParser):
    """A parser whose exit code for a wrong command line can be another one than argparse's 2."""

    usage_code = 2

    def error(self, message: str) -> NoReturn:
        self.print_usage(sys.stderr)
        self.exit(self.usage_code, f"{self.prog}: error: {message}\n")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="tokenmw", description="Shared access tokens and stable session ids for ASGI services.")
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
    demo.set_defaults(parser=demo)
    check = commands.add_parser(
        "check",
        help="check a program's broker: its configuration, Redis, providers and the store of connections",
        description="Open a program's broker once and report what works. Exit code 0: everything is ok; 1: something "
        "failed; 2: there are only warnings; 64: the command line is wrong.",
    )
    check.usage_code = _USAGE
    check.set_defaults(parser=check)
    check.add_argument("broker", metavar="module:broker", help="a module, and the name of the TokenBroker in it")
    check.add_argument("--json", action="store_true", help="print one JSON object")
    check.add_argument(
        "--processes",
        type=_positive,
        default=1,
        metavar="N",
        help="how many processes of the program share Redis, to compare with its maxclients; 1 by default",
    )
    return parser


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("it must be at least 1")
    return number
