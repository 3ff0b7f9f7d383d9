"""After a loss of data several instances upload the same sessions: each is stored once, also on a slow server."""

from __future__ import annotations

import asyncio

import pytest

from tests.benchmarks.healing import slowed
from tests.servers import RedisServer
from tests.sessions.instance import TTL, Instance, commands, reset_statistics
from tokenmw.redis.errors import RedisUnavailable

KEYS = [b"sk-live-%d" % number for number in range(400)]
MANY = [b"sk-%d" % number for number in range(2_000)]


def uploads(server: RedisServer) -> int:
    """Return how many commands and scripts that may store a session the server has executed."""
    counts = commands(server)
    return sum(counts.get(name, 0) for name in ("set", "evalsha", "eval"))


async def heal(*instances: Instance) -> None:
    """Do rounds of housekeeping in all instances at the same time until nothing is left."""

    async def one(instance: Instance) -> None:
        instance.sync.begin_reupload()
        while instance.sync.unshared:
            await instance.sync.send_reupload()

    await asyncio.gather(*map(one, instances))


async def test_sessions_that_others_have_uploaded_are_only_read(redis_server: RedisServer) -> None:
    """The second instance sends no upload, and the first one reads nothing once it has found nothing."""
    async with Instance(redis_server) as one, Instance(redis_server) as two:
        for key in KEYS:
            two.cache.add(key, await one.get(key), shared=True)
        redis_server.command("FLUSHALL")
        reset_statistics(redis_server)
        await heal(one)
        assert 400 == uploads(redis_server)
        assert 8 == commands(redis_server)["get"]
        await heal(two)
        assert 400 == uploads(redis_server)
        assert 408 == commands(redis_server)["get"]


async def test_what_is_left_is_read_slowly_once_all_was_found(redis_server: RedisServer) -> None:
    """An instance that has read 300 sessions in random order, all stored by others, reads one batch in each round."""
    async with Instance(redis_server) as one, Instance(redis_server) as two:
        for number in range(1_000):
            session = one.cache.add(b"%d" % number, one.ids.random(), shared=True)
            two.cache.add(b"%d" % number, session.id, shared=True)
        await heal(one)
        two.sync.begin_reupload()
        left: list[int] = []
        while two.sync.unshared:
            await two.sync.send_reupload()
            left.append(two.sync.unshared)
        assert [692, 592, 492, 392, 292, 192, 92, 0] == left


async def test_a_session_stored_by_an_idle_instance_lives_long_enough_for_one_in_use(redis_server: RedisServer) -> None:
    """It is read first, and its TTL is restored if it would expire before it has been idle for `session_ttl` here."""
    async with Instance(redis_server) as one, Instance(redis_server) as two:
        session = await one.get(KEYS[0])
        one.clock.advance(0.9 * TTL)
        assert session == await two.get(KEYS[0])
        redis_server.command("FLUSHALL")
        await heal(one)
        assert 0.4 * TTL == pytest.approx(redis_server.command("PTTL", one.key(KEYS[0])) / 1000, abs=30)
        await heal(two)
        assert 1.3 * TTL == pytest.approx(redis_server.command("PTTL", one.key(KEYS[0])) / 1000, abs=30)


async def test_a_small_difference_in_use_is_no_reason_to_write(redis_server: RedisServer) -> None:
    """Instances use a session at different times; what the first one has stored is long enough for the others."""
    async with Instance(redis_server) as one, Instance(redis_server) as two:
        session = await one.get(KEYS[0])
        one.clock.advance(0.2 * TTL)
        assert session == await two.get(KEYS[0])
        redis_server.command("FLUSHALL")
        reset_statistics(redis_server)
        await heal(one)
        await heal(two)
        assert 1 == uploads(redis_server)
        assert redis_server.command("PTTL", one.key(KEYS[0])) / 1000 > TTL


async def test_a_batch_that_takes_longer_than_a_request_may_is_no_outage(private_redis: RedisServer) -> None:
    """The server hangs for three times as long as a request's deadline: the batch is executed once, and none fails."""
    async with Instance(private_redis, command_seconds=0.15) as one:
        for key in KEYS:
            await one.get(key)
        private_redis.command("FLUSHALL")
        reset_statistics(private_redis)
        private_redis.freeze()
        asyncio.get_running_loop().call_later(0.45, private_redis.thaw)
        await heal(one)
        assert (400, "up", "") == (uploads(private_redis), one.connection.state, one.connection.error)


async def test_a_batch_that_exceeds_its_own_deadline_counts(private_redis: RedisServer) -> None:
    """Three of them in a row open the circuit."""
    async with Instance(private_redis, command_seconds=0.1, background_seconds=0.2) as one:
        await one.get(KEYS[0])
        private_redis.freeze()
        one.sync.begin_reupload()
        for _ in range(3):
            with pytest.raises(RedisUnavailable):
                await one.sync.send_reupload()
        assert ("down", "timeout") == (one.connection.state, one.connection.error)


@pytest.mark.campaign
async def test_instances_on_a_slow_server_upload_each_session_once(private_redis: RedisServer) -> None:
    """A server that runs for a fifteenth of the time executes a tenth too much at most, and never counts as down."""
    async with (
        Instance(private_redis, command_seconds=0.15) as one,
        Instance(private_redis, command_seconds=0.15) as two,
        Instance(private_redis, command_seconds=0.15) as three,
    ):
        instances = (one, two, three)
        ids = {key: one.ids.derive(key) for key in MANY}
        for instance in instances:
            for key, session_id in ids.items():
                instance.cache.add(key, session_id, shared=True)
        reset_statistics(private_redis)
        with slowed(private_redis, 15):
            await heal(*instances)
        executed = uploads(private_redis)
        assert executed <= 1.1 * len(MANY)
        assert ["up"] * 3 == [instance.connection.state for instance in instances]
        assert len(MANY) == sum(key.endswith(b":session") for key in private_redis.command("KEYS", "*"))
