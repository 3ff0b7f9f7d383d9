"""Session ids in Redis: all instances get the same id, in one round trip."""

from __future__ import annotations

import asyncio
from itertools import pairwise
from typing import TYPE_CHECKING
from uuid import UUID

import pytest

from tests.redis.routing_proxy import RoutingProxy
from tests.redis.waiting import until
from tests.servers import RedisServer
from tokenmw.redis.connection import RedisConnection
from tokenmw.redis.errors import RedisUnavailable
from tokenmw.redis.keys import KeyNames
from tokenmw.redis.sealing import Sealer, Unreadable
from tokenmw.redis.session_store import UNAVAILABLE, RedisSessionStore

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from tokenmw.redis.connection import Command

    Connect = Callable[..., RedisConnection]
    MakeStore = Callable[..., RedisSessionStore]

OLD, NEW = "old-secret-0123456789", "new-secret-0123456789"
ONE, TWO = "11111111-1111-4111-8111-111111111111", "22222222-2222-4222-8222-222222222222"


@pytest.fixture
def unreadable() -> list[str]:
    """The values that the stores could not open."""
    return []


@pytest.fixture
def make(connect: Connect, given: Any, names: KeyNames, unreadable: list[str]) -> MakeStore:
    """Make the stores of several instances."""
    connection = connect(given, command_seconds=1.0)

    def store(*secrets: str) -> RedisSessionStore:
        return RedisSessionStore(
            connection,
            names=names,
            sealer=Sealer(secrets),
            ttl=100.0,
            on_unreadable=lambda kind, reason: unreadable.append(f"{kind} {reason}"),
        )

    return store


@pytest.fixture(params=[(OLD,), ()], ids=["sealed", "plain"])
def store(request: pytest.FixtureRequest, make: MakeStore) -> RedisSessionStore:
    """One instance's store."""
    return make(*request.param)


async def get_or_create(store: RedisSessionStore, key: bytes, candidate: str | None) -> object:
    """Return the id of one key. Raises `Unreadable`."""
    (reply,) = await store.get_or_create([(key, candidate)])
    if isinstance(reply, Unreadable):
        raise reply
    return reply


async def test_first_id_is_returned_to_all(store: RedisSessionStore) -> None:
    """An instance with another candidate gets the stored one."""
    key = store.key(b"sk-1")
    assert await get_or_create(store, key, ONE) == ONE
    assert await get_or_create(store, key, TWO) == ONE
    assert await get_or_create(store, key, ONE) == ONE


@pytest.mark.parametrize("count", [1, 3])
async def test_a_stored_candidate_differs_from_an_equal_id(store: RedisSessionStore, count: int) -> None:
    """The reply is the same object only if it was stored: an id that Redis had takes no permit for a new session."""
    keys = [store.key(b"sk-%d" % number) for number in range(count)]
    for new in (True, False):
        candidates = [str(UUID(int=number)) for number in range(count)]
        replies = await store.get_or_create(list(zip(keys, candidates, strict=True)))
        assert candidates == replies
        assert [new] * count == [reply is one for reply, one in zip(replies, candidates, strict=True)]


async def test_concurrent_candidates_agree(store: RedisSessionStore) -> None:
    """A hundred instances that see a new key at the same time get one id."""
    key = store.key(b"sk-1")
    candidates = [f"{number:08x}-0000-4000-8000-000000000000" for number in range(100)]
    assert len(set(await asyncio.gather(*(get_or_create(store, key, one) for one in candidates)))) == 1


async def test_new_key_takes_one_round_trip(store: RedisSessionStore, redis_server: RedisServer) -> None:
    """Get, create and TTL are one command."""
    await get_or_create(store, store.key(b"sk-0"), ONE)
    redis_server.command("CONFIG", "RESETSTAT")
    await get_or_create(store, store.key(b"sk-1"), ONE)
    await get_or_create(store, store.key(b"sk-1"), TWO)
    calls = redis_server.command("INFO", "commandstats")
    assert b"cmdstat_evalsha:calls=2," in calls
    assert b"cmdstat_eval:" not in calls


async def test_every_access_restarts_the_ttl(store: RedisSessionStore, redis_server: RedisServer) -> None:
    """Getting and touching do, also for a key that was made persistent."""
    key = store.key(b"sk-1")
    await get_or_create(store, key, ONE)
    for shorten in ("PEXPIRE", "PERSIST"):
        for access in ("get", "touch"):
            redis_server.command(shorten, key, *([1_000] if shorten == "PEXPIRE" else []))
            await (get_or_create(store, key, TWO) if access == "get" else store.touch([key]))
            assert 90_000 < redis_server.command("PTTL", key) <= 100_000


