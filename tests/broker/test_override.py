"""Tests of a program replace the providers of its names, and get the real ones back."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from starlette.requests import Request
from starlette.types import Scope

from tests.asgi_client import Source, answering, call, scope_of
from tokenmw import ConfigurationError, TokenBroker, TokenMiddleware
from tokenmw.asgi.request import tokens_of
from tokenmw.providers import StaticToken


@pytest.fixture
async def broker() -> Any:
    """Open a broker with two providers."""
    async with TokenBroker({"a": StaticToken("real-a"), "b": StaticToken("real-b")}) as broker:
        yield broker


async def value(broker: TokenBroker, name: str = "a") -> str:
    """Return the token of a name."""
    return (await broker.token(name)).value


async def test_an_override_holds_for_its_block(broker: TokenBroker) -> None:
    """Other names keep their providers, and afterwards the name has its own again."""
    assert "real-a" == await value(broker)
    with broker.override({"a": StaticToken("test")}):
        assert "test" == await value(broker)
        assert "real-b" == await value(broker, "b")
    assert "real-a" == await value(broker)


async def test_overrides_nest(broker: TokenBroker) -> None:
    """The inner one wins, and the end of each restores the provider before it."""
    with broker.override({"a": StaticToken("outer"), "b": StaticToken("outer-b")}):
        with broker.override({"a": StaticToken("inner")}):
            assert ["inner", "outer-b"] == [await value(broker), await value(broker, "b")]
        assert "outer" == await value(broker)
    assert ["real-a", "real-b"] == [await value(broker), await value(broker, "b")]


async def test_overrides_may_end_in_any_order(broker: TokenBroker) -> None:
    """Two concurrent tests do not leave an override behind."""
    first, second = broker.override({"a": StaticToken("one")}), broker.override({"b": StaticToken("two")})
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    assert ["real-a", "two"] == [await value(broker), await value(broker, "b")]
    second.__exit__(None, None, None)
    assert ["real-a", "real-b"] == [await value(broker), await value(broker, "b")]


async def test_an_override_ends_with_an_exception(broker: TokenBroker) -> None:
    """A test that fails does not leave its token to the next one."""
    with pytest.raises(LookupError), broker.override({"a": StaticToken("test")}):
        raise LookupError
    assert "real-a" == await value(broker)


async def test_requests_use_the_override(broker: TokenBroker) -> None:
    """Injected tokens, `resolve` and `auth` do, also in a request that began before."""

    async def use(scope: Scope) -> Any:
        tokens = scope["state"]["tokens"]
        provider, _ = await tokens.auth("a")._calls.find_credential()
        return [tokens["a"].value, (await tokens.resolve("a")).value, provider is test]

    test = StaticToken("test")
    app = TokenMiddleware(answering(use), broker=broker, inject=["a"])
    begun = tokens_of(broker, scope_of("http"))
    with broker.override({"a": test}):
        assert ["test", "test", True] == (await call(app)).json
        assert "test" == (await begun.resolve("a")).value
    assert ["real-a", "real-a", False] == (await call(app)).json
    assert "real-a" == (await begun.resolve("a")).value


async def test_an_override_may_depend_on_the_request(broker: TokenBroker) -> None:
    """A callable may replace a provider, and a provider a callable."""

    async def use(scope: Scope) -> Any:
        return Request(scope).state.tokens["a"].value

    app = TokenMiddleware(answering(use), broker=broker, inject=["a"])
    with broker.override({"a": lambda connection: StaticToken("of-" + connection.headers["x-tenant"])}):
        assert "of-acme" == (await call(app, headers=[(b"x-tenant", b"acme")])).json
        with broker.override({"a": StaticToken("fixed")}):
            assert "fixed" == (await call(app)).json
    assert "real-a" == (await call(app)).json


async def test_a_request_calls_the_callable_of_an_override(broker: TokenBroker) -> None:
    """The credential that it has from the callable before is not used meanwhile."""
    with broker.override({"a": lambda _: StaticToken("outer")}):
        tokens = tokens_of(broker, scope_of("http"))
        assert "outer" == (await tokens.resolve("a")).value
        with broker.override({"a": lambda _: StaticToken("inner")}):
            assert "inner" == (await tokens.resolve("a")).value
        assert "outer" == (await tokens.resolve("a")).value


async def test_an_override_holds_in_other_threads(broker: TokenBroker) -> None:
    """A server that a test runs in a thread uses it, too."""
    seen: list[Any] = []
    test = StaticToken("test")
    with broker.override({"a": test}):
        thread = threading.Thread(target=lambda: seen.append(broker._credentials.entry("a").provider))
        thread.start()
        thread.join()
    assert [test] == seen


@pytest.mark.parametrize("wrong", [{"c": StaticToken("t")}, "a", None, {"a": "t"}])
async def test_only_known_names_can_be_overridden(broker: TokenBroker, wrong: Any) -> None:
    """With a misspelt name the test would use the real provider."""
    with pytest.raises(ConfigurationError, match="override"), broker.override(wrong):
        pass
    assert "real-a" == await value(broker)


async def test_an_override_does_not_fetch_the_real_token() -> None:
    """Neither in the block nor at its end."""
    source = Source()
    async with TokenBroker({"a": StaticToken(source)}) as real:
        with real.override({"a": StaticToken("test")}):
            await call(TokenMiddleware(answering(lambda _: value(real)), broker=real, inject=["a"]))
        assert 0 == source.calls
