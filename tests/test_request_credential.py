"""A callable provider is called once in a request, whether it returns or raises."""

from __future__ import annotations

import asyncio
import contextvars
from typing import Any

import pytest
from starlette.requests import HTTPConnection

from tests.asgi_client import answering, call, scope_of, session_of
from tokenmw import ConfigurationError, RequestTokens, TokenBroker, TokenMiddleware
from tokenmw.asgi.request import tokens_of
from tokenmw.providers import Provider, StaticToken


class ProviderOfTenant:
    """A callable provider, sync or async, that counts its calls."""

    def __init__(self, *, is_async: bool, error: Exception | None = None) -> None:
        self.calls = 0
        self._is_async = is_async
        self._error = error

    def __call__(self, connection: Any) -> Any:
        """Return the provider of the tenant in a header."""
        self.calls += 1
        return self._return_later(connection) if self._is_async else self._provider(connection)

    async def _return_later(self, connection: Any) -> Provider:
        await asyncio.sleep(0)
        return self._provider(connection)

    def _provider(self, connection: Any) -> Provider:
        if self._error is not None:
            raise self._error
        return StaticToken("of-" + connection.headers["x-tenant"])


@pytest.mark.parametrize("is_async", [False, True])
async def test_a_callable_is_called_once_in_a_request(is_async: bool) -> None:  # noqa: FBT001  as pytest gives it
    """Any number of uses at any time share one call, and another request has its own."""
    provider_of = ProviderOfTenant(is_async=is_async)
    async with TokenBroker({"x": provider_of}) as broker:
        app = TokenMiddleware(answering(session_of), broker=broker, inject=["x"])
        for calls, tenant in enumerate((b"one", b"two"), start=1):
            scope = scope_of("http", headers=[(b"x-tenant", tenant)])
            tokens = tokens_of(broker, scope)
            found = await asyncio.gather(*(tokens.resolve("x") for _ in range(20)))
            assert {f"of-{tenant.decode()}"} == {token.value for token in found}
            assert {"x"} == {token.provider for token in found}
            assert (await call(app, **scope)).status == 200
            assert (await tokens.resolve("x")).value == tokens["x"].value
            assert calls == provider_of.calls


@pytest.mark.parametrize("is_async", [False, True])
async def test_a_callable_that_raises_is_called_once(is_async: bool) -> None:  # noqa: FBT001  as pytest gives it
    """Each use raises its error; an injected name alone does not fail the request."""
    provider_of = ProviderOfTenant(is_async=is_async, error=LookupError("no tenant"))
    async with TokenBroker({"x": provider_of}) as broker:
        app = TokenMiddleware(answering(session_of), broker=broker, inject=["x"])
        tokens: RequestTokens = (await call(app)).scope["state"]["tokens"]
        assert "x" in tokens
        with pytest.raises(LookupError, match="no tenant"):
            tokens["x"]
        results = await asyncio.gather(*(tokens.resolve("x") for _ in range(5)), return_exceptions=True)
        assert {LookupError} == {type(result) for result in results}
        assert provider_of.calls == 1


async def test_a_callable_must_return_a_provider() -> None:
    """The error names only the type of what it returned, which might be a credential."""

    def wrong(_connection: HTTPConnection) -> Any:
        return {"secret": "s3cret"}

    async with TokenBroker({"x": wrong}) as broker:
        tokens = tokens_of(broker, scope_of("http"))
        with pytest.raises(ConfigurationError, match="'x' must return a Provider, not dict"):
            await tokens.resolve("x")
        with pytest.raises(ConfigurationError, match=r"depend on the request.*resolve"):
            await broker.token("x")


async def test_a_cancelled_use_does_not_disturb_the_others() -> None:
    """The call goes on while another use waits for it; without one it is cancelled, and the next use calls again."""
    gate, calls, variable = asyncio.Event(), [], contextvars.ContextVar("mine", default="")

    async def provider_of(_connection: Any) -> Provider:
        calls.append(variable.get())
        await gate.wait()
        return StaticToken("t")

    variable.set("seen")
    async with TokenBroker({"x": provider_of}) as broker:
        tokens = tokens_of(broker, scope_of("http"))
        first, second = (asyncio.ensure_future(tokens.resolve("x")) for _ in range(2))
        await asyncio.sleep(0.01)
        first.cancel()
        await asyncio.sleep(0)
        gate.set()
        assert (await second).value == "t"
        assert calls == ["seen"], "the request's context variables are the callable's"
        assert first.cancelled()
        gate.clear()
        again = tokens_of(broker, scope_of("http"))
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(again.resolve("x"), 0.01)
        gate.set()
        assert (await again.resolve("x")).value == "t"
