"""`request.state.tokens`: injected tokens, errors that are raised on use only, and tokens resolved on demand."""

from __future__ import annotations

import asyncio
import importlib
from collections.abc import AsyncGenerator
from typing import Any

import anyio.to_thread
import pytest
from starlette.requests import HTTPConnection
from starlette.types import Scope

from tests.asgi_client import Source, answering, call, lifespan, session_of
from tests.brokers import runtime_of
from tests.redis.waiting import until
from tokenmw import (
    ConfigurationError,
    CredentialRejected,
    RequestTokens,
    TokenBroker,
    TokenMiddleware,
    TokenUnavailable,
)
from tokenmw.providers import ClientCredentials, Provider, StaticToken
from tokenmw.testing import ManualClock, ProviderServer


async def tokens_in(app: TokenMiddleware) -> RequestTokens:
    """Serve one request, and return its tokens."""
    tokens: RequestTokens = (await call(app)).scope["state"]["tokens"]
    return tokens


@pytest.fixture
def source() -> Source:
    """Return the function of the provider `a`."""
    return Source()


@pytest.fixture
def clock() -> ManualClock:
    """Return the broker's clock."""
    return ManualClock()


@pytest.fixture
async def app(source: Source, clock: ManualClock) -> AsyncGenerator[TokenMiddleware]:
    """Yield an application that uses no token; `a` is injected, `b` is not."""
    broker = TokenBroker({"a": StaticToken(source), "b": StaticToken("t-b")}, clock=clock)
    async with broker:
        yield TokenMiddleware(answering(session_of), broker=broker, inject=["a"])


async def test_injected_tokens_are_found_by_name(app: TokenMiddleware) -> None:
    """The tokens behave as a read-only dict of the injected names."""
    tokens = await tokens_in(app)
    assert tokens["a"].value == "t-1"
    assert ("a" in tokens, "b" in tokens, len(tokens), list(tokens)) == (True, False, 1, ["a"])


async def test_a_name_that_is_not_injected_is_a_key_error_with_the_fix(app: TokenMiddleware) -> None:
    """The text says how to get the token; for an unknown name it lists the known ones."""
    tokens = await tokens_in(app)
    with pytest.raises(KeyError, match=r"inject=\[…\].*resolve\('b'\)"):
        tokens["b"]
    with pytest.raises(KeyError, match=r"no provider 'c'.*a, b"):
        tokens["c"]
    assert (await tokens.resolve("b")).value == "t-b"
    for use in (tokens.resolve, app._broker.token):
        with pytest.raises(ConfigurationError, match=r"no provider 'c'.*a, b"):
            await use("c")
    with pytest.raises(ConfigurationError, match=r"no provider 'c'.*a, b"):
        tokens.auth("c")


@pytest.mark.parametrize(
    ("error", "raised"),
    [
        (TokenUnavailable("busy"), TokenUnavailable),
        (CredentialRejected("no"), CredentialRejected),
        (OSError("?"), TokenUnavailable),
    ],
)
async def test_an_error_is_raised_on_use_only(
    app: TokenMiddleware, source: Source, error: Exception, raised: type[Exception]
) -> None:
    """The request is served; `in`, `len` and iteration never raise, and include the failed name."""
    source.error = error
    for _ in range(2):
        tokens = await tokens_in(app)
        assert ("a" in tokens, len(tokens), list(tokens)) == (True, 1, ["a"])
        with pytest.raises(raised):
            tokens["a"]
        with pytest.raises(raised):
            await tokens.resolve("a")
    assert source.calls == 1


async def test_after_a_failure_no_request_waits(app: TokenMiddleware, source: Source, clock: ManualClock) -> None:
    """New attempts run in the background, even if they hang; after one succeeds, the token is found."""
    source.error = TokenUnavailable("busy")
    await tokens_in(app)
    source.gate.clear()
    source.error = None
    clock.advance(2)
    tokens = await tokens_in(app)
    for _ in range(2):
        tokens = await asyncio.wait_for(tokens_in(app), 5)
        with pytest.raises(TokenUnavailable):
            tokens["a"]
    for _ in range(5):  # lets the background task run: a request that does not wait does not suspend
        await asyncio.sleep(0)
    assert source.calls == 2
    source.gate.set()
    assert (await tokens.resolve("a")).value == "t-2"
    assert tokens["a"].value == "t-2"


async def test_a_request_waits_for_a_first_fetch_for_inject_seconds(source: Source, clock: ManualClock) -> None:
    """The limit counts from when the fetch began, and holds for all injected names together."""
    other = Source()
    source.gate.clear()
    other.gate.clear()
    async with TokenBroker({"a": StaticToken(source), "c": StaticToken(other)}, clock=clock) as broker:
        app = TokenMiddleware(answering(session_of), broker=broker, inject=["a", "c"])
        first = asyncio.ensure_future(tokens_in(app))
        await clock.elapse(2)
        second = asyncio.ensure_future(tokens_in(app))
        await clock.elapse(0.9)
        assert (first.done(), second.done()) == (False, False)
        await clock.elapse(0.2)
        tokens = await asyncio.wait_for(first, 5)
        await asyncio.wait_for(second, 5)
        with pytest.raises(TokenUnavailable, match="still being fetched"):
            tokens["a"]
        source.gate.set()
        other.gate.set()
        await tokens.resolve("c")
        assert ((await tokens.resolve("a")).value, tokens["a"].value) == ("t-1", "t-1")


