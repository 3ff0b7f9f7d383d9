"""`broker.fleet()` has all instances that share a Redis, and says which of them disagree."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

import pytest

from tests.brokers import runtime_of
from tokenmw import Limits, TokenBroker, __version__
from tokenmw.providers import StaticToken
from tokenmw.redis.fleet import Beat
from tokenmw.redis.heartbeat import Heartbeat
from tokenmw.runtime.fleet_status import instances_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.servers import RedisServer
    from tokenmw.status import InstanceStatus

SECRET = "c4n4ry-a-secret-of-some-length"
TOKEN = "c4n4ry-token"
KEY = "c4n4ry-key"


def broker_of(server: RedisServer, **options: Any) -> TokenBroker:
    """Make a broker of the fleet."""
    provider = StaticToken(lambda: TOKEN, credential_id="crm")
    return TokenBroker({"crm": provider}, redis=server.url, **{"secret_key": SECRET, **options})


async def fleet_until(
    broker: TokenBroker, condition: Callable[[tuple[InstanceStatus, ...]], bool], *, seconds: float = 8.0
) -> tuple[InstanceStatus, ...]:
    """Return the first fleet that fulfils a condition."""
    async with asyncio.timeout(seconds):
        while not condition(found := await broker.fleet()):  # noqa: ASYNC110  the change is in another instance
            await asyncio.sleep(0.05)
    return found


async def test_all_instances_are_shown(redis_server: RedisServer) -> None:
    """The one that was asked first, with what it does now; the status has what was read last, without I/O."""
    async with broker_of(redis_server) as one, broker_of(redis_server) as other:
        assert one.status().instances == ()
        await one.token("crm")
        await one.session_id(KEY)
        fleet = await fleet_until(one, lambda fleet: len(fleet) == 2)
        assert (True, False) == tuple(instance.own for instance in fleet)
        mine = fleet[0]
        assert (__version__, "up", 1, 1, 0, 0) == (
            mine.version,
            mine.shared,
            mine.tokens,
            mine.sessions,
            mine.unshared,
            mine.failing,
        )
        assert {((), (), False)} == {(shown.differs, shown.old_tokens, shown.stale) for shown in fleet}
        assert [instance.instance for instance in fleet] == [shown.instance for shown in one.status().instances]
        await fleet_until(other, lambda fleet: len(fleet) == 2)
    assert redis_server.command("KEYS", "*beat*") == []


async def test_nothing_is_written_without_redis() -> None:
    """There is no fleet."""
    async with TokenBroker({}) as broker:
        assert runtime_of(broker).fleet is None
        assert await broker.fleet() == ()


async def test_without_an_available_redis_an_instance_shows_itself(private_redis: RedisServer) -> None:
    """What it sees of Redis is shown, and nothing of the others."""
    async with broker_of(private_redis) as broker:
        private_redis.kill()
        (alone,) = await fleet_until(broker, lambda fleet: fleet[0].shared == "down")
        assert (alone.own, alone.stale) == (True, False)


async def test_an_instance_that_hangs_becomes_stale_and_disappears(redis_server: RedisServer) -> None:
    """Its last heartbeat gets older than 8 s, and is in Redis for 15 s."""
    async with broker_of(redis_server) as one, broker_of(redis_server) as other:
        await fleet_until(one, lambda fleet: len(fleet) == 2)
        fleet = runtime_of(other).fleet
        assert fleet is not None
        await fleet.close()
        (key,) = [key for key in redis_server.command("KEYS", "*beat*") if key.endswith(b"-%d" % fleet._store._place)]
        redis_server.command("PEXPIRE", key, 6_500)
        assert [False, True] == [instance.stale for instance in await one.fleet()]
        redis_server.command("PEXPIRE", key, 1)
        await fleet_until(one, lambda fleet: len(fleet) == 1)


@pytest.mark.parametrize("options", [{}, {"seal": False}, {"secret_key": None}])
async def test_heartbeats_have_no_secret(redis_server: RedisServer, options: dict[str, Any]) -> None:
    """No secret, token, API key or session id; where values are sealed, nobody reads the rest either."""
    async with broker_of(redis_server, **options) as broker:
        await broker.token("crm")
        session = await broker.session_id(KEY)
        await fleet_until(broker, lambda _: bool(redis_server.command("KEYS", "*beat*")))
        (key,) = redis_server.command("KEYS", "*beat*")
        value = redis_server.command("GET", key)
        assert (b'"host"' in value) is bool(options)
        for secret in (SECRET, TOKEN, KEY, session):
            assert secret.encode() not in value


async def test_an_instance_of_another_version_is_unaffected(redis_server: RedisServer) -> None:
    """Heartbeats have keys of their own, so that versions without them find what they know and nothing else."""
    async with broker_of(redis_server) as broker:
        await broker.token("crm")
        await fleet_until(broker, lambda _: bool(redis_server.command("KEYS", "*beat*")))
        kinds = {key.rpartition(b":")[2].partition(b"-")[0] for key in redis_server.command("KEYS", "*")}
    assert kinds == {b"token", b"marker", b"beat"}


def beat(instance: str, *, age: float = 1.0, written: float = 1000.0, **changes: Any) -> Beat:
    """Return the heartbeat of an instance."""
    fields: dict[str, Any] = {
        "host": "web",
        "pid": 1,
        "version": "2.0",
        "started_at": 500.0,
        "shared": "up",
        "shared_seconds": 10.0,
        "tokens": {},
        "counts": {},
    }
    return Beat(instance, Heartbeat(**{**fields, **changes}), age, written)


def compared(*beats: Beat) -> dict[str, tuple[tuple[str, ...], tuple[str, ...]]]:
    """Return in what each instance differs, and its old tokens."""
    found = instances_of(beats, own="a", names={"d": "crm"}, check_seconds=30.0)
    return {one.instance: (one.differs, one.old_tokens) for one in found}


def test_who_disagrees_is_shown() -> None:
    """Another version or state than most; of two, the one that was started last is right."""
    three = [beat("a"), beat("b"), beat("c", version="1.0", shared="down")]
    assert {"a": ((), ()), "b": ((), ()), "c": (("version", "redis"), ())} == compared(*three)
    rollout = [beat("a", version="1.0"), beat("b", started_at=900.0)]
    assert {"a": (("version",), ()), "b": ((), ())} == compared(*rollout)
    unreadable = Beat("b", None, 1.0, 1000.0)
    assert {"a": ((), ()), "b": (("secret_key",), ())} == compared(beat("a"), unreadable)


def test_an_older_token_is_shown_once_it_should_have_been_replaced() -> None:
    """Instances notice a newer token within the check; a token that is not there is no older one."""
    newest, old = int(900e6), int(100e6)
    tokens = [beat("a", tokens={"d": newest, "e": newest}), beat("c", tokens={"d": 0})]
    assert ("tokens",) == compared(*tokens, beat("b", tokens={"d": old, "e": old}))["b"][0]
    assert ("crm",) == compared(*tokens, beat("b", tokens={"d": old, "e": old}))["b"][1]
    assert {((), ())} == set(compared(*tokens, beat("b", tokens={"d": old}, written=935.0)).values())
    assert ((), ()) == compared(*tokens, beat("b", tokens={"d": old}))["c"]


async def test_many_credentials_do_not_block_the_loop(redis_server: RedisServer) -> None:
    """10 000 credentials are counted in parts."""
    async with broker_of(redis_server, limits=Limits(tokens=20_000)) as broker:
        for number in range(10_000):
            broker._credentials.entry(StaticToken(f"t{number}"))
        fleet, loop = runtime_of(broker).fleet, asyncio.get_running_loop()
        assert fleet is not None
        longest: list[float] = []
        for _ in range(5):  # other programs on this machine make the loop late, too
            late, before = 0.0, loop.time()
            counting = loop.create_task(fleet._heartbeat())
            while not counting.done():
                await asyncio.sleep(0)
                now = loop.time()
                late, before = max(late, now - before), now
            longest.append(late)
        assert min(longest) < 0.01, longest


async def test_the_state_is_json(redis_server: RedisServer) -> None:
    """An instance that reads gets numbers and texts only."""
    async with broker_of(redis_server) as broker:
        (mine,) = await broker.fleet()
        assert json.dumps([getattr(mine, name) for name in type(mine).__slots__])
