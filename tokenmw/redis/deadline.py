"""A deadline for a command that does not discard a reply which has already arrived.

After an event loop was blocked (by a long computation, or because the machine was suspended), a timer fires in the same
turn of the loop in which the reply is read from the socket. A plain timeout would then cancel the waiting command
although the server was quick. So some turns of the loop lie between a timer and its effect; they take no time in a loop
that runs. The time for which the loop was blocked is added to the deadline, up to the deadline's own length in all: the
command may not have been sent yet, or the server may have been suspended together with this machine.

A command that has waited for its connection to be made gets its whole time again when that is done, once: a handshake
says little of how long a command takes. If the connection is not made within the deadline, the command fails.
"""

from __future__ import annotations

import asyncio
from contextvars import ContextVar
from typing import TYPE_CHECKING, Final, Self

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextvars import Token
    from types import TracebackType

__all__ = ["Deadline", "connection_made"]

_TURNS: Final = 4  # one to read the reply, one to resume the waiting task, and some for what lies between them
_TOLERANCE: Final = 10  # timers that are late by less than a tenth of the deadline do not extend it
_CURRENT: Final[ContextVar[Deadline | None]] = ContextVar("tokenmw_deadline", default=None)


def connection_made() -> None:
    """Start the deadline of the caller again, if there is one: it has waited for a connection, which is usable now."""
    deadline = _CURRENT.get()
    if deadline is not None:
        deadline.start_again()


class Deadline:
    """Raises `TimeoutError` in its block after `seconds`, and calls `on_half` after half of them.

    Time for which the event loop was blocked does not count, up to `seconds`.

    Args:
        seconds: The time.
        on_half: Is called after half of it.
        restarts: Whether `connection_made` starts it again.

    >>> async with Deadline(0.15, on_half=note_slow_reply) as deadline:
    ...     await command()

    Attributes:
        late: Seconds by which its timers fired late because the loop was blocked, and that were not added again.
    """

    __slots__ = (
        "_before",
        "_began",
        "_extension",
        "_handle",
        "_loop",
        "_on_half",
        "_restarts",
        "_seconds",
        "_timeout",
        "late",
    )

    def __init__(self, seconds: float, *, on_half: Callable[[], None], restarts: bool = False) -> None:
        self._seconds = seconds
        self._on_half = on_half
        self._timeout = asyncio.timeout(None)
        self._handle: asyncio.Handle | None = None
        self._extension = seconds  # what may still be added
        self._restarts = restarts
        self._before: Token[Deadline | None] | None = None
        self.late = 0.0

    @property
    def excused(self) -> bool:
        """Whether the loop was blocked again for more than `seconds`: then the timeout says nothing of the server."""
        return self._timeout.expired() and self.late > self._seconds

    async def __aenter__(self) -> Self:
        await self._timeout.__aenter__()
        self._loop = asyncio.get_running_loop()
        self._start()
        if self._restarts:
            self._before = _CURRENT.set(self)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._before is not None:
            _CURRENT.reset(self._before)
        self._restarts = False  # what this block has started may outlast it
        if self._handle is not None:
            self._handle.cancel()
        await self._timeout.__aexit__(kind, error, traceback)

    def start_again(self) -> None:
        """Give the block its whole time again, from now on. Has no effect a second time, or after the time is over."""
        if self._restarts and self._handle is not None:
            self._restarts = False
            self._handle.cancel()
            self._start()

    def _start(self) -> None:
        self._began = self._loop.time()
        self._call_at(self._began + self._seconds / 2, self._half)

    def _call_at(self, due: float, then: Callable[[], None]) -> None:
        def fire() -> None:
            self.late += max(0.0, self._loop.time() - due)
            self._after_turns(_TURNS, then)

        self._handle = self._loop.call_at(due, fire)

    def _after_turns(self, turns: int, then: Callable[[], None]) -> None:
        if turns:
            self._handle = self._loop.call_soon(self._after_turns, turns - 1, then)
        else:
            then()

    def _half(self) -> None:
        self._on_half()
        self._call_at(self._began + self._seconds, self._expire)

    def _expire(self) -> None:
        if self.late > self._seconds / _TOLERANCE and self._extension > 0:
            extension, self.late = min(self.late, self._extension), 0.0
            self._extension -= extension
            self._call_at(self._loop.time() + extension, self._expire)
            return
        self._handle = None
        self._timeout.reschedule(self._loop.time())
