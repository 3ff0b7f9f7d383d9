"""The command lines of the commands that take a `module:broker`. A command's module is imported when it runs."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING, Any, Final, NoReturn

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Parser", "add_parsers"]

_USAGE: Final = 64  # as sysexits.h has it: 2 is a report with warnings
_EXIT_CODES: Final = (
    "Exit code 0: success; 1: something failed; 2: there are only warnings; 64: the command line is wrong."
)
_WHY_NO_KEY: Final = (
    "The API key is read from stdin, from a prompt, or from an environment variable: other users of this machine see "
    "the arguments of every process, and a shell keeps them in its history."
)


class Parser(argparse.ArgumentParser):
    """A parser whose exit code for a wrong command line can be another one than argparse's 2."""

    usage_code = 2

    def error(self, message: str) -> NoReturn:
        """Print the usage and what is wrong, and exit."""
        self.print_usage(sys.stderr)
        self.exit(self.usage_code, f"{self.prog}: error: {message}\n")


def add_parsers(commands: Any) -> None:
    """Add the parser of each command; its default `run` takes the parsed options and returns the exit code."""
    check = _command(
        commands,
        "check",
        _check,
        "check a program's broker: its configuration, Redis, providers and the store of connections",
        "Open a program's broker once and report what works.",
    )
    check.add_argument(
        "--processes",
        type=_positive,
        default=1,
        metavar="N",
        help="how many processes of the program share Redis, to compare with its maxclients; 1 by default",
    )
    inspect = _command(
        commands,
        "inspect",
        _inspect,
        "show what Redis has of the providers' tokens, and the instances",
        "Show what Redis has of each provider's token: version, age, lease, failure note and tombstone; and the "
        "instances. Nothing is changed, and no token is shown.",
    )
    inspect.add_argument("provider", nargs="?", metavar="PROVIDER", help="only this provider; all by default")
    _command(
        commands,
        "rotate",
        _rotate,
        "count the values in Redis by the secret that seals them",
        "Count the values in Redis, and the connections of users, by the secret of secret_key=[…] that seals them: "
        "which secrets may be removed, and when at the latest. Nothing is changed.",
    )


def _command(
    commands: Any, name: str, run: Callable[[argparse.Namespace], int], summary: str, description: str
) -> argparse.ArgumentParser:
    parser: Parser = commands.add_parser(name, help=summary, description=f"{description} {_EXIT_CODES}")
    parser.usage_code = _USAGE
    parser.set_defaults(parser=parser, run=run)
    parser.add_argument("broker", metavar="module:broker", help="a module, and the name of the TokenBroker in it")
    parser.add_argument("--json", action="store_true", help="print JSON")
    return parser


def _check(options: argparse.Namespace) -> int:
    from tokenmw.commands.check import run_check

    return run_check(options.broker, processes=options.processes, json=options.json)


def _inspect(options: argparse.Namespace) -> int:
    from tokenmw.commands.inspect import run_inspect

    return run_inspect(options.broker, options.provider, as_object=options.json)


def _rotate(options: argparse.Namespace) -> int:
    from tokenmw.commands.rotate import run_rotate

    return run_rotate(options.broker, as_object=options.json)


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("it must be at least 1")
    return number
