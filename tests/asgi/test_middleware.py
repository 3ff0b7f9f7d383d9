"""The middleware gives each caller its session id, and each connection its own state."""

from __future__ import annotations

import asyncio
import gc
import weakref
from typing import Any
from uuid import UUID

import pytest
from starlette.requests import HTTPConnection
from starlette.types import Message, Scope

from tests.asgi_client import Source, answering, call, lifespan, scope_of, session_of
from tokenmw import APIKeySource, ConfigurationError, RequestTokens, TokenBroker, TokenMiddleware
from tokenmw.providers import StaticToken
from tokenmw.testing import ManualClock

KEY = (b"x-api-key", b"k-1")


async def caller_of(scope: Scope) -> Any:
    """Return the caller, and whether there is a session id."""
    return [scope["state"].get("caller", "not checked"), "session_id" in scope["state"]]


async def session(app: Any, *headers: tuple[bytes, bytes], **more: Any) -> str:
    """Return the session id of a request with these headers."""
    answer = await call(app, headers=headers, **more)
    assert 200 == answer.status
    return str(UUID(answer.json))


async def test_one_key_has_one_session_id_in_every_header() -> None:
    """`Authorization: Bearer k` and `X-API-Key: k` carry the same key; another key has another session id."""
    async with TokenBroker({}) as broker:
        app = TokenMiddleware(answering(session_of), broker=broker)
        first = await session(app, KEY)
        assert first == await session(app, (b"authorization", b"Bearer k-1"))
        assert first == await session(app, (b"authorization", b"bearer   k-1 "))
        assert first == await broker.session_id("k-1")
        assert first != await session(app, (b"x-api-key", b"k-2"))


@pytest.mark.parametrize(
    "headers",
    [
        [],
        [(b"x-api-key", b"")],
        [(b"x-api-key", b"   ")],
        [(b"authorization", b"")],
        [(b"authorization", b"Bearer")],
        [(b"authorization", b"Bearer ")],
        [(b"authorization", b"Basic dTpw")],
        [(b"authorization", b"Basic")],
        [(b"authorization", b"Negotiate")],
        [(b"x-api-key", b"k" * 5000)],
        [(b"x-api-key", b"\xe9")],
        [(b"x-api-key", b"k-1"), (b"x-api-key", b"k-2")],
        [(b"authorization", b"Bearer k-1"), (b"authorization", b"Bearer k-2")],
        [(b"authorization", b"Bearer"), (b"x-api-key", b"")],
    ],
)
async def test_an_unusable_key_is_no_key(headers: list[tuple[bytes, bytes]]) -> None:
    """Each such request gets its own session id with `random`, and 401 with `reject`."""
    async with TokenBroker({}) as broker:
        app = TokenMiddleware(answering(session_of), broker=broker)
        assert await session(app, *headers) != await session(app, *headers)
        strict = TokenMiddleware(answering(session_of), broker=broker, missing_key="reject")
        refused = await call(strict, headers=headers)
        assert (401, "Bearer") == (refused.status, refused.headers["www-authenticate"])


@pytest.mark.parametrize("key", ["schlüssel", "鍵"])
async def test_a_key_may_be_any_text(key: str) -> None:
    """In UTF-8, a key keeps its session id, and `authenticate` gets it as text."""
    seen: list[str] = []

    async def authenticate(_connection: object, text: str) -> object:
        seen.append(text)
        return text

    async with TokenBroker({}, authenticate=authenticate) as broker:
        app = TokenMiddleware(answering(session_of), broker=broker)
        header = (b"x-api-key", key.encode())
        assert await session(app, header) == await session(app, header)
    assert [key, key] == seen


async def test_a_repeated_key_is_one_key() -> None:
    """Proxies repeat headers; only different values make a key unusable."""
    async with TokenBroker({}) as broker:
        app = TokenMiddleware(answering(session_of), broker=broker)
        assert await session(app, KEY) == await session(app, KEY, KEY)


async def test_options_of_the_middleware_win_over_the_brokers() -> None:
    """`api_key` and `missing_key` do."""
    async with TokenBroker({}, missing_key="reject") as broker:
        elsewhere = APIKeySource(headers=(), query=["key"])
        app = TokenMiddleware(answering(session_of), broker=broker, api_key=elsewhere)
        assert 401 == (await call(app, headers=[KEY])).status
        assert await broker.session_id("k-1") == await session(app, query_string=b"key=k%2D1")
        relaxed = TokenMiddleware(answering(session_of), broker=broker, missing_key="random")
        assert await session(relaxed) != await session(relaxed)


async def test_sessions_can_be_left_out() -> None:
    """With `sessions=False` a request has its tokens and no session id."""
    async with TokenBroker({"a": StaticToken("t")}, missing_key="reject") as broker:
        app = TokenMiddleware(answering(session_of), broker=broker, sessions=False, inject=["a"])
        answer = await call(app, headers=[KEY])
        assert answer.json is None
        assert "t" == answer.scope["state"]["tokens"]["a"].value


