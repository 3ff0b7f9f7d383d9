"""The dependencies find the broker through the middleware or the lifespan, and return what the middleware would."""

from __future__ import annotations

import traceback
from typing import Any

import pytest
from starlette.requests import HTTPConnection

from tests.asgi_client import Source, answering, call, scope_of, session_of
from tokenmw import (
    APIKeyRefused,
    APIKeySource,
    ConfigurationError,
    TokenBroker,
    TokenMiddleware,
    TokenUnavailable,
    provider_token,
    request_tokens,
    session_id,
)
from tokenmw.broker import STATE_KEY
from tokenmw.providers import StaticToken

KEY = (b"x-api-key", b"k-1")


def connection_to(broker: TokenBroker, *headers: tuple[bytes, bytes], **state: Any) -> HTTPConnection:
    """Make a connection of an application whose lifespan is the broker's."""
    return HTTPConnection(scope_of("http", headers=headers, state={STATE_KEY: broker, **state}))


async def test_the_lifespan_alone_is_enough() -> None:
    """Without the middleware, all dependencies work, and return the same objects."""
    async with TokenBroker({"a": StaticToken("t")}) as broker:
        connection = connection_to(broker, KEY)
        assert await broker.session_id("k-1") == await session_id(connection)
        assert "t" == (await provider_token("a")(connection)).value
        tokens = await request_tokens(connection)
        assert tokens is await request_tokens(HTTPConnection(connection.scope))
        assert 0 == len(tokens), "nothing is injected without the middleware"
        assert "t" == (await tokens.resolve("a")).value


async def test_a_connection_gets_one_session_id() -> None:
    """It stays the same if it is random, and if another object of the same connection asks for it."""
    async with TokenBroker({}) as broker:
        connection = connection_to(broker)
        first = await session_id(connection)
        assert first == await session_id(HTTPConnection(connection.scope))
        assert first != await session_id(connection_to(broker))


async def test_the_session_id_of_the_middleware_is_used() -> None:
    """The middleware's options decide, even where the broker's differ."""
    seen: list[str] = []

    async def ask(scope: Any) -> None:
        seen.append(await session_id(HTTPConnection(scope)))

    async with TokenBroker({}, missing_key="reject") as broker:
        source = APIKeySource(headers=["x-other"])
        app = TokenMiddleware(answering(ask), broker=broker, api_key=source, missing_key="random")
        await call(app, headers=[(b"x-other", b"k-1")])
        assert [await broker.session_id("k-1")] == seen
        await call(app)
        without = TokenMiddleware(answering(ask), broker=broker, sessions=False)
        assert 401 == (await call(without)).status, "without a session id, the broker's options decide"
        assert 200 == (await call(without, headers=[KEY])).status
        assert seen[0] == seen[2]


async def test_a_missing_key_is_refused_without_the_middleware() -> None:
    """The broker's `missing_key` and `authenticate` decide."""

    async def authenticate(_connection: object, key: str) -> object | None:
        return None if key == "bad" else key.upper()

    async with TokenBroker({}, missing_key="reject", authenticate=authenticate) as broker:
        with pytest.raises(APIKeyRefused, match="needs an API key"):
            await session_id(connection_to(broker))
        with pytest.raises(APIKeyRefused, match="not accepted"):
            await session_id(connection_to(broker, (b"x-api-key", b"bad")))
        connection = connection_to(broker, KEY)
        await session_id(connection)
        assert "K-1" == connection.state.caller


async def test_connections_with_one_shared_state_keep_their_session_ids() -> None:
    """Without the middleware, too, a connection does not get the session id of another one."""
    async with TokenBroker({}) as broker:
        state = {STATE_KEY: broker}
        ids = [
            await session_id(HTTPConnection(scope_of("http", headers=[(b"x-api-key", key)], state=state)))
            for key in (b"k-1", b"k-2")
        ]
        assert [await broker.session_id("k-1"), await broker.session_id("k-2")] == ids


@pytest.mark.parametrize("state", [{}, {"state": {}}, {"state": {STATE_KEY: "mine"}}, {"state": {"tokens": "mine"}}])
async def test_the_error_without_a_broker_names_the_fix(state: dict[str, Any]) -> None:
    """It names both ways to give the application a broker."""
    connection = HTTPConnection(scope_of("http", **state))
    for dependency in (session_id, request_tokens, provider_token("a")):
        with pytest.raises(ConfigurationError, match=r"Middleware\(TokenMiddleware.*lifespan=broker\.lifespan"):
            await dependency(connection)


