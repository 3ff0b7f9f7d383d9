"""The scripts in Redis and the model of them on a manual clock behave the same."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TYPE_CHECKING

import pytest

from tests.tokens.memory_store import MemoryRedis, MemoryStore
from tokenmw.clock import SYSTEM_CLOCK
from tokenmw.limits import Limits
from tokenmw.observe.observers import Observers
from tokenmw.observe.throttle import ThrottledLog
from tokenmw.redis.connection import RedisConnection
from tokenmw.redis.keys import KeyNames
from tokenmw.redis.sealing import Sealer
from tokenmw.redis.token_store import (
    Busy,
    ClockMismatch,
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
HALF_A_DAY = 43_200_000_000  # microseconds


def record(value: str) -> TokenRecord:
    """Return what is stored of a token."""
    return TokenRecord(value, "Bearer", 7200.0, None, {"scope": "crm"})


class StoreUnderTest:
    """A store, `lose`, which deletes its keys of one kind, or all, and `now`, the server's time as a version."""

    def __init__(self, store: TokenStore, lose: Callable[[str], Awaitable[None]], now: Callable[[], int]) -> None:
        self.store = store
        self.lose = lose
        self.now = now


@pytest.fixture(params=["redis", "memory"])
async def shared(request: pytest.FixtureRequest) -> AsyncIterator[StoreUnderTest]:
    """Return a store over Redis, and one over the model of it."""
    if request.param == "memory":
        server = MemoryRedis(ManualClock())

        async def drop(kind: str) -> None:
            if kind == "all":
                server.flush()
            else:
                server.delete(KEYS, {"tombstone": "tomb"}.get(kind, kind))

        yield StoreUnderTest(MemoryStore(server), drop, server.now)
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

    def now() -> int:
        seconds, micros = redis.command("TIME")
        return int(seconds) * 1_000_000 + int(micros)

    yield StoreUnderTest(
        RedisTokenStore(connection, sealer=Sealer(()), on_unreadable=lambda _kind, _reason: None), delete, now
    )
    await connection.close()


async def lease(store: TokenStore, owner: str, *, known: int = 0) -> int:
    """Acquire the lease and return its version."""
    reply = await store.acquire(KEYS, owner, known=known, seconds=6)
    assert isinstance(reply, Leased)
    return reply.version


async def store_one(store: TokenStore, value: str, *, known: int = 0) -> int:
    """Store a token under a lease, and return its version."""
    version = await lease(store, A, known=known)
    assert Stored() == await store.commit(KEYS, A, record(value), version=version, left=7200)
    return version


async def test_a_lease_has_one_owner(shared: StoreUnderTest) -> None:
    """Acquire is idempotent for the owner of the lease, and returns the time that is left of it to others."""
    version = await lease(shared.store, A)
    assert Leased(version) == await shared.store.acquire(KEYS, A, known=0, seconds=6)
    busy = await shared.store.acquire(KEYS, B, known=0, seconds=6)
    assert isinstance(busy, Busy)
    assert 5 < busy.left <= 6


async def test_acquire_returns_a_stored_token_above_the_known_version(shared: StoreUnderTest) -> None:
    """It comes with the time that is left; a caller that knows this version gets the lease instead."""
    version = await store_one(shared.store, "t1")
    found = await shared.store.acquire(KEYS, B, known=version - 1, seconds=6)
    assert isinstance(found, Found)
    assert (record("t1"), version) == (found.record, found.version)
    assert 7199 < found.left <= 7200
    assert version < await lease(shared.store, B, known=version)


async def test_a_commit_under_a_lost_lease_is_refused(shared: StoreUnderTest) -> None:
    """A holder that was paused past its lease does not overwrite the newer token, and gets that one instead."""
    late = await lease(shared.store, A)
    await shared.lose("lease")
    newer = await lease(shared.store, B, known=late)
    assert isinstance(await shared.store.commit(KEYS, A, record("late"), version=late, left=7200), Busy)
    assert Stored() == await shared.store.commit(KEYS, B, record("newer"), version=newer, left=7200)
    reply = await shared.store.commit(KEYS, A, record("late"), version=late, left=7200)
    assert isinstance(reply, Found)
    assert "newer" == reply.record.value


