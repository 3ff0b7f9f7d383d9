"""What one instance changes, the others notice immediately: they hear hints and read Redis."""

from __future__ import annotations

import asyncio
import logging
import os
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

from tests.broker.hints import CHANNEL, SECRET, Instance, listeners, pair
from tests.brokers import runtime_of
from tests.looptime import LoopTime
from tests.proxies import Proxy
from tests.redis.waiting import until
from tokenmw import CredentialRejected, Grant, Limits, TokenBroker
from tokenmw.clock import SYSTEM_CLOCK, Instant
from tokenmw.errors import ConfigurationError
from tokenmw.providers import StaticToken
from tokenmw.testing import ManualClock

if TYPE_CHECKING:
    from tests.servers import RedisServer

QUICK = 1.0
"""Seconds in which a hint has its effect on a busy machine; without hints it takes `check_seconds`, 30 s."""


async def test_an_invalidation_is_noticed_immediately(redis_server: RedisServer) -> None:
    """Another instance drops the token, and gets the next one that either of them fetches."""
    async with pair(redis_server) as (first, second):
        await first.invalidate()
        await second.loses_its_token(within=QUICK)
        assert "second" == await first.value() == await second.value()


async def test_a_token_that_no_request_uses_is_dropped(redis_server: RedisServer) -> None:
    """Its next request, whenever it comes, does not get the invalidated token; nothing is fetched before."""
    async with pair(redis_server) as (first, second):
        second.entry.used = False
        await first.invalidate()
        await second.loses_its_token(within=QUICK)
        assert not runtime_of(second.broker).tokens.refreshing(second.entry)
        assert "second" == await second.value()


async def test_a_token_handed_in_is_adopted_by_those_in_use(redis_server: RedisServer) -> None:
    """A newer token replaces the one in use without a request and without an invalidation."""
    async with pair(redis_server) as (first, second):
        await first.broker.hand_in("crm", Grant("handed-in", expires_in=3600))
        async with asyncio.timeout(QUICK):
            await second.adopted.wait()
        assert "handed-in" == await second.value()


async def test_a_newer_token_is_not_read_for_an_entry_that_no_request_uses(redis_server: RedisServer) -> None:
    """Its token is still good; the value of the newer one is not fetched from Redis."""
    async with pair(redis_server) as (first, second):
        second.entry.used = False
        compared = _calls(redis_server)
        await first.broker.hand_in("crm", Grant("handed-in", expires_in=3600))
        await until(lambda: _calls(redis_server) >= compared + 3, within=QUICK)  # commit, and a check in each process
        assert second.entry.current is not None
        assert "first" == second.entry.current.token.value


