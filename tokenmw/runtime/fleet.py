"""Writes the heartbeat of this instance every 5 s, and reads those of the fleet when somebody asks."""

from __future__ import annotations

import asyncio
import os
import random
import socket
from typing import TYPE_CHECKING, Final

from tokenmw.clock import Instant
from tokenmw.observe.error_place import with_place
from tokenmw.observe.version import __version__
from tokenmw.redaction import Unpicklable
from tokenmw.redis.errors import RedisUnavailable
from tokenmw.redis.fleet import Beat, FleetStore
from tokenmw.redis.heartbeat import MAX_TOKENS, Heartbeat
from tokenmw.runtime.fleet_status import instances_of

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tokenmw.redis.connection import RedisConnection
    from tokenmw.runtime.data import BrokerData
    from tokenmw.runtime.settings import Settings
    from tokenmw.sessions.sync import SessionSync
    from tokenmw.status import InstanceStatus
    from tokenmw.tokens.entry import TokenEntry

__all__ = ["Fleet", "digest_of", "read_fleet"]

_EVERY: Final = 5.0  # seconds
_KEPT: Final = 2.0  # seconds for which a status page shows the same fleet
_FIRST: Final = 1.0  # seconds after the start by which the first heartbeat is written
_RETRY: Final = 1.0  # seconds until it is known again whether Redis is available
# Seconds over which a fleet spreads heartbeats that are wanted earlier. Times in Redis are exact to 1 ms.
_EARLY: Final = (0.005, 0.05)
_EARLY_EVERY: Final = 1.0  # seconds between two of those
_AT_ONCE: Final = 500  # entries that are counted before the event loop runs again
_DIGEST: Final = 8  # characters


