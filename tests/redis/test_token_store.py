"""Tokens in Redis, as the managers see them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.proxies import Proxy
from tests.servers import RedisServer
from tokenmw.redis.errors import RedisUnavailable
from tokenmw.redis.keys import KeyNames
from tokenmw.redis.sealing import Sealer, Unreadable
from tokenmw.redis.token_store import (
    Busy,
    Found,
    Leased,
    Noted,
    RedisTokenStore,
    Stored,
    TokenKeys,
    TokenRecord,
    Tombstoned,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from tokenmw.redis.connection import RedisConnection

    Connect = Callable[..., RedisConnection]

OLD, NEW = "old-secret-0123456789", "new-secret-0123456789"
RECORD = TokenRecord("t-1", "Bearer", 7200.0, 60.0, {"instance_url": "https://eu.example"})


class Store(RedisTokenStore):
    """A store that remembers what it could not read."""

    def __init__(self, connection: RedisConnection, seals: Sealer) -> None:
        super().__init__(connection, seals=seals)
        self.unreadable: list[str] = []
        self.on_unreadable = lambda kind, why: self.unreadable.append(f"{kind} {why}")


@pytest.fixture
def keys(names: KeyNames) -> TokenKeys:
    """One credential's keys."""
    return TokenKeys.of(names, "digest")


@pytest.fixture
def connection(connect: Connect, redis_server: RedisServer) -> RedisConnection:
    """The way to Redis."""
    return connect(redis_server.url, command_seconds=1.0)


@pytest.fixture(params=["sealed", "plain"])
def store(request: pytest.FixtureRequest, connection: RedisConnection) -> Store:
    """One instance's store."""
    return Store(connection, Sealer([OLD] if request.param == "sealed" else []))


async def lease(store: Store, keys: TokenKeys, owner: str = "a1", *, known: int = 0) -> int:
    """Acquire a lease that is free, and return its version."""
    seat = await store.acquire(keys, owner, known=known, seconds=6)
    assert isinstance(seat, Leased)
    return seat.version


async def test_a_token_goes_round(store: Store, keys: TokenKeys) -> None:
    """Leased, committed, found by another process with all that belongs to it, buried."""
    version = await lease(store, keys)
    seat = await store.acquire(keys, "b2", known=0, seconds=6)
    assert isinstance(seat, Busy)
    assert 0 < seat.left <= 6
    assert await store.commit(keys, "a1", RECORD, version=version, left=100.0) == Stored()
    found = await store.acquire(keys, "b2", known=0, seconds=6)
    assert isinstance(found, Found)
    assert (found.record, found.version) == (RECORD, version)
    assert 99 < found.left <= 100
    assert await store.bury(keys, version=version, known=version, left=100.0) == Tombstoned(version)
    assert await store.read(keys) == (None, version)
    assert await store.commit(keys, "a1", RECORD, version=version, left=100.0) == Tombstoned(version)


async def test_a_commit_that_comes_late_gets_the_newer_token(store: Store, keys: TokenKeys) -> None:
    """Also a burial does."""
    newer = TokenRecord("t-2", "Bearer", 7200.0, None, {})
    await store.commit(keys, "b2", newer, version=60, left=100.0)
    for answer in (
        await store.commit(keys, "a1", RECORD, version=50, left=100.0),
        await store.bury(keys, version=50, known=50, left=100.0),
    ):
        assert isinstance(answer, Found)
        assert (answer.record, answer.version) == (newer, 60)


async def test_a_commit_under_anothers_lease_is_refused(store: Store, keys: TokenKeys) -> None:
    """The late one is told how long the other has."""
    await lease(store, keys, "b2")
    answer = await store.commit(keys, "a1", RECORD, version=50, left=100.0)
    assert isinstance(answer, Busy)
    assert 0 < answer.left <= 6


async def test_a_note_is_told_to_the_others(store: Store, keys: TokenKeys) -> None:
    """As it was given, and for as long."""
    version = await lease(store, keys)
    await store.release(keys, "a1", version=version, note=b"refused", seconds=30)
    noted = await store.acquire(keys, "b2", known=0, seconds=6)
    assert isinstance(noted, Noted)
    assert noted.note == b"refused"
    assert 29 < noted.left <= 30


