"""A reset lasts longer than its session: a key that comes back has the id of its last reset, on all instances."""

from __future__ import annotations

import asyncio
import random
from typing import Any
from uuid import UUID

import pytest

from tests.redis.waiting import until
from tests.servers import RedisServer
from tests.sessions.instance import SECRET, TTL, Instance, reset_statistics, sent
from tokenmw.redis.errors import RedisUnavailable
from tokenmw.sessions.derive import SessionIds

KEY = b"sk-live-0815"
YEAR = 365 * 86_400


def expire(server: RedisServer, *instances: Instance, keys: list[bytes] | None = None) -> None:
    """Let the sessions of keys expire, in Redis and on all instances."""
    for one in instances:
        one.clock.advance(2 * TTL)
    server.command("DEL", *(instances[0].key(key) for key in keys or [KEY]))


def reset_key(one: Instance, api_key: bytes = KEY) -> bytes:
    """Return the Redis key of a key's reset, which is in the slot of the session."""
    return one.key(api_key).replace(b"}:session", b"}:reset")


@pytest.mark.parametrize("api_key", [KEY, b"k" * 200], ids=["short", "long"])
@pytest.mark.parametrize("policy", ["available", "required"])
@pytest.mark.parametrize("seal", [None, SECRET])
async def test_a_key_that_comes_back_has_the_id_of_its_reset(
    redis_server: RedisServer, seal: str | None, policy: str, api_key: bytes
) -> None:
    """Whichever instance sees it first, and also when it comes back for the third time."""
    async with (
        Instance(redis_server, seal=seal, policy=policy) as one,
        Instance(redis_server, seal=seal, policy=policy) as two,
        Instance(redis_server, seal=seal, policy=policy) as three,
    ):
        old = await one.get(api_key)
        assert old == await two.get(api_key)
        new = await one.manager.reset(api_key)
        assert (True, 8) == (new != old, UUID(new).version)
        for order in ((two, one, three), (three, two, one), (one, three, two)):
            expire(redis_server, one, two, three, keys=[api_key])
            assert [new] * 3 == [await each.get(api_key) for each in order]


async def test_the_last_reset_counts(redis_server: RedisServer) -> None:
    """Each reset gives an id that the key has never had, also one that was made after a former one has expired."""
    async with Instance(redis_server) as one, Instance(redis_server) as two:
        ids = [await one.get(KEY)]
        for resetting in (one, two, one):
            ids += [await resetting.manager.reset(KEY), await resetting.manager.reset(KEY)]
            expire(redis_server, one, two)
            assert [ids[-1]] * 2 == list(await asyncio.gather(one.get(KEY), two.get(KEY)))
        assert 7 == len(set(ids))


async def test_the_former_id_is_not_back_while_others_create_sessions(redis_server: RedisServer) -> None:
    """A reset at any time of the first sights of others: in the end all have its id, also after the next expiry."""
    chance = random.Random(12)
    async with Instance(redis_server) as one, Instance(redis_server) as two, Instance(redis_server) as three:
        new = old = await one.get(KEY)
        for _ in range(30):
            expire(redis_server, one, two, three)
            creating = [asyncio.create_task(each.get(KEY)) for each in (two, three)]
            for _ in range(chance.randrange(12)):
                await asyncio.sleep(0)
            new = await one.manager.reset(KEY)
            await asyncio.gather(*creating)
            for each in (two, three):  # a hint leads to this
                await each.sync.read_again([KEY])
            assert [new] * 3 == [each.manager.cached(KEY) for each in (one, two, three)]
            expire(redis_server, one, two, three)
            assert [new] * 3 == await asyncio.gather(*(each.get(KEY) for each in (one, two, three)))
        assert new != old


