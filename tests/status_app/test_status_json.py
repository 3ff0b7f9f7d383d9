"""`/status.json` answers an operator's questions, and has no secret."""

from __future__ import annotations

import asyncio
import re
import time
from typing import TYPE_CHECKING, Any

import pytest
from starlette.requests import HTTPConnection

from tests.asgi_client import Source, call, scope_of
from tests.status_app.serving import AT, serve_status
from tokenmw import CredentialRejected, Limits, RequestTokens, TokenBroker, TokenUnavailable, __version__
from tokenmw.providers import ClientCredentials, StaticToken
from tokenmw.status_app import StatusApp
from tokenmw.testing import Fault, ProviderServer

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.servers import RedisServer

CANARY = "c4n4ry"
SECRET = f"a-secret-{CANARY}-of-some-length"


async def status_until(client: Any, condition: Callable[[Any], bool], *, seconds: float = 10.0) -> Any:
    """Return the first status that fulfils a condition."""
    async with asyncio.timeout(seconds):
        while not condition(status := (await client.get(f"{AT}/status.json")).json()):  # noqa: ASYNC110  the change is on the server
            await asyncio.sleep(0.05)
    return status


async def test_a_failing_provider_and_a_killed_redis_are_shown(private_redis: RedisServer) -> None:
    """Which one, since when, why, after how many attempts, and when the next one is; Redis by its address."""
    provider = ProviderServer()
    began = time.time()
    with provider.running() as base:
        crm = ClientCredentials(token_url=f"{base}/oauth2/token", client_id="crm", client_secret=SECRET)
        broker = TokenBroker({"crm": crm, "static": StaticToken(CANARY)}, redis=private_redis.url, secret_key=SECRET)
        async with serve_status(broker) as client:
            await broker.token("static")
            provider.oauth2.script.then(*[Fault(status=503)] * 20)
            with pytest.raises(TokenUnavailable):
                await broker.token("crm")
            status = await status_until(client, lambda status: status["providers"][0]["state"] == "failing")
            failing, fresh = status["providers"]
            assert status["version"] == __version__
            assert failing["name"] == "crm"
            assert "503" in failing["error"]
            assert failing["reason"] == "provider"
            assert failing["attempts"] == 1
            assert 0 < failing["next_attempt_in"] < 10
            assert began <= failing["since"] <= time.time()
            assert fresh["state"] == "fresh"
            assert 0 < fresh["refresh_in"] < fresh["expires_in"]
            assert status["redis"]["state"] == "up"
            private_redis.kill()
            for number in range(4):
                await broker.session_id(f"{CANARY}-{number}")
            down = await status_until(client, lambda status: status["redis"]["state"] == "down")
            page = (await client.get(f"{AT}/")).text
    (node,) = down["redis"]["nodes"]
    assert node["node"] == f"127.0.0.1:{private_redis.port}"
    assert (node["state"], node["error"]) in {("down", "refused"), ("down", "connection")}
    assert began <= node["since"] <= time.time()
    assert down["sessions"]["cached"] == 4
    assert re.search(r"No token for crm\. Redis is down \((refused|connection)\)\.</p>", page)
    assert f">127.0.0.1:{private_redis.port}<" in page
    assert CANARY not in str(down) + str(status) + page


def tenant(connection: HTTPConnection) -> StaticToken:
    """Return the provider of a tenant, whose credential is rejected."""
    name = connection.headers["x-tenant"]

    async def rejected() -> str:
        raise CredentialRejected(f"{name}: no such client")

    return StaticToken(rejected, credential_id=name)


async def test_failing_tenants_are_counted_without_their_names() -> None:
    """The first twenty have an opaque name each, and no text of a provider, in which a tenant's name may be."""
    async with TokenBroker({"crm": tenant}, secret_key=SECRET) as broker:
        for number in range(25):
            scope = scope_of("http", headers=[(b"x-tenant", f"{CANARY}{number}".encode())])
            with pytest.raises(CredentialRejected):
                await RequestTokens(broker, scope).resolve("crm")
        answered = await call(StatusApp(broker, allow_all=True), path="/status.json")
    failing = answered.json["failing_credentials"]
    assert failing["count"] == failing["by_provider"]["crm"] == 25
    assert len({one["credential"] for one in failing["worst"]}) == 20
    assert {one["reason"] for one in failing["worst"]} == {"rejected"}
    assert CANARY.encode() not in answered.body


async def test_the_status_of_a_closed_broker_is_shown() -> None:
    """Without a runtime, Redis is `off` and the token of before is still shown."""
    broker = TokenBroker({"crm": StaticToken(Source()), "cold": StaticToken("t")}, limits=Limits())
    async with broker:
        await broker.token("crm")
    status = (await call(StatusApp(broker, allow_all=True), path="/status.json")).json
    assert not status["open"]
    assert [one["state"] for one in status["providers"]] == ["fresh", "cold"]


async def test_no_copy_is_stored() -> None:
    """Each response has the headers that forbid storing, framing and guessing its type."""
    async with TokenBroker({}) as broker:
        app = StatusApp(broker, allow_all=True)
        for path in ("/livez", "/readyz", "/status.json"):
            headers = (await call(app, path=path)).headers
            assert headers["cache-control"] == "no-store"
            assert headers["content-security-policy"].startswith("default-src 'none'")
            assert headers["x-content-type-options"] == "nosniff"
