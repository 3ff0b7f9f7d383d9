"""What stands between a request and Redis: a bound on commands, one deadline, the breaker, and errors as words."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final, TypeVar

from tokenmw.redis.breaker import Breaker
from tokenmw.redis.deadline import Deadline
from tokenmw.redis.errors import UNKNOWN, RedisUnavailable, classify

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from tokenmw.clock import Clock
    from tokenmw.limits import Limits

__all__ = ["CommandLimiter", "Guard"]

T = TypeVar("T")

# Not signs of a server that is away: our own load, or one command's fault.
_NO_OUTAGE: Final = frozenset({"busy", "response"})
_DOUBTFUL: Final = 10.0  # seconds after the last sign of trouble


class CommandLimiter:
    """How many commands are under way, to all servers together."""

    __slots__ = ("free", "under_way")

    def __init__(self, connections: int) -> None:
        # In front of every client: a cluster's pools refuse what is too much, and do not let it wait.
        self.free = asyncio.Semaphore(connections)
        self.under_way = 0


class Guard:
    """Runs commands against one server, each within `command_seconds` from pool to reply."""

    __slots__ = (
        "_clock",
        "_doubtful_until",
        "_limits",
        "_seats",
        "breaker",
        "on_failure",
        "on_open",
        "on_recovery",
        "on_unknown",
    )

    def __init__(self, *, limits: Limits, clock: Clock, seats: CommandLimiter | None = None) -> None:
        self._limits = limits
        self._clock = clock
        self._seats = seats or CommandLimiter(limits.connections)
        self._doubtful_until = float("-inf")
        self.breaker = Breaker(clock)
        self.on_open: Callable[[str], None] = lambda _word: None
        self.on_failure: Callable[[str], None] = lambda _word: None
        self.on_recovery: Callable[[], None] = lambda: None
        self.on_unknown: Callable[[Exception], None] = lambda _error: None

    @property
    def doubtful(self) -> bool:
        """Whether a reply may well be lost: one failed, or took more than half of its deadline, not long ago."""
        return self.breaker.open or self._clock.monotonic() < self._doubtful_until

    async def run(self, command: Callable[[], Awaitable[T]], *, writes: bool = False) -> T:
        """Return what the command returns. `writes` is for one that always does.

        Raises:
            RedisUnavailable: The breaker is open, too much is under way, or the command failed or took too long.
        """
        if self.breaker.open:
            raise RedisUnavailable("open")
        if self._seats.under_way >= self._limits.commands:
            raise RedisUnavailable("busy")
        return await self.attempt(command, writes=writes)

    async def attempt(
        self, command: Callable[[], Awaitable[T]], *, seconds: float | None = None, writes: bool = False
    ) -> T:
        """Run a command even if the breaker is open, within so many seconds; this is how probes go through."""
        began = self._clock.monotonic()
        seated = False

        def half() -> None:
            if seated:  # else it is our own load that is slow
                self._doubt()

        deadline = Deadline(self._limits.command_seconds if seconds is None else seconds, on_half=half)
        self._seats.under_way += 1
        try:
            async with deadline, self._seats.free:
                seated = True
                result = await command()
        except Exception as error:  # noqa: BLE001  a client calls its program back, which raises whatever it does
            # Who did not get as far as a connection has learnt of our own load, not of the server.
            word = classify(error) if seated else "busy"
            if word == UNKNOWN:
                self.on_unknown(error)
            if not deadline.excused:
                self._count(word, began)
            raise RedisUnavailable(word) from None
        finally:
            self._seats.under_way -= 1
        if self.breaker.succeeded(wrote=writes):
            self.on_recovery()
        return result

    def _doubt(self) -> None:
        self._doubtful_until = self._clock.monotonic() + _DOUBTFUL

    def _count(self, word: str, began: float) -> None:
        if word in _NO_OUTAGE:
            return
        self._doubt()
        self.on_failure(word)
        if self.breaker.failed(word, began=began):
            self.on_open(word)
