"""Redis and the model of it on a manual clock keep the same promises."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TYPE_CHECKING

import pytest

from tests.tokens.memory_store import MemoryRedis, MemoryStore
from tokenmw.clock import SYSTEM_CLOCK
from tokenmw.limits import Limits
from tokenmw.observe.events import Observers
from tokenmw.observe.throttle import ThrottledLog
from tokenmw.redis.connection import RedisConnection
from tokenmw.redis.keys import KeyNames
from tokenmw.redis.sealing import Sealer
from tokenmw.redis.token_store import (
    Busy,
    FailureNoted,
    Found,
    Leased,
    RedisTokenStore,
    Stored,
    TokenKeys,
    TokenRecord,
    Tombstoned,
)
from tokenmw.testing import ManualClock
from tokenmw.tokens.store import TokenStore

if TYPE_CHECKING:
    from tests.servers import RedisServer

KEYS = TokenKeys.of(KeyNames("test", name_key=None), "digest")
A, B = "aaaa", "bbbb"


def record(value: str) -> TokenRecord:
    """What is stored of a token."""
    return TokenRecord(value, "Bearer", 7200.0, None, {"scope": "crm"})


class Shared:
    """A store, and what a test does behind its back."""

    def __init__(self, store: TokenStore, forget: Callable[[str], Awaitable[None]]) -> None:
        self.store = store
        self.forget = forget


@pytest.fixture(params=["redis", "memory"])
async def shared(request: pytest.FixtureRequest) -> AsyncIterator[Shared]:
    """Redis, and the model of it."""
    if request.param == "memory":
        server = MemoryRedis(ManualClock())

        async def drop(kind: str) -> None:
            if kind == "all":
                server.flush()
            else:
                server.delete(KEYS, {"tombstone": "tomb"}.get(kind, kind))

        yield Shared(MemoryStore(server), drop)
        return
    redis: RedisServer = request.getfixturevalue("redis_server")
    log = ThrottledLog(SYSTEM_CLOCK)
    connection = RedisConnection(
        redis.url,
        names=KeyNames("test", name_key=None),
        limits=Limits(command_seconds=2.0),
        clock=SYSTEM_CLOCK,
        log=log,
        observe=Observers((), log=log),
        on_recovered=lambda: None,
    )

    async def delete(kind: str) -> None:
        if kind == "all":
            redis.command("FLUSHALL")
        else:
            redis.command("DEL", getattr(KEYS, kind))

    yield Shared(RedisTokenStore(connection, sealer=Sealer(()), on_unreadable=lambda _kind, _reason: None), delete)
    await connection.close()


async def lease(store: TokenStore, owner: str, *, known: int = 0) -> int:
    """Take the lease."""
    seat = await store.acquire(KEYS, owner, known=known, seconds=6)
    assert isinstance(seat, Leased)
    return seat.version


async def store_one(store: TokenStore, value: str, *, known: int = 0) -> int:
    """Store a token under a lease."""
    version = await lease(store, A, known=known)
    assert Stored() == await store.commit(KEYS, A, record(value), version=version, left=7200)
    return version


async def test_one_gets_the_lease_and_the_other_waits(shared: Shared) -> None:
    """Acquire is idempotent for its owner, and tells others the time that is left."""
    version = await lease(shared.store, A)
    assert Leased(version) == await shared.store.acquire(KEYS, A, known=0, seconds=6)
    busy = await shared.store.acquire(KEYS, B, known=0, seconds=6)
    assert isinstance(busy, Busy)
    assert 5 < busy.left <= 6


async def test_a_stored_token_ends_the_search_of_all_who_know_none_newer(shared: Shared) -> None:
    """With what is left of its time; who knows that very version gets the lease instead."""
    version = await store_one(shared.store, "t1")
    found = await shared.store.acquire(KEYS, B, known=version - 1, seconds=6)
    assert isinstance(found, Found)
    assert (record("t1"), version) == (found.record, found.version)
    assert 7199 < found.left <= 7200
    assert version < await lease(shared.store, B, known=version)


async def test_a_commit_under_a_lost_lease_is_refused(shared: Shared) -> None:
    """A holder that was paused and wakes late does not overwrite; it is told what came instead."""
    late = await lease(shared.store, A)
    await shared.forget("lease")
    newer = await lease(shared.store, B, known=late)
    assert isinstance(await shared.store.commit(KEYS, A, record("late"), version=late, left=7200), Busy)
    assert Stored() == await shared.store.commit(KEYS, B, record("newer"), version=newer, left=7200)
    taken = await shared.store.commit(KEYS, A, record("late"), version=late, left=7200)
    assert isinstance(taken, Found)
    assert "newer" == taken.record.value


async def test_a_commit_may_be_repeated(shared: Shared) -> None:
    """The reply was lost: the second one says the same."""
    version = await store_one(shared.store, "t1")
    found, _dead = await shared.store.read(KEYS)
    assert found is not None
    assert isinstance(await shared.store.commit(KEYS, A, record("t1"), version=version, left=7200), (Stored, Found))
    assert version == found.version


async def test_an_offer_without_a_lease_wins_only_if_it_is_newer(shared: Shared) -> None:
    """At equal versions the first one stays."""
    assert Stored() == await shared.store.commit(KEYS, A, record("t5"), version=5, left=7200)
    for version in (4, 5):
        answer = await shared.store.commit(KEYS, B, record("other"), version=version, left=7200)
        assert isinstance(answer, Found)
        assert "t5" == answer.record.value
    assert Stored() == await shared.store.commit(KEYS, B, record("t6"), version=6, left=7200)


async def test_a_buried_version_does_not_come_back(shared: Shared) -> None:
    """Neither by an offer nor by a commit; a newer one is stored."""
    version = await store_one(shared.store, "t1")
    assert Tombstoned(version) == await shared.store.write_tombstone(KEYS, version=version, known=0, left=7200)
    assert (None, version) == await shared.store.read(KEYS)
    assert Tombstoned(version) == await shared.store.commit(KEYS, B, record("t1"), version=version, left=7200)
    assert version < await store_one(shared.store, "t2")


async def test_burying_an_old_version_leaves_the_newer_one(shared: Shared) -> None:
    """And tells it."""
    first = await store_one(shared.store, "t1")
    second = await store_one(shared.store, "t2", known=first)
    answer = await shared.store.write_tombstone(KEYS, version=first, known=0, left=7200)
    assert isinstance(answer, Found)
    assert second == answer.version


async def test_burying_whatever_is_there_opens_the_way(shared: Shared) -> None:
    """The note of a failure is dropped, too: who says so wants the provider asked again."""
    first = await store_one(shared.store, "t1")
    dead = await shared.store.write_tombstone(KEYS, version=None, known=0, left=10)
    assert isinstance(dead, Tombstoned)
    assert dead.version >= first
    version = await lease(shared.store, A)
    await shared.store.release(KEYS, A, version=version, note=b"why", seconds=60)
    await shared.store.write_tombstone(KEYS, version=None, known=0, left=10)
    assert version <= await lease(shared.store, B)


async def test_burying_whatever_is_there_takes_what_is_asked_for_along(shared: Shared) -> None:
    """Also where the lease is above the server's time."""
    future = 4_000_000_000_000_000  # microseconds: in the year 2096
    version = await lease(shared.store, A, known=future)
    assert Tombstoned(version) == await shared.store.write_tombstone(KEYS, version=None, known=0, left=10)
    assert Tombstoned(version) == await shared.store.commit(KEYS, A, record("t1"), version=version, left=7200)
    assert version < await lease(shared.store, B)


