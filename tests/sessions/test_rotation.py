"""Sessions in use keep their ids through the three steps of a key rotation."""

from __future__ import annotations

import pytest

from tests.brokers import session_sync_of
from tests.servers import RedisServer
from tests.sessions.instance import TTL
from tokenmw import Limits, TokenBroker
from tokenmw.testing import ManualClock

OLD, NEW = "old-secret-0123456789", "new-secret-0123456789"
KEYS = ["alice", "bob"]
LONG_DEADLINE = Limits(command_seconds=2.0)


def broker(server: RedisServer, clock: ManualClock, *secrets: str) -> TokenBroker:
    """Make a broker with the secrets of one step of the rotation."""
    return TokenBroker({}, redis=server.url, secret_key=list(secrets), name_key=OLD, limits=LONG_DEADLINE, clock=clock)


async def use_for_one_ttl(one: TokenBroker, clock: ManualClock) -> list[str]:
    """Use all keys for one TTL, with housekeeping's touches, and return their ids."""
    ids: list[str] = []
    for _ in range(10):
        clock.advance(TTL / 10)
        ids = [await one.session_id(key) for key in KEYS]
        await session_sync_of(one).send_touches()
    return ids


async def test_sessions_in_use_keep_their_ids_through_all_three_steps(redis_server: RedisServer) -> None:
    """Each step is a new deployment with an empty cache, and the last one can open all sessions."""
    clock = ManualClock()
    async with broker(redis_server, clock, OLD) as one:
        ids = [await one.session_id(key) for key in KEYS]
    for secrets in ((OLD, NEW), (NEW, OLD), (NEW,)):
        async with broker(redis_server, clock, *secrets) as one:
            assert ids == await use_for_one_ttl(one, clock)
            assert 0 == one.status().unreadable


@pytest.mark.parametrize("access", ["touch", "first sight", "upload"])
async def test_each_access_seals_with_the_new_secret_and_keeps_the_ttl(redis_server: RedisServer, access: str) -> None:
    """This holds for touches, first sights and uploads."""
    clock = ManualClock()
    async with broker(redis_server, clock, OLD) as one:
        session = await one.session_id("alice")
        sealed = redis_server.command(
            "GET", key := one._settings.names.key(one._settings.names.digest("session", b"alice"), "session")
        )
    async with broker(redis_server, clock, NEW, OLD) as two:
        sync = session_sync_of(two)
        match access:
            case "touch":
                sync.queue(b"alice", two._data.sessions.add(b"alice", session, shared=True))
                await sync.send_touches()
            case "upload":
                await sync._upload({b"alice": two._data.sessions.add(b"alice", session, shared=True)}, set())
            case _:
                assert session == await two.session_id("alice")
        assert sealed != redis_server.command("GET", key)
        assert 1.29 * TTL * 1000 < redis_server.command("PTTL", key) <= 1.3 * TTL * 1000
    async with broker(redis_server, clock, NEW) as three:
        assert session == await three.session_id("alice")
