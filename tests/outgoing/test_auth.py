"""The auth object: one request with a token, and one retry with a newer one if the API rejects it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncGenerator
from typing import Any

import pytest
from starlette.responses import Response

from tests.outgoing.conftest import API, PLACES, Numbered, chunks
from tokenmw import ConfigurationError, CredentialRejected, Limits, TokenBroker, TokenUnavailable
from tokenmw.providers import ClientCredentials, StaticToken
from tokenmw.testing import Fault, ManualClock, ProviderServer


@pytest.mark.parametrize("place", PLACES)
async def test_rejected_token_is_replaced_and_the_request_is_sent_once_more(
    broker: TokenBroker, http: Any, api: API, clock: ManualClock, *, place: str
) -> None:
    """The retry carries the newer token in the same place, with the same body and query."""
    provider = Numbered(place=place)
    auth = broker.auth(provider)
    api.refused.add("t-1")
    await broker.token(provider)
    clock.advance(10)
    answer = await http.post("/x?a=1&b=2", json={"c": 3}, auth=auth, headers={"x-mine": "1"})
    assert (200, {"token": "t-2"}) == (answer.status_code, answer.json())
    assert ["t-1", "t-2"] == api.seen == provider.asked
    assert [b'{"c":3}'] * 2 == [body.replace(b" ", b"") for body in api.bodies]
    assert all("a=1&b=2" in url for url in api.urls)
    assert 401 == answer.history[0].status_code


async def test_one_retry_and_no_more(broker: TokenBroker, http: Any, api: API, clock: ManualClock) -> None:
    """An API that rejects every token gets two requests, and the caller gets its answer."""
    provider = Numbered()
    api.refused |= {"t-1", "t-2", "t-3"}
    await broker.token(provider)
    clock.advance(10)
    assert 401 == (await http.get("/x", auth=broker.auth(provider))).status_code
    assert ["t-1", "t-2"] == api.seen


async def test_young_token_is_not_invalidated(broker: TokenBroker, http: Any, api: API) -> None:
    """A token fetched less than 5 s ago is kept: the caller gets the API's answer, and nothing is fetched."""
    provider = Numbered()
    api.refused.add("t-1")
    assert 401 == (await http.get("/x", auth=broker.auth(provider))).status_code
    assert ["t-1"] == api.seen == provider.asked


async def test_newer_token_is_taken_without_a_fetch(
    broker: TokenBroker, http: Any, api: API, clock: ManualClock
) -> None:
    """A rejection of a token that was replaced meanwhile invalidates nothing; the retry uses the newer one."""
    provider = Numbered()
    await broker.token(provider)

    async def replace_once(response: Any) -> None:
        if response.status_code == 401:
            await broker.invalidate_provider(provider)
            await broker.token(provider)

    api.refused.add("t-1")
    clock.advance(10)
    http.event_hooks["response"] = [replace_once]
    assert {"token": "t-2"} == (await http.get("/x", auth=broker.auth(provider))).json()
    assert ["t-1", "t-2"] == provider.asked


async def test_hundreds_of_rejections_are_one_fetch(library: Any, clock: ManualClock) -> None:
    """300 concurrent requests with a revoked token cause one fetch, and all succeed."""
    server = ProviderServer(clock=clock)
    # The same small server answers the fetch and all requests.
    patient = Limits(fetch_seconds=60.0, lease_seconds=70.0, wait_seconds=150.0)
    broker = TokenBroker({}, clock=clock, limits=patient)
    with server.running() as url:
        crm = ClientCredentials(token_url=f"{url}/oauth2/token", client_id="crm", client_secret="s")
        options = {"base_url": url, "trust_env": False, "timeout": 60, "auth": broker.auth(crm)}
        async with contextlib.AsyncExitStack() as opened:
            # A pool is slow with a long queue. Reading the certificates takes each client longer than all its requests.
            made = (library.AsyncClient(**options, verify=False) for _ in range(20))
            clients = [await opened.enter_async_context(client) for client in made]
            await opened.enter_async_context(broker)
            await clients[0].get("/api/x")
            server.issued.revoke_all()
            clock.advance(10)
            answers = await asyncio.gather(*(one.get("/api/x") for one in clients for _ in range(15)))
    assert {200} == {answer.status_code for answer in answers}
    assert 2 == server.calls["oauth2"]


@pytest.mark.parametrize(("error", "sent"), [("invalid_token", 2), ("invalid_request", 1)])
async def test_400_that_names_the_token_is_a_rejection(library: Any, clock: ManualClock, error: str, sent: int) -> None:
    """Some APIs answer an invalid token with 400 and the error of RFC 6750 §3.1."""
    server = ProviderServer(clock=clock)
    crm = ClientCredentials(token_url="https://idp.test/oauth2/token", client_id="crm", client_secret="s")
    client = library.AsyncClient(transport=server.transport(library.__name__))
    async with client, TokenBroker({}, http=client, clock=clock) as broker:
        await broker.token(crm)
        clock.advance(10)
        challenge = {"WWW-Authenticate": f'Bearer realm="api", error="{error}"'}
        server.api.script.then(Fault(status=400, headers=challenge))
        answer = await client.get("https://idp.test/api/x", auth=broker.auth(crm))
    assert (200 if sent == 2 else 400) == answer.status_code
    assert (sent, sent) == (server.calls["api"], server.calls["oauth2"])