@pytest.mark.parametrize("one_slot", [True, False], ids=["one script", "a pipeline"])
@pytest.mark.parametrize("new_sessions", [500, 1], ids=["permits", "no permits"])
async def test_some_keys_of_a_batch_were_reset(
    private_redis: RedisServer, monkeypatch: pytest.MonkeyPatch, *, one_slot: bool, new_sessions: int
) -> None:
    """They cost one further round trip in all and take no permits; the other keys get their own ids."""
    keys = [b"%d" % number for number in range(32)]
    async with (
        Instance(private_redis) as one,
        Instance(private_redis, new_sessions=new_sessions) as two,
        Instance(private_redis) as three,
    ):
        monkeypatch.setattr(type(one.connection), "one_slot", one_slot)
        ids = [await one.get(key) for key in keys]
        for number in range(0, 32, 3):
            ids[number] = await one.manager.reset(keys[number])
        expire(private_redis, one, keys=keys)
        while new_sessions == 1 and two.new_sessions.take():
            pass
        trips, pipeline = 0, two.connection.pipeline

        async def counted(commands: object) -> list[object]:
            nonlocal trips
            trips += 1
            return await pipeline(commands)  # type: ignore[arg-type]

        monkeypatch.setattr(two.connection, "pipeline", counted)
        assert ids == await asyncio.gather(*(two.get(key) for key in keys))
        assert trips == (1 if one_slot else 2)
        stored = sum(private_redis.command("EXISTS", two.key(key)) for key in keys)
        assert stored == (32 if new_sessions > 1 else 11)
        assert ids == [await three.get(key) for key in keys]


@pytest.mark.parametrize("new_sessions", [500, 1], ids=["permit", "no permit"])
async def test_a_single_key_without_a_permit_has_the_id_of_its_reset(
    redis_server: RedisServer, new_sessions: int
) -> None:
    """A flood of unknown keys does not bring a former id back."""
    async with Instance(redis_server) as one, Instance(redis_server, new_sessions=new_sessions) as two:
        new = await one.manager.reset(KEY)
        while new_sessions == 1 and two.new_sessions.take():
            pass
        expire(redis_server, one, keys=[KEY])
        assert new == await two.get(KEY)
        assert 1 == redis_server.command("EXISTS", one.key(KEY))


async def test_a_key_that_was_not_reset_takes_one_round_trip(redis_server: RedisServer) -> None:
    """A reset is read in the script that creates the session, and only then."""
    async with Instance(redis_server) as one, Instance(redis_server) as two, Instance(redis_server) as three:
        await one.get(b"loads the scripts")
        reset_statistics(redis_server)
        await one.get(KEY)
        await two.get(KEY)
        await one.manager.reset(KEY)
        await three.get(KEY)
        assert {"evalsha": 4} == sent(redis_server)


async def test_what_is_kept_of_a_reset_lasts_for_a_year(redis_server: RedisServer) -> None:
    """A year longer than its session; the time starts again when the key comes back after its session has expired."""
    async with Instance(redis_server) as one:
        await one.get(b"not reset")
        await one.manager.reset(KEY)
        for _ in range(2):
            left = redis_server.command("PTTL", reset_key(one)) / 1000
            assert pytest.approx(YEAR + 1.3 * TTL, abs=60) == left
            redis_server.command("PEXPIRE", reset_key(one), "10000")
            expire(redis_server, one)
            await one.get(KEY)
        assert [reset_key(one)] == redis_server.command("KEYS", "*:reset")


@pytest.mark.parametrize("options", [{"new": "random"}, {"secret": None}, {"new": "random", "secret": None}])
async def test_nothing_is_kept_of_a_reset_with_random_ids(redis_server: RedisServer, options: dict[str, Any]) -> None:
    """A key has no former id that could be back: it gets a new one whenever its session has expired."""
    async with Instance(redis_server, **options) as one:
        ids = [await one.get(KEY), await one.manager.reset(KEY)]
        expire(redis_server, one)
        ids.append(await one.get(KEY))
        assert (3, [4, 4, 4]) == (len(set(ids)), [UUID(each).version for each in ids])
        assert [] == redis_server.command("KEYS", "*:reset")


