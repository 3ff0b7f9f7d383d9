"""A `TokenHTTP` over our own client, and over the clients of both libraries."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

import pytest

from tokenmw.clock import SYSTEM_CLOCK
from tokenmw.limits import Limits
from tokenmw.providers import TokenHTTP
from tokenmw.providers.http_client import default_client

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

LIMITS = Limits(fetch_seconds=0.6)


@pytest.fixture(params=["ours", "httpx", "httpx2"])
async def any_http(request: pytest.FixtureRequest) -> AsyncGenerator[TokenHTTP]:
    """The object that providers get, over each client."""
    client: Any
    if request.param == "ours":
        client = default_client(limits=LIMITS)
    else:
        client = importlib.import_module(request.param).AsyncClient(trust_env=False)
    http = TokenHTTP(client, limits=LIMITS, clock=SYSTEM_CLOCK)
    yield http
    await http.aclose()


@pytest.fixture
async def our_http() -> AsyncGenerator[TokenHTTP]:
    """The object that providers get, over our own client."""
    http = TokenHTTP(default_client(limits=Limits()), limits=Limits(), clock=SYSTEM_CLOCK)
    yield http
    await http.aclose()
