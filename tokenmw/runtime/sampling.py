"""Publishes what a broker has counted, and samples of its state: once a second, and not in any request."""

from __future__ import annotations

import random
from collections import Counter
from typing import TYPE_CHECKING, Final

from tokenmw.clock import Instant
from tokenmw.observe.state_events import BrokerClosed, BrokerOpened, StateSampled
from tokenmw.redaction import Unpicklable
from tokenmw.tokens.reporting import reason_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tokenmw.clock import Clock
    from tokenmw.observe.observers import Observers
    from tokenmw.redis.connection import RedisConnection
    from tokenmw.sessions.observed import ObservedSessionManager
    from tokenmw.sessions.sync import SessionSync
    from tokenmw.tokens.cache import TokenCache
    from tokenmw.tokens.entry import TokenEntry
    from tokenmw.tokens.observed import ObservedTokenManager

__all__ = ["Sampler"]

_EVERY: Final = 1.0  # seconds
_ENTRIES_A_SECOND: Final = 2_000


class Sampler(Unpicklable):
    """Publishes counts and samples until it is cancelled, and the last ones when it is closed.

    Args:
        broker: The number of the broker.
        providers: The names of its providers.
        version: The version of this package.
        observe: Gets the events.
        cache: The token entries.
        tokens: Counts the tokens that were returned.
        sessions: Counts where session ids came from.
        redis: The connection to Redis; None without Redis.
        session_sync: The sessions that have yet to be stored there; None without Redis.
        clock: Time.
    """

    def __init__(
        self,
        *,
        broker: int,
        providers: Sequence[str],
        version: str,
        observe: Observers,
        cache: TokenCache,
        tokens: ObservedTokenManager,
        sessions: ObservedSessionManager,
        redis: RedisConnection | None,
        session_sync: SessionSync | None,
        clock: Clock,
    ) -> None:
        self._broker = broker
        self._observe = observe
        self._names = set(providers)  # whose failures are counted, also when there are none any more
        self._cache = cache
        self._tokens = tokens
        self._sessions = sessions
        self._redis = redis
        self._session_sync = session_sync
        self._clock = clock
        self._count_at = float("-inf")
        self._expiries: dict[str, float] = {}
        self._attempts: dict[str, float] = {}
        self._failing: dict[str, dict[str, int]] = {}
        self._unshared: dict[str, int] = {}
        observe(BrokerOpened(broker, tuple(providers), shared=redis is not None, version=version))

    async def run(self) -> None:
        """Run until cancelled."""
        while True:
            pause = _EVERY * random.uniform(0.9, 1.1)
            began = self._clock.monotonic()
            await self._clock.sleep(pause)
            self.publish(lag=max(0.0, self._clock.monotonic() - began - pause))

    def publish(self, *, lag: float = 0.0) -> None:
        """Publish what was counted, and a sample."""
        self._tokens.flush()
        self._sessions.flush()
        self._observe.flush()
        self._observe(self._sample(lag))

    def close(self) -> None:
        """Publish the last counts, and that the broker is closed."""
        self._count_at = float("-inf")
        self.publish()
        self._observe(BrokerClosed(self._broker))

    def _sample(self, lag: float) -> StateSampled:
        now, redis, sync = Instant(self._clock), self._redis, self._session_sync
        if now.mono >= self._count_at:
            self._count_entries(now)
        running, waiting = (0, 0) if redis is None else redis.load
        unshared = {**self._unshared, "session": 0 if sync is None else sync.unshared}
        return StateSampled(
            self._broker,
            expiries=self._expiries,
            attempts=self._attempts,
            failing=self._failing,
            nodes={} if redis is None else {node: state[0] == "up" for node, state in redis.servers.items()},
            connections={} if redis is None else {"in_use": running, "waiting": waiting},
            unshared={} if redis is None else unshared,
            lag=lag,
        )

    def _count_entries(self, now: Instant) -> None:
        # Of 10 000 credentials it takes 15 ms, in which no request is served: so they are counted less often.
        self._count_at = now.mono + len(self._cache) / _ENTRIES_A_SECOND
        self._expiries, self._attempts = {}, {}
        failing: dict[str, Counter[str]] = {name: Counter() for name in self._names}
        tokens = tombstones = 0
        for entry in self._cache:
            if entry.named:
                self._expiries[entry.name] = _expiry(entry, now)
                self._attempts[entry.name] = _next_attempt(entry, now)
            if entry.failure is not None:
                self._names.add(entry.name)
                failing.setdefault(entry.name, Counter())[reason_of(entry.failure)] += 1
            tokens += entry.token_unshared(now)
            tombstones += entry.tombstone_unshared(now)
        self._failing = {name: dict(reasons) for name, reasons in failing.items()}
        self._unshared = {"token": tokens, "tombstone": tombstones}


def _expiry(entry: TokenEntry, now: Instant) -> float:
    current = entry.current
    return current.expires_wall if current is not None and current.left(now) > 0 else 0.0


def _next_attempt(entry: TokenEntry, now: Instant) -> float:
    retry_in = entry.retry_in(now)
    if retry_in is not None:
        return now.wall + retry_in
    current = entry.current
    return current.refresh_wall if current is not None and current.left(now) > 0 else 0.0
