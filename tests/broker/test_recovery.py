"""Instances find Redis back one after the other: who was first learns what the last one has to tell."""

from __future__ import annotations

from tests.brokers import runtime_of
from tests.redis.waiting import passes
from tests.servers import RedisServer
from tokenmw import Limits, TokenBroker
from tokenmw.providers import StaticToken
from tokenmw.testing import ManualClock


def broker(server: RedisServer, clock: ManualClock) -> TokenBroker:
    """Make one of two instances; each has its own time."""
    crm = StaticToken(lambda: "t", credential_id="c")
    secret = "a-secret-of-some-length"
    limits = Limits(command_seconds=5.0, check_seconds=300.0)
    return TokenBroker({"crm": crm}, redis=server.url, secret_key=secret, limits=limits, clock=clock)


async def test_an_invalidation_told_after_my_first_look_is_found_by_the_second(redis_server: RedisServer) -> None:
    """In seconds, and not when the token in use is looked at again."""
    clock = ManualClock()
    async with broker(redis_server, clock) as one, broker(redis_server, ManualClock()) as two:
        await two.token("crm")
        await one.token("crm")
        runtime, (entry,) = runtime_of(one), one._data.tokens
        assert runtime._redis_jobs is not None
        assert entry.current is not None
        before, looked = entry.current.version, entry.current.checked
        runtime._redis_jobs._recovery.schedule()
        await passes(
            clock,
            lambda: entry.current is not None and entry.current.shared and entry.current.checked > looked,
            within=4,
        )
        assert before == entry.current.version
        await two.invalidate_provider("crm")
        await passes(clock, lambda: entry.invalid_version >= before, within=9)
        assert entry.current is None or entry.current.version > before
