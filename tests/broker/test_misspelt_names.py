"""A misspelt name of a provider is reported with the name that was meant, wherever it is used."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from tests.asgi_client import answering, scope_of, session_of
from tokenmw import ConfigurationError, Grant, TokenBroker, TokenMiddleware
from tokenmw.asgi.request import tokens_of
from tokenmw.providers import StaticToken

MEANT = r"o provider 'crmm': did you mean 'crm'\? The broker has: crm, feishu\."

USES: dict[str, Callable[[TokenBroker], Any]] = {
    "token": lambda broker: broker.token("crmm"),
    "auth": lambda broker: broker.auth("crmm"),
    "hand_in": lambda broker: broker.hand_in("crmm", Grant("t", expires_in=60)),
    "invalidate_provider": lambda broker: broker.invalidate_provider("crmm"),
    "override": lambda broker: broker.override({"crmm": StaticToken("t")}),
    "inject": lambda broker: TokenMiddleware(answering(session_of), broker=broker, inject=["crmm"]),
    "tokens[...]": lambda broker: tokens_of(broker, scope_of("http"))["crmm"],
    "resolve": lambda broker: tokens_of(broker, scope_of("http")).resolve("crmm"),
    "tokens.auth": lambda broker: tokens_of(broker, scope_of("http")).auth("crmm"),
}


@pytest.mark.parametrize("use", USES)
async def test_the_name_that_was_meant_is_in_the_text(use: str) -> None:
    """With the list of the broker's names behind it."""
    async with TokenBroker({"feishu": StaticToken("t"), "crm": StaticToken("u")}) as broker:
        with pytest.raises((ConfigurationError, KeyError), match=MEANT):
            await _awaited(USES[use](broker))


async def _awaited(result: Any) -> None:
    if isinstance(result, Awaitable):
        await result


async def test_another_name_has_no_suggestion() -> None:
    """Only close matches are named."""
    async with TokenBroker({"feishu": StaticToken("t"), "crm": StaticToken("u")}) as broker:
        with pytest.raises(ConfigurationError, match=r"no provider 'billing'\. The broker has: crm, feishu\."):
            await broker.token("billing")


async def test_a_name_of_a_caller_costs_little() -> None:
    """A program may take names from its callers: a long one is cut, and not compared with thousands."""
    async with TokenBroker({f"tenant-{number}-of-the-crm": StaticToken("t") for number in range(5_000)}) as broker:
        for name in ("x" * 1_000_000, "tenant-7-of-the-cmr", "t" * 100):
            began = time.thread_time()  # processor time, so that other programs do not count
            with pytest.raises(ConfigurationError) as caught:
                await broker.token(name)
            assert time.thread_time() - began < 0.1
            assert "x" * 200 not in str(caught.value)
