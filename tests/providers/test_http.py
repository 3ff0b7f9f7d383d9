from __future__ import annotations

import asyncio
import contextvars
import logging
import traceback
from typing import TYPE_CHECKING, Any

import httpx
import httpx2
import pytest

from tests.providers.conftest import LIMITS
from tests.providers.wire import http_answer, wire
from tokenmw.clock import SYSTEM_CLOCK
from tokenmw.errors import ConfigurationError, TokenUnavailable
from tokenmw.providers.http import TokenHTTP
from tokenmw.providers.http_client import checked_client, default_client
from tokenmw.testing import Fault, ProviderServer

if TYPE_CHECKING:
    from collections.abc import Callable

SECRET = "s3cr3t-of-the-test"


async def test_form_and_headers_are_sent_and_the_response_is_returned(http: TokenHTTP) -> None:
    """Form and headers are on the wire as given, and the response's header names are in lower case."""
    async with wire(http_answer(201, headers="X-Kind: a\r\nX-Kind: b\r\n", body=b'{"a": 1}')) as server:
        answer = await http.request("POST", f"{server.url}/t", data={"k": "v w"}, headers={"X-Mine": "1"})
    assert (201, "a, b", {"a": 1}) == (answer.status, answer.headers["x-kind"], answer.json())
    head, _, body = server.requests[0].partition(b"\r\n\r\n")
    assert b"k=v+w" == body
    lines = head.lower().split(b"\r\n")
    assert b"post /t http/1.1" == lines[0]
    assert {b"x-mine: 1", b"accept: application/json", b"accept-encoding: identity"} < set(lines)
    assert b"content-type: application/x-www-form-urlencoded" in lines


async def test_json_is_sent_as_json(http: TokenHTTP) -> None:
    """`json=` sends a JSON document instead of a form."""
    async with wire(http_answer(200, body=b"{}")) as server:
        await http.request("POST", server.url, json={"app_id": "a"})
    assert server.requests[0].endswith(b'{"app_id":"a"}')


async def test_client_settings_are_not_sent(http: TokenHTTP) -> None:
    """Credentials, headers, parameters and cookies of the client stay out of token requests."""
    async with wire(http_answer(200, body=b"{}")) as server:
        await http.request("GET", f"{server.url}/t?mine=1")
    sent = server.requests[0].lower()
    assert sent.startswith(b"get /t?mine=1 http/1.1\r\n")
    for unwanted in (b"authorization", b"cookie", b"client-level", b"client_level"):
        assert unwanted not in sent


async def test_cookies_are_neither_kept_nor_sent(http: TokenHTTP, client: Any) -> None:
    """A token endpoint's cookie is dropped; the cookies of the client's owner stay."""
    async with wire(http_answer(200, headers="set-cookie: sid=of-a-tenant\r\n", body=b"{}")) as server:
        answer = await http.request("POST", server.url)
        await http.request("POST", server.url)
    assert "sid=of-a-tenant" == answer.headers["set-cookie"]
    assert {"client_level": "1"} == dict(client.cookies)
    assert b"sid" not in server.requests[1]


async def test_redirect_is_not_followed_and_the_fix_is_named(http: TokenHTTP) -> None:
    """A redirect is an error, because following it would send the secret to another host."""
    async with wire(http_answer(200, body=b"{}")) as other:
        moved = http_answer(307, headers=f"location: {other.url}/?{SECRET}\r\n")
        async with wire(moved) as server:
            with pytest.raises(TokenUnavailable, match=r"redirect \(HTTP 307\).*configure the URL") as caught:
                await http.request("POST", server.url, data={"secret": SECRET})
    assert [] == other.requests
    assert_silent(caught.value)


@pytest.mark.parametrize("answer", [http_answer(302, body=b"moved"), http_answer(200, body=b"x" * 20_000)])
async def test_unusable_response_releases_its_connection(library: Any, answer: bytes) -> None:
    """A client with one connection can send again after a redirect or a body that is too long."""
    limits = library.Limits(max_connections=1)
    async with library.AsyncClient(limits=limits, trust_env=False) as client, wire(answer) as server:
        http = TokenHTTP(client, limits=LIMITS, clock=SYSTEM_CLOCK)
        for _ in range(3):
            with pytest.raises(TokenUnavailable, match=r"redirect|sent more than"):
                await http.request("POST", server.url)


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("http://127.0.0.1:1/", r"\(refused\): nothing accepts connections there"),
        ("http://[::bad", r"\(InvalidURL\)$"),
        ("ftp://127.0.0.1/", r"\(UnsupportedProtocol\)$"),
        ("", r"\(UnsupportedProtocol\)$"),
        (f"http://127.0.0.1/\n{SECRET}", r"\(InvalidURL\)$"),
    ],
)
async def test_failures_have_the_reason_and_no_secret(http: TokenHTTP, url: str, reason: str) -> None:
    """Every failure of the client becomes one error that does not hold the request."""
    with pytest.raises(TokenUnavailable, match=reason) as caught:
        await http.request("POST", url, data={"client_secret": SECRET}, headers={"authorization": SECRET})
    assert not caught.value.said
    assert caught.value.retry_after is None
    assert_silent(caught.value)


