"""A broker opens with the first entry, closes with the last, and works in one event loop after another."""

from __future__ import annotations

import asyncio
import logging
from contextlib import AsyncExitStack

import httpx2
import pytest
from starlette.testclient import TestClient

from tests.asgi_client import Source, answering, application, call, is_open, lifespan, session_of
from tests.looptime import LoopTime
from tests.proxies import Proxy
from tests.servers import RedisServer
from tokenmw import ConfigurationError, Limits, TokenBroker, TokenMiddleware, TokenUnavailable
from tokenmw.providers import StaticToken
from tokenmw.sessions.derive import SessionIds
from tokenmw.testing import ManualClock
from tokenmw.tokens.entry import TokenEntry


async def test_entering_is_counted() -> None:
    """The middleware, the lifespan and an `async with` of the program may all keep the broker open."""
    broker = TokenBroker({"a": StaticToken("t")})
    async with broker:
        async with lifespan(application(broker, lifespan=broker.lifespan)):
            assert is_open(broker)
        assert is_open(broker)
    assert not is_open(broker)


async def test_a_bare_transport_is_served_with_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    """Without lifespan events and without a state in the scope, the broker opens itself, and logs it once."""
    broker = TokenBroker({"a": StaticToken("t")})
    transport = httpx2.ASGITransport(app=application(broker))
    async with httpx2.AsyncClient(transport=transport, base_url="http://test") as client:
        answers = [(await client.get("/", headers={"x-api-key": "k"})).text for _ in range(2)]
    assert [f"{await broker.session_id('k')} t"] * 2 == answers
    assert [logging.WARNING] == [record.levelno for record in caplog.records]
    assert "opened itself" in caplog.text
    async with broker:
        pass
    assert not is_open(broker)


async def test_a_closed_broker_serves_a_cached_session_and_token_without_opening_itself() -> None:
    """A request that comes while the program shuts down opens nothing that nobody closes."""
    broker = TokenBroker({"a": StaticToken("t")})
    app = TokenMiddleware(answering(session_of), broker=broker, inject=["a"])
    headers = [(b"x-api-key", b"k")]
    async with broker:
        states = [(await call(app, headers=headers)).scope["state"]]
    states.append((await call(app, headers=headers)).scope["state"])
    assert states[0]["session_id"] == states[1]["session_id"]
    assert ["t", "t"] == [state["tokens"]["a"].value for state in states]
    assert not is_open(broker)


async def test_a_closed_broker_returns_cached_tokens_without_opening_itself(caplog: pytest.LogCaptureFixture) -> None:
    """A request that is served while the program shuts down opens nothing that nobody closes."""
    clock = ManualClock()
    broker = TokenBroker({"a": StaticToken(Source())}, clock=clock)
    app = TokenMiddleware(answering(session_of), broker=broker, inject=["a"])
    async with broker:
        tokens = (await call(app)).scope["state"]["tokens"]
    found = [tokens["a"], await tokens.resolve("a"), await broker.token("a"), broker._token_of(_entry(broker))]
    assert ["t-1"] * 4 == [token.value for token in found]
    clock.advance(7200)
    with pytest.raises(TokenUnavailable, match="the token has expired since it was injected, and the broker is closed"):
        tokens["a"]
    assert not is_open(broker)
    assert [] == caplog.records


def _entry(broker: TokenBroker) -> TokenEntry:
    return broker._credentials.entry("a")


def test_a_test_client_is_served_with_and_without_its_lifespan() -> None:
    """The same broker works in the event loops of several clients, one after the other."""
    broker = TokenBroker({"a": StaticToken("t")})
    app = application(broker)
    with TestClient(app) as client:
        first = client.get("/", headers={"x-api-key": "k"}).text
    assert not is_open(broker)
    bare = TestClient(app)
    assert [first] * 2 == [bare.get("/", headers={"x-api-key": "k"}).text for _ in range(2)]
    with TestClient(app) as client:
        assert first == client.get("/", headers={"x-api-key": "k"}).text


async def test_a_task_cancelled_while_entering_leaves_nothing_open() -> None:
    """A program that is stopped during its start leaves no housekeeping behind."""
    broker = TokenBroker({}, redis="redis://127.0.0.1:1/0")
    entering = asyncio.ensure_future(broker.__aenter__())
    await asyncio.sleep(0)
    assert is_open(broker)
    entering.cancel()
    await asyncio.wait([entering])
    assert not is_open(broker)


