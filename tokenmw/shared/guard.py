"""What stands between a request and Redis: a bound on commands, one deadline, the breaker, and errors as words."""

from __future__ import annotations

import asyncio
import re
from typing import TYPE_CHECKING, Final, TypeVar

from redis.exceptions import (
    AuthenticationError,
    BusyLoadingError,
    ClusterDownError,
    MaxConnectionsError,
    NoPermissionError,
    OutOfMemoryError,
    ReadOnlyError,
    RedisClusterException,
    RedisError,
    ResponseError,
)
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

from tokenmw.shared.breaker import Breaker
from tokenmw.shared.deadline import Deadline

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from tokenmw.clock import Clock
    from tokenmw.limits import Limits

__all__ = ["Guard", "Seats", "SharedUnavailable"]

T = TypeVar("T")

# In the order in which they are tried: redis-py's classes are each other's subclasses in places.
_WORDS: Final[tuple[tuple[type[BaseException], str], ...]] = (
    (MaxConnectionsError, "busy"),
    (BusyLoadingError, "loading"),
    (AuthenticationError, "auth"),
    (RedisTimeoutError, "timeout"),
    (TimeoutError, "timeout"),
    (RedisConnectionError, "connection"),
    (OSError, "connection"),
    (OutOfMemoryError, "full"),
    (ReadOnlyError, "readonly"),
    (NoPermissionError, "permission"),
    (ClusterDownError, "cluster"),
    (ResponseError, "response"),
    (RedisError, "error"),
    (RedisClusterException, "cluster"),
)
# What is none of these: asyncio's RuntimeError for a client of another event loop, what a program's own credentials or
# address_remap raise inside of its client, and slips of this package. Requests go on without Redis, and the log tells.
_UNKNOWN: Final = "client"
_SERVER_WORDS: Final = {
    "OOM": "full",
    "READONLY": "readonly",
    "NOAUTH": "auth",
    "WRONGPASS": "auth",
    "MISCONF": "disk",
    "NOPERM": "permission",
    "NOREPLICAS": "replicas",
    "CLUSTERDOWN": "cluster",
    "BUSY": "script",
    # "DB index is out of range", "SELECT is not allowed in cluster mode": of the handshake, so it is every command's.
    "DB": "database",
    "SELECT": "database",
}
# Redis before 7 puts the error of a command inside of a script into the middle of a text of its own.
_IN_SCRIPT: Final = re.compile(r"Error running script .*? -?([A-Z]+) ")
# redis-py's words for it when a pool of the user's gives up.
_NO_CONNECTION: Final = ("No connection available.", "Too many connections")
# What an ACL says of a script's command, in Redis and in Valkey; there is no code of its own for it.
_NO_PERMISSION: Final = ("The user executing the script", "ACL failure in script")
# Not signs of a server that is away: our own load, or one command's fault.
_NO_OUTAGE: Final = frozenset({"busy", "response"})
_DOUBTFUL: Final = 10.0  # seconds after the last sign of trouble


class SharedUnavailable(Exception):
    """Raised when the shared layer cannot serve one operation now.

    Attributes:
        word: Why, a short word without secrets: `timeout`, `connection`, `full`, `readonly`, `open`, ….
    """

    def __init__(self, word: str) -> None:
        super().__init__(word)
        self.word = word


class Seats:
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

    def __init__(self, *, limits: Limits, clock: Clock, seats: Seats | None = None) -> None:
        self._limits = limits
        self._clock = clock
        self._seats = seats or Seats(limits.connections)
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
            SharedUnavailable: The breaker is open, too much is under way, or the command failed or took too long.
        """
        if self.breaker.open:
            raise SharedUnavailable("open")
        if self._seats.under_way >= self._limits.commands:
            raise SharedUnavailable("busy")
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
            word = _word_of(error) if seated else "busy"
            if word == _UNKNOWN:
                self.on_unknown(error)
            if not deadline.excused:
                self._count(word, began)
            raise SharedUnavailable(word) from None
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


def _word_of(error: Exception) -> str:
    # A class that nobody knows is not asked for its text, which may raise.
    text = str(error) if isinstance(error, RedisError) else ""
    if type(error) is RedisConnectionError and text in _NO_CONNECTION:
        return "busy"
    if type(error) is ResponseError and text.startswith(_NO_PERMISSION):
        return "permission"
    if type(error) is ResponseError or isinstance(error, RedisConnectionError):
        inner = _IN_SCRIPT.search(text)
        code = inner[1] if inner else text.partition(" ")[0]
        if code in _SERVER_WORDS:
            return _SERVER_WORDS[code]
    return next((word for kind, word in _WORDS if isinstance(error, kind)), _UNKNOWN)
