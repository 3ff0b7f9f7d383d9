"""The broker opens before the application starts, and closes after it has stopped, whatever the application does."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import AsyncGenerator
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.types import Message, Receive, Scope, Send

from tests.asgi_client import Lifespan, Source, answering, application, call, is_open, lifespan, session_of
from tokenmw import ConfigurationError, TokenBroker, TokenMiddleware
from tokenmw.broker import STATE_KEY
from tokenmw.providers import StaticToken
from tokenmw.testing import ManualClock


async def test_the_broker_is_open_during_the_applications_own_lifespan() -> None:
    """It opens and fetches the injected tokens before the application starts, and closes after it has stopped."""
    source = Source()
    broker = TokenBroker({"a": StaticToken(source)})
    seen: list[tuple[str, bool, int]] = []

    @contextlib.asynccontextmanager
    async def mine(_app: Starlette) -> AsyncGenerator[dict[str, Any]]:
        seen.append(("starts", is_open(broker), source.calls))
        yield {"mine": "kept"}
        seen.append(("ends", is_open(broker), source.calls))

    async with lifespan(application(broker, lifespan=mine)) as state:
        assert is_open(broker)
        assert {"mine": "kept", STATE_KEY: broker} == state
    assert not is_open(broker)
    assert [("starts", True, 1), ("ends", True, 1)] == seen


@pytest.mark.parametrize("fails", [False, True])
async def test_the_broker_is_closed_before_the_server_gets_the_reply(fails: bool) -> None:  # noqa: FBT001  as pytest gives it
    """When the server knows that the shutdown is complete, or has failed, nothing is open."""
    broker = TokenBroker({"a": StaticToken("t")})
    replies: list[tuple[str, bool]] = []
    events = iter(["startup", "shutdown"])

    @contextlib.asynccontextmanager
    async def mine(_app: Starlette) -> AsyncGenerator[None]:
        yield
        if fails:
            raise LookupError

    async def receive() -> Message:
        return {"type": f"lifespan.{next(events)}"}

    async def send(message: Message) -> None:
        replies.append((message["type"], is_open(broker)))

    with contextlib.suppress(LookupError):
        await application(broker, lifespan=mine)({"type": "lifespan"}, receive, send)
    end = "lifespan.shutdown.failed" if fails else "lifespan.shutdown.complete"
    assert [("lifespan.startup.complete", True), (end, False)] == replies


async def test_a_failed_start_is_reported_and_closes_the_broker() -> None:
    """The server gets `startup.failed` once, and nothing stays open."""
    broker = TokenBroker({"a": StaticToken("t")})

    @contextlib.asynccontextmanager
    async def broken(_app: Starlette) -> AsyncGenerator[None]:
        if _app.routes:
            raise LookupError("no database")
        yield

    running = Lifespan(application(broker, lifespan=broken))
    answer = await running.tell("startup")
    assert "lifespan.startup.failed" == answer["type"]
    assert "no database" in answer["message"]
    assert not is_open(broker)
    with pytest.raises(LookupError):
        await running.task
    assert running.sent.empty()


async def test_a_failed_shutdown_closes_the_broker() -> None:
    """The exception of the application reaches the server."""
    broker = TokenBroker({"a": StaticToken("t")})

    @contextlib.asynccontextmanager
    async def broken(_app: Starlette) -> AsyncGenerator[None]:
        yield
        raise LookupError("gone")

    running = Lifespan(application(broker, lifespan=broken))
    await running.tell("startup")
    assert "lifespan.shutdown.failed" == (await running.tell("shutdown"))["type"]
    assert not is_open(broker)
    with pytest.raises(LookupError):
        await running.task


async def test_a_broker_that_cannot_open_fails_the_start() -> None:
    """The server gets `startup.failed` with the reason; without it, a server starts to serve without a lifespan."""
    broker = TokenBroker({"a": StaticToken("t")})
    entered, done = threading.Event(), threading.Event()

    async def elsewhere() -> None:
        async with broker:
            entered.set()
            await asyncio.to_thread(done.wait)

    thread = threading.Thread(target=asyncio.run, args=[elsewhere()])
    thread.start()
    try:
        assert await asyncio.to_thread(entered.wait, 10)
        running = Lifespan(application(broker))
        answer = await running.tell("startup")
        assert "lifespan.startup.failed" == answer["type"]
        assert "another running event loop" in answer["message"]
        with pytest.raises(ValueError, match="another running event loop"):
            await running.task
    finally:
        done.set()
        thread.join()


async def page(_scope: Scope, _receive: Receive, send: Send) -> None:
    """Respond with a page in every scope."""
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"hello"})


async def page_after_the_body(scope: Scope, receive: Receive, send: Send) -> None:
    """Respond with a page in every scope, after the first event or body."""
    await receive()
    await page(scope, receive, send)


async def silence(scope: Scope, receive: Receive, send: Send) -> None:
    """Return at once in every scope but HTTP."""
    if scope["type"] == "http":
        await page(scope, receive, send)


@pytest.mark.parametrize("app", [answering(session_of), page, page_after_the_body, silence])
async def test_an_application_without_lifespan_is_served(app: Any, caplog: pytest.LogCaptureFixture) -> None:
    """Whether it raises, returns or responds with a page: the broker opens at start-up and closes at shutdown."""
    broker = TokenBroker({"a": StaticToken("t")})
    wrapped = TokenMiddleware(app, broker=broker, inject=["a"])
    async with lifespan(wrapped):
        assert is_open(broker)
        assert 200 == (await call(wrapped)).status
    assert not is_open(broker)
    assert [] == caplog.records


async def test_a_cancelled_lifespan_closes_the_broker() -> None:
    """A server may stop without a shutdown event."""
    broker = TokenBroker({"a": StaticToken("t")})
    running = Lifespan(application(broker))
    await running.tell("startup")
    running.task.cancel()
    await asyncio.wait([running.task])
    assert not is_open(broker)


async def test_an_application_that_raises_while_it_runs_leaves_nothing_open() -> None:
    """The broker closes without a reply to a shutdown event."""

    async def app(_scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "lifespan.startup.complete"})
        raise LookupError

    broker = TokenBroker({})
    running = Lifespan(TokenMiddleware(app, broker=broker))
    await running.tell("startup")
    with pytest.raises(LookupError):
        await running.task
    assert not is_open(broker)


async def test_a_provider_that_hangs_delays_the_start_by_inject_seconds() -> None:
    """The following requests do not wait for the same fetch again."""
    source, clock = Source(), ManualClock()
    source.gate.clear()
    broker = TokenBroker({"a": StaticToken(source)}, clock=clock)
    app = TokenMiddleware(answering(session_of), broker=broker, inject=["a"])
    running = Lifespan(app)
    start = asyncio.ensure_future(running.tell("startup"))
    await clock.elapse(2.9)
    assert not start.done()
    await clock.elapse(0.2)
    assert "lifespan.startup.complete" == (await start)["type"]
    for _ in range(2):
        assert 200 == (await asyncio.wait_for(call(app), 5)).status
    assert 1 == source.calls
    source.gate.set()
    await running.tell("shutdown")
    await running.task


async def test_the_broker_can_be_the_lifespan() -> None:
    """`broker.lifespan` is one, and `broker.lifespan_with(mine)` keeps the state of another lifespan."""
    broker = TokenBroker({})

    @contextlib.asynccontextmanager
    async def mine(_app: Starlette) -> AsyncGenerator[dict[str, Any]]:
        assert is_open(broker)
        yield {"mine": "kept"}

    async with lifespan(Starlette(lifespan=broker.lifespan)) as state:
        assert broker is state[STATE_KEY]
    async with lifespan(Starlette(lifespan=broker.lifespan_with(mine))) as state:
        assert ("kept", broker) == (state["mine"], state[STATE_KEY])
        assert is_open(broker)
    assert not is_open(broker)


@pytest.mark.parametrize("wrong", [None, lambda: None, "generator"])
def test_lifespan_with_refuses_what_is_not_a_lifespan(wrong: Any) -> None:
    """It does so at once, not when the server starts, and the text has the fix."""

    async def generator(_app: object) -> AsyncGenerator[None]:
        yield

    text = "write @asynccontextmanager above it" if wrong == "generator" else r"a callable \(app\) -> async context"
    given: Any = generator if wrong == "generator" else wrong
    with pytest.raises(ConfigurationError, match=f"lifespan_with.*{text}"):
        TokenBroker({}).lifespan_with(given)