async def test_an_expired_token_is_not_returned(app: TokenMiddleware, source: Source, clock: ManualClock) -> None:
    """A request that outlives its token gets an error that names `resolve`, which returns the new one."""
    tokens = await tokens_in(app)
    clock.advance(7200)
    with pytest.raises(TokenUnavailable, match="expired"):
        tokens["a"]
    assert (await tokens.resolve("a")).value == "t-2"
    assert tokens["a"].value == "t-2"


async def test_a_worker_thread_gets_an_aging_token(app: TokenMiddleware, source: Source, clock: ManualClock) -> None:
    """The lookup in the thread returns the valid token, and starts the refresh in the event loop."""
    tokens = await tokens_in(app)
    clock.advance(3000)
    assert await anyio.to_thread.run_sync(lambda: tokens["a"].value) == "t-1"
    await clock.elapse(0)
    assert await anyio.to_thread.run_sync(lambda: tokens["a"].value) == "t-2"
    assert source.calls == 2


async def test_repr_names_the_providers_and_shows_no_token(app: TokenMiddleware) -> None:
    """Nor do the variables of the middleware."""
    assert repr(await tokens_in(app)) == "<RequestTokens of a>"
    async with lifespan(app):
        assert "t-1" not in repr(vars(app))


@pytest.mark.parametrize("library", ["httpx", "httpx2"])
async def test_auth_uses_the_credentials_of_the_request(library: str) -> None:
    """It places the token of the chosen credential, and replaces it once after a rejection."""
    server, clock = ProviderServer(), ManualClock()
    clients: Any = importlib.import_module(library)

    def of_tenant(connection: HTTPConnection) -> Provider:
        tenant = connection.headers["x-tenant"]
        return ClientCredentials(token_url="http://localhost/oauth2/token", client_id=tenant, client_secret="s")

    async def use(scope: Scope) -> Any:
        tokens = scope["state"]["tokens"]
        async with clients.AsyncClient(transport=server.transport(library), base_url="http://localhost") as http:
            first = await http.get("/api/contacts", auth=tokens.auth("crm"))
            server.revoke(await tokens.resolve("crm"))
            clock.advance(10)  # a report about a token younger than 5 s is ignored
            again = await http.get("/api/contacts", auth=tokens.auth("crm"))
        return [first.status_code, again.status_code]

    async with (
        clients.AsyncClient(transport=server.transport(library)) as http,
        TokenBroker({"crm": of_tenant}, http=http, clock=clock) as broker,
    ):
        app = TokenMiddleware(answering(use), broker=broker)
        assert [200, 200] == (await call(app, headers=[(b"x-tenant", b"acme")])).json
    assert 2 == server.calls["oauth2", "acme"]


async def test_a_connection_that_was_idle_for_longer_than_the_lifetime_gets_a_new_token() -> None:
    """A lookup that finds an expired token starts a fetch, and a later lookup finds the new token."""
    server, clock = ProviderServer(token_life=60), ManualClock()
    with server.running() as base_url:
        crm = ClientCredentials(token_url=f"{base_url}/oauth2/token", client_id="app", client_secret="s3cr3t")
        async with TokenBroker({"crm": crm}, clock=clock) as broker:
            tokens = await tokens_in(TokenMiddleware(answering(session_of), broker=broker, inject=["crm"]))
            first = tokens["crm"].value
            clock.advance(61)
            with pytest.raises(TokenUnavailable, match=r"being fetched.*resolve\('crm'\)"):
                tokens["crm"]
            entry = broker._data.tokens.entry(crm, "crm")
            await asyncio.sleep(0)
            assert runtime_of(broker).tokens.refreshing(entry)
            await until(lambda: not runtime_of(broker).tokens.refreshing(entry), within=20)
            assert first != tokens["crm"].value


async def test_a_lookup_after_the_backoff_starts_the_next_attempt(
    app: TokenMiddleware, source: Source, clock: ManualClock
) -> None:
    """A lookup before does not. Each raises the last failure until an attempt succeeds."""
    source.error = TokenUnavailable("busy")
    tokens = await tokens_in(app)
    for calls, seconds in ((1, 0.5), (1, 2.0), (2, 0.0)):
        with pytest.raises(TokenUnavailable, match="busy"):
            tokens["a"]
        source.error = None
        clock.advance(seconds)
        for _ in range(10):  # lets the background task run
            await asyncio.sleep(0)
        assert calls == source.calls
    assert "t-2" == tokens["a"].value
