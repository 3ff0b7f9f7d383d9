"""Which server has a key: the one server, or one of a cluster's primaries, each with a breaker of its own.

One primary that is down leaves the others in use. Keys are told apart by what the client knows of the slots at the
moment; where it knows nothing yet, all keys are with one that has no name.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

import redis.asyncio as redis
from redis.exceptions import RedisClusterException, RedisError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tokenmw.redis.client import AnyClient
    from tokenmw.redis.keys import KeyNames
from typing import TYPE_CHECKING, Any

from tokenmw.observe.error_place import with_place
from tokenmw.redis.client import drop_dials
from tokenmw.redis.errors import RedisUnavailable
from tokenmw.redis.guard import CommandLimiter, Guard
from tokenmw.redis.scripts import run_script

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from tokenmw.clock import Clock
    from tokenmw.limits import Limits
    from tokenmw.observe.throttle import ThrottledLog
    from tokenmw.redis.client import AnyClient

__all__ = ["Server", "Servers"]

_MOST: Final = 1_000  # as many as a cluster may have; those beyond it share a breaker
_TRIES: Final = 64  # for each primary; so many names of marks find one in nearly every slot range


class Servers:
    """The servers that have been used, by name; a single server has the empty name."""

    __slots__ = ("_client", "_make", "_names", "_used")

    def __init__(self, client: AnyClient, *, names: KeyNames, make: Callable[[bytes], Server]) -> None:
        self._client = client
        self._names = names
        self._make = make
        self._used = {"": make(names.key("probe", "probe"))}

    def __iter__(self) -> Iterator[Server]:
        return iter(list(self._used.values()))

    def of(self, key: bytes) -> Server:
        """Return the server that has a key."""
        name = self._name(key)
        primary = self._used.get(name)
        if primary is None:
            self._forget()
            primary = self._used[""] if len(self._used) >= _MOST else self._used.setdefault(name, self._make(key))
        primary.key = key
        return primary

    def marks(self) -> list[bytes]:
        """Return a key for each server, under which it holds its mark. All instances come to the same ones."""
        if not isinstance(self._client, redis.RedisCluster):
            return [self._names.key("marker", "marker")]
        servers = {str(nodes[0].name) for nodes in self._client.nodes_manager.slots_cache.values() if nodes}
        found: dict[str, bytes] = {}
        for number in range(_TRIES * len(servers)):
            key = self._names.key(f"marker-{number}", "marker")
            found.setdefault(self._name(key), key)
            if len(found) == len(servers):
                break
        return list(found.values())

    async def look_again(self) -> None:
        """Ask the cluster who has which slot. A primary that hangs is not replaced by an error of its own."""
        if not isinstance(self._client, redis.RedisCluster):
            return
        try:
            async with asyncio.timeout(1.0):
                await self._client.nodes_manager.initialize()
        except (RedisError, RedisClusterException, OSError):
            return  # the next probe asks again

    def _name(self, key: bytes) -> str:
        if not isinstance(self._client, redis.RedisCluster):
            return ""
        nodes = self._client.nodes_manager.slots_cache.get(self._client.keyslot(key))
        return str(nodes[0].name) if nodes else ""

    def _forget(self) -> None:
        # Servers come and go; one that is out stays until its probe, which follows the slot, succeeds.
        if len(self._used) >= _MOST:
            for name, primary in list(self._used.items()):
                if name and not primary.guard.breaker.open:
                    del self._used[name]


_PROBE: Final = b":probe"


class Server:
    """One server. While its breaker is open, a background task probes with a script that writes.

    Attributes:
        key: The key that was used last of those which it has; the probe's key lies in the same slot.
        ahead: Seconds by which its clock is ahead of this event loop's, at most; None if that is not known.
        on_lost: Called with a word when its breaker opens.
        on_back: Called when a probe has closed it.
        look_again: Awaited after a failed probe: a cluster may have given the slot to another server meanwhile.
    """

    def __init__(
        self,
        client: AnyClient,
        *,
        key: bytes,
        limits: Limits,
        clock: Clock,
        seats: CommandLimiter,
        log: ThrottledLog,
        look_again: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        self._client = client
        self._limits = limits
        self._clock = clock
        self._log = log
        self._look_again = look_again
        self._prober: asyncio.Task[None] | None = None
        self._closed = False
        self.key = key
        self.ahead: float | None = None
        self.guard = Guard(limits=limits, clock=clock, seats=seats)
        self.guard.on_open = self._lost
        self.guard.on_failure = self._failed
        self.guard.on_recovery = self._recovered
        self.guard.on_unknown = self._raised
        self.on_lost: Callable[[str], None] = lambda _word: None
        self.on_back: Callable[[], None] = lambda: None

    async def probe(self) -> None:
        """Write to it.

        Raises:
            RedisUnavailable: It takes no writes, or not in a command's time.
        """
        # `…{slot}:kind` and `…{slot}:probe` are in one slot.
        key = self.key.rpartition(b":")[0] + _PROBE

        def write() -> Awaitable[Any]:
            return run_script(self._client, "probe", (key,), ())

        # Nobody waits for a probe, so it may take as long as connecting takes, which a ready client of the user's does
        # within the command. But only a server that answers in a command's time is one that is back.
        await self.guard.attempt(write, seconds=self._limits.connect_seconds, writes=True)
        await self.guard.attempt(write, writes=True)

    async def close(self) -> None:
        """Stop probing."""
        self._closed = True
        if self._prober is not None:
            prober = self._prober
            prober.cancel()
            await asyncio.wait([prober])

    def _failed(self, word: str) -> None:
        self._log.problem("redis", "Redis cannot be used (%s); requests go on without it", word)

    def _raised(self, error: Exception) -> None:
        self._log.problem("redis-client", "The Redis client raised %s", with_place(error, called=None))

    def _recovered(self) -> None:
        self._log.recovered("redis", "Redis answers again")

    def _lost(self, word: str) -> None:
        self.on_lost(word)
        if self._prober is None and not self._closed:
            self._prober = asyncio.get_running_loop().create_task(self._until_back(), name="tokenmw probe of Redis")

    async def _until_back(self) -> None:
        while not await self._is_back():
            if self._closed:
                return  # a user's client can lose the cancellation, as redis-py does on Python 3.11
        # Before anything can open the breaker again, so that there is a next prober then.
        self._prober = None
        self.guard.breaker.close()
        self.on_back()

    async def _is_back(self) -> bool:
        await self._clock.sleep(self.guard.breaker.next_pause())
        try:
            return await self._probed()
        except Exception as error:  # noqa: BLE001  a prober that ends would leave Redis unused for ever
            self._log.problem("redis-probe", "The probe of Redis raised %s", with_place(error, called=None))
            return False

    async def _probed(self) -> bool:
        began = asyncio.get_running_loop().time()
        try:
            await self.probe()
            await drop_dials(self._client, before=began)
        except RedisUnavailable:
            if self._look_again is not None:
                await self._look_again()
            return False
        return True