async def test_a_commit_may_be_repeated(shared: StoreUnderTest) -> None:
    """If the reply was lost, the second commit has the same result."""
    version = await store_one(shared.store, "t1")
    found, _invalid = await shared.store.read(KEYS)
    assert found is not None
    assert isinstance(await shared.store.commit(KEYS, A, record("t1"), version=version, left=7200), (Stored, Found))
    assert version == found.version


async def test_an_upload_without_a_lease_replaces_only_an_older_token(shared: StoreUnderTest) -> None:
    """Of two tokens with equal versions, the stored one stays."""
    now = shared.now()
    assert Stored() == await shared.store.commit(KEYS, A, record("t5"), version=now + 5, left=7200)
    for version in (now + 4, now + 5):
        reply = await shared.store.commit(KEYS, B, record("other"), version=version, left=7200)
        assert isinstance(reply, Found)
        assert "t5" == reply.record.value
    assert Stored() == await shared.store.commit(KEYS, B, record("t6"), version=now + 6, left=7200)


async def test_an_invalidated_version_does_not_come_back(shared: StoreUnderTest) -> None:
    """A commit of it is refused, and a newer one is stored."""
    version = await store_one(shared.store, "t1")
    assert Tombstoned(version) == await shared.store.write_tombstone(KEYS, version=version, known=0, left=7200)
    assert (None, version) == await shared.store.read(KEYS)
    assert Tombstoned(version) == await shared.store.commit(KEYS, B, record("t1"), version=version, left=7200)
    assert version < await store_one(shared.store, "t2")


async def test_invalidating_an_old_version_keeps_the_newer_token(shared: StoreUnderTest) -> None:
    """The newer token is returned."""
    first = await store_one(shared.store, "t1")
    second = await store_one(shared.store, "t2", known=first)
    reply = await shared.store.write_tombstone(KEYS, version=first, known=0, left=7200)
    assert isinstance(reply, Found)
    assert second == reply.version


async def test_invalidating_the_stored_version_deletes_the_failure_note(shared: StoreUnderTest) -> None:
    """The operator wants a new token, so the provider must be asked again immediately."""
    first = await store_one(shared.store, "t1")
    tombstone = await shared.store.write_tombstone(KEYS, version=None, known=0, left=10)
    assert isinstance(tombstone, Tombstoned)
    assert tombstone.version >= first
    version = await lease(shared.store, A)
    await shared.store.release(KEYS, A, version=version, note=b"why", seconds=60)
    await shared.store.write_tombstone(KEYS, version=None, known=0, left=10)
    assert version <= await lease(shared.store, B)


async def test_invalidating_the_stored_version_invalidates_the_one_being_fetched(shared: StoreUnderTest) -> None:
    """This holds even if the version of the lease is ahead of the server's clock."""
    future = shared.now() + HALF_A_DAY
    version = await lease(shared.store, A, known=future)
    assert Tombstoned(version) == await shared.store.write_tombstone(KEYS, version=None, known=0, left=10)
    assert Tombstoned(version) == await shared.store.commit(KEYS, A, record("t1"), version=version, left=7200)
    assert version < await lease(shared.store, B)


@pytest.mark.parametrize("seen", ["stored", "invalidated", "known"])
async def test_the_version_of_a_lease_is_above_all_earlier_versions(shared: StoreUnderTest, seen: str) -> None:
    """This holds even if the server's clock was set back, or an instance whose clock is ahead uploaded its token."""
    future = shared.now() + HALF_A_DAY
    store = shared.store
    if seen == "stored":
        assert Stored() == await store.commit(KEYS, A, record("t1"), version=future, left=7200)
    elif seen == "invalidated":
        assert Tombstoned(future) == await store.write_tombstone(KEYS, version=future, known=0, left=7200)
    reply = await store.acquire(KEYS, B, known=future if seen != "invalidated" else 0, seconds=6)
    assert Leased(future + 1) == reply