async def test_a_token_that_invalidates_the_one_before_is_read_without_requests(
    redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next request would get the one before, which is fresh here and invalid for the provider."""
    async with pair(redis_server) as (first, second):
        monkeypatch.setattr(StaticToken, "exclusive", True)
        second.entry.used = False
        await first.broker.hand_in("crm", Grant("handed-in", expires_in=3600))
        async with asyncio.timeout(QUICK):
            await second.adopted.wait()
        assert "handed-in" == await second.value()


async def test_the_end_of_a_failure_note_ends_the_failure(redis_server: RedisServer) -> None:
    """A credential that was rejected elsewhere is asked for again when an operator invalidates it anywhere."""
    failing: Any = CredentialRejected("the secret is wrong", said=True)

    def ask() -> str:
        if failing:
            raise failing
        return "fixed"

    brokers = [
        TokenBroker({"crm": StaticToken(ask, credential_id="c")}, redis=redis_server.url, secret_key=SECRET)
        for _ in range(2)
    ]
    async with brokers[0] as first, brokers[1] as second:
        await until(lambda: listeners(redis_server) == 2, within=5)
        for one in (first, second):
            with pytest.raises(CredentialRejected):
                await one.token("crm")
        entry = second._credentials.entry("crm")
        assert entry.failure is not None
        assert entry.failure.noted
        failing = None
        await first.invalidate_provider("crm")
        await until(lambda: not _in_backoff(entry), within=QUICK)
        assert "fixed" == (await second.token("crm")).value


def _in_backoff(entry: Any) -> bool:
    return bool(entry.in_backoff(Instant(SYSTEM_CLOCK)))


async def test_a_session_that_was_reset_is_read_again(redis_server: RedisServer) -> None:
    """Another instance returns the new id, for a short and for a long API key; other sessions keep theirs."""
    keys = ["key", "k" * 200]
    async with pair(redis_server) as (first, second):
        before = await second.broker.session_id("another")
        for key in keys:
            assert await first.broker.session_id(key) == await second.broker.session_id(key)
        for key in keys:
            new = await first.broker.reset_session(key)
            await until(partial(_has_session, second, key.encode(), new), within=QUICK)
        assert before == await second.broker.session_id("another")


def _has_session(instance: Instance, key: bytes, session_id: str) -> bool:
    return runtime_of(instance.broker).sessions.cached(key) == session_id


async def test_a_writer_without_hints_is_noticed_by_the_check(redis_server: RedisServer) -> None:
    """An instance that announces nothing, as earlier versions do, is noticed within `check_seconds`."""
    clock = ManualClock()
    async with pair(redis_server, clock=clock) as (_, second):
        old = Instance(redis_server.url, ["old"], hints=False)
        async with old.broker:
            await old.value()
            await old.invalidate()
            await asyncio.sleep(0.2)
            assert second.entry.current is not None
            for _ in range(32):
                clock.advance(1.0)
                await second.value()
                await asyncio.sleep(0.02)
            await second.loses_its_token(within=QUICK)


async def test_tokens_are_compared_rarely_while_all_changes_are_announced(redis_server: RedisServer) -> None:
    """Every 300 s, and every 30 s while this process hears nothing, or another one announces nothing."""
    clock = ManualClock()
    async with pair(redis_server, clock=clock) as (_, second):
        runtime = runtime_of(second.broker)
        jobs, hints = runtime._redis_jobs, runtime._hints
        assert jobs is not None
        assert hints is not None
        await second.broker.hand_in("crm", Grant("lasting", expires_in=7200))
        current = second.entry.current
        assert current is not None
        await until(lambda: jobs._all_announced, within=5)
        jobs._check_epochs_at = clock.monotonic() + 1e6
        for listening, silent, seconds in ((True, False, 300), (True, True, 30), (False, False, 30)):
            hints.listener.listening, second.broker._data.epochs.silent = listening, silent
            checked = current.checked
            await second.value()
            clock.advance(checked + seconds - 2 - clock.monotonic())
            await jobs.compare_tokens()
            assert checked == current.checked
            clock.advance(4)
            due = checked + seconds
            await jobs.compare_tokens()  # or housekeeping does it at the same time
            await until(lambda due=due: current.checked >= due, within=5)  # type: ignore[misc]


async def test_hints_can_be_off(redis_server: RedisServer) -> None:
    """Such an instance opens no further connection, subscribes to nothing and publishes nothing."""
    one = Instance(redis_server.url, ["first"], hints=False)
    async with one.broker:
        await one.value()
        await one.invalidate()
        await one.broker.reset_session("key")
        assert 0 == listeners(redis_server)
        assert b"cmdstat_publish" not in redis_server.command("INFO", "commandstats")


async def test_the_option_is_a_flag() -> None:
    """Anything else is refused."""
    with pytest.raises(ConfigurationError, match="hints"):
        TokenBroker({}, hints="no")  # type: ignore[arg-type]


async def test_what_was_missed_while_the_connection_was_killed_is_read(
    redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An invalidation without any listener is noticed when the connection is made again."""
    async with pair(redis_server) as (first, second):
        monkeypatch.setattr("tokenmw.redis.hints._FIRST_DELAY", 0.6)
        monkeypatch.setattr("tokenmw.redis.hints._LONGEST_DELAY", 0.6)
        await _kill_listeners(redis_server)  # the next delay was drawn before
        await until(lambda: listeners(redis_server) == 2, within=5)
        await _kill_listeners(redis_server)
        await first.invalidate()
        assert 0 == listeners(redis_server)
        assert not second.dropped.is_set()
        await second.loses_its_token(within=2)


async def _kill_listeners(server: RedisServer) -> None:
    server.command("CLIENT", "KILL", "TYPE", "pubsub")
    await until(lambda: listeners(server) == 0, within=1)


async def test_hints_work_again_after_a_restart(private_redis: RedisServer) -> None:
    """The connection to a server that was restarted is made again within 2 s."""
    async with pair(private_redis) as (first, second):
        private_redis.restart(empty=False)
        await until(lambda: listeners(private_redis) == 2, within=2)
        await until(lambda: first.broker.status().shared == second.broker.status().shared == "up", within=15)
        await first.invalidate()
        await second.loses_its_token(within=QUICK)


async def test_a_frozen_server_is_heard_again_within_two_seconds(private_redis: RedisServer) -> None:
    """After a freeze that is longer than the listener waits for an answer to PING."""
    async with pair(private_redis) as (first, second):
        private_redis.freeze()
        await asyncio.sleep(3.5)
        private_redis.thaw()
        await until(lambda: listeners(private_redis) == 2, within=2)
        await until(lambda: first.broker.status().shared == second.broker.status().shared == "up", within=15)
        await first.invalidate()
        await second.loses_its_token(within=QUICK)


async def test_what_was_missed_while_the_network_lost_everything_is_read(redis_server: RedisServer) -> None:
    """A connection whose peer is unreachable, but not closed, is replaced within 2 s of the network's return."""
    async with Proxy(redis_server.port) as proxy, pair(redis_server, redis=proxy.url) as (first, second):
        proxy.black_hole = True
        await first.invalidate()
        await asyncio.sleep(3.0)
        assert not second.dropped.is_set()
        proxy.black_hole = False
        # The circuit of the commands may have opened meanwhile; its probe is at most 5 s away.
        await until(lambda: listeners(redis_server) >= 2, within=2)
        await second.loses_its_token(within=8 if second.broker.status().shared == "down" else 2)


async def test_a_flood_of_hints_causes_few_reads(redis_server: RedisServer) -> None:
    """50 000 hints for known, unknown and malformed keys cause 300 commands at most; a real one is heard afterwards."""
    async with pair(redis_server) as (first, second):
        before = _calls(redis_server)
        assert first.entry.keys is not None
        known = [
            first.entry.keys.token.removeprefix(b"tokenmw:v1:"),
            b"{%b}:token" % (b"u" * 32),
            os.urandom(40),
            b"{%b}:session" % (b"s" * 32),
        ]
        with redis_server.connect(within=30) as connection:
            for _ in range(500):
                await asyncio.to_thread(_publish, connection, known * 25)
        await asyncio.sleep(0.3)
        assert _calls(redis_server) - before < 300
        await first.invalidate()
        await second.loses_its_token(within=2)


def _publish(connection: Any, messages: list[bytes]) -> None:
    script = "for i = 2, #ARGV do redis.call('PUBLISH', ARGV[1], ARGV[i]) end"
    connection.call("EVAL", script, 0, CHANNEL, *messages)


def _calls(server: RedisServer, name: bytes = b"evalsha") -> int:
    stats: bytes = server.command("INFO", "commandstats")
    lines = [line for line in stats.splitlines() if line.startswith(b"cmdstat_%b:" % name)]
    return sum(int(line.partition(b"calls=")[2].partition(b",")[0]) for line in lines)


async def test_what_is_stored_again_after_a_loss_of_data_is_not_announced(private_redis: RedisServer) -> None:
    """Each process of a fleet stores what it knows; only news is published."""
    async with pair(private_redis) as (first, second):
        await first.invalidate()
        await second.loses_its_token(within=QUICK)
        assert "second" == await first.value() == await second.value()
        private_redis.command("FLUSHALL")
        published = _calls(private_redis, b"publish")
        for one in (first, second, first):
            one.entry.mark_unshared(asyncio.get_running_loop().time())
            await runtime_of(one.broker).token_sync.compare(one.entry)
        assert first.entry.current is not None
        assert first.entry.current.shared
        assert 2 == len([key for key in private_redis.command("KEYS", "*") if key.endswith((b":token", b":tomb"))])
        assert _calls(private_redis, b"publish") <= published + 1  # the first tombstone is news for Redis


async def test_a_user_without_the_channel_is_served_and_logged_once(
    private_redis: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    """An ACL that does not allow the channel costs nothing but the hints; the log gives the fix."""
    for rights in (["resetchannels"], ["allchannels", "-publish"], ["allchannels", "-subscribe"]):
        caplog.clear()
        private_redis.command("ACL", "SETUSER", "app", "on", ">sesame", "~*", "+@all", *rights)
        url = f"redis://app:sesame@127.0.0.1:{private_redis.port}"
        values = ["first"]
        one, two = (Instance(url, values, limits=Limits(check_seconds=0.5)) for _ in range(2))
        with caplog.at_level(logging.WARNING, "tokenmw"):
            async with one.broker, two.broker:
                await until(lambda: len(_lines(caplog)) == 2, within=5)  # one line for each broker
                assert "first" == await one.value() == await two.value()
                values.append("second")
                await one.invalidate()
                assert 0 == one.broker.status().unshared_invalidations
                await until(partial(_is_dropped, two), within=4)
                await one.broker.reset_session("key")
                assert "up" == one.broker.status().shared
        assert len(_lines(caplog)) == 2
        assert "Hints off (permission" in _lines(caplog)[0]
        assert f"ACL SETUSER <user> +subscribe +publish +ping &{CHANNEL}" in _lines(caplog)[0]
        private_redis.command("ACL", "DELUSER", "app")
        private_redis.command("FLUSHALL")


def _is_dropped(instance: Instance) -> bool:
    """Use the token as a request would; return whether it was dropped."""
    return runtime_of(instance.broker).tokens.fresh(instance.entry) is None or instance.dropped.is_set()


def _lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if "Hints" in record.getMessage()]


async def test_closing_does_not_wait_for_a_server_that_hangs(private_redis: RedisServer) -> None:
    """The listener of a frozen server is closed immediately, also while it connects."""
    async with pair(private_redis) as (first, _):
        private_redis.freeze()
        await asyncio.sleep(2.5)  # by now it connects again
        async with LoopTime() as waited:
            await runtime_of(first.broker)._hints.close()  # type: ignore[union-attr]
        assert waited.seconds < 0.2
        private_redis.thaw()


def test_a_broker_hears_in_a_second_event_loop(redis_server: RedisServer) -> None:
    """The listener of a loop that has ended is abandoned; the next loop has one of its own."""
    values = ["first"]
    first, second = Instance(redis_server.url, values), Instance(redis_server.url, values)

    async def use() -> None:
        async with first.broker, second.broker:
            await until(lambda: listeners(redis_server) == 2, within=5)
            await first.value()
            await second.value()
            values.append("next")
            second.dropped = asyncio.Event()
            await first.invalidate()
            await second.loses_its_token(within=QUICK)

    asyncio.run(use())
    asyncio.run(use())
    assert 0 == listeners(redis_server)
