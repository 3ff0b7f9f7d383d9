"""The broker opens before the application starts, and closes after it has ended, whatever the application does."""

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


async def test_the_broker_is_around_the_applications_own_lifespan() -> None:
    """It is open, and injected tokens are there, before the application starts; it closes after the application."""
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
async def test_the_broker_is_closed_before_the_server_hears_of_it(fails: bool) -> None:  # noqa: FBT001  as pytest gives it
    """Who waits for the end of the lifespan finds nothing open, after a good end and after a failed one."""
    broker = TokenBroker({"a": StaticToken("t")})
    heard: list[tuple[str, bool]] = []
    events = iter(["startup", "shutdown"])

    @contextlib.asynccontextmanager
    async def mine(_app: Starlette) -> AsyncGenerator[None]:
        yield
        if fails:
            raise LookupError

    async def receive() -> Message:
        return {"type": f"lifespan.{next(events)}"}

    async def send(message: Message) -> None:
        heard.append((message["type"], is_open(broker)))

    with contextlib.suppress(LookupError):
        await application(broker, lifespan=mine)({"type": "lifespan"}, receive, send)
    end = "lifespan.shutdown.failed" if fails else "lifespan.shutdown.complete"
    assert [("lifespan.startup.complete", True), (end, False)] == heard


async def test_a_failed_start_is_reported_and_closes_the_broker() -> None:
    """The server hears `startup.failed` once, and nothing stays open."""
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
    """The application's own failure at its end is passed on."""
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
    """The server is told, with the reason; it would otherwise take us for an application without a lifespan."""
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
    """Answer every scope with a page."""
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"hello"})


async def page_after_the_body(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer every scope with a page, once it has been read."""
    await receive()
    await page(scope, receive, send)


async def silence(scope: Scope, receive: Receive, send: Send) -> None:
    """Leave other scopes alone."""
    if scope["type"] == "http":
        await page(scope, receive, send)


@pytest.mark.parametrize("app", [answering(session_of), page, page_after_the_body, silence])
async def test_an_application_without_lifespan_is_served(app: Any, caplog: pytest.LogCaptureFixture) -> None:
    """Whether it raises, says nothing or answers with a page: the broker opens and closes in time."""
    broker = TokenBroker({"a": StaticToken("t")})
    wrapped = TokenMiddleware(app, broker=broker, inject=["a"])
    async with lifespan(wrapped):
        assert is_open(broker)
        assert 200 == (await call(wrapped)).status
    assert not is_open(broker)
    assert [] == caplog.records


async def test_a_server_that_ends_without_a_word_leaves_nothing_open() -> None:
    """A lifespan that is cancelled closes the broker."""
    broker = TokenBroker({"a": StaticToken("t")})
    running = Lifespan(application(broker))
    await running.tell("startup")
    running.task.cancel()
    await asyncio.wait([running.task])
    assert not is_open(broker)


async def test_an_application_that_fails_on_the_way_leaves_nothing_open() -> None:
    """Not every application says that its end has come."""

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


async def test_start_up_waits_for_tokens_only_so_long() -> None:
    """A provider that hangs delays the start by `inject_seconds`, once; a request does not wait again."""
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


async def test_the_broker_is_a_lifespan_itself() -> None:
    """`lifespan=broker.lifespan`, and `lifespan_with` keeps what another lifespan yields."""
    broker = TokenBroker({})

    @contextlib.asynccontextmanager
    async def mine(_app: Starlette) -> AsyncGenerator[dict[str, Any]]:
        assert is_open(broker)
        yield {"mine": "kept"}

    async with lifespan(Starlette(lifespan=broker.lifespan)) as state:
        assert {STATE_KEY: broker} == state
    async with lifespan(Starlette(lifespan=broker.lifespan_with(mine))) as state:
        assert {"mine": "kept", STATE_KEY: broker} == state
        assert is_open(broker)
    assert not is_open(broker)


@pytest.mark.parametrize("slip", [None, lambda: None, "generator"])
def test_what_is_no_lifespan_is_told_when_it_is_handed_in(slip: Any) -> None:
    """Not when the server starts; the text says what is missing."""

    async def generator(_app: object) -> AsyncGenerator[None]:
        yield

    text = "write @asynccontextmanager above it" if slip == "generator" else r"a callable \(app\) -> async context"
    given: Any = generator if slip == "generator" else slip
    with pytest.raises(ConfigurationError, match=f"lifespan_with.*{text}"):
        TokenBroker({}).lifespan_with(given)
