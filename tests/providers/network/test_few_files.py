"""A process that may open few files asks for many tokens at the same time."""

from __future__ import annotations

import asyncio

import pytest

from tests.processes import Workers
from tokenmw import TokenBroker, TokenUnavailable
from tokenmw.providers import ClientCredentials
from tokenmw.testing import ProviderServer

FILES, TENANTS = 64, 100


async def test_more_tokens_than_files_are_fetched_at_the_same_time() -> None:
    """The fetches wait for each other's connections: with `ulimit -n 64`, none of 100 fails."""
    pytest.importorskip("resource", reason="this system has no bound of open files")
    server = ProviderServer(delay=0.05)
    with server.running() as base_url:
        target = "tests.providers.network.test_few_files:fetch_for_tenants"
        async with Workers(target, processes=1, arguments={"base_url": base_url}) as workers:
            assert [[]] == await workers.results()
    assert TENANTS == server.calls["oauth2"]


async def fetch_for_tenants(*, base_url: str) -> list[str]:
    """Ask for the tokens of all tenants at the same time, and return the failures."""
    import resource

    _soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (FILES, hard))
    tenants = [
        ClientCredentials(token_url=f"{base_url}/oauth2/token", client_id=f"tenant-{number}", client_secret="secret-1")
        for number in range(TENANTS)
    ]
    async with TokenBroker({}) as broker:
        results = await asyncio.gather(*map(broker.token, tenants), return_exceptions=True)
    return [str(result) for result in results if isinstance(result, TokenUnavailable)]
