"""What a worker process of a service does with a bound token: it calls an API."""

from __future__ import annotations

from typing import Any

import httpx

from tests.processes import receive, send
from tokenmw import TokenBroker
from tokenmw.providers import ClientCredentials, DPoPKey

__all__ = ["call_api"]


async def call_api(*, base_url: str, redis: str, key: str | None, requests: int) -> dict[str, Any]:
    """Call the API with a token of the broker, after a signal; return the statuses of its answers, and the token."""
    crm = ClientCredentials(
        token_url=f"{base_url}/oauth2/token",
        client_id="crm",
        client_secret="s",
        dpop=DPoPKey() if key is None else DPoPKey(file=key),
    )
    async with (
        TokenBroker({"crm": crm}, redis=redis, secret_key="a secret for the tests only") as broker,
        httpx.AsyncClient(base_url=base_url, auth=broker.auth("crm"), trust_env=False, timeout=30) as http,
    ):
        send("ready")
        receive()
        statuses = [(await http.get(f"/api/orders/{number}")).status_code for number in range(requests)]
        return {"statuses": statuses, "value": (await broker.token("crm")).value}