async def test_a_second_middleware_does_not_authenticate_again() -> None:
    """An inner middleware of the same broker uses the outer one's session id, even a random one, and adds its names."""
    calls = 0

    async def authenticate(_connection: object, key: str) -> object:
        nonlocal calls
        calls += 1
        return key

    async def both(scope: Scope) -> Any:
        return [scope["state"]["session_id"], sorted(scope["state"]["tokens"])]

    async with TokenBroker({"a": StaticToken("t"), "b": StaticToken("u")}, authenticate=authenticate) as broker:
        inner = TokenMiddleware(answering(both), broker=broker, inject=["b"])
        seen: list[str] = []

        async def between(scope: Any, receive: Any, send: Any) -> None:
            seen.append(scope["state"]["session_id"])
            await inner(dict(scope), receive, send)  # middlewares may copy a scope

        outer = TokenMiddleware(between, broker=broker, inject=["a"])
        assert [await broker.session_id("k-1"), ["a", "b"]] == (await call(outer, headers=[KEY])).json
        assert 1 == calls
        assert (await call(outer)).json[0] == seen[-1]
        strict = TokenMiddleware(answering(session_of), broker=broker, missing_key="reject")
        refused = await call(TokenMiddleware(strict, broker=broker))
        assert 401 == refused.status, "the inner middleware may refuse what the outer one accepts"


async def test_an_inner_middleware_of_another_broker_has_its_own_tokens() -> None:
    """Two brokers in one application do not use each other's session ids and tokens."""
    async with TokenBroker({"a": StaticToken("t")}) as one, TokenBroker({"a": StaticToken("u")}) as other:
        inner = TokenMiddleware(answering(session_of), broker=other, inject=["a"])
        answer = await call(TokenMiddleware(inner, broker=one, inject=["a"]), headers=[KEY])
        assert await other.session_id("k-1") == answer.json
        assert "u" == answer.scope["state"]["tokens"]["a"].value


async def test_connections_with_one_shared_state_keep_their_callers() -> None:
    """If a server gives all connections the same dict, no caller gets the session id or the token of another one."""
    gate = asyncio.Event()

    async def slow(scope: Scope) -> Any:
        await gate.wait()
        tokens: RequestTokens = scope["state"]["tokens"]
        return [scope["state"]["session_id"], scope["state"]["theirs"], tokens["a"].value]

    async with TokenBroker({"a": lambda c: StaticToken("of-" + c.headers["x-api-key"])}) as broker:
        app = TokenMiddleware(answering(slow), broker=broker, inject=["a"])
        state = {"theirs": "kept"}
        keys = [f"k-{number}" for number in range(5)]
        calls = [asyncio.ensure_future(call(app, headers=[(b"x-api-key", k.encode())], state=state)) for k in keys]
        await asyncio.sleep(0)
        gate.set()
        expected = [[await broker.session_id(key), "kept", f"of-{key}"] for key in keys]
        assert expected == [(await each).json for each in calls]
        bare = TokenMiddleware(answering(session_of), broker=broker, sessions=False)
        assert (await call(bare, state=state)).json is None


async def test_other_scopes_are_passed_on_unchanged() -> None:
    """A connection that is neither HTTP nor a WebSocket gets neither session id nor tokens."""
    seen: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append((scope, receive, send))

    async with TokenBroker({}) as broker:
        arguments: Any = ({"type": "webtransport"}, object(), object())
        await TokenMiddleware(app, broker=broker)(*arguments)
        assert [arguments] == seen
        assert {"type": "webtransport"} == arguments[0]


async def test_names_may_depend_on_the_connection() -> None:
    """`inject` takes a callable, sync or async; an unknown name is a `ConfigurationError` with the known ones."""

    def sync_names(connection: HTTPConnection) -> list[str]:
        return [connection.headers["x-wants"]]

    async def async_names(connection: HTTPConnection) -> list[str]:
        return sync_names(connection)

    callables: list[Any] = [sync_names, async_names]
    async with TokenBroker({"a": StaticToken("t"), "b": StaticToken("u")}) as broker:
        for names in callables:
            app = TokenMiddleware(answering(session_of), broker=broker, inject=names)
            answer = await call(app, headers=[(b"x-wants", b"b")])
            assert ["b"] == list(answer.scope["state"]["tokens"])
            with pytest.raises(ConfigurationError, match=r"inject=….*'c'.*a, b"):
                await call(app, headers=[(b"x-wants", b"c")])


async def test_a_warm_request_does_not_suspend() -> None:
    """With a cached session id and a fresh token, a request is served in one step of the event loop."""
    source = Source()
    app_of = answering(session_of)
    async with TokenBroker({"a": StaticToken(source)}, clock=ManualClock()) as broker:
        app = TokenMiddleware(app_of, broker=broker, inject=["a"])
        async with lifespan(app):
            await call(app, headers=[KEY])
            sent: list[Message] = []

            async def receive() -> Message:
                raise AssertionError("The handler does not receive a body.")

            async def send(message: Message) -> None:
                sent.append(message)

            coroutine = app(scope_of("http", headers=[KEY]), receive, send)
            with pytest.raises(StopIteration):
                coroutine.send(None)
        assert 200 == sent[0]["status"]
        assert 1 == source.calls


async def test_a_finished_request_is_freed_at_once() -> None:
    """No part of it waits for the garbage collector."""
    async with TokenBroker({"a": StaticToken("t")}) as broker:
        app = TokenMiddleware(answering(session_of), broker=broker, inject=["a"])
        gc.disable()
        try:
            exchange = await call(app, headers=[KEY])
            part = weakref.ref(exchange.scope.setdefault("extensions", _Referable()))
            del exchange
            assert part() is None
        finally:
            gc.enable()


class _Referable(dict[str, object]):
    """A part of a scope with weak references, which a plain dict does not have."""