async def test_a_reset_during_an_outage_lasts_as_long(private_redis: RedisServer) -> None:
    """What is kept of it is uploaded with its id."""
    async with Instance(private_redis, command_seconds=0.3) as one, Instance(private_redis) as two:
        old = await one.get(KEY)
        private_redis.kill()
        new = await one.manager.reset(KEY)
        assert (True, new) == (new != old, await one.get(KEY))
        private_redis.restart()
        await send_touches(one)
        expire(private_redis, one, two)
        assert [new] * 2 == [await two.get(KEY), await one.get(KEY)]


async def test_an_id_from_an_outage_does_not_undo_a_reset(private_redis: RedisServer) -> None:
    """An instance that does not know the key derives the former id, and takes that of the reset when Redis is back."""
    async with Instance(private_redis) as one, Instance(private_redis, command_seconds=0.3) as two:
        old = await one.get(KEY)
        new = await one.manager.reset(KEY)
        expire(private_redis, one)
        private_redis.freeze()
        assert old == await two.get(KEY)
        private_redis.thaw()
        await send_touches(two)
        assert [new] * 2 == [two.manager.cached(KEY), await one.get(KEY)]


async def test_a_session_that_redis_has_lost_is_uploaded_with_the_id_of_the_reset(redis_server: RedisServer) -> None:
    """An instance that has not heard of the reset yet does not upload the former id."""
    async with Instance(redis_server) as one, Instance(redis_server) as two:
        await two.get(KEY)
        new = await one.manager.reset(KEY)
        redis_server.command("DEL", one.key(KEY))
        two.sync.begin_reupload()
        await two.sync.send_reupload()
        assert [new] * 2 == [two.manager.cached(KEY), await one.get(KEY)]


async def test_an_id_that_was_stored_first_is_served_until_its_session_has_expired(redis_server: RedisServer) -> None:
    """Version 0.1 does not read what is kept of a reset: a key that comes back there gets an id of its own."""
    async with Instance(redis_server, new="random") as old_version, Instance(redis_server) as one:
        new = await one.manager.reset(KEY)
        expire(redis_server, one, old_version)
        theirs = await old_version.get(KEY)
        assert (True, theirs) == (theirs != new, await one.get(KEY))
        expire(redis_server, one, old_version)
        assert [new] * 2 == [await one.get(KEY), await old_version.get(KEY)]


@pytest.mark.parametrize("how", ["first sight", "touch"])
async def test_a_damaged_session_does_not_undo_a_reset(redis_server: RedisServer, how: str) -> None:
    """It counts as absent: the id of the reset is stored in its place."""
    async with Instance(redis_server) as one, Instance(redis_server) as two:
        new = await one.manager.reset(KEY)
        redis_server.command("SET", one.key(KEY), b"garbage")
        if how == "touch":
            one.sync.begin_reupload()
            await one.sync.send_reupload()
            assert redis_server.command("GET", one.key(KEY)) != b"garbage"
        assert [new] * 2 == [await two.get(KEY), await one.get(KEY)]


