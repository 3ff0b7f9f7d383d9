"""Tokens in Redis: what each operation of the store returns and leaves."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import pytest

from tests.proxies import Proxy
from tests.servers import RedisServer
from tokenmw.redis.errors import RedisUnavailable
from tokenmw.redis.keys import KeyNames
from tokenmw.redis.sealing import Sealer, Unreadable
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

if TYPE_CHECKING:
    from collections.abc import Callable

    from tokenmw.redis.connection import RedisConnection
    from tokenmw.redis.scripts import ScriptName

    Connect = Callable[..., RedisConnection]

OLD, NEW = "old-secret-0123456789", "new-secret-0123456789"
RECORD = TokenRecord("t-1", "Bearer", 7200.0, 60.0, {"instance_url": "https://eu.example"})
NOW = time.time_ns() // 1_000
"""The version of a token that was requested when the tests started."""
DAY = 86_400_000_000


class Store(RedisTokenStore):
    """A store that records the values that it could not open."""

    def __init__(self, connection: RedisConnection, sealer: Sealer) -> None:
        self.unreadable: list[str] = []
        super().__init__(connection, sealer=sealer, on_unreadable=self._record)

    def _record(self, kind: str, reason: str) -> None:
        self.unreadable.append(f"{kind} {reason}")


@pytest.fixture
def keys(names: KeyNames) -> TokenKeys:
    """One credential's keys."""
    return TokenKeys.of(names, "digest")


@pytest.fixture
def connection(connect: Connect, given: Any) -> RedisConnection:
    """A connection to Redis."""
    return connect(given, command_seconds=1.0)


@pytest.fixture(params=["sealed", "plain"])
def store(request: pytest.FixtureRequest, connection: RedisConnection) -> Store:
    """One instance's store."""
    return Store(connection, Sealer([OLD] if request.param == "sealed" else []))


async def lease(store: Store, keys: TokenKeys, owner: str = "a1", *, known: int = 0) -> int:
    """Acquire a lease that is free, and return its version."""
    reply = await store.acquire(keys, owner, known=known, seconds=6)
    assert isinstance(reply, Leased)
    return reply.version


async def test_token_is_leased_committed_found_and_invalidated(store: Store, keys: TokenKeys) -> None:
    """Another process finds it with all its fields, until there is a tombstone for it."""
    version = await lease(store, keys)
    reply = await store.acquire(keys, "b2", known=0, seconds=6)
    assert isinstance(reply, Busy)
    assert 0 < reply.left <= 6
    assert await store.commit(keys, "a1", RECORD, version=version, left=100.0) == Stored()
    found = await store.acquire(keys, "b2", known=0, seconds=6)
    assert isinstance(found, Found)
    assert (found.record, found.version) == (RECORD, version)
    assert 99 < found.left <= 100
    assert await store.write_tombstone(keys, version=version, known=version, left=100.0) == Tombstoned(version)
    assert await store.read(keys) == (None, version)
    assert await store.commit(keys, "a1", RECORD, version=version, left=100.0) == Tombstoned(version)


async def test_late_commit_returns_the_newer_token(store: Store, keys: TokenKeys) -> None:
    """So does a late tombstone."""
    newer = TokenRecord("t-2", "Bearer", 7200.0, None, {})
    await store.commit(keys, "b2", newer, version=NOW + 60, left=100.0)
    for answer in (
        await store.commit(keys, "a1", RECORD, version=NOW + 50, left=100.0),
        await store.write_tombstone(keys, version=NOW + 50, known=NOW + 50, left=100.0),
    ):
        assert isinstance(answer, Found)
        assert (answer.record, answer.version) == (newer, NOW + 60)


async def test_a_commit_under_anothers_lease_is_refused(store: Store, keys: TokenKeys) -> None:
    """The caller learns for how long the other process has the lease."""
    await lease(store, keys, "b2")
    answer = await store.commit(keys, "a1", RECORD, version=NOW + 50, left=100.0)
    assert isinstance(answer, Busy)
    assert 0 < answer.left <= 6


async def test_note_is_returned_to_others(store: Store, keys: TokenKeys) -> None:
    """It is returned as it was given, and for as long."""
    version = await lease(store, keys)
    await store.release(keys, "a1", version=version, note=b"refused", seconds=30)
    noted = await store.acquire(keys, "b2", known=0, seconds=6)
    assert isinstance(noted, FailureNoted)
    assert noted.note == b"refused"
    assert 29 < noted.left <= 30


async def test_times_of_zero_and_below_are_no_errors(store: Store, keys: TokenKeys) -> None:
    """Redis refuses a TTL of zero, so a token or note that is about to expire is stored for a millisecond."""
    version = await lease(store, keys)
    assert await store.commit(keys, "a1", RECORD, version=version, left=-1.0) == Stored()
    assert isinstance(await store.write_tombstone(keys, version=version, known=version, left=0.0), Tombstoned)
    version = await lease(store, keys, known=version)
    await store.release(keys, "a1", version=version, note=b"refused", seconds=-5.0)