@pytest.mark.parametrize("seen", ["stored", "buried", "known"])
async def test_a_lease_is_above_all_versions_that_were_seen(shared: Shared, seen: str) -> None:
    """Even if the server's clock has gone back, or an instance whose clock is ahead has offered its token."""
    future = 4_000_000_000_000_000  # microseconds: in the year 2096
    store = shared.store
    if seen == "stored":
        assert Stored() == await store.commit(KEYS, A, record("t1"), version=future, left=7200)
    elif seen == "buried":
        assert Tombstoned(future) == await store.write_tombstone(KEYS, version=future, known=0, left=7200)
    seat = await store.acquire(KEYS, B, known=future if seen != "buried" else 0, seconds=6)
    assert Leased(future + 1) == seat


async def test_a_note_keeps_others_from_asking_until_a_token_is_stored(shared: Shared) -> None:
    """It comes with the time it has left; only the holder of the lease may leave one."""
    version = await lease(shared.store, A)
    await shared.store.release(KEYS, B, version=version, note=b"not mine", seconds=60)
    await shared.store.release(KEYS, A, version=version, note=b"why", seconds=60)
    noted = await shared.store.acquire(KEYS, B, known=0, seconds=6)
    assert isinstance(noted, FailureNoted)
    assert b"why" == noted.note
    assert 59 < noted.left <= 60
    assert Stored() == await shared.store.commit(KEYS, B, record("t1"), version=version, left=7200)
    assert isinstance(await shared.store.acquire(KEYS, B, known=version, seconds=6), Leased)


@pytest.mark.parametrize("lost", ["all", "token", "lease", "note", "tombstone"])
@pytest.mark.parametrize("when", range(5))
async def test_losing_keys_between_any_two_steps_blocks_nothing(shared: Shared, lost: str, when: int) -> None:
    """FLUSHALL, or the eviction of any one key: the next token is stored, and versions go up for who knows them."""
    steps = 0

    async def step() -> None:
        nonlocal steps
        if steps == when:
            await shared.forget(lost)
        steps += 1

    store = shared.store
    await step()
    first = await store_one(store, "t1")
    await step()
    second = await lease(store, A, known=first)
    await step()
    assert first < second
    assert Stored() == await store.commit(KEYS, A, record("t2"), version=second, left=7200)
    await step()
    await store.write_tombstone(KEYS, version=second, known=second, left=7200)
    await step()
    third = await lease(store, B, known=second)
    assert second < third
    assert Stored() == await store.commit(KEYS, B, record("t3"), version=third, left=7200)
    found, _dead = await store.read(KEYS)
    assert found is not None
    assert "t3" == found.record.value