@pytest.mark.parametrize("seal", [None, SECRET])
@pytest.mark.parametrize(
    "planted",
    [
        (b"SET", b"x"),
        (b"SET", b"\x01" + bytes(32)),
        (b"SET", b"\x02" + bytes(32)),
        (b"SET", b"\x01" + bytes(31)),
        (b"SET", b"\x01" + bytes(33)),
        (b"SET", b"1"),
        (b"SET", b"x" * 65),
        (b"SET", b"x" * (1 << 20)),
        (b"SET", b""),
        (b"SADD", b"member"),
        (b"HSET", b"field", b"value"),
        "another key's",
        "another secret's",
    ],
    ids=lambda planted: str(planted)[:40],
)
@pytest.mark.parametrize("count", [1, 3])
async def test_what_somebody_else_wrote_is_no_reset(
    redis_server: RedisServer, planted: tuple[bytes, ...] | str, seal: str | None, count: int
) -> None:
    """No process without the `name_key` can write a reset that instances accept: the key has its derived id."""
    async with Instance(redis_server, seal=seal) as one, Instance(redis_server, seal=seal) as two:
        keys = [KEY, *(b"%d" % number for number in range(count - 1))]
        ids = [await one.get(key) for key in keys]
        if isinstance(planted, str):
            other = b"another" if planted == "another key's" else KEY
            secret = SECRET if planted == "another key's" else "another-secret-of-some-length"
            planted = (b"SET", SessionIds(secret).reset(one.key(other))[1])
        expire(redis_server, one, keys=keys)
        redis_server.command(planted[0], reset_key(one), *planted[1:])
        assert ids == await asyncio.gather(*(two.get(key) for key in keys))
        assert ids == [await one.get(key) for key in keys]
        was_read = planted[0] == b"SET" and 0 < len(planted[1]) <= 64
        assert two.unreadable == [("session", "damaged")] * was_read
        assert redis_server.command("EXISTS", reset_key(one)) == (not was_read)  # so that it is read only once
        new = await one.manager.reset(KEY)
        expire(redis_server, one, two, keys=keys)
        assert new == await two.get(KEY)


async def test_somebody_who_writes_to_redis_can_bring_former_ids_back(redis_server: RedisServer) -> None:
    """Deleting what is kept of a reset, or writing it again after another reset, undoes resets: that is documented."""
    async with Instance(redis_server) as one:
        ids = [await one.get(KEY), await one.manager.reset(KEY)]
        kept = redis_server.command("GET", reset_key(one))
        ids.append(await one.manager.reset(KEY))
        redis_server.command("SET", reset_key(one), kept)
        expire(redis_server, one)
        assert ids[1] == await one.get(KEY)
        redis_server.command("DEL", reset_key(one))
        expire(redis_server, one)
        assert ids[0] == await one.get(KEY)


async def test_what_is_kept_shows_neither_key_nor_id(redis_server: RedisServer) -> None:
    """A reader of Redis without the `name_key` does not find the id of a reset."""
    async with Instance(redis_server, seal=SECRET) as one:
        new = UUID(await one.manager.reset(KEY)).bytes
        kept: bytes = redis_server.command("GET", reset_key(one))
        assert 33 == len(kept)
        assert not any(part in kept for part in (KEY, new, new[:4], new[-4:]))


async def test_the_id_of_a_reset_is_known_although_it_could_not_be_stored(
    redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The request gets it all the same, and the next touch uploads it; a key without a reset is unavailable."""
    async with Instance(redis_server) as one, Instance(redis_server) as two:
        new = await one.manager.reset(KEY)
        redis_server.command("SET", reset_key(one, b"planted"), "x")
        expire(redis_server, one)
        pipeline = two.connection.pipeline

        async def fail(commands: list[tuple[object, ...]]) -> list[object]:
            if len(commands) > 2:
                raise RedisUnavailable("timeout")
            return await pipeline(commands)  # type: ignore[arg-type]

        monkeypatch.setattr(two.connection, "pipeline", fail)
        found = await asyncio.gather(two.get(KEY), two.get(b"planted"))
        assert [new, two.ids.derive(b"planted")] == list(found)
        assert 0 == redis_server.command("EXISTS", one.key(KEY))
        monkeypatch.undo()
        two.clock.advance(0.251 * TTL)
        two.manager.cached(KEY)
        await two.sync.send_touches()
        assert [new, found[1]] == [await one.get(KEY), await one.get(b"planted")]


async def send_touches(one: Instance) -> None:
    """Send touches as housekeeping does, until none is queued and Redis is available."""
    await until(lambda: one.connection.state != "down", within=20)
    async with asyncio.timeout(20):
        while one.sync.touches or one.connection.state != "up":
            try:
                await one.sync.send_touches()
            except RedisUnavailable:
                await asyncio.sleep(0.05)
