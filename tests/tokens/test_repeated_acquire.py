"""One late command does not make a process ask the provider without Redis; an outage costs three at most."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.tokens.instance import Instance
from tests.tokens.memory_store import MemoryRedis, MemoryStore
from tests.tokens.providers import Endpoint, ScriptedProvider
from tokenmw.redis.errors import RedisUnavailable
from tokenmw.testing import ManualClock
from tokenmw.values import Grant

if TYPE_CHECKING:
    from tokenmw.redis.token_store import Busy, ClockMismatch, FailureNoted, Found, Leased, TokenKeys


class LateStore(MemoryStore):
    """A store whose first commands fail, each for one of `reasons`; the server executes them nevertheless."""

    def __init__(self, server: MemoryRedis, *, reasons: list[str]) -> None:
        super().__init__(server)
        self.reasons = reasons
        self.acquired = 0

    async def acquire(
        self, keys: TokenKeys, owner: str, /, **options: Any
    ) -> Found | Leased | Busy | FailureNoted | ClockMismatch:
        self.acquired += 1
        reply = await super().acquire(keys, owner, **options)
        if self.reasons:
            raise RedisUnavailable(self.reasons.pop(0))
        return reply


@pytest.mark.parametrize(
    ("reasons", "acquired", "leased"),
    [
        (["timeout"], 2, True),
        (["timeout", "timeout"], 3, True),
        (["timeout"] * 3, 3, False),
        (["open"], 1, False),
        (["reset"], 1, False),
    ],
)
async def test_acquire_is_repeated_after_a_timeout(reasons: list[str], acquired: int, *, leased: bool) -> None:
    """It has the lease that the late command was given, so the token is stored for all."""
    clock = ManualClock()
    endpoint, redis = Endpoint(clock), MemoryRedis(clock)
    redis.wall = 1.0  # so that the version of a lease is not that of a request without one
    store = LateStore(redis, reasons=reasons)
    async with Instance(clock, store=store) as instance:
        entry = instance.entry(ScriptedProvider(endpoint))
        seen: list[tuple[int, bool]] = []

        async def grant() -> Grant:
            lease = None if entry.keys is None else redis.get(entry.keys, "lease")
            seen.append((store.acquired, lease is not None and lease.version == entry.requested_version))
            return await endpoint.new()

        endpoint.answer = grant
        await instance.manager.get(entry)
    assert [(acquired, leased)] == seen
