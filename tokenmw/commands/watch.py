"""`tokenmw watch`: what `inspect` shows, again and again, until Ctrl-C.

On a terminal the text is drawn in place. Into a file or a pipe each reading is appended, with its time.
"""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import signal
import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from tokenmw.commands.access import Access, opened
from tokenmw.commands.inspect import inspected
from tokenmw.commands.running import Output, as_json, run_command
from tokenmw.redis.errors import RedisUnavailable

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence

    from tokenmw.broker import TokenBroker

__all__ = ["fitted", "run_watch"]

_HOME: Final = "\x1b[H"
_CLEAR_LINE: Final = "\x1b[K"
_CLEAR_BELOW: Final = "\x1b[J"
_OTHER_SCREEN: Final = "\x1b[?1049h\x1b[?25l"  # and without a cursor
_FORMER_SCREEN: Final = "\x1b[?25h\x1b[?1049l"


def run_watch(target: str, provider: str | None, *, interval: float, once: bool, as_object: bool) -> int:
    """Show what Redis has of one provider, or of all, every `interval` seconds, and return the exit code."""
    live = sys.stdout.isatty() and not once and not as_object

    async def command(broker: TokenBroker) -> Output | None:
        names = None if provider is None else [provider]
        with _interrupted() as stopped:
            async with opened(broker, writes=False) as access:
                for name in names or []:
                    access.provider(name)
                with _screen(live=live):
                    while True:
                        output = await _read(access, names)
                        if once:
                            return output
                        _show(output, live=live, as_object=as_object)
                        with contextlib.suppress(TimeoutError):
                            async with asyncio.timeout(interval):
                                await stopped.wait()
                        if stopped.is_set():
                            return None

    return run_command("watch", target, command, as_object=as_object)


async def _read(access: Access, names: Sequence[str] | None) -> Output:
    """Return what Redis has, or why it cannot be asked now: an outage does not end the watch."""
    try:
        output = await inspected(access, names)
    except RedisUnavailable as error:
        problem = await access.problem() or f"{access.redis.address} cannot be used ({error.reason})."
        output = Output([f"FAIL redis: {problem}"], {"redis": access.redis.address, "problem": problem}, 1)
    now = datetime.now(UTC)
    data: dict[str, Any] = {"time": now.timestamp(), **output.data}
    return Output([f"{now:%Y-%m-%d %H:%M:%S} UTC", *output.lines], data, output.exit_code)


def _show(output: Output, *, live: bool, as_object: bool) -> None:
    if as_object:
        print(as_json(output, indent=None), flush=True)
    elif live:
        size = shutil.get_terminal_size()
        lines = fitted(output.lines, columns=size.columns, rows=max(1, size.lines - 1))
        print(_HOME + "".join(f"{line}{_CLEAR_LINE}\r\n" for line in lines) + _CLEAR_BELOW, end="", flush=True)
    else:
        print("\n".join(output.lines), end="\n\n", flush=True)


def fitted(lines: Sequence[str], *, columns: int, rows: int) -> list[str]:
    """Return the lines that a terminal of this size has room for; what is left out is marked."""
    shown = list(lines)
    if len(shown) > rows:
        left_out = len(shown) - rows + 1
        shown[rows - 1 :] = [f"… {left_out} more lines: enlarge the terminal, or name one provider"]
    return [line if len(line) <= columns else f"{line[: columns - 1]}…" for line in shown]


@contextlib.contextmanager
def _screen(*, live: bool) -> Generator[None]:
    """Draw on the terminal's other screen, so that the former text and the cursor come back afterwards."""
    if live:
        print(_OTHER_SCREEN, end="", flush=True)
    try:
        yield
    finally:
        if live:
            print(_FORMER_SCREEN, end="", flush=True)


@contextlib.contextmanager
def _interrupted() -> Generator[asyncio.Event]:
    """Give an event that Ctrl-C, SIGTERM and the end of the terminal set, in place of an exception at any line."""
    loop, stopped = asyncio.get_running_loop(), asyncio.Event()
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    for number in numbers:
        loop.add_signal_handler(number, stopped.set)
    try:
        yield stopped
    finally:
        for number in numbers:
            loop.remove_signal_handler(number)
