"""A flood of unknown API keys changes no session id of a known caller, and leaves bounded data behind."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Sequence
from typing import Any

import pytest

from tests.processes import Workers, receive, send
from tests.servers import RedisServer
from tests.sessions.instance import SECRET, TTL, Instance, sent
from tokenmw import Limits, SessionUnavailable, TokenBroker
from tokenmw.redis.errors import RedisUnavailable
from tokenmw.redis.scripts import ScriptName
from tokenmw.testing import ManualClock

KNOWN = [f"known-{number}" for number in range(30)]
KEY = b"sk-live-0815"
FLOOD = 1_200  # keys at the same time, more than `Limits(commands=…)`
PATIENT: dict[str, Any] = {"command_seconds": 5.0}  # seconds: the machine that runs the tests may be slow


def stored(server: RedisServer) -> int:
    """Return the number of sessions in Redis."""
    return len(server.command("KEYS", "*:session"))


async def known_in_a_flood(*, options: dict[str, Any]) -> tuple[list[str], int]:
    """Ask for the known keys amid a flood, in a new process. Return their ids, and the number of refused requests."""
    broker = TokenBroker({}, limits=Limits(new_sessions=1, **PATIENT), **options)
    async with broker:
        send("open")
        receive()
        keys = [f"random-{os.getpid()}-{number}" for number in range(FLOOD)]
        keys[600:600] = KNOWN
        results = await asyncio.gather(*map(broker.session_id, keys), return_exceptions=True)
    ids = dict(zip(keys, results, strict=True))
    refused = [result for result in results if isinstance(result, SessionUnavailable)]
    return [str(ids[key]) for key in KNOWN], len(refused)


@pytest.mark.parametrize("secret", [SECRET, None])
@pytest.mark.parametrize("policy", ["available", "required"])
async def test_known_callers_keep_their_ids_in_processes_that_start_in_a_flood(
    redis_server: RedisServer, policy: str, secret: str | None
) -> None:
    """Reading what Redis has needs no permit and no free place; only the flood's own keys are refused, if any are."""
    options = {"redis": redis_server.url, "secret_key": secret, "session_policy": policy}
    async with TokenBroker({}, **options) as broker:  # type: ignore[arg-type]
        ids = [await broker.session_id(key) for key in KNOWN]
    target = "tests.sessions.test_flood:known_in_a_flood"
    async with Workers(target, processes=2, arguments={"options": options}) as workers:
        await workers.receive()
        await workers.send("flood")
        results = await workers.results()
    assert [ids, ids] == [found for found, _ in results]
    # Each process created ten sessions and a few more as time passed.
    assert all(refused == 0 if policy == "available" else FLOOD - 50 < refused <= FLOOD - 10 for _, refused in results)


async def test_first_sights_at_the_same_time_share_few_round_trips(redis_server: RedisServer) -> None:
    """A batch has 32 keys, with and without permits, and is one command."""
    async with Instance(redis_server, new_sessions=1) as one, Instance(redis_server) as two:
        ids = await asyncio.gather(*(two.get(b"%d" % number) for number in range(20)))
        await asyncio.gather(*(one.get(b"first-%d" % number) for number in range(4)))  # checks whether batches work
        batches: list[int] = []
        run = one.connection.run_on_all

        async def counted(script: ScriptName, keys: Sequence[bytes], args: Sequence[bytes | str | int]) -> Any:
            batches.append(len(args) - 2)
            return await run(script, keys, args)

        one.connection.run_on_all = counted  # type: ignore[method-assign]
        redis_server.command("CONFIG", "RESETSTAT")
        keys = [b"%d" % number for number in range(160)]
        found = await asyncio.gather(*(one.get(key) for key in keys))
    assert ids == found[:20]
    assert [32] * 5 == batches
    assert {"evalsha": 5} == sent(redis_server)