async def test_lost_reply_loses_no_lease(connect: Connect, proxy: Proxy, names: KeyNames, keys: TokenKeys) -> None:
    """The same owner gets its lease again, and a repeated commit stores the token once."""
    store = Store(connect(proxy.url), Sealer([OLD]))
    # The server must know the scripts, or the lost reply would be that it does not.
    other = TokenKeys.of(names, "other")
    await store.commit(other, "a1", RECORD, version=await lease(store, other), left=100.0)
    proxy.lose_replies = True
    with pytest.raises(RedisUnavailable, match="timeout"):
        await store.acquire(keys, "a1", known=0, seconds=6)
    proxy.lose_replies = False
    version = await lease(store, keys)
    proxy.lose_replies = True
    with pytest.raises(RedisUnavailable, match="timeout"):
        await store.commit(keys, "a1", RECORD, version=version, left=100.0)
    proxy.lose_replies = False
    assert await store.commit(keys, "a1", RECORD, version=version, left=100.0) == Stored()
    found, _dead = await store.read(keys)
    assert found is not None
    assert (found.record, found.version) == (RECORD, version)


async def test_damaged_values_are_deleted_and_count_as_absent(
    store: Store, keys: TokenKeys, redis_server: RedisServer
) -> None:
    """Each operation that meets one reports it."""

    def damage(version: int = NOW + 50) -> None:
        body = Sealer([]).seal(b"not a record", key=b"", version=version)
        redis_server.command("SET", keys.token, body, "PX", 60_000)

    damage()
    assert await store.read(keys) == (None, 0)
    assert redis_server.command("EXISTS", keys.token) == 0
    damage()
    assert isinstance(await store.acquire(keys, "a1", known=0, seconds=6), Leased)
    damage(NOW + 1_000)
    assert await store.commit(keys, "b2", RECORD, version=NOW + 70, left=100.0) != Stored()
    redis_server.command("DEL", keys.lease)
    damage(NOW + 1_000)
    assert await store.commit(keys, "b2", RECORD, version=NOW + 70, left=100.0) == Stored()
    damage(NOW + 1_000)
    assert await store.write_tombstone(keys, version=NOW + 70, known=NOW + 70, left=100.0) == Tombstoned(NOW + 70)
    assert await store.read(keys) == (None, NOW + 70)
    assert store.unreadable == ["token damaged"] * 5


async def test_damaged_note_counts_as_absent(store: Store, keys: TokenKeys, redis_server: RedisServer) -> None:
    """It is deleted."""
    redis_server.command("SET", keys.note, "garbage", "PX", 1_000_000)
    assert isinstance(await store.acquire(keys, "a1", known=0, seconds=6), Leased)
    assert store.unreadable == ["token damaged"]


async def test_token_of_an_unknown_secret_is_left_alone(
    connection: RedisConnection, keys: TokenKeys, redis_server: RedisServer
) -> None:
    """Instances that have the secret use it; this one neither deletes nor replaces it."""
    theirs, ours = Store(connection, Sealer([NEW])), Store(connection, Sealer([OLD]))
    version = await lease(theirs, keys)
    await theirs.commit(keys, "a1", RECORD, version=version, left=100.0)
    before = redis_server.command("GET", keys.token)
    for operation in (
        ours.read(keys),
        ours.acquire(keys, "b2", known=0, seconds=6),
        ours.commit(keys, "b2", RECORD, version=NOW + 50, left=100.0),
        ours.write_tombstone(keys, version=NOW + 50, known=NOW + 50, left=100.0),
    ):
        with pytest.raises(Unreadable, match="unknown-key"):
            await operation
    assert redis_server.command("GET", keys.token) == before
    assert ours.unreadable == ["token unknown-key"] * 4


async def test_a_token_sealed_with_another_secret_is_not_held(
    connection: RedisConnection, keys: TokenKeys, redis_server: RedisServer
) -> None:
    """While secrets are rotated it is read, and so sealed again with the first one. Nor is a value of another type."""
    old, rotating = Store(connection, Sealer([OLD])), Store(connection, Sealer([NEW, OLD]))
    version = await lease(old, keys)
    await old.commit(keys, "a1", RECORD, version=version, left=100.0)
    assert [True] == await old.holds([(keys, version)])
    assert [False] == await rotating.holds([(keys, version)])
    await rotating.read(keys)
    assert [True] == await rotating.holds([(keys, version)])
    redis_server.command("DEL", keys.token)
    redis_server.command("LPUSH", keys.token, "a")
    assert [False] == await rotating.holds([(keys, version)])


async def test_a_user_without_getrange_compares_by_a_script(
    connect: Connect, private_redis: RedisServer, keys: TokenKeys, caplog: pytest.LogCaptureFixture
) -> None:
    """An ACL made for an earlier version of this package is no outage, and nothing is logged."""
    private_redis.command("ACL", "SETUSER", "lean", "on", ">lean", "~*", "+@all", "-getrange")
    connection = connect(f"redis://lean:lean@127.0.0.1:{private_redis.port}", command_seconds=1.0)
    store = Store(connection, Sealer([OLD]))
    version = await lease(store, keys)
    await store.commit(keys, "a1", RECORD, version=version, left=100.0)
    for _ in range(4):
        assert [True, False] == await store.holds([(keys, version), (keys, version + 1)])
    await store.write_tombstone(keys, version=version, known=0, left=10.0)
    assert [False] == await store.holds([(keys, version)])
    assert ("up", "") == (connection.state, connection.error)
    assert not caplog.records