async def test_touch_returns_the_stored_ids(store: RedisSessionStore, redis_server: RedisServer) -> None:
    """They are in order; None stands for an id that is absent, of another type, or garbage."""
    keys = [store.key(b"sk-%d" % number) for number in range(5)]
    await get_or_create(store, keys[0], ONE)
    redis_server.command("SADD", keys[2], "x")
    redis_server.command("SET", keys[3], "garbage")
    await store.put(keys[4], TWO)
    assert await store.touch(keys) == [ONE, None, None, None, TWO]


async def test_put_replaces_any_id(store: RedisSessionStore, redis_server: RedisServer) -> None:
    """The new id has the same TTL as one that was created."""
    key = store.key(b"sk-1")
    await get_or_create(store, key, ONE)
    await store.put(key, TWO)
    assert await get_or_create(store, key, ONE) == TWO
    assert 90_000 < redis_server.command("PTTL", key) <= 100_000


@pytest.mark.parametrize("garbage", [b"garbage", b"\x01" + bytes(12) + b"short", b"\x02" + bytes(28)])
async def test_damaged_id_is_replaced(
    store: RedisSessionStore, redis_server: RedisServer, unreadable: list[str], garbage: bytes
) -> None:
    """It is reported, and all instances get the new one."""
    key = store.key(b"sk-1")
    redis_server.command("SET", key, garbage)
    assert await get_or_create(store, key, ONE) == ONE
    assert unreadable == ["session damaged"]
    assert await get_or_create(store, key, TWO) == ONE
    assert redis_server.command("PTTL", key) > 90_000


async def test_key_of_another_type_is_replaced(store: RedisSessionStore, redis_server: RedisServer) -> None:
    """It was not written by this package."""
    key = store.key(b"sk-1")
    redis_server.command("SADD", key, "member")
    assert await get_or_create(store, key, ONE) == ONE
    assert await store.touch([key]) == [ONE]


async def test_id_of_an_unknown_secret_is_left_alone(
    make: MakeStore, redis_server: RedisServer, unreadable: list[str]
) -> None:
    """Instances that have the secret use it."""
    theirs, ours = make(NEW), make(OLD)
    key = ours.key(b"sk-1")
    await get_or_create(theirs, key, ONE)
    before = redis_server.command("GET", key)
    with pytest.raises(Unreadable, match="unknown-key"):
        await get_or_create(ours, key, TWO)
    assert await ours.touch([key]) == [None]
    assert redis_server.command("GET", key) == before
    assert unreadable == ["session unknown-key"] * 2


async def test_ids_stay_through_a_rotation(make: MakeStore) -> None:
    """Each stage reads what the one before has sealed."""
    key = make(OLD).key(b"sk-1")
    assert await get_or_create(make(OLD), key, ONE) == ONE
    assert await get_or_create(make(OLD, NEW), key, TWO) == ONE
    assert await get_or_create(make(NEW, OLD), key, TWO) == ONE


async def test_id_that_was_copied_to_another_key_is_not_used(make: MakeStore, redis_server: RedisServer) -> None:
    """A process that can write to Redis cannot give one caller the session of another."""
    store = make(OLD)
    mine, other = store.key(b"sk-1"), store.key(b"sk-2")
    await get_or_create(store, mine, ONE)
    redis_server.command("SET", other, redis_server.command("GET", mine))
    assert await get_or_create(store, other, TWO) == TWO


