"""Heartbeats in Redis: each instance has a place, none takes that of another, and what was not written is ignored."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from tests.redis.conftest import SECRET
from tokenmw.redis.fleet import LASTS, PLACES, FleetStore
from tokenmw.redis.heartbeat import MAX_TOKENS, Heartbeat
from tokenmw.redis.sealing import Sealer

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.servers import RedisServer
    from tokenmw.redis.connection import RedisConnection
    from tokenmw.redis.keys import KeyNames

    Connect = Callable[..., RedisConnection]

LONGEST = 2048
"""Bytes of a heartbeat's body."""


def heartbeat(**changes: Any) -> Heartbeat:
    """Return a heartbeat."""
    fields: dict[str, Any] = {
        "host": "web-1",
        "pid": 7,
        "version": "1.2",
        "started_at": 1000.0,
        "shared": "up",
        "shared_seconds": 5.0,
        "tokens": {"abcdefgh": 3},
        "counts": {"tokens": 1},
    }
    return Heartbeat(**{**fields, **changes})


@pytest.fixture
def store(connect: Connect, redis_server: RedisServer, names: KeyNames) -> Callable[..., FleetStore]:
    """Make stores of instances that share one connection."""
    connection = connect(redis_server.url, command_seconds=5.0)
    return lambda *secrets: FleetStore(connection, names=names, sealer=Sealer(secrets or (SECRET,)))


async def test_each_instance_reads_all_heartbeats(store: Callable[..., FleetStore], redis_server: RedisServer) -> None:
    """Each has its last heartbeat, one key with a TTL of 15 s, and its age; one that closes deletes its own."""
    one, other = store(), store()
    assert await one.write(heartbeat(pid=1))
    assert await one.write(heartbeat(pid=2))
    assert await other.write(heartbeat(pid=3))
    beats = {beat.instance: beat for beat in await one.read()}
    assert {one.instance: heartbeat(pid=2), other.instance: heartbeat(pid=3)} == {
        instance: beat.heartbeat for instance, beat in beats.items()
    }
    assert all(0 <= beat.age < 5 for beat in beats.values())
    keys = redis_server.command("KEYS", "*")
    assert len(keys) == 2
    assert all(0 < redis_server.command("PTTL", key) <= LASTS * 1000 for key in keys)
    await other.delete()
    await other.delete()
    assert [one.instance] == [beat.instance for beat in await other.read()]


async def test_no_instance_takes_the_place_of_another(store: Callable[..., FleetStore]) -> None:
    """Two that want one place have two; an instance keeps its place."""
    one, other = store(), store()
    other._place = one._place
    for _ in range(2):
        assert await one.write(heartbeat(pid=1))
        assert await other.write(heartbeat(pid=2))
    assert one._place != other._place
    assert {1, 2} == {beat.heartbeat.pid for beat in await one.read() if beat.heartbeat is not None}


async def test_the_number_of_heartbeats_is_bounded(store: Callable[..., FleetStore], redis_server: RedisServer) -> None:
    """When all places are taken, another instance has none, and the heartbeats of the others stay."""
    first = store()
    assert await first.write(heartbeat())
    (key,) = redis_server.command("KEYS", "*")
    with redis_server.connect() as connection:
        for place in range(PLACES):
            connection.call("SET", key.rpartition(b"-")[0] + b"-%d" % place, b"x" * 20, "NX", "PX", 15_000)
    assert await first.write(heartbeat())
    assert not await store().write(heartbeat())
    assert [first.instance] == [beat.instance for beat in await first.read()]
    assert redis_server.command("DBSIZE") == PLACES


async def test_an_instance_with_another_secret_is_counted(store: Callable[..., FleetStore]) -> None:
    """What it says is unknown."""
    one, other = store(), store("another-secret-0123456789")
    await other.write(heartbeat())
    (beat,) = await one.read()
    assert (other.instance, None) == (beat.instance, beat.heartbeat)


async def test_what_was_not_written_by_an_instance_is_ignored(
    store: Callable[..., FleetStore], redis_server: RedisServer
) -> None:
    """Garbage, a list, a value without a TTL, one that was copied to another place, and plain JSON beside a secret."""
    one = store()
    await one.write(heartbeat())
    (key,) = redis_server.command("KEYS", "*")
    value, prefix = redis_server.command("GET", key), key.rpartition(b"-")[0]
    taken: int = one._place
    places = [prefix + b"-%d" % ((taken + step) % PLACES) for step in range(1, 7)]
    plain = b"\x01" + (7).to_bytes(8) + bytes(4) + heartbeat().encode()
    for place, planted in zip(places, [b"garbage", value, plain, b"x" * 5000, b"\x01" * 13], strict=False):
        redis_server.command("SET", place, planted, "PX", 10_000)
    redis_server.command("LPUSH", places[5], "x")
    assert [one.instance] == [beat.instance for beat in await one.read()]
    redis_server.command("PERSIST", key)
    assert [] == await one.read()
    redis_server.command("PEXPIRE", key, 10_000_000)
    assert [] == await one.read()


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"7",
        b"{",
        b"[" * 5000,
        b"\xff",
    ],
)
def test_a_body_that_is_no_heartbeat_is_none(body: bytes) -> None:
    """It has no fields at all."""
    assert Heartbeat.decode(body) is None


@pytest.mark.parametrize("wrong", [None, True, -1, 2**60, 1e400, "x" * 65, "\x1b[2J", ["x"], {"x": "y"}, {"\n": 1}])
def test_wrong_fields_say_nothing(wrong: Any) -> None:
    """A field of another type, size or range has the value that says nothing, and so have absent ones."""
    names = ["host", "pid", "version", "started", "redis", "since", "tokens", "counts"]
    nothing = Heartbeat.decode(b"{}")
    assert nothing is not None
    assert nothing.shared == "unknown"
    for name in names:
        decoded = Heartbeat.decode(json.dumps({name: wrong}).encode())
        assert decoded is not None
        if wrong == {"x": "y"} and name in {"tokens", "counts"}:
            assert {"x": 0} == (decoded.tokens or decoded.counts)
        else:
            assert nothing == decoded, name


def test_fields_of_a_later_version_are_ignored() -> None:
    """So instances of two versions show each other."""
    body = json.loads(heartbeat().encode()) | {"later": [1, 2]}
    assert heartbeat() == Heartbeat.decode(json.dumps(body).encode())


def test_the_size_is_bounded() -> None:
    """Of many tokens the first 32 are sent; a body that would be longer than 2 048 bytes has none."""
    many = {f"{number:08}": 2**51 + number for number in range(1000)}
    body = heartbeat(host="h" * 1000, tokens=many, counts=dict.fromkeys(("tokens", "sessions"), 2**51)).encode()
    decoded = Heartbeat.decode(body)
    assert decoded is not None
    assert (len(body) <= LONGEST, MAX_TOKENS, 64) == (True, len(decoded.tokens), len(decoded.host))
    longest = heartbeat(host="\U0001f600" * 1000, version="\U0001f600" * 64, tokens=many).encode()
    assert len(longest) <= LONGEST
    assert Heartbeat.decode(longest) == heartbeat(host="\U0001f600" * 64, version="\U0001f600" * 64, tokens={})