async def test_tiny_times_are_no_errors(store: Store, keys: TokenKeys) -> None:
    """Redis takes no time to live of zero; a token or note that is about to end is stored for a moment."""
    version = await lease(store, keys)
    assert await store.commit(keys, "a1", RECORD, version=version, left=-1.0) == Stored()
    assert isinstance(await store.bury(keys, version=version, known=version, left=0.0), Tombstoned)
    version = await lease(store, keys, known=version)
    await store.release(keys, "a1", version=version, note=b"refused", seconds=-5.0)


async def test_a_lost_reply_loses_no_lease(connect: Connect, proxy: Proxy, names: KeyNames, keys: TokenKeys) -> None:
    """Who asks again with the same owner has what the server had given; a commit that comes twice is stored once."""
    store = Store(connect(proxy.url), Sealer([OLD]))
    # The server must know the scripts, else what is lost is its word that it does not.
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
    """By every operation that meets them, each time with a word to the operator."""

    def spoil(version: int = 50) -> None:
        body = Sealer([]).seal(b"not a record", key=b"", version=version)
        redis_server.command("SET", keys.token, body, "PX", 60_000)

    spoil()
    assert await store.read(keys) == (None, 0)
    assert redis_server.command("EXISTS", keys.token) == 0
    spoil()
    assert isinstance(await store.acquire(keys, "a1", known=0, seconds=6), Leased)
    spoil(2**50)
    assert await store.commit(keys, "b2", RECORD, version=70, left=100.0) != Stored()
    redis_server.command("DEL", keys.lease)
    spoil(2**50)
    assert await store.commit(keys, "b2", RECORD, version=70, left=100.0) == Stored()
    spoil(2**50)
    assert await store.bury(keys, version=70, known=70, left=100.0) == Tombstoned(70)
    assert await store.read(keys) == (None, 70)
    assert store.unreadable == ["token damaged"] * 5


async def test_a_damaged_note_keeps_nobody_waiting(store: Store, keys: TokenKeys, redis_server: RedisServer) -> None:
    """However long it would have lived."""
    redis_server.command("SET", keys.note, "garbage", "PX", 10**9)
    assert isinstance(await store.acquire(keys, "a1", known=0, seconds=6), Leased)
    assert store.unreadable == ["token damaged"]


async def test_what_an_unknown_secret_sealed_is_left_alone(
    connection: RedisConnection, keys: TokenKeys, redis_server: RedisServer
) -> None:
    """Instances with that secret use it; this one does not delete or replace it."""
    theirs, ours = Store(connection, Sealer([NEW])), Store(connection, Sealer([OLD]))
    version = await lease(theirs, keys)
    await theirs.commit(keys, "a1", RECORD, version=version, left=100.0)
    before = redis_server.command("GET", keys.token)
    for operation in (
        ours.read(keys),
        ours.acquire(keys, "b2", known=0, seconds=6),
        ours.commit(keys, "b2", RECORD, version=50, left=100.0),
        ours.bury(keys, version=50, known=50, left=100.0),
    ):
        with pytest.raises(Unreadable, match="unknown-key"):
            await operation
    assert redis_server.command("GET", keys.token) == before
    assert ours.unreadable == ["token unknown-key"] * 4


async def test_a_note_of_an_unknown_secret_still_says_no(connection: RedisConnection, keys: TokenKeys) -> None:
    """Why there is no token cannot be read, that there is none can."""
    theirs, ours = Store(connection, Sealer([NEW])), Store(connection, Sealer([OLD]))
    await theirs.release(keys, "a1", version=await lease(theirs, keys), note=b"refused", seconds=30)
    noted = await ours.acquire(keys, "b2", known=0, seconds=6)
    assert isinstance(noted, Noted)
    assert noted.note == b""


async def test_a_longer_time_in_redis_makes_no_token_live_longer(
    store: Store, keys: TokenKeys, redis_server: RedisServer
) -> None:
    """What is left is never more than what the provider granted."""
    await store.commit(keys, "a1", RECORD, version=50, left=100.0)
    redis_server.command("PEXPIRE", keys.token, 10**10)
    found, _dead = await store.read(keys)
    assert found is not None
    assert found.left == RECORD.life