@pytest.mark.parametrize("opened_by", ["entering", "a request"])
async def test_a_broker_that_is_opened_during_closing_works(redis_server: RedisServer, opened_by: str) -> None:
    """Closing the first runtime closes nothing of the second one in the same loop."""
    limits = Limits(command_seconds=2.0)
    broker = TokenBroker(
        {"a": StaticToken(Source())}, redis=redis_server.url, authenticate=lambda _connection, key: key, limits=limits
    )
    app = TokenMiddleware(answering(session_of), broker=broker)
    async with AsyncExitStack() as held:
        await broker.__aenter__()
        leaving = asyncio.ensure_future(broker.__aexit__())
        await asyncio.sleep(0)
        assert not is_open(broker)
        if opened_by == "entering":
            await held.enter_async_context(broker)
        else:
            await broker.session_id("another")
        await leaving
        async with broker, TokenBroker({}, redis=redis_server.url, limits=limits) as other:
            assert "t-1" == (await broker.token("a")).value
            exchange = await call(app, headers=[(b"x-api-key", b"k")])
            assert await other.session_id("k") == exchange.json
    assert not is_open(broker)


@pytest.mark.parametrize("fault", ["freeze", "kill"])
async def test_closing_during_an_outage_is_quick(private_redis: RedisServer, fault: str) -> None:
    """With touches queued it takes a few command deadlines at most."""
    broker = TokenBroker({}, redis=private_redis.url, limits=Limits(command_seconds=0.2))
    async with LoopTime() as waited, broker:
        for number in range(500):
            await broker.session_id(f"k-{number}")
        runtime = broker._runtime
        assert runtime is not None
        assert runtime.session_sync is not None
        for number in range(500):
            key = b"k-%d" % number
            session = broker._data.sessions.get(key)
            assert session is not None
            runtime.session_sync.queue(key, session)
        getattr(private_redis, fault)()
        before = waited.seconds
    assert waited.seconds - before < 5 * 3 * 0.2
    assert not is_open(broker)


async def test_closing_does_not_wait_for_a_slow_redis(redis_server: RedisServer) -> None:
    """With each batch within its deadline, but hundreds of them, closing sends for three command deadlines."""
    async with Proxy(redis_server.port) as proxy, LoopTime() as waited:
        broker = TokenBroker({}, redis=proxy.url, limits=Limits(command_seconds=0.6))
        async with broker:
            runtime = broker._runtime
            assert runtime is not None
            assert runtime.session_sync is not None
            for number in range(20_000):
                key = b"k-%d" % number
                session = broker._data.sessions.add(key, SessionIds.random(), shared=True)
                runtime.session_sync.queue(key, session)
            proxy.latency = 0.05
            before = waited.seconds
        assert waited.seconds - before < 5 * 3 * 0.6
    assert not is_open(broker)


def test_consecutive_loops_share(redis_server: RedisServer) -> None:
    """The second loop gets the session id of the first."""
    broker = TokenBroker({}, redis=redis_server.url, limits=Limits(command_seconds=2.0))

    async def use() -> tuple[str, str]:
        async with broker:
            return await broker.session_id("k"), broker.status().shared

    assert asyncio.run(use()) == asyncio.run(use())


def test_entries_of_a_stopped_loop_are_not_counted_in_the_next() -> None:
    """Where a request has opened the broker before the first entry, the last one that leaves closes it all the same."""
    broker = TokenBroker({"a": StaticToken(Source())})

    async def use() -> bool:
        await broker.token("a")
        async with broker:
            pass
        return is_open(broker)

    asyncio.run(broker.__aenter__())
    assert not asyncio.run(use())


async def test_a_second_running_loop_is_refused() -> None:
    """It could not use the connections and tasks of the first one, which continues to work."""
    broker = TokenBroker({"a": StaticToken("t")})

    async def use() -> None:
        with pytest.raises(ConfigurationError, match="make one broker for each loop"):
            await broker.token("a")
        with pytest.raises(ConfigurationError, match="make one broker for each loop"):
            await broker.__aenter__()

    async with broker:
        await asyncio.to_thread(asyncio.run, use())
        assert is_open(broker)
        assert "t" == (await broker.token("a")).value


def test_without_asyncio_the_error_has_the_fix() -> None:
    """The coroutines of a broker raise when another library than asyncio runs them."""
    broker = TokenBroker({"a": StaticToken("t")})
    for use in (broker.__aenter__(), broker.token("a"), broker.session_id("k")):
        with pytest.raises(ConfigurationError, match="start this program with asyncio, not with trio"):
            use.send(None)