async def test_a_key_of_another_type_holds_no_token(
    store: Store, redis_server: RedisServer, keys: TokenKeys, caplog: pytest.LogCaptureFixture
) -> None:
    """It is overwritten by the upload that follows; until then nothing is logged."""
    redis_server.command("SADD", keys.token, "x")
    assert [False] == await store.holds([(keys, NOW)])
    assert not caplog.records


async def test_note_of_an_unknown_secret_counts(connection: RedisConnection, keys: TokenKeys) -> None:
    """Its cause cannot be read, but there is no token."""
    theirs, ours = Store(connection, Sealer([NEW])), Store(connection, Sealer([OLD]))
    await theirs.release(keys, "a1", version=await lease(theirs, keys), note=b"refused", seconds=30)
    noted = await ours.acquire(keys, "b2", known=0, seconds=6)
    assert isinstance(noted, FailureNoted)
    assert noted.note == b""


async def test_longer_ttl_in_redis_does_not_extend_a_token(
    store: Store, keys: TokenKeys, redis_server: RedisServer
) -> None:
    """A token is never used for longer than the lifetime that the provider granted."""
    await store.commit(keys, "a1", RECORD, version=await lease(store, keys), left=RECORD.lifetime)
    redis_server.command("PEXPIRE", keys.token, 10**9)
    found, _dead = await store.read(keys)
    assert found is not None
    assert found.left == RECORD.lifetime


async def test_old_value_written_again_is_not_used(store: Store, keys: TokenKeys, redis_server: RedisServer) -> None:
    """Without the secret nobody can make a value, but anyone can keep one, and write it again under its own key."""
    record, now = TokenRecord("t-1", "Bearer", 10.0, None, {}), time.time_ns() // 1_000
    sealed = store._sealer.seal(record.encode(), key=keys.token, version=now - 3_600_000_000)
    for operation in (
        store.read(keys),
        store.acquire(keys, "a1", known=0, seconds=6),
        store.commit(keys, "b2", record, version=now - 7_200_000_000, left=-7_300.0),
        store.write_tombstone(keys, version=now - 7_200_000_000, known=0, left=1.0),
    ):
        redis_server.command("DEL", *keys.all)
        redis_server.command("SET", keys.token, sealed, "PX", DAY // 1_000)
        assert not isinstance(await operation, Found)
        assert redis_server.command("GET", keys.token) != sealed
    assert set(store.unreadable) == {"token expired"}
    assert await store.read(keys) == (None, now - 7_200_000_000)


async def test_longer_ttl_in_redis_does_not_extend_a_token_again_and_again(
    store: Store, keys: TokenKeys, redis_server: RedisServer
) -> None:
    """What is left of it is counted from its request, and not from when it is read."""
    record = TokenRecord("t-1", "Bearer", 100.0, None, {})
    asked = time.time_ns() // 1_000 - 90_000_000
    assert await store.commit(keys, "a1", record, version=asked, left=10.0) == Stored()
    redis_server.command("PEXPIRE", keys.token, 10**9)
    found, _dead = await store.read(keys)
    assert found is not None
    assert 60 < found.left <= 70


async def test_token_of_a_slow_clock_is_used_for_its_whole_lifetime(store: Store, keys: TokenKeys) -> None:
    """An instance whose clock is an hour slow learns the server's time instead of storing a token that looks old."""
    record = TokenRecord("t-1", "Bearer", 1800.0, None, {})
    reply = await store.commit(keys, "a1", record, version=NOW - 3_600_000_000, left=1700.0)
    assert isinstance(reply, ClockMismatch)
    version = int((reply.server_time - 100) * 1_000_000)
    assert await store.commit(keys, "a1", record, version=version, left=1700.0) == Stored()
    found, _dead = await store.read(keys)
    assert found is not None
    assert 1695 < found.left <= 1700


async def test_values_that_are_damaged_again_and_again_do_not_keep_a_caller(
    connection: RedisConnection, keys: TokenKeys, redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If something writes as fast as this process deletes, the caller goes on without Redis."""
    store, run = Store(connection, Sealer([OLD])), connection.run

    async def damage_again(script: ScriptName, *rest: Any, **options: Any) -> Any:
        value = Sealer([]).seal(b"garbage", key=b"", version=time.time_ns() // 1_000)
        redis_server.command("SET", keys.token, value, "PX", 60_000)
        return await run(script, *rest, **options)

    monkeypatch.setattr(connection, "run", damage_again)
    for operation in (
        store.acquire(keys, "a1", known=0, seconds=6),
        store.commit(keys, "b2", RECORD, version=NOW, left=100.0),
        store.write_tombstone(keys, version=NOW - 1, known=0, left=1.0),
    ):
        with pytest.raises(RedisUnavailable, match="damaged"):
            await operation