async def test_dependencies_of_one_name_are_equal() -> None:
    """A framework resolves them once, and a test can write an equal one to override them."""
    assert provider_token("a") == provider_token("a")
    assert hash(provider_token("a")) == hash(provider_token("a"))
    assert provider_token("a") != provider_token("b")
    other: object = session_id
    assert provider_token("a") != other
    assert "provider_token('a')" == repr(provider_token("a"))


@pytest.mark.parametrize("name", ["", None, 5, ["a"], StaticToken("t")])
def test_provider_token_takes_a_name(name: Any) -> None:
    """Anything else is refused when the dependency is made, with an example."""
    with pytest.raises(ConfigurationError, match=r'provider_token\("feishu"\)'):
        provider_token(name)


async def test_a_dependency_raises_in_the_request() -> None:
    """It raises `ConfigurationError` with the known names for an unknown one; `TokenUnavailable` without a token."""
    source = Source()
    source.error = TokenUnavailable("busy")
    async with TokenBroker({"a": StaticToken(source)}) as broker:
        with pytest.raises(ConfigurationError, match=r"no provider 'c'.*: a\."):
            await provider_token("c")(connection_to(broker))
        with pytest.raises(TokenUnavailable):
            await provider_token("a")(connection_to(broker))


async def test_the_dependencies_return_what_the_middleware_has_set(caplog: pytest.LogCaptureFixture) -> None:
    """The session id and the tokens are those in the state."""
    async with TokenBroker({"a": StaticToken("t")}) as broker:
        answer = await call(TokenMiddleware(answering(session_of), broker=broker, inject=["a"]), headers=[KEY])
        connection = HTTPConnection(answer.scope)
        assert answer.json == await session_id(connection)
        assert connection.state.tokens is await request_tokens(connection)
    assert not caplog.records


@pytest.mark.parametrize("dependency", [provider_token("a"), request_tokens, session_id])
async def test_without_the_middleware_each_dependency_calls_authenticate(dependency: Any) -> None:
    """A route that needs no session id does not use the program's tokens for an unknown caller."""
    checked: list[str] = []

    async def authenticate(_connection: HTTPConnection, key: str) -> str | None:
        checked.append(key)
        return key if key == "k-1" else None

    async with TokenBroker({"a": StaticToken("t")}, authenticate=authenticate, missing_key="reject") as broker:
        for headers in ([], [(b"x-api-key", b"wrong")], [(b"authorization", b"Basic YTpi")]):
            with pytest.raises(APIKeyRefused):
                await dependency(connection_to(broker, *headers))
        connection = connection_to(broker, KEY)
        for _ in range(2):
            await dependency(connection)
            await session_id(connection)
        assert "k-1" == connection.state.caller
    assert ["wrong", "k-1"] == checked


@pytest.mark.parametrize("dependency", [provider_token("a"), request_tokens])
async def test_each_dependency_requires_a_key_with_reject(dependency: Any) -> None:
    """Without `authenticate` any key is accepted, and the options of the middleware win over the broker's."""
    async with TokenBroker({"a": StaticToken("t")}, missing_key="reject") as broker:
        with pytest.raises(APIKeyRefused):
            await dependency(connection_to(broker))
        await dependency(connection_to(broker, KEY))

        async def used(scope: Any) -> None:
            await dependency(HTTPConnection(scope))

        for sessions in (True, False):
            app = TokenMiddleware(answering(used), broker=broker, sessions=sessions, missing_key="random")
            assert 200 == (await call(app)).status


@pytest.mark.parametrize("dependency", [session_id, request_tokens, provider_token("a")])
@pytest.mark.parametrize("wrong", ["alice", b"alice", None, TokenBroker({})])
async def test_a_dependency_takes_a_connection(dependency: Any, wrong: Any) -> None:
    """Called by hand with an API key or a broker, it names what to call instead, and does not show the key."""
    with pytest.raises(ConfigurationError, match=r"takes a connection.*broker\.session_id.*broker\.token") as seen:
        await dependency(wrong)
    report = "".join(traceback.TracebackException.from_exception(seen.value, capture_locals=True).format())
    assert "connection = " not in report
