"""Where a token may go: the provider's hosts, also after redirects, and only over TLS."""

from __future__ import annotations

from typing import Any

import pytest
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response

from tests.outgoing.conftest import API, PLACES, Numbered
from tokenmw import ConfigurationError, TokenBroker
from tokenmw.outgoing.hosts import may_receive_token_after_redirect
from tokenmw.testing import ManualClock


@pytest.mark.parametrize("place", PLACES)
async def test_other_host_gets_no_token_and_causes_no_fetch(
    broker: TokenBroker, http: Any, foreign: API, foreign_url: str, *, place: str
) -> None:
    """A request to another host fetches no token, and its answer is not read."""
    provider = Numbered(place=place)
    foreign.refused.add("")
    foreign.refuse = lambda request: JSONResponse({"errcode": 40014}, 401)
    assert 401 == (await http.get(f"{foreign_url}/x", auth=broker.auth(provider))).status_code
    assert ([""], []) == (foreign.seen, provider.asked)


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("hosts", [frozenset({"127.0.0.1"}), None])
@pytest.mark.parametrize("status", [302, 303, 307, 308])
async def test_token_does_not_follow_a_redirect_to_another_host(
    broker: TokenBroker,
    http: Any,
    *,
    api: API,
    foreign: API,
    foreign_url: str,
    clock: ManualClock,
    place: str,
    hosts: frozenset[str] | None,
    status: int,
) -> None:
    """The redirect is followed without the token; a 401 there neither invalidates it nor causes a retry."""
    provider = Numbered(place=place, hosts=hosts)
    api.accept = lambda request: RedirectResponse(f"{foreign_url}/cdn?signed=1", status)
    foreign.refused.add("")
    auth = broker.auth(provider)
    await broker.token(provider)
    clock.advance(10)
    assert 401 == (await http.get("/x", auth=auth)).status_code
    assert (["t-1"], [""], ["t-1"]) == (api.seen, foreign.seen, provider.asked)
    assert "t-1" == (await broker.token(provider)).value
    await http.post("/x", content=b"body", auth=auth)
    assert ["", ""] == foreign.seen
    not_followed = await http.get("/x", auth=auth, follow_redirects=False)
    assert (status, 2) == (not_followed.status_code, len(foreign.seen))
    assert "t-1" not in str(not_followed.next_request.url) + str(not_followed.next_request.headers.raw)


@pytest.mark.parametrize("target", ["foreign", "own"])
async def test_redirect_that_repeats_the_token_is_not_followed(
    broker: TokenBroker, http: Any, api: API, foreign: API, foreign_url: str, *, target: str, library: Any
) -> None:
    """Some servers copy a request's query into a redirect, which would send the token to any host, or log it."""
    base = foreign_url if target == "foreign" else ""
    api.accept = lambda request: RedirectResponse(f"{base}/y?{request.url.query}&more=1")
    with pytest.raises(library.RemoteProtocolError, match="repeats the token"):
        await http.get("/x", auth=broker.auth(Numbered(place="query")))
    assert (["t-1"], []) == (api.seen, foreign.seen)


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("status", [302, 308])
async def test_redirect_within_the_host_gets_the_token_again(
    broker: TokenBroker, http: Any, api: API, *, place: str, status: int, clock: ManualClock
) -> None:
    """A redirect within the host, as for a final slash, gets the token, which is not invalidated."""
    provider = Numbered(place=place)

    def accept(request: Request) -> Response:
        if request.url.path == "/x":
            return RedirectResponse("/x/", status)
        return JSONResponse({"token": api.seen[-1]}, 200 if api.seen[-1] else 401)

    api.accept = accept
    await broker.token(provider)
    clock.advance(10)
    assert {"token": "t-1"} == (await http.get("/x", auth=broker.auth(provider))).json()
    assert ["t-1"] == provider.asked


async def test_redirect_to_another_host_of_the_provider_gets_the_token_again(broker: TokenBroker, library: Any) -> None:
    """The client drops the token on the redirect; after a 401 the request is sent again with it."""
    seen: list[tuple[str, str]] = []

    def answer(request: Any) -> Any:
        seen.append((request.url.host, request.headers.get("authorization", "")))
        if request.url.host == "api.example":
            return library.Response(302, headers={"location": "https://eu.example/x"})
        return library.Response(200 if seen[-1][1] else 401)

    auth = broker.auth(Numbered(hosts=frozenset({"api.example", "eu.example"})))
    async with library.AsyncClient(transport=library.MockTransport(answer), follow_redirects=True) as http:
        assert 200 == (await http.get("https://api.example/", auth=auth)).status_code
    assert [("api.example", "Bearer t-1"), ("eu.example", ""), ("eu.example", "Bearer t-1")] == seen


