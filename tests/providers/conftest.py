"""A `TokenHTTP` over a client of each library."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

import pytest

from tokenmw.clock import SYSTEM_CLOCK
from tokenmw.limits import Limits
from tokenmw.providers import TokenHTTP

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

LIMITS = Limits(answer_bytes=10_000)


@pytest.fixture(params=["httpx", "httpx2"])
def library(request: pytest.FixtureRequest) -> Any:
    """One of the two client libraries."""
    return importlib.import_module(request.param)


@pytest.fixture
async def client(library: Any) -> AsyncGenerator[Any]:
    """A client with settings that a token request must not carry."""
    async with library.AsyncClient(
        auth=("client-level", "client-level-secret"),
        headers={"x-client-level": "1"},
        params={"client_level": "1"},
        cookies={"client_level": "1"},
        follow_redirects=True,
        trust_env=False,
    ) as client:
        yield client


@pytest.fixture
def http(client: Any) -> TokenHTTP:
    """The object that providers get."""
    return TokenHTTP(client, limits=LIMITS, clock=SYSTEM_CLOCK)
