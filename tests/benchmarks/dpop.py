"""The proof of a DPoP request, and what it adds to a request of an auth object."""

from __future__ import annotations

import functools
import hashlib
import secrets
import time
from base64 import urlsafe_b64encode
from contextlib import AsyncExitStack
from typing import Any

import httpx
import jwt

from tests.benchmarks.rows import Plan, Row, best_of, interleaved
from tests.providers.private_keys import make_key, pem_of
from tokenmw import TokenBroker
from tokenmw.providers import ClientCredentials, DPoPKey
from tokenmw.testing import ProviderServer

PROOFS = 2_000
REQUESTS = 1_000
GOAL = 1.6
"""The longest time of a proof, as a multiple of PyJWT's own encoding of the same claims with the same key."""
URL = "https://idp.test/api/orders?page=2"


async def run(plan: Plan) -> list[Row]:
    """Measure proofs, and warm requests with and without one."""
    key = make_key("P-256")
    ours = DPoPKey(pem_of(key))
    token = secrets.token_urlsafe(32)
    header = {"typ": "dpop+jwt", "jwk": jwt.get_unverified_header(ours.proof("GET", URL))["jwk"]}

    def by_pyjwt() -> str:
        digest = urlsafe_b64encode(hashlib.sha256(token.encode()).digest()).rstrip(b"=").decode()
        claims = {"jti": secrets.token_urlsafe(16), "htm": "GET", "htu": URL[:-7], "iat": int(time.time())}
        return jwt.encode({**claims, "ath": digest}, key, algorithm="ES256", headers=header)

    url = httpx.URL(URL)  # as auth objects have it; reading one that is text takes 20 us

    def by_ours() -> str:
        return ours.proof("GET", url, token=token)

    count = plan.of(PROOFS)
    contestants = {
        name: best_of(functools.partial(each, make, count)) for name, make in (("ours", by_ours), ("pyjwt", by_pyjwt))
    }
    async with AsyncExitStack() as stack:
        for name, dpop in (("bound", ours), ("bearer", None)):
            server = ProviderServer(token_life=86_400)
            token_client = await stack.enter_async_context(httpx.AsyncClient(transport=server.transport()))
            crm = ClientCredentials(
                token_url="https://idp.test/oauth2/token", client_id="crm", client_secret="a secret", dpop=dpop
            )
            broker = await stack.enter_async_context(TokenBroker({"crm": crm}, http=token_client))
            api = await stack.enter_async_context(
                httpx.AsyncClient(transport=httpx.MockTransport(accept), auth=broker.auth("crm"))
            )
            await api.get(URL)
            contestants[name] = best_of(functools.partial(requests, api, plan.of(REQUESTS)))
        figures = await interleaved(contestants, rounds=plan.rounds)
    ratio = figures["ours"].median / figures["pyjwt"].median
    return [
        Row(
            "DPoP proof for an API request (ES256)",
            "us",
            figures["ours"],
            {"PyJWT, the same claims": figures["pyjwt"]},
            f"<= {GOAL} of PyJWT's own encoding",
            ratio <= plan.slack * GOAL,
        ),
        Row("request with an auth object, DPoP", "us", figures["bound"], {"a bearer token": figures["bearer"]}),
    ]


def accept(_request: httpx.Request) -> httpx.Response:
    """Answer as an API does that accepts the token."""
    return httpx.Response(200)


async def each(make: Any, count: int) -> float:
    """Return the microseconds of one call."""
    began = time.thread_time()
    for _ in range(count):
        make()
    return (time.thread_time() - began) / count * 1e6


async def requests(client: httpx.AsyncClient, count: int) -> float:
    """Return the microseconds of one request."""
    began = time.thread_time()
    for _ in range(count):
        await client.get(URL)
    return (time.thread_time() - began) / count * 1e6
