"""A test server and its clients: in process and over real HTTP."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import httpx
import httpx2
import pytest

from tokenmw.testing import ManualClock, ProviderServer

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

BASE = "http://provider.test"
FORM = {"grant_type": "client_credentials"}
CRM = {"client_id": "crm", "client_secret": "s"}


@pytest.fixture
def clock() -> ManualClock:
    """The clock by which tokens expire."""
    return ManualClock()


@pytest.fixture
def server(clock: ManualClock) -> ProviderServer:
    """A server that knows one client."""
    return ProviderServer(clients={"crm": "s"}, clock=clock)


@pytest.fixture(params=["httpx", "httpx2", "socket"])
async def client(request: pytest.FixtureRequest, server: ProviderServer) -> AsyncGenerator[Any]:
    """A client of each library in process, and one over real HTTP."""
    if request.param == "socket":
        with server.running() as base_url:
            async with httpx.AsyncClient(base_url=base_url, trust_env=False) as real:
                yield real
    else:
        library: Any = {"httpx": httpx, "httpx2": httpx2}[request.param]
        async with library.AsyncClient(base_url=BASE, transport=server.transport(request.param)) as local:
            yield local


async def token_of(client: Any, **form: str) -> dict[str, Any]:
    """Request a token, and return the fields of the answer."""
    answer = await client.post("/oauth2/token", data=FORM | CRM | form)
    assert 200 == answer.status_code
    fields: dict[str, Any] = answer.json()
    return fields