async def test_ids_of_one_script_are_kept_if_a_candidate_cannot_be_sent_again(
    make: MakeStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only the key whose candidate was too late is unavailable."""
    store = make(OLD)
    known, new = store.key(b"sk-1"), store.key(b"sk-2")
    await get_or_create(store, known, ONE)
    store._connection.note_server_time(new, 1_000, began=asyncio.get_running_loop().time())

    async def fail(_commands: Sequence[Command], **_options: bool) -> list[object]:
        raise RedisUnavailable("timeout")

    monkeypatch.setattr(store._connection, "pipeline", fail)
    assert [ONE, UNAVAILABLE] == await store.get_or_create([(known, None), (new, TWO)])


async def test_one_script_does_for_each_key_what_the_script_of_one_key_does(
    make: MakeStore, redis_server: RedisServer
) -> None:
    """It creates, reads with a new TTL, leaves absent keys alone, and takes a key of another type as absent."""
    store = make(OLD)
    known, new, absent, foreign = (store.key(b"sk-%d" % number) for number in range(4))
    await get_or_create(store, known, ONE)
    redis_server.command("PEXPIRE", known, "1000")
    redis_server.command("RPUSH", foreign, "x")
    replies = await store.get_or_create([(known, TWO), (new, TWO), (absent, None), (foreign, None)])
    assert [ONE, TWO, None, None] == replies
    assert all(redis_server.command("PTTL", key) > 10_000 for key in (known, new))
    assert not redis_server.command("EXISTS", absent)
    assert [None, None, TWO] == await store.touch([absent, foreign, new])


async def test_cluster_of_one_node_serves_batches_to_a_plain_client(
    connect: Connect, names: KeyNames, caplog: pytest.LogCaptureFixture
) -> None:
    """It refuses commands with keys of several slots, and has no other node to send a client to."""
    with RedisServer("--cluster-enabled", "yes") as server:
        server.command("CLUSTER", "ADDSLOTSRANGE", 0, 16383)
        await until(lambda: b"cluster_state:ok" in server.command("CLUSTER", "INFO"), within=10)
        connection = connect(server.url, command_seconds=1.0)
        store = RedisSessionStore(connection, names=names, sealer=Sealer(()), ttl=100.0, on_unreadable=print)
        known, new, absent = (store.key(b"sk-%d" % number) for number in range(3))
        await get_or_create(store, known, ONE)
        assert connection.takes_all_slots
        for replies in ([ONE, TWO, None], [ONE, TWO, None]):
            assert replies == await store.get_or_create([(known, TWO), (new, TWO), (absent, None)])
            assert not connection.takes_all_slots
    assert not caplog.messages


async def test_a_proxy_that_routes_by_the_first_key_gets_one_key_in_a_command(
    connect: Connect, names: KeyNames, redis_server: RedisServer
) -> None:
    """Two processes have one id for each key, in whatever batches they look keys up."""

    def store(url: str) -> RedisSessionStore:
        connection = connect(url, command_seconds=2.0)
        return RedisSessionStore(connection, names=names, sealer=Sealer(()), ttl=100.0, on_unreadable=print)

    with RedisServer() as other:
        async with RoutingProxy(redis_server, other) as proxy:
            one, two = store(proxy.url), store(proxy.url)
            keys = [one.key(b"sk-%d" % number) for number in range(32)]
            assert [ONE] * 32 == await one.get_or_create([(key, ONE) for key in keys])
            for key, first in pairwise(keys):
                assert [ONE, ONE] == await two.get_or_create([(first, TWO), (key, TWO)])


@pytest.mark.parametrize("lost", ["a candidate sent again", "a script sent as text"])
async def test_replies_are_kept_if_a_second_round_trip_of_their_batch_fails(
    make: MakeStore, redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch, lost: str
) -> None:
    """In a cluster, only the keys of the second round trip are unavailable; the ids of the first one are used."""
    monkeypatch.setattr(RedisConnection, "one_slot", False)
    store = make(OLD)
    known, new = store.key(b"sk-1"), store.key(b"sk-2")
    await get_or_create(store, known, ONE)
    connection = store._connection
    if lost == "a candidate sent again":
        connection.note_server_time(new, 1_000, began=asyncio.get_running_loop().time())
    else:
        redis_server.command("SCRIPT", "FLUSH")
    first, trips = connection._batches, 0

    async def only_once(commands: Sequence[Command], **options: bool) -> list[object]:
        nonlocal trips
        trips += 1
        if trips > 1:
            raise RedisUnavailable("timeout")
        return await first(commands, **options)

    monkeypatch.setattr(connection, "_batches", only_once)
    assert [ONE, UNAVAILABLE] == await store.get_or_create([(known, None), (new, TWO)])
    assert trips == 2


async def test_redis_shows_neither_api_key_nor_id(make: MakeStore, redis_server: RedisServer) -> None:
    """Neither is in a key nor, sealed, in a value."""
    store = make(OLD)
    await get_or_create(store, store.key(b"sk-very-secret"), ONE)
    (key,) = redis_server.command("KEYS", "*")
    dump = key + redis_server.command("GET", key)
    assert b"sk-very-secret" not in dump
    assert bytes([0x11] * 4) not in dump


@pytest.mark.parametrize("size", [257, 40_000, 1 << 20, (1 << 20) + 1])
@pytest.mark.parametrize("how", ["touch", "read", "first sight"])
async def test_planted_value_that_is_long_is_read_once(
    store: RedisSessionStore,
    redis_server: RedisServer,
    unreadable: list[str],
    monkeypatch: pytest.MonkeyPatch,
    *,
    size: int,
    how: str,
) -> None:
    """Each touch of each instance read it whole and decrypted it. It is neither opened nor kept, but deleted."""
    key = store.key(b"k")
    redis_server.command("SET", key, b"\x01" * size)
    opened: list[bytes] = []

    def spy(_sealer: object, value: bytes, **_names: bytes) -> None:
        opened.append(value)

    monkeypatch.setattr(type(store._sealer), "open", spy)
    if how == "first sight":
        assert await store.get_or_create([(key, None)]) == [None]
    else:
        keys = [key, store.key(b"other")]
        found = await store.touch(keys) if how == "touch" else [reply for reply, _ in await store.read(keys)]
        assert found == [None, None]
    assert unreadable == ["session damaged"]
    assert opened == []
    assert redis_server.command("EXISTS", key) == 0


async def test_value_that_was_replaced_in_the_meantime_is_not_deleted(
    store: RedisSessionStore, redis_server: RedisServer
) -> None:
    """Another instance has deleted the long value and has stored an id."""
    key = store.key(b"k")
    await get_or_create(store, key, ONE)
    for size in (300, 1 << 21):
        await store._delete_long(key, b"\x01" * size)
    assert await get_or_create(store, key, TWO) == ONE


async def test_full_server_still_tells_the_ids_that_it_has(
    connect: Connect, private_redis: RedisServer, names: KeyNames
) -> None:
    """One new key in a batch of first sights made all of them unavailable, and known callers got other ids."""
    connection = connect(private_redis.url, command_seconds=2.0)
    store = RedisSessionStore(connection, names=names, sealer=Sealer([NEW]), ttl=100.0, on_unreadable=print)
    known, new = store.key(b"known"), store.key(b"new")
    assert await get_or_create(store, known, ONE) == ONE
    private_redis.command("CONFIG", "SET", "maxmemory", "1")
    for _ in range(3):
        assert connection.state == "up"
        # A script that has written something may write more; so the new key is the first one.
        assert await store.get_or_create([(new, TWO), (known, TWO), (known, None)]) == [UNAVAILABLE, ONE, ONE]
    assert (connection.state, connection.error) == ("down", "full")


async def test_candidate_of_a_batch_is_returned_only_if_it_was_stored(store: RedisSessionStore) -> None:
    """So each that was stored keeps its permit, and one that Redis had, if only with the same id, does not."""
    first, second = store.key(b"a"), store.key(b"b")
    candidates = [str(one) for one in (ONE, TWO)]
    replies = await store.get_or_create([(first, candidates[0]), (second, candidates[1])])
    assert [reply is candidate for reply, candidate in zip(replies, candidates, strict=True)] == [True, True]
    replies = await store.get_or_create([(first, candidates[0]), (second, candidates[1])])
    assert replies == [ONE, TWO]
    assert [reply is candidate for reply, candidate in zip(replies, candidates, strict=True)] == [False, False]


async def test_an_upload_that_finds_an_id_reads_it(store: RedisSessionStore, redis_server: RedisServer) -> None:
    """The id of another instance wins, and is read without a script if it lasts nearly as long as asked for."""
    key = store.key(b"sk-1")
    assert [ONE] == await store.upload([(key, ONE, 10.0)])
    redis_server.command("CONFIG", "RESETSTAT")
    assert [ONE] == await store.upload([(key, TWO, 0.0)])
    assert 80_000 < redis_server.command("PTTL", key) <= 90_000
    assert b"cmdstat_evalsha" not in redis_server.command("INFO", "commandstats")


@pytest.mark.parametrize("idle", [0.0, 50.0])
async def test_an_upload_never_shortens_a_ttl(store: RedisSessionStore, redis_server: RedisServer, idle: float) -> None:
    """The TTL of an id that would expire too early is restored; a longer one than asked for stays."""
    key = store.key(b"sk-1")
    assert [ONE] == await store.upload([(key, ONE, 50.0 - idle)])
    assert [ONE] == await store.upload([(key, TWO, idle)])
    assert 90_000 < redis_server.command("PTTL", key) <= 100_000


async def test_an_upload_gives_an_id_without_a_ttl_one(store: RedisSessionStore, redis_server: RedisServer) -> None:
    """Only somebody else can have removed it."""
    key = store.key(b"sk-1")
    await store.upload([(key, ONE, 0.0)])
    redis_server.command("PERSIST", key)
    assert [ONE] == await store.upload([(key, TWO, 0.0)])
    assert 90_000 < redis_server.command("PTTL", key) <= 100_000


@pytest.mark.parametrize("planted", [b"", b"x" * 300, b"x" * 40_000, None])
async def test_an_upload_replaces_what_no_instance_wrote(
    store: RedisSessionStore, redis_server: RedisServer, planted: bytes | None
) -> None:
    """An empty text, a long one, and a key of another type, without which the refused write would never succeed."""
    key = store.key(b"sk-1")
    redis_server.command(*(("SET", key, planted) if planted is not None else ("SADD", key, "x")))
    assert ([ONE], [ONE]) == (await store.upload([(key, ONE, 0.0)]), await store.touch([key]))
