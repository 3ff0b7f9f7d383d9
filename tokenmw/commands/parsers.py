"""The command lines of the commands that take a `module:broker`. A command's module is imported when it runs."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING, Any, Final, NoReturn

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Parser", "add_parsers"]

_USAGE: Final = 64  # as sysexits.h has it
_MAX_SECONDS: Final = 86_400.0
_EXIT_CODES: Final = (
    "Exit code 0: success; 1: something failed; 2: there are only warnings; 64: the command line is wrong."
)
_WHY_NO_KEY: Final = (
    "The API key is read from stdin, from a prompt, or from an environment variable: other users of this machine see "
    "the arguments of every process, and a shell keeps them in its history."
)


class Parser(argparse.ArgumentParser):
    """A parser whose exit code for a wrong command line is not argparse's 2, which is a report with warnings."""

    def error(self, message: str) -> NoReturn:
        """Print the usage and what is wrong, and exit."""
        self.print_usage(sys.stderr)
        self.exit(_USAGE, f"{self.prog}: error: {message}\n")


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
    watch = _command(
        commands,
        "watch",
        _watch,
        "show what `inspect` shows, again and again",
        "Show what `inspect` shows, every few seconds until Ctrl-C; with --json, one object on each line.",
    )
    watch.add_argument("provider", nargs="?", metavar="PROVIDER", help="only this provider; all by default")
    watch.add_argument("--interval", type=_seconds, default=2.0, metavar="SECONDS", help="2 by default")
    watch.add_argument("--once", action="store_true", help="show it once, and exit as `inspect` does")
    retry = _command(
        commands,
        "retry",
        _retry,
        "end the backoff of a provider on all instances",
        "Let all instances ask a provider again now, whatever backoff they are in, and show its answer.",
    )
    retry.add_argument("provider", metavar="PROVIDER", help="the provider's name in the broker")
    retry.add_argument(
        "--wait", type=_seconds, metavar="SECONDS", help="how long to wait for an answer; 2 s above lease_seconds"
    )
    invalidate = _command(
        commands,
        "invalidate",
        _invalidate,
        "drop a provider's token on all instances",
        "Make a provider's token invalid on all instances, and wait until each of them has confirmed it.",
    )
    invalidate.add_argument("provider", metavar="PROVIDER", help="the provider's name in the broker")
    invalidate.add_argument(
        "--wait", type=_seconds, default=15.0, metavar="SECONDS", help="how long to wait for instances; 15 by default"
    )
    reset = _command(
        commands,
        "reset-session",
        _reset_session,
        "give an API key another session id",
        f"Give an API key another session id on all instances. {_WHY_NO_KEY}",
    )
    reset.add_argument(
        "key", nargs="?", default="-", metavar="KEY|-", help="the API key; - or nothing: from stdin, or from a prompt"
    )
    reset.add_argument("--env", metavar="NAME", help="the environment variable that has the API key")
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


def _watch(options: argparse.Namespace) -> int:
    from tokenmw.commands.watch import run_watch

    return run_watch(
        options.broker,
        options.provider,
        interval=options.interval,
        once=options.once,
        as_object=options.json,
    )


def _retry(options: argparse.Namespace) -> int:
    from tokenmw.commands.retry import run_retry

    return run_retry(options.broker, options.provider, wait=options.wait, as_object=options.json)


def _invalidate(options: argparse.Namespace) -> int:
    from tokenmw.commands.invalidate import run_invalidate

    return run_invalidate(options.broker, options.provider, wait=options.wait, as_object=options.json)


def _reset_session(options: argparse.Namespace) -> int:
    from tokenmw.commands.reset_session import run_reset_session

    if options.env is not None and options.key != "-":
        options.parser.error("give the API key on stdin or by --env, not both")
    return run_reset_session(options.broker, options.key, variable=options.env, as_object=options.json)


def _rotate(options: argparse.Namespace) -> int:
    from tokenmw.commands.rotate import run_rotate

    return run_rotate(options.broker, as_object=options.json)


def _seconds(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"it must be a number, not {text!r}") from None
    if not 0.0 < number <= _MAX_SECONDS:
        raise argparse.ArgumentTypeError(f"it must be above 0, and at most {_MAX_SECONDS:.0f}")
    return number


def _positive(text: str) -> int:
    try:
        number = int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"it must be a whole number, not {text!r}") from None
    if number < 1:
        raise argparse.ArgumentTypeError("it must be at least 1")
    return number