@pytest.mark.parametrize(
    ("start", "target", "receives"),
    [
        ("https://api.example/", "https://api.example:443/y", True),
        ("https://api.example/", "https://api.example:8443/y", False),
        ("https://api.example:8443/", "https://api.example:8443/y", True),
        ("https://api.example:8443/", "https://api.example:9443/y", False),
        ("https://api.example:8443/", "https://api.example/y", True),
        ("https://api.example/", "https://eu.example/y", True),
        ("https://api.example:8443/", "https://eu.example:8443/y", False),
        ("https://api.example/", "http://api.example/y", False),
        ("https://api.example/", "http://api.example:443/y", False),
        ("http://api.example/", "http://api.example/y", True),
        ("http://api.example/", "http://api.example:8080/y", False),
        ("http://api.example/", "https://api.example/y", True),
        ("https://api.example/", "ftp://api.example/y", False),
    ],
)
@pytest.mark.parametrize("hosts", [frozenset({"api.example", "eu.example"}), None])
async def test_redirect_to_another_port_or_without_tls_loses_the_token(
    library: Any, *, start: str, target: str, receives: bool, hosts: frozenset[str] | None
) -> None:
    """A redirect may lead to the default port, or stay on the first one; it may never leave TLS."""
    provider = Numbered(hosts=hosts, allow_http=True)
    may = may_receive_token_after_redirect(library.URL(target), start=library.URL(start), provider=provider)
    assert may == (receives and (hosts is not None or "eu.example" not in target))


async def test_token_does_not_follow_a_redirect_to_another_port(
    broker: TokenBroker, http: Any, api: API, foreign: API, foreign_url: str
) -> None:
    """Another server of the same machine gets the request without the token, also after its 401."""
    other_port = foreign_url.replace("localhost", "127.0.0.1")
    api.accept = lambda request: RedirectResponse(f"{other_port}/x")
    foreign.refused.add("")
    assert 401 == (await http.get("/x", auth=broker.auth(Numbered()))).status_code
    assert (["t-1"], [""]) == (api.seen, foreign.seen)


async def test_answer_after_a_second_redirect_says_nothing_about_the_token(
    broker: TokenBroker, http: Any, *, api: API, foreign: API, foreign_url: str, clock: ManualClock
) -> None:
    """The token was added and dropped again: the last host never received it, so its 401 is ignored."""
    provider = Numbered(place="header")

    def accept(request: Request) -> Response:
        if request.url.path == "/x":
            return RedirectResponse("/y")
        return RedirectResponse(f"{foreign_url}/z") if api.seen[-1] else JSONResponse({}, 401)

    api.accept = accept
    foreign.refused.add("")
    await broker.token(provider)
    clock.advance(10)
    assert 401 == (await http.get("/x", auth=broker.auth(provider))).status_code
    assert (["t-1", "", "t-1"], [""]) == (api.seen, foreign.seen)
    assert "t-1" == (await broker.token(provider)).value


async def test_token_never_goes_over_plain_http(broker: TokenBroker, library: Any) -> None:
    """Plain HTTP is an error with host and fix, before a fetch, unless the provider allows it."""
    provider = Numbered(hosts=None)

    def answer(request: Any) -> Any:
        return library.Response(200)

    async with library.AsyncClient(transport=library.MockTransport(answer)) as http:
        with pytest.raises(ConfigurationError, match=r"Numbered is not sent to api\.example without TLS: use https://"):
            await http.get("http://api.example/", auth=broker.auth(provider))
        assert [] == provider.asked
        allowed = await http.get("http://api.example/", auth=broker.auth(Numbered(hosts=None, allow_http=True)))
        assert "Bearer t-1" == allowed.request.headers["authorization"]


async def test_redirect_to_plain_http_loses_the_token(broker: TokenBroker, library: Any) -> None:
    """A redirect to plain HTTP on the provider's own host is followed without the token."""
    seen: list[tuple[str, str]] = []

    def answer(request: Any) -> Any:
        seen.append((request.url.scheme, request.headers.get("x-api-token", "")))
        if request.url.scheme == "https":
            return library.Response(302, headers={"location": "http://api.example/"})
        return library.Response(401)

    auth = broker.auth(Numbered(place="header", hosts=frozenset({"api.example"})))
    async with library.AsyncClient(transport=library.MockTransport(answer), follow_redirects=True) as http:
        assert 401 == (await http.get("https://api.example/", auth=auth)).status_code
    assert [("https", "t-1"), ("http", "")] == seen


async def test_added_header_is_sent_but_not_copied(broker: TokenBroker, library: Any) -> None:
    """Every way to read the headers of a request shows the token; a copy does not have it."""
    kept: list[Any] = []

    def answer(request: Any) -> Any:
        kept.append(request.headers)
        return library.Response(200)

    async with library.AsyncClient(transport=library.MockTransport(answer)) as http:
        await http.get("https://api.example/", auth=broker.auth(Numbered(place="header", hosts=None)))
    (headers,) = kept
    assert "t-1" == headers["X-API-Token"] == headers.get("x-api-token") == dict(headers)["x-api-token"]
    assert ["t-1"] == headers.get_list("x-api-token")
    assert ("x-api-token", "t-1") in headers.multi_items()
    assert ("x-api-token" in headers) is ("x-api-token" in list(headers)) is ("t-1" in headers.values()) is True
    assert len(headers) == len(headers.keys()) == len(headers.items()) == len(headers.raw)
    assert "x-api-token" not in headers.copy()
    assert "t-1" not in repr(headers)
