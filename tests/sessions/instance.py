"""The sessions of one process, built as a runtime builds them, over a real Redis."""

from __future__ import annotations

from typing import Any, Self

from tests.servers import RedisServer
from tokenmw.clock import SYSTEM_CLOCK, Clock
from tokenmw.limits import Limits
from tokenmw.observe.observers import Observers
from tokenmw.observe.throttle import ThrottledLog
from tokenmw.redis.connection import RedisConnection
from tokenmw.redis.keys import KeyNames
from tokenmw.redis.sealing import Sealer
from tokenmw.redis.session_store import RedisSessionStore
from tokenmw.sessions.cache import SessionCache
from tokenmw.sessions.derive import SessionIds
from tokenmw.sessions.first_sight import FirstSights
from tokenmw.sessions.manager import SessionManager
from tokenmw.sessions.rate_limit import NewSessions
from tokenmw.sessions.sync import SessionSync
from tokenmw.testing import ManualClock

SECRET = "a-secret-of-some-length"
TTL = 3600.0
# The machine that runs the tests may be slow, and these tests are not about the deadline.
LONG_DEADLINE: dict[str, Any] = {"command_seconds": 2.0}


class Instance:
    """The sessions of one process. They use the test's clock; Redis and the connection use the real one."""

    def __init__(
        self,
        server: RedisServer,
        *,
        secret: str | None = SECRET,
        seal: str | None = None,
        policy: Any = "available",
        new: Any = "derived",
        ttl: float = TTL,
        clock: ManualClock | None = None,
        url: str = "",
        redis_clock: Clock = SYSTEM_CLOCK,
        **limits: Any,
    ) -> None:
        self.clock = clock or ManualClock()
        self.limits = Limits(**(LONG_DEADLINE | limits))
        self.log = ThrottledLog(SYSTEM_CLOCK)
        self.unreadable: list[tuple[str, str]] = []
        self._url = url or server.url
        self._redis_clock = redis_clock
        self._names = KeyNames("tokenmw", name_key=secret)
        self._seals = Sealer([seal] if seal else [])
        self._ttl = ttl
        self._policy = policy
        self.ids = SessionIds(secret, new=new)
        self.cache = SessionCache(ttl=ttl, limits=self.limits, clock=self.clock)
        self.new_sessions = NewSessions(self.limits, redis_ttl=1.3 * ttl, clock=self.clock)

    async def __aenter__(self) -> Self:
        self.connection = RedisConnection(
            self._url,
            names=self._names,
            limits=self.limits,
            clock=self._redis_clock,
            log=self.log,
            observe=Observers((), log=self.log),
            on_recovered=self._reupload,
        )
        self.store = RedisSessionStore(
            self.connection,
            names=self._names,
            sealer=self._seals,
            ttl=1.3 * self._ttl,
            on_unreadable=lambda kind, reason: self.unreadable.append((kind, reason)),
            after_reset=self.ids.after_reset if self.ids.recurring else None,
        )
        self.sync = SessionSync(
            self.store, cache=self.cache, new_sessions=self.new_sessions, limits=self.limits, clock=self.clock
        )
        self.first_sights = FirstSights(
            cache=self.cache,
            sync=self.sync,
            ids=self.ids,
            new_sessions=self.new_sessions,
            policy=self._policy,
            limits=self.limits,
            log=self.log,
        )
        self.manager = SessionManager(
            cache=self.cache,
            sync=self.sync,
            first_sights=self.first_sights,
            ids=self.ids,
            policy=self._policy,
            clock=self.clock,
        )
        self.stop = self.manager.close
        await self.connection.open()
        return self

    def _reupload(self) -> None:
        self.sync.begin_reupload()

    async def __aexit__(self, *_: object) -> None:
        await self.stop()
        await self.connection.close()

    async def get(self, api_key: bytes) -> str:
        """Return the session id that a request with this key gets."""
        return await self.manager.get(api_key)

    def key(self, api_key: bytes) -> bytes:
        """Return the Redis key of this API key's session."""
        return self.store.key(api_key)


def commands(server: RedisServer) -> dict[str, int]:
    """Return how often clients have sent each command; the commands of scripts are not counted."""
    lines: bytes = server.command("INFO", "commandstats")
    counts: dict[str, int] = {}
    for line in lines.decode().splitlines():
        if line.startswith("cmdstat_"):
            name, _, rest = line.removeprefix("cmdstat_").partition(":calls=")
            counts[name] = int(rest.partition(",")[0])
    return counts


def sent(server: RedisServer) -> dict[str, int]:
    """Return the scripts and touches that the package has sent since the statistics were reset."""
    counts = commands(server)
    names = ("evalsha", "eval", "getex")
    return {name: counts[name] for name in names if counts.get(name)}


def reset_statistics(server: RedisServer) -> None:
    """Set the counts to zero."""
    server.command("CONFIG", "RESETSTAT")
