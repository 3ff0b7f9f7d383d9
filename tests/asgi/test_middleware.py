"""The middleware identifies callers, and keeps one connection's state out of another's."""

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
    """Answer with who calls, and whether there is a session id."""
    return [scope["state"].get("caller", "nobody asked"), "session_id" in scope["state"]]


async def session(app: Any, *headers: tuple[bytes, bytes], **more: Any) -> str:
    """Return the session id of a request with these headers."""
    answer = await call(app, headers=headers, **more)
    assert 200 == answer.status
    return str(UUID(answer.json))


async def test_one_key_has_one_id_wherever_it_is_sent() -> None:
    """`Authorization: Bearer k` and `X-API-Key: k` are the same key; another key is another id."""
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
        [(b"x-api-key", b"k" * 5000)],
        [(b"x-api-key", b"k-1"), (b"x-api-key", b"k-2")],
        [(b"authorization", b"Bearer k-1"), (b"authorization", b"Bearer k-2")],
        [(b"authorization", b"Bearer"), (b"x-api-key", b"")],
    ],
)
async def test_an_unusable_key_is_no_key(headers: list[tuple[bytes, bytes]]) -> None:
    """Each such request gets an id of its own with `random`, and 401 with `reject`; never a 500."""
    async with TokenBroker({}) as broker:
        app = TokenMiddleware(answering(session_of), broker=broker)
        assert await session(app, *headers) != await session(app, *headers)
        strict = TokenMiddleware(answering(session_of), broker=broker, missing_key="reject")
        refused = await call(strict, headers=headers)
        assert (401, "Bearer") == (refused.status, refused.headers["www-authenticate"])


@pytest.mark.parametrize("key", ["schlüssel".encode(), "schlüssel".encode("latin-1"), "鍵".encode(), b"\xff\x00\x80"])
async def test_a_key_may_be_any_bytes(key: bytes) -> None:
    """UTF-8, latin-1 or nothing known: a key is its bytes, and keeps its id; `authenticate` gets it as text."""
    seen: list[str] = []

    async def authenticate(_connection: object, text: str) -> object:
        seen.append(text)
        return text

    async with TokenBroker({}, authenticate=authenticate) as broker:
        app = TokenMiddleware(answering(session_of), broker=broker)
        assert await session(app, (b"x-api-key", key)) == await session(app, (b"x-api-key", key))
        assert len(seen) == 2
        assert all(isinstance(text, str) for text in seen)


async def test_the_same_key_twice_is_one_key() -> None:
    """Proxies repeat headers; only different values contradict each other."""
    async with TokenBroker({}) as broker:
        app = TokenMiddleware(answering(session_of), broker=broker)
        assert await session(app, KEY) == await session(app, KEY, KEY)


async def test_a_middleware_may_look_elsewhere_for_the_key() -> None:
    """`api_key` of one middleware wins over the broker's, and so does `missing_key`."""
    async with TokenBroker({}, missing_key="reject") as broker:
        elsewhere = APIKeySource(headers=(), query=["key"])
        app = TokenMiddleware(answering(session_of), broker=broker, api_key=elsewhere)
        assert 401 == (await call(app, headers=[KEY])).status
        assert await broker.session_id("k-1") == await session(app, query_string=b"key=k%2D1")
        relaxed = TokenMiddleware(answering(session_of), broker=broker, missing_key="random")
        assert await session(relaxed) != await session(relaxed)


async def test_sessions_can_be_left_out() -> None:
    """With `sessions=False` no key is looked for, nobody is refused, and the tokens are there."""
    async with TokenBroker({"a": StaticToken("t")}, missing_key="reject") as broker:
        app = TokenMiddleware(answering(session_of), broker=broker, sessions=False, inject=["a"])
        answer = await call(app, headers=[KEY])
        assert answer.json is None
        assert "t" == answer.scope["state"]["tokens"]["a"].value


