"""A deadline for a command, by which a reply that is here already is not cut off.

When an event loop has stood still (a long computation, a suspended machine), a timer fires in the same turn in which
the reply is found in the socket, and a plain one cancels who waits for it, although the server was quick. So between a
timer and its effect there are some turns of the loop, which take no time when it runs. And what could not be sent, or
answered by a machine that was suspended with us, gets the time back for which the loop stood still, once.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final, Self

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

__all__ = ["Deadline"]

_TURNS: Final = 4  # one for the reply's bytes, one for who waits for them, and some for what lies between
_STALL: Final = 10  # timers that are late by less than a tenth of the deadline are late as ever


class Deadline:
    """Ends what is done inside of it after so many seconds, with `TimeoutError`; says when half of them are over.

    Seconds in which the loop stood still are not counted, but it ends after twice its seconds of a loop that runs.

    >>> async with Deadline(0.15, on_half=note) as deadline:
    ...     await command()

    Attributes:
        late: Seconds by which its timers came too late, because the loop stood still, and which it has not got back.
    """

    __slots__ = ("_began", "_handle", "_longer", "_loop", "_on_half", "_seconds", "_timeout", "late")

    def __init__(self, seconds: float, *, on_half: Callable[[], None]) -> None:
        self._seconds = seconds
        self._on_half = on_half
        self._timeout = asyncio.timeout(None)
        self._handle: asyncio.Handle | None = None
        self._longer = False
        self.late = 0.0

    @property
    def excused(self) -> bool:
        """Whether the loop stood still for longer than it once more: then nothing is learnt of the server."""
        return self._timeout.expired() and self.late > self._seconds

    async def __aenter__(self) -> Self:
        await self._timeout.__aenter__()
        self._loop = asyncio.get_running_loop()
        self._began = self._loop.time()
        self._at(self._began + self._seconds / 2, self._half)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._handle is not None:
            self._handle.cancel()
        await self._timeout.__aexit__(kind, error, traceback)

    def _at(self, due: float, then: Callable[[], None]) -> None:
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
        self._at(self._began + self._seconds, self._end)

    def _end(self) -> None:
        if self.late > self._seconds / _STALL and not self._longer:
            more, self.late = min(self.late, self._seconds), 0.0
            self._longer = True
            self._at(self._loop.time() + more, self._end)
            return
        self._handle = None
        self._timeout.reschedule(self._loop.time())
