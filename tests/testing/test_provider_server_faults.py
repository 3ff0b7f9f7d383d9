"""ProviderServer misbehaves as a test tells it to."""

from __future__ import annotations

import asyncio
import json
import math
import threading
from typing import Any

import httpx
import httpx2
import pytest

from tests.testing.conftest import CRM, FORM, token_of
from tokenmw.testing import Fault, ProviderServer


async def test_queued_faults_come_first_and_then_always(server: ProviderServer, client: Any) -> None:
    """Queued faults are applied in order, then `always`; None is a call without a fault."""
    script = server.oauth2.script
    script.always = Fault(status=503)
    script.then(Fault(status=429, headers={"Retry-After": "2"}), None, Fault(status=400, body={"error": "x"}))
    answers = [await client.post("/oauth2/token", data=FORM | CRM) for _ in range(5)]
    assert [429, 200, 400, 503, 503] == [answer.status_code for answer in answers]
    assert ("2", {"error": "x"}) == (answers[0].headers["retry-after"], answers[2].json())
    assert (5, 1) == (server.calls["oauth2", "crm"], len(server.issued))
    script.clear()
    await token_of(client)


@pytest.mark.parametrize(
    ("body", "content_type"),
    [("<h1>no", "text/html; charset=utf-8"), (b"\x1f\x8b", "application/octet-stream"), ([1], "application/json")],
)
async def test_any_body_can_be_sent(server: ProviderServer, client: Any, body: Any, content_type: str) -> None:
    """A body can be a page, bytes or JSON."""
    server.api.script.then(Fault(body=body))
    answer = await client.get("/api/x")
    assert (200, content_type) == (answer.status_code, answer.headers["content-type"])
    assert answer.content == body if isinstance(body, bytes) else answer.text in (body, json.dumps(body))


@pytest.mark.parametrize("life", ["3600", None, True, 0, -5, 1.5, [3600], {"a": 1}, 10**30, math.nan])
async def test_expires_in_can_be_any_json_value_or_missing(server: ProviderServer, client: Any, life: object) -> None:
    """Real servers have sent each of these values."""
    server.oauth2.script.then(Fault(fields={"expires_in": life}), Fault(without=["expires_in"]))
    assert repr(life) == repr((await token_of(client))["expires_in"])
    assert "expires_in" not in await token_of(client)


async def test_closed_connection_is_the_clients_own_error(server: ProviderServer, client: Any) -> None:
    """A closed connection is the same error in process and over HTTP, and the next call succeeds."""
    server.oauth2.script.then(Fault(close=True))
    with pytest.raises((httpx.RemoteProtocolError, httpx.ReadError, httpx2.RemoteProtocolError)):
        await client.post("/oauth2/token", data=FORM | CRM)
    await token_of(client)


async def test_answers_are_held_back_until_they_are_released(server: ProviderServer, client: Any) -> None:
    """Held back answers wait for `release`, not for a time."""
    hang = server.oauth2.script.hang()
    waiting = [asyncio.create_task(token_of(client)) for _ in range(3)]
    assert await hang.arrived.wait(5)
    assert not any(task.done() for task in waiting)
    hang.release()
    assert 3 == len({fields["access_token"] for fields in await asyncio.gather(*waiting)})
    assert hang.released.is_set()


async def test_delay_is_real_time(server: ProviderServer, client: Any) -> None:
    """The delays of the server and of a fault add up."""
    server.delay = 0.05
    server.oauth2.script.then(Fault(delay=0.05))
    loop = asyncio.get_running_loop()
    began = loop.time()
    await token_of(client)
    assert 0.1 <= loop.time() - began < 5


@pytest.mark.parametrize("fault", ["hang", "delay"])
async def test_server_stops_while_callers_wait(server: ProviderServer, fault: str) -> None:
    """Leaving the context ends all calls, the thread and the socket."""
    threads = threading.active_count()
    async with httpx.AsyncClient(trust_env=False) as client:
        with server.running() as base_url:
            hang = server.oauth2.script.hang()
            if fault == "delay":
                hang.release()
                server.oauth2.script.always = Fault(hang=hang, delay=600)
            task = asyncio.create_task(client.post(f"{base_url}/oauth2/token", data=FORM | CRM))
            assert await hang.arrived.wait(5)
        with pytest.raises(httpx.TransportError):
            await task
        with pytest.raises(httpx.ConnectError):
            await client.post(f"{base_url}/oauth2/token")
    assert threads == threading.active_count()
