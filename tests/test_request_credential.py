"""A callable provider is asked once in a request, whatever comes of it."""

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


class Chooser:
    """A callable provider, sync or async, that counts its calls."""

    def __init__(self, *, later: bool, error: Exception | None = None) -> None:
        self.calls = 0
        self._later = later
        self._error = error

    def __call__(self, connection: Any) -> Any:
        """Choose by a header."""
        self.calls += 1
        return self._choose(connection) if self._later else self._chosen(connection)

    async def _choose(self, connection: Any) -> Provider:
        await asyncio.sleep(0)
        return self._chosen(connection)

    def _chosen(self, connection: Any) -> Provider:
        if self._error is not None:
            raise self._error
        return StaticToken("of-" + connection.headers["x-tenant"])


@pytest.mark.parametrize("later", [False, True])
async def test_a_callable_is_called_once_in_a_request(later: bool) -> None:  # noqa: FBT001  as pytest gives it
    """However often and however many at a time; another request calls it anew."""
    choose = Chooser(later=later)
    async with TokenBroker({"x": choose}) as broker:
        app = TokenMiddleware(answering(session_of), broker=broker, inject=["x"])
        for calls, tenant in enumerate((b"one", b"two"), start=1):
            scope = scope_of("http", headers=[(b"x-tenant", tenant)])
            tokens = tokens_of(broker, scope)
            found = await asyncio.gather(*(tokens.resolve("x") for _ in range(20)))
            assert {f"of-{tenant.decode()}"} == {token.value for token in found}
            assert {"x"} == {token.provider for token in found}
            assert (await call(app, **scope)).status == 200
            assert (await tokens.resolve("x")).value == tokens["x"].value
            assert calls == choose.calls


@pytest.mark.parametrize("later", [False, True])
async def test_a_callable_that_raises_is_called_once_too(later: bool) -> None:  # noqa: FBT001  as pytest gives it
    """Everybody gets its error, on use; an injected name fails no request."""
    choose = Chooser(later=later, error=LookupError("no tenant"))
    async with TokenBroker({"x": choose}) as broker:
        app = TokenMiddleware(answering(session_of), broker=broker, inject=["x"])
        tokens: RequestTokens = (await call(app)).scope["state"]["tokens"]
        assert "x" in tokens
        with pytest.raises(LookupError, match="no tenant"):
            tokens["x"]
        results = await asyncio.gather(*(tokens.resolve("x") for _ in range(5)), return_exceptions=True)
        assert {LookupError} == {type(result) for result in results}
        assert choose.calls == 1


async def test_a_callable_must_return_a_provider() -> None:
    """What it returned instead is not shown: it might be a credential."""

    def wrong(_connection: HTTPConnection) -> Any:
        return {"secret": "s3cret"}

    async with TokenBroker({"x": wrong}) as broker:
        tokens = tokens_of(broker, scope_of("http"))
        with pytest.raises(ConfigurationError, match="'x' must return a Provider, not dict"):
            await tokens.resolve("x")
        with pytest.raises(ConfigurationError, match=r"depend on the request.*resolve"):
            await broker.token("x")


async def test_a_cancelled_caller_does_not_disturb_the_others() -> None:
    """The callable goes on for who still waits; when nobody does, it is cancelled, and may be called again."""
    gate, calls, mine = asyncio.Event(), [], contextvars.ContextVar("mine", default="")

    async def choose(_connection: Any) -> Provider:
        calls.append(mine.get())
        await gate.wait()
        return StaticToken("t")

    mine.set("seen")
    async with TokenBroker({"x": choose}) as broker:
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