async def test_error_text_has_the_host_and_neither_path_nor_query(http: TokenHTTP) -> None:
    """The text names host and port, and leaves out the query, which may hold the secret (WeCom)."""
    with pytest.raises(TokenUnavailable) as caught:
        await http.request("GET", f"http://127.0.0.1:1/path?corpsecret={SECRET}")
    said = "the token endpoint at 127.0.0.1:1 could not be reached (refused): nothing accepts connections there"
    assert f"{said}: check host and port" == str(caught.value)
    assert_silent(caught.value)


async def test_unsendable_secret_is_not_shown(http: TokenHTTP) -> None:
    """The text does not quote a secret that cannot be encoded."""
    with pytest.raises(TokenUnavailable, match="UnicodeEncodeError") as caught:
        await http.request("POST", "http://127.0.0.1:1/", headers={"authorization": f"{SECRET}\udc80"})
    assert_silent(caught.value)


async def test_query_stays_out_of_the_clients_log(http: TokenHTTP, caplog: pytest.LogCaptureFixture) -> None:
    """The client logs every URL without its query, where some providers take the secret."""
    caplog.set_level(logging.DEBUG)
    async with wire(http_answer(200, body=b"{}")) as server:
        await http.request("GET", f"{server.url}/gettoken?corpsecret={SECRET}")
    assert f"?corpsecret={SECRET}".encode() in server.requests[0]
    assert "/gettoken" in caplog.text
    assert SECRET not in caplog.text


async def test_request_runs_in_an_empty_context(http: TokenHTTP) -> None:
    """A request works without the context variables of a caller."""
    async with wire(http_answer(200, body=b"{}")) as server:
        request = http.request("POST", server.url)
        answer = await asyncio.create_task(request, context=contextvars.Context())
    assert {} == answer.json()


async def test_cancelling_closes_the_connection_and_the_client_goes_on(http: TokenHTTP) -> None:
    """A cancelled request raises `CancelledError`, and the client's next request succeeds."""
    server = ProviderServer()
    with server.running() as base_url:
        hang = server.oauth2.script.hang()
        task = asyncio.create_task(http.request("POST", f"{base_url}/oauth2/token"))
        assert await hang.arrived.wait(5)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        hang.release()
        server.oauth2.script.always = Fault(body={"a": 1})
        assert {"a": 1} == (await http.request("POST", f"{base_url}/oauth2/token")).json()


@pytest.mark.parametrize("make", [httpx.Client, httpx2.Client, object, list, lambda: httpx.AsyncClient])
def test_only_async_clients_are_accepted(make: Callable[[], Any]) -> None:
    """A sync client would block the event loop, so it is refused before the first request."""
    with pytest.raises(ConfigurationError, match=r"http (must be an httpx\.Async|was given the class)"):
        checked_client(make())


async def test_mock_transports_work(library: Any) -> None:
    """A user's test may answer through a mock transport, and the size bound holds there too."""

    def answer(request: Any) -> Any:
        return library.Response(200, json={"sent": request.content.decode(), "url": str(request.url.params)})

    async with library.AsyncClient(transport=library.MockTransport(answer)) as client:
        http = TokenHTTP(client, limits=LIMITS, clock=SYSTEM_CLOCK)
        got = (await http.request("POST", "https://idp.example/?q=1", data={"a": "b"})).json()
        assert {"sent": "a=b", "url": "q=1"} == got
        with pytest.raises(TokenUnavailable, match="more than 10000 bytes"):
            await http.request("POST", "https://idp.example/", data={"a": "b" * 10_000})


async def test_default_client_ignores_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """A proxy variable does not redirect secrets, and a closed client reports an error."""
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    http = TokenHTTP(default_client(limits=LIMITS), limits=LIMITS, clock=SYSTEM_CLOCK)
    async with wire(http_answer(200, body=b"{}")) as server:
        await http.request("POST", server.url)
    await http.aclose()
    with pytest.raises(TokenUnavailable, match=r"\(RuntimeError\)"):
        await http.request("POST", server.url)


def assert_silent(error: BaseException) -> None:
    """Assert that an error, printed with the variables of its frames, does not show the secret.

    Its cause, if it has one, is a plain error of the standard library that nothing else can be reached from.
    """
    cause = error.__cause__
    if cause is not None:
        assert type(cause).__module__ in ("builtins", "socket", "ssl")
        assert (None, None, None, {}) == (cause.__cause__, cause.__context__, cause.__traceback__, vars(cause))
    assert error.__context__ is None
    trace = traceback.TracebackException.from_exception(error, capture_locals=True)
    # The test's own frame holds the secret; the frames below it must not.
    trace.stack = traceback.StackSummary.from_list(trace.stack[1:])
    assert SECRET not in "".join(trace.format()) + repr(error) + str(error.__dict__)
