"""Targets of child processes that ask a broker for tokens, under different loads."""

from __future__ import annotations

import asyncio
import time
from typing import Any

from tests.processes import receive, send
from tokenmw import Limits, TokenBroker, TokenUnavailable
from tokenmw.providers import ClientCredentials

__all__ = ["broker_of", "cold_callers", "count_refusals", "fetch_when_asked", "steady_load"]


def broker_of(*, redis: str, base_url: str, limits: dict[str, Any] | None = None) -> TokenBroker:
    """Make the broker that all processes have."""
    crm = ClientCredentials(token_url=f"{base_url}/oauth2/token", client_id="crm", client_secret="crm-secret")
    return TokenBroker(
        {"crm": crm}, redis=redis, secret_key="a secret for the tests only", limits=Limits(**(limits or {}))
    )


async def cold_callers(*, callers: int, **options: Any) -> dict[str, Any]:
    """Ask for a cold token from many tasks at once. Return the values, and the seconds that the last task waited."""
    async with broker_of(**options) as broker:
        send("ready")
        receive()
        began = time.monotonic()
        tokens = await asyncio.gather(*(broker.token("crm") for _ in range(callers)))
        return {"seconds": time.monotonic() - began, "values": sorted({token.value for token in tokens})}


async def steady_load(*, seconds: float, **options: Any) -> dict[str, Any]:
    """Ask for the token every 5 ms. Return how many calls waited, how many tokens were expired, and all values."""
    waited = expired = 0
    values: set[str] = set()
    async with broker_of(**options) as broker:
        await broker.token("crm")
        send("warm")
        receive()
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            began = time.monotonic()
            token = await broker.token("crm")
            waited += time.monotonic() - began > 0.005
            expired += time.time() >= token.expires_at
            values.add(token.value)
            await asyncio.sleep(0.005)
    return {"waited": waited, "expired": expired, "values": sorted(values)}


async def fetch_when_asked(**options: Any) -> str:
    """Ask for a cold token when the test sends a value, report that, and return the token's value."""
    async with broker_of(**options) as broker:
        send("ready")
        receive()
        send("asking")
        return (await broker.token("crm")).value


async def count_refusals(*, seconds: float, **options: Any) -> dict[str, Any]:
    """Send a request every 50 ms, also while others wait. Return the number refused, the last time, and the texts."""
    refused, last = 0, 0.0
    texts: set[str] = set()

    async def request(broker: TokenBroker) -> None:
        nonlocal refused, last
        began = time.monotonic()
        try:
            await broker.token("crm")
        except TokenUnavailable as error:
            refused, last = refused + 1, max(last, began)
            texts.add(str(error))

    async with broker_of(**options) as broker, asyncio.TaskGroup() as requests:
        send("ready")
        receive()
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            requests.create_task(request(broker))
            await asyncio.sleep(0.05)
    return {"refused": refused, "last_refused": last, "texts": sorted(texts)}