async def test_a_store_holds_the_version_that_was_committed_last(shared: StoreUnderTest) -> None:
    """And no other version; none before the first commit, and none after a tombstone."""
    store, version = shared.store, shared.now()
    assert [False] == await store.holds([(KEYS, version)])
    assert Stored() == await store.commit(KEYS, A, record("t1"), version=version, left=7200)
    assert [True, False] == await store.holds([(KEYS, version), (KEYS, version + 1)])
    await store.write_tombstone(KEYS, version=version, known=0, left=7200)
    assert [False] == await store.holds([(KEYS, version)])
    assert [] == await store.holds([])


async def test_a_failure_note_prevents_leases_until_a_token_is_stored(shared: StoreUnderTest) -> None:
    """It is returned with the time that it has left; only the holder of the lease can write one."""
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
async def test_losing_keys_between_any_two_steps_blocks_nothing(shared: StoreUnderTest, lost: str, when: int) -> None:
    """After FLUSHALL, or the eviction of any key, the next token is stored, and known versions only increase."""
    steps = 0

    async def step() -> None:
        nonlocal steps
        if steps == when:
            await shared.lose(lost)
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
    found, _invalid = await store.read(KEYS)
    assert found is not None
    assert "t3" == found.record.value


async def test_versions_that_the_clock_of_redis_rules_out_change_nothing(shared: StoreUnderTest) -> None:
    """They are more than a day ahead, or of a token that is more than a minute older than its time to live says."""
    store, now = shared.store, shared.now()
    ahead = now + 3 * HALF_A_DAY
    replies = (
        await store.acquire(KEYS, A, known=ahead, seconds=6),
        await store.write_tombstone(KEYS, version=ahead, known=0, left=7200),
        await store.write_tombstone(KEYS, version=None, known=ahead, left=7200),
        await store.commit(KEYS, A, record("t1"), version=ahead, left=7200),
        await store.commit(KEYS, A, record("t1"), version=now - 3_600_000_000, left=7200),
    )
    for reply in replies:
        assert isinstance(reply, ClockMismatch)
        assert 0 <= reply.server_time - now / 1_000_000 < 60
    assert (None, 0) == await store.read(KEYS)
    assert Stored() == await store.commit(KEYS, A, record("t1"), version=now - 3_600_000_000, left=3600)


async def test_a_tombstone_that_is_written_late_does_not_cover_later_tokens(shared: StoreUnderTest) -> None:
    """A server that was suspended executes it after the caller has fetched its next token without the server."""
    now = await shared.store.server_time(KEYS)
    assert abs(now - shared.now()) < 60_000_000
    called = now - 2_000_000
    assert Tombstoned(called) == await shared.store.write_tombstone(KEYS, version=None, known=called, left=7200)
    reply = await shared.store.commit(KEYS, A, record("t1"), version=called + 1_000_000, left=7200)
    assert Stored() == reply


async def test_a_note_is_there_until_it_is_deleted(shared: StoreUnderTest) -> None:
    """A process that has read a note asks again when it is deleted."""
    store = shared.store
    assert (False, None) == await store.noted(KEYS)
    await store.release(KEYS, A, version=await lease(store, A), note=b"why", seconds=60)
    assert (True, None) == await store.noted(KEYS)
    await shared.lose("note")
    assert (False, None) == await store.noted(KEYS)


async def test_a_request_to_retry_deletes_the_note(shared: StoreUnderTest) -> None:
    """Every process can read who made it; a later request has a higher version."""
    store = shared.store
    await store.release(KEYS, A, version=await lease(store, A), note=b"why", seconds=60)
    first = await store.write_retry(KEYS, "an operator")
    noted, retry = await store.noted(KEYS)
    assert (noted, retry is not None and (retry.version, retry.by)) == (False, (first, "an operator"))
    assert retry is not None
    assert 0 <= retry.age < 5