class Fleet(Unpicklable):
    """The heartbeats of the fleet, as one instance writes and reads them.

    Args:
        settings: The options of the broker.
        data: What the broker remembers.
        redis: The connection.
        session_sync: Sessions that have yet to be stored.
    """

    __slots__ = (
        "_clock",
        "_data",
        "_early",
        "_early_at",
        "_read_at",
        "_reading",
        "_redis",
        "_session_sync",
        "_settings",
        "_started_at",
        "_store",
        "_task",
    )

    def __init__(
        self, settings: Settings, data: BrokerData, *, redis: RedisConnection, session_sync: SessionSync
    ) -> None:
        self._settings = settings
        self._clock = settings.clock
        self._data = data
        self._redis = redis
        self._session_sync = session_sync
        self._store = FleetStore(redis, names=settings.names, sealer=settings.sealer)
        self._started_at = settings.clock.time()
        self._early: asyncio.Task[None] | None = None
        self._early_at = float("-inf")
        self._read_at = float("-inf")
        self._reading: asyncio.Task[tuple[InstanceStatus, ...]] | None = None
        self._task = asyncio.get_running_loop().create_task(self._run(), name="tokenmw heartbeats")

    async def read(self) -> tuple[InstanceStatus, ...]:
        """Return all instances; without Redis, this one alone."""
        own, names = await self._heartbeat()
        beats: list[Beat] = []
        if self._redis.settled:
            try:
                beats = await self._store.read()
            except RedisUnavailable:
                beats = []  # it was logged
        mine = Beat(self._store.instance, own, 0.0, self._clock.time())
        beats = [mine, *(beat for beat in beats if beat.instance != mine.instance)]
        check_seconds = self._settings.limits.check_seconds
        self._data.instances = instances_of(beats, own=mine.instance, names=names, check_seconds=check_seconds)
        return self._data.instances

    def soon(self) -> None:
        """Write a heartbeat now: a token was invalidated, and its operator waits for the confirmation of each instance.

        It is written within 50 ms, so that a fleet does not write at the same moment, and at most once a second.
        """
        if self._early is None or self._early.done():
            self._early = asyncio.get_running_loop().create_task(self._write_early(), name="tokenmw heartbeats")

    async def refresh(self, *, wait: float) -> None:
        """Read the fleet again unless that was done within 2 s; return after `wait` seconds at the latest."""
        if self._reading is None or (self._reading.done() and self._clock.monotonic() >= self._read_at + _KEPT):
            self._read_at = self._clock.monotonic()
            self._reading = asyncio.get_running_loop().create_task(self.read(), name="tokenmw reading heartbeats")
        await asyncio.wait([self._reading], timeout=wait)

    async def close(self) -> None:
        """Stop writing and reading."""
        tasks = [task for task in (self._task, self._early, self._reading) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)

    async def leave(self) -> None:
        """Delete the heartbeat, so that the others do not take this instance for one that hangs."""
        await self._store.delete()

    async def _run(self) -> None:
        task, clock = asyncio.current_task(), self._clock
        pause = random.uniform(0.0, _FIRST)
        # As in housekeeping: a client of the program's own can lose a cancellation.
        while task is None or not task.cancelling():
            await clock.sleep(pause)
            pause = _RETRY
            if not self._redis.settled:
                continue
            if await self._write():
                pause = _EVERY * random.uniform(0.9, 1.0)

    async def _write_early(self) -> None:
        loop = asyncio.get_running_loop()
        await asyncio.sleep(max(random.uniform(*_EARLY), self._early_at + _EARLY_EVERY - loop.time()))
        self._early_at = loop.time()
        if self._redis.settled:
            await self._write()

    async def _write(self) -> bool:
        """Write a heartbeat. Return False if Redis is unavailable."""
        try:
            heartbeat, _ = await self._heartbeat()
            await self._store.write(heartbeat)
        except RedisUnavailable:
            return False  # it was counted and logged
        except Exception as error:  # noqa: BLE001  nobody would notice that the heartbeats have stopped
            place, reason = with_place(error, called=self._write), type(error).__name__
            self._settings.log.problem("heartbeat", "Heartbeats: writing one raised %s", place, reason=reason)
        return True

    async def _heartbeat(self) -> tuple[Heartbeat, dict[str, str]]:
        """Return the heartbeat of now, and the names of the providers in it by what it calls their credentials."""
        now, entries = Instant(self._clock), list(self._data.tokens)
        tokens: dict[str, int] = {}
        names: dict[str, str] = {}
        cached = failing = unshared = 0
        for number, entry in enumerate(entries, 1):
            current = entry.current
            cached += current is not None
            failing += entry.failure is not None
            unshared += entry.token_unshared(now) + entry.tombstone_unshared(now)
            if entry.named and len(tokens) < MAX_TOKENS and (digest := digest_of(entry)):
                tokens[digest] = 0 if current is None or current.left(now) <= 0 else current.version
                names[digest] = entry.name
            if number % _AT_ONCE == 0:
                await asyncio.sleep(0)
        heartbeat = Heartbeat(
            host=socket.gethostname(),
            pid=os.getpid(),
            version=__version__,
            started_at=self._started_at,
            shared=self._redis.state,
            shared_seconds=max(0.0, now.wall - self._redis.since),
            tokens=tokens,
            counts={
                "tokens": cached,
                "sessions": len(self._data.sessions),
                "unshared": unshared + self._session_sync.unshared,
                "failing": failing,
            },
        )
        return heartbeat, names


async def read_fleet(
    redis: RedisConnection, settings: Settings, *, entries: Iterable[TokenEntry]
) -> tuple[InstanceStatus, ...]:
    """Return all instances, for a process that is none of them, such as a command.

    Args:
        redis: The connection.
        settings: The options of their broker.
        entries: The token entries of its named providers, whose names are given to old tokens.

    Raises:
        RedisUnavailable: They cannot be read.
    """
    beats = await FleetStore(redis, names=settings.names, sealer=settings.sealer).read()
    names = {digest: entry.name for entry in entries if entry.named and (digest := digest_of(entry))}
    return instances_of(beats, own="", names=names, check_seconds=settings.limits.check_seconds)


def digest_of(entry: TokenEntry) -> str:
    """Return the beginning of a credential's digest in Redis keys; "" if its token is not shared."""
    return "" if entry.keys is None else entry.keys.token.rpartition(b"{")[2][:_DIGEST].decode()