async def test_streamed_upload_is_not_sent_twice(broker: TokenBroker, http: Any, api: API, clock: ManualClock) -> None:
    """A body from an iterator cannot be sent again; the token is still invalidated for the next request."""

    async def upload() -> AsyncGenerator[bytes]:
        yield b"one"
        yield b"two"

    provider = Numbered()
    api.refused.add("t-1")
    await broker.token(provider)
    clock.advance(10)
    assert 401 == (await http.post("/x", content=upload(), auth=broker.auth(provider))).status_code
    assert {"token": "t-2"} == (await http.post("/x", content=upload(), auth=broker.auth(provider))).json()
    assert [b"onetwo"] * 2 == api.bodies


async def test_without_a_token_the_error_is_raised_and_nothing_is_sent(
    http: Any, base_url: str, api: API, library: Any
) -> None:
    """An unavailable provider and a rejected credential raise different errors."""
    server = ProviderServer()
    crm = ClientCredentials(token_url="https://idp.test/oauth2/token", client_id="crm", client_secret="s")
    for fault, error in (
        (Fault(status=503), TokenUnavailable),
        (Fault(status=400, body={"error": "invalid_client"}), CredentialRejected),
    ):
        server.oauth2.script.always = fault
        tokens = library.AsyncClient(transport=server.transport(library.__name__))
        async with tokens, TokenBroker({}, http=tokens) as broker:
            with pytest.raises(error):
                await http.get("/x", auth=broker.auth(crm))
    assert api.seen == []


async def test_failed_refresh_returns_the_api_s_answer(http: Any, library: Any, api: API, clock: ManualClock) -> None:
    """The API's answer tells the caller more than an error about the newer token."""
    server = ProviderServer(clock=clock)
    crm = ClientCredentials(token_url="https://idp.test/oauth2/token", client_id="crm", client_secret="s")
    tokens = library.AsyncClient(transport=server.transport(library.__name__))
    async with tokens, TokenBroker({}, http=tokens, clock=clock) as broker:
        api.refused.add((await broker.token(crm)).value)
        server.oauth2.script.always = Fault(status=503)
        clock.advance(10)
        assert {"error": "token"} == (await http.get("/x", auth=broker.auth(crm))).json()


async def test_sync_client_is_refused_with_the_fix(library: Any, broker: TokenBroker) -> None:
    """Nothing is sent, and the error names the class to use."""
    fix = r"use httpx\.AsyncClient or httpx2\.AsyncClient"
    with library.Client(trust_env=False) as client, pytest.raises(ConfigurationError, match=fix):
        client.get("http://127.0.0.1:1/", auth=broker.auth(Numbered()))


async def test_libraries_that_call_the_auth_object_are_refused(broker: TokenBroker) -> None:
    """A library that takes any callable as an auth object gets an error with the fix."""
    with pytest.raises(ConfigurationError, match="import it before"):
        broker.auth(Numbered())(object())


async def test_equal_credentials_keep_their_own_hosts(broker: TokenBroker, http: Any, api: API) -> None:
    """Equal providers share one token, but each decides where its token may go."""
    assert {"token": "t-1"} == (await http.get("/x", auth=broker.auth(Numbered()))).json()
    elsewhere = Numbered(hosts=frozenset({"api.example"}))
    assert {"token": ""} == (await http.get("/x", auth=broker.auth(elsewhere))).json()


async def test_token_in_a_query_is_in_no_log(
    broker: TokenBroker, http: Any, api: API, caplog: pytest.LogCaptureFixture
) -> None:
    """Neither the log of a client or its transport nor an error of the client has a token from a URL."""
    caplog.set_level(logging.DEBUG)
    provider = Numbered(place="query")
    api.accept = lambda request: Response(status_code=500)
    answer = await http.get("/x?a=1", auth=broker.auth(provider))
    with pytest.raises(Exception, match="500") as caught:
        answer.raise_for_status()
    assert "HTTP Request: GET" in caplog.text
    assert ["t-1"] == api.seen
    assert "t-1" not in caplog.text + str(caught.value) + repr(answer.request) + str(answer.url)


async def test_a_redirect_that_repeats_a_token_is_in_no_log(
    broker: TokenBroker, http: Any, api: API, caplog: pytest.LogCaptureFixture
) -> None:
    """The log has the answer's other headers, and the caller gets the header unchanged."""
    caplog.set_level(logging.DEBUG)
    repeated = "/y?again=t%2D1"
    api.accept = lambda request: Response(status_code=302, headers={"location": repeated, "x-other": "there"})
    answer = await http.get("/x", auth=broker.auth(Numbered(place="query")), follow_redirects=False)
    assert repeated == answer.headers["location"]
    assert "receive_response_headers.complete" in caplog.text
    assert "b'x-other', b'there'" in caplog.text
    assert "t%2D1" not in caplog.text


async def test_static_token_can_be_used(broker: TokenBroker, http: Any) -> None:
    """A `StaticToken` works without a token server."""
    assert {"token": "test"} == (await http.get("/x", auth=broker.auth(StaticToken("test")))).json()


async def test_the_first_answer_s_connection_is_free_again(
    broker: TokenBroker, library: Any, base_url: str, api: API, clock: ManualClock
) -> None:
    """A pool of one connection is enough, even if the rejection has a long body."""
    provider = Numbered()
    api.refused.add("t-1")
    api.refuse = lambda request: _with_status(chunks(*[b"x" * 50_000] * 40), 401)
    await broker.token(provider)
    clock.advance(10)
    limits = library.Limits(max_connections=1)
    async with library.AsyncClient(base_url=base_url, trust_env=False, limits=limits, timeout=20) as http:
        async with http.stream("GET", "/x", auth=broker.auth(provider)) as answer:
            assert b'{"token":"t-2"}' == await answer.aread()
        assert answer.history[0].is_closed


def _with_status(response: Response, status: int) -> Response:
    response.status_code = status
    return response