async def test_a_flood_of_single_keys_is_looked_up_in_few_batches(
    redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There are some small batches at first, then 250 a second, and others have 16 keys at least."""
    async with Instance(redis_server, new_sessions=1) as one:
        batches: list[int] = []
        get_or_create = one.store.get_or_create

        async def counted(_store: object, sights: Any) -> Any:
            batches.append(len(sights))
            return await get_or_create(sights)

        monkeypatch.setattr(type(one.store), "get_or_create", counted)
        loop = asyncio.get_running_loop()
        began = loop.time()
        waiting: list[asyncio.Task[str]] = []
        for number in range(400):
            waiting.append(asyncio.create_task(one.get(b"%d" % number)))
            await asyncio.sleep(0)
        await asyncio.gather(*waiting)
        passed = loop.time() - began
    assert 400 == sum(batches)
    small = sum(size < 16 for size in batches)
    assert small <= 4 + 250 * passed + passed / 0.004 + 1  # the last are those of keys that have waited for 4 ms


async def test_a_key_does_not_wait_for_a_slow_batch(redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another connection looks it up."""
    answers = asyncio.Event()
    async with Instance(redis_server) as one:
        get_or_create = one.store.get_or_create

        async def answer_late(_store: object, sights: Any) -> Any:
            if sights[0][0] == one.key(b"slow"):
                await answers.wait()
            return await get_or_create(sights)

        monkeypatch.setattr(type(one.store), "get_or_create", answer_late)
        slow = asyncio.create_task(one.get(b"slow"))
        await asyncio.sleep(0.001)
        assert await asyncio.wait_for(one.get(KEY), 5) == one.manager.cached(KEY)
        assert not slow.done()
        answers.set()
        await slow


async def test_an_unexpected_error_of_a_batch_stops_no_other(
    redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its requests are served without Redis, and the keys behind it are looked up."""
    reported: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _loop, context: reported.append(context["exception"]))
    async with Instance(redis_server) as one, Instance(redis_server) as two:
        get_or_create, failures = one.store.get_or_create, iter([LookupError()] * 4)

        async def broken(_store: object, sights: Any) -> Any:
            for error in failures:
                raise error
            return await get_or_create(sights)

        monkeypatch.setattr(type(one.store), "get_or_create", broken)
        keys = [b"%d" % number for number in range(160)]
        ids = await asyncio.gather(*(one.get(key) for key in keys))
        assert [one.ids.derive(key) for key in keys[:128]] == ids[:128]
        monkeypatch.undo()
        assert ids[128:] == [await two.get(key) for key in keys[128:]]
        assert not len(one.first_sights)


@pytest.mark.parametrize("error", [LookupError(), asyncio.CancelledError()])
async def test_a_batch_that_raises_uses_up_no_permits(
    redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    """Each such batch took up to 32 permits with it."""
    asyncio.get_running_loop().set_exception_handler(lambda _loop, _context: None)
    async with Instance(redis_server, new_sessions=1) as one:

        async def broken(_store: object, _sights: Any) -> Any:
            raise error

        monkeypatch.setattr(type(one.store), "get_or_create", broken)
        await asyncio.gather(*(one.get(b"%d" % number) for number in range(8)))
        assert 10 == sum(one.new_sessions.take() for _ in range(20))


async def test_a_slow_server_delays_a_request_for_wait_seconds_at_most(
    redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The request is served as without Redis, and the id that Redis has is taken when it answers."""
    answers = asyncio.Event()
    limits: dict[str, Any] = {"fetch_seconds": 0.01, "lease_seconds": 0.02, "wait_seconds": 0.05}
    async with Instance(redis_server, **limits) as slow, Instance(redis_server, new="random") as other:
        stored = await other.get(b"sk-1")
        get_or_create = slow.store.get_or_create

        async def answer_late(_store: object, sights: Any) -> Any:
            await answers.wait()
            return await get_or_create(sights)

        monkeypatch.setattr(type(slow.store), "get_or_create", answer_late)
        assert slow.ids.derive(b"sk-1") == await slow.get(b"sk-1") != stored
        answers.set()
        async with asyncio.timeout(5):
            while slow.first_sights:  # noqa: ASYNC110  no event reports it
                await asyncio.sleep(0.001)
        await slow.sync.send_touches()
        assert stored == await slow.get(b"sk-1")


async def test_beyond_the_bound_ids_are_compared_with_redis_in_the_next_round(
    redis_server: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    """Without a permit as well: a known caller has another id for a second at most, and the log has it."""
    keys = [b"%d" % number for number in range(50)]
    async with Instance(redis_server) as one, Instance(redis_server, first_sights=5, new_sessions=1) as two:
        ids = await asyncio.gather(*(one.get(key) for key in keys))
        with caplog.at_level(logging.WARNING, "tokenmw"):
            found = await asyncio.gather(*(two.get(key) for key in keys))
        assert (ids[:5], [two.ids.derive(key) for key in keys[5:]]) == (found[:5], found[5:])
        assert "tokenmw: Too many new API keys at once (Limits(first_sights=5))" in caplog.text
        assert 45 == two.sync.touches == two.sync.unshared
        await two.sync.send_touches()
        assert ids == [two.manager.cached(key) for key in keys]
        assert (0, 0) == (two.sync.touches, two.sync.unshared)


async def test_without_a_permit_a_touch_takes_the_id_of_another_instance(redis_server: RedisServer) -> None:
    """It reads, and writes nothing if Redis has no id."""
    async with Instance(redis_server, new_sessions=1) as one, Instance(redis_server, new="random") as two:
        while one.new_sessions.take():
            pass
        mine = await one.get(KEY)
        assert (mine, 0) == (one.ids.derive(KEY), one.sync.touches)
        one.sync.queue(KEY, one.cache[KEY])
        await one.sync.send_touches()
        assert (mine, 0) == (one.manager.cached(KEY), stored(redis_server))
        theirs = await two.get(KEY)
        one.sync.queue(KEY, one.cache[KEY])
        await one.sync.send_touches()
        assert theirs == one.manager.cached(KEY) != mine


async def test_with_a_permit_a_touch_uploads_the_id(redis_server: RedisServer) -> None:
    """A key that had no permit at first sight gets one as soon as there is one."""
    async with Instance(redis_server, new_sessions=1) as one, Instance(redis_server) as two:
        while one.new_sessions.take():
            pass
        mine = await one.get(KEY)
        one.clock.advance(0.251 * TTL)
        assert mine == one.manager.cached(KEY)
        await one.sync.send_touches()
        assert mine == await two.get(KEY)


async def test_an_outage_uses_up_no_permits(private_redis: RedisServer) -> None:
    """A permit whose session did not reach Redis is given back."""
    async with Instance(private_redis, new_sessions=1, command_seconds=0.3) as one:
        private_redis.kill()
        await one.get(KEY)
        for _ in range(20):
            with pytest.raises(RedisUnavailable):
                await one.sync.send_touches()
        assert 10 == sum(one.new_sessions.take() for _ in range(20))


async def test_new_keys_leave_half_of_the_touches_to_known_callers(private_redis: RedisServer) -> None:
    """A flood while Redis is unavailable does not push the touches of sessions that Redis has out of the queue."""
    async with Instance(private_redis, touches=20, command_seconds=0.3) as one:
        known = [b"known-%d" % number for number in range(10)]
        for key in known:
            await one.get(key)
        private_redis.kill()
        for number in range(100):
            await one.get(b"%d" % number)
        assert 10 == one.sync.touches
        one.clock.advance(0.251 * TTL)
        assert all(one.manager.cached(key) for key in known)
        assert 20 == one.sync.touches
        assert set(known) < one.sync._queue.keys()


async def test_a_process_writes_a_bounded_number_of_sessions_within_their_ttl(redis_server: RedisServer) -> None:
    """Half of `Limits(new_sessions_per_ttl=…)` at any time, and the other half as time passes; ids agree beyond it."""
    clock = ManualClock()
    options: Any = {"clock": clock, "new_sessions_per_ttl": 100}
    async with Instance(redis_server, **options) as one:
        for number in range(200):
            await one.get(b"%d" % number)
        assert 50 == stored(redis_server)
        for step in range(13):
            clock.advance(0.1 * TTL)
            for number in range(30):
                await one.get(b"%d-%d" % (step, number))
        assert 95 <= stored(redis_server) <= 100
        beyond = [b"beyond-%d" % number for number in range(20)]
        ids = [await one.get(key) for key in beyond]
        assert [one.ids.derive(key) for key in beyond] == ids


async def test_what_the_bounds_refuse_is_logged(redis_server: RedisServer, caplog: pytest.LogCaptureFixture) -> None:
    """The first time at once, for a flood of any length."""
    async with Instance(redis_server, new_sessions=1) as one:
        with caplog.at_level(logging.WARNING, "tokenmw"):
            for number in range(30):
                await one.get(b"%d" % number)
    lines = [record.getMessage() for record in caplog.records]
    assert [
        "tokenmw: More new API keys than Limits(new_sessions=…) allows; session ids are not written to Redis"
    ] == lines


async def test_required_without_a_permit_says_why(redis_server: RedisServer) -> None:
    """Redis is available, so the error does not say that it is not; a known key is served."""
    async with Instance(redis_server) as two, Instance(redis_server, new_sessions=1, policy="required") as one:
        known = await two.get(b"known")
        for number in range(10):
            await one.get(b"%d" % number)
        with pytest.raises(SessionUnavailable, match="too many new API keys"):
            await one.get(b"11")
        assert known == await one.get(b"known")
