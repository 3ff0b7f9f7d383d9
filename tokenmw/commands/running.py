"""Runs a command over the broker of a program: its output, its log, its progress and its exit codes."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import sys
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from tokenmw.commands.target import TargetError, find_broker
from tokenmw.errors import TokenmwError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Generator

    from tokenmw.broker import TokenBroker

__all__ = ["CommandError", "Output", "as_json", "progress", "quiet_log", "run_command"]

_written: Final = logging.getLogger("tokenmw")
_PROGRESS_AFTER: Final = 1.0  # seconds
_MOST_KEPT: Final = 1000
_AUDITED: Final = "action"  # the kind of the log lines of operators' actions
_CLEAR_LINE: Final = "\r\x1b[K"


class CommandError(Exception):
    """Raised when a command cannot do what was asked. The text says why, with the fix, and has no secret."""


@dataclass(frozen=True, slots=True)
class Output:
    """What a command has found or done.

    Attributes:
        lines: It as text.
        data: It as JSON.
        exit_code: 0: success, 1: something failed, 2: there are only warnings.
    """

    lines: list[str]
    data: dict[str, Any] = field(default_factory=dict[str, Any])
    exit_code: int = 0


def run_command(
    name: str, target: str, command: Callable[[TokenBroker], Awaitable[Output | None]], *, as_object: bool
) -> int:
    """Run a command with the broker `module:name`, print its output, and return the exit code.

    Args:
        name: The command's name, which precedes its errors on stderr.
        target: `module:name`.
        command: Returns the output; None if it has printed everything itself.
        as_object: Whether the output is one JSON object.
    """
    try:
        broker = find_broker(target)
        with quiet_log():
            output = asyncio.run(_awaited(command(broker)))
    except (TargetError, CommandError, TokenmwError) as error:
        print(f"tokenmw {name}: {error}", file=sys.stderr)
        return 1
    if output is None:
        return 0
    print(as_json(output) if as_object else "\n".join(output.lines))
    return output.exit_code


def as_json(output: Output, *, indent: int | None = 2) -> str:
    """Return an output as one JSON object."""
    return json.dumps({"exit_code": output.exit_code, **output.data}, indent=indent)


@contextlib.contextmanager
def quiet_log() -> Generator[list[tuple[str, str]]]:
    """Keep this package's log lines from being written, because the output repeats them; but not those of actions.

    Give a list that gets the kind and the text of each that was kept back, up to a bound.
    """
    kept: list[tuple[str, str]] = []

    def is_audited(record: logging.LogRecord) -> bool:
        kind = str(record.__dict__.get("tokenmw.kind", ""))
        if kind != _AUDITED and len(kept) < _MOST_KEPT:
            kept.append((kind, record.getMessage().removeprefix("tokenmw: ")))
        return kind == _AUDITED

    level = _written.level
    _written.addFilter(is_audited)
    _written.setLevel(logging.INFO)
    try:
        yield kept
    finally:
        _written.removeFilter(is_audited)
        _written.setLevel(level)


@contextlib.asynccontextmanager
async def progress(text: str) -> Any:
    """Show on stderr, if that is a terminal, what takes longer than a second."""
    showing = asyncio.create_task(_show(text)) if sys.stderr.isatty() else None
    try:
        yield
    finally:
        if showing is not None:
            showing.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await showing


async def _show(text: str) -> None:
    loop = asyncio.get_running_loop()
    began = loop.time()
    await asyncio.sleep(_PROGRESS_AFTER)
    try:
        while True:
            print(f"{_CLEAR_LINE}{text} ({loop.time() - began:.0f} s)", end="", file=sys.stderr, flush=True)
            await asyncio.sleep(_PROGRESS_AFTER)
    finally:
        print(_CLEAR_LINE, end="", file=sys.stderr, flush=True)


async def _awaited(result: Awaitable[Output | None]) -> Output | None:
    return await result
