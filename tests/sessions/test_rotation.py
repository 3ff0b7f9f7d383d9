"""The three steps of a rotation, with sessions in use all the time: nobody gets a second id."""

from __future__ import annotations

import pytest

from tests.brokers import runtime_of, session_sync_of
from tests.servers import RedisServer
from tests.sessions.instance import TTL
from tokenmw import Limits, TokenBroker
from tokenmw.testing import ManualClock

OLD, NEW = "old-secret-0123456789", "new-secret-0123456789"
KEYS = ["alice", "bob"]
PATIENT = Limits(command_seconds=2.0)


def broker(server: RedisServer, clock: ManualClock, *ring: str) -> TokenBroker:
    """Make a broker as one step of the rotation has it."""
    return TokenBroker({}, redis=server.url, secret_key=list(ring), name_key=OLD, limits=PATIENT, clock=clock)


async def used(one: TokenBroker, clock: ManualClock) -> list[str]:
    """Use all keys for one session's time, with housekeeping's touches."""
    ids: list[str] = []
    for _ in range(10):
        clock.advance(TTL / 10)
        ids = [await one.session_id(key) for key in KEYS]
        await session_sync_of(one).send_touches()
    return ids


async def test_sessions_in_use_keep_their_ids_through_all_three_steps(redis_server: RedisServer) -> None:
    """Each step is a new deployment, which knows nothing locally: no second id, and the last opens all there is."""
    clock = ManualClock()
    async with broker(redis_server, clock, OLD) as one:
        ids = [await one.session_id(key) for key in KEYS]
    for ring in ((OLD, NEW), (NEW, OLD), (NEW,)):
        async with broker(redis_server, clock, *ring) as one:
            assert ids == await used(one, clock)
            assert 0 == one.status().unreadable


@pytest.mark.parametrize("sees", ["touch", "first sight", "offer"])
async def test_whatever_meets_an_old_seal_seals_anew_and_keeps_the_time(redis_server: RedisServer, sees: str) -> None:
    """A touch by one who has the id locally, a first sight by one who has not, an offer after a loss."""
    clock = ManualClock()
    async with broker(redis_server, clock, OLD) as one:
        session = await one.session_id("alice")
        sealed = redis_server.command(
            "GET", key := one._settings.names.key(one._settings.names.digest("session", b"alice"), "session")
        )
    async with broker(redis_server, clock, NEW, OLD) as two:
        sync = session_sync_of(two)
        copy = runtime_of(two).sessions._add(b"alice", session, shared=True)
        match sees:
            case "touch":
                sync.queue(b"alice", copy)
                await sync.send_touches()
            case "offer":
                await sync._upload({b"alice": copy})
            case _:
                two._data.sessions.clear()
                assert session == await two.session_id("alice")
        assert sealed != redis_server.command("GET", key)
        assert 1.09 * TTL * 1000 < redis_server.command("PTTL", key) <= 1.1 * TTL * 1000
    async with broker(redis_server, clock, NEW) as three:
        assert session == await three.session_id("alice")