async def test_a_second_middleware_does_not_ask_again() -> None:
    """An inner middleware of the same broker finds the id there, also a random one, and injects its own names."""
    asked = 0

    async def authenticate(_connection: object, key: str) -> object:
        nonlocal asked
        asked += 1
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
        assert 1 == asked
        assert (await call(outer)).json[0] == seen[-1]
        strict = TokenMiddleware(answering(session_of), broker=broker, missing_key="reject")
        refused = await call(TokenMiddleware(strict, broker=broker))
        assert 401 == refused.status, "what the outer one lets pass, the inner one may refuse"


async def test_an_inner_middleware_of_another_broker_has_its_own() -> None:
    """Two brokers in one application do not take each other's tokens for theirs."""
    async with TokenBroker({"a": StaticToken("t")}) as one, TokenBroker({"a": StaticToken("u")}) as other:
        inner = TokenMiddleware(answering(session_of), broker=other, inject=["a"])
        answer = await call(TokenMiddleware(inner, broker=one, inject=["a"]), headers=[KEY])
        assert await other.session_id("k-1") == answer.json
        assert "u" == answer.scope["state"]["tokens"]["a"].value


async def test_a_server_that_shares_one_state_mixes_up_nobody() -> None:
    """One dict given to all connections, one after the other or at the same time: no caller gets another's id."""
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


async def test_other_scopes_pass_untouched() -> None:
    """A kind of connection that is neither HTTP nor WebSocket is not ours."""
    seen: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append((scope, receive, send))

    async with TokenBroker({}) as broker:
        arguments: Any = ({"type": "webtransport"}, object(), object())
        await TokenMiddleware(app, broker=broker)(*arguments)
        assert [arguments] == seen
        assert {"type": "webtransport"} == arguments[0]


async def test_names_may_depend_on_the_connection() -> None:
    """`inject` takes a callable, sync or async; a name that the broker does not have is named with those it has."""

    def now(connection: HTTPConnection) -> list[str]:
        return [connection.headers["x-wants"]]

    async def later(connection: HTTPConnection) -> list[str]:
        return now(connection)

    choices: list[Any] = [now, later]
    async with TokenBroker({"a": StaticToken("t"), "b": StaticToken("u")}) as broker:
        for choose in choices:
            app = TokenMiddleware(answering(session_of), broker=broker, inject=choose)
            answer = await call(app, headers=[(b"x-wants", b"b")])
            assert ["b"] == list(answer.scope["state"]["tokens"])
            with pytest.raises(ConfigurationError, match=r"inject=….*'c'.*a, b"):
                await call(app, headers=[(b"x-wants", b"c")])


async def test_a_warm_request_waits_for_nothing() -> None:
    """With a known key and a fresh token, a request is answered without giving up the loop once."""
    source = Source()
    app_of = answering(session_of)
    async with TokenBroker({"a": StaticToken(source)}, clock=ManualClock()) as broker:
        app = TokenMiddleware(app_of, broker=broker, inject=["a"])
        async with lifespan(app):
            await call(app, headers=[KEY])
            sent: list[Message] = []

            async def receive() -> Message:
                raise AssertionError("The handler does not ask for a body.")

            async def send(message: Message) -> None:
                sent.append(message)

            coroutine = app(scope_of("http", headers=[KEY]), receive, send)
            with pytest.raises(StopIteration):
                coroutine.send(None)
        assert 200 == sent[0]["status"]
        assert 1 == source.calls


async def test_a_request_is_gone_when_it_has_ended() -> None:
    """Nothing of it waits for the garbage collector."""
    async with TokenBroker({"a": StaticToken("t")}) as broker:
        app = TokenMiddleware(answering(session_of), broker=broker, inject=["a"])
        gc.disable()
        try:
            exchange = await call(app, headers=[KEY])
            tied = weakref.ref(exchange.scope.setdefault("extensions", _Tied()))
            del exchange
            assert tied() is None
        finally:
            gc.enable()


class _Tied(dict[str, object]):
    """Something in a scope that can be looked after; a plain dict cannot."""
