"""Why a token endpoint was not reached: one reason each, with host, port and fix."""

from __future__ import annotations

import asyncio
import errno
import re
import socket
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.processes import ROOT
from tests.providers.network.certificates import self_signed
from tests.providers.network.servers import (
    GRANT,
    answers,
    closed_port,
    closes,
    full_port,
    listening,
    resets,
    says_nothing,
)
from tests.providers.test_http import SECRET, assert_silent
from tokenmw import TokenBroker
from tokenmw.clock import SYSTEM_CLOCK
from tokenmw.errors import TokenUnavailable
from tokenmw.limits import Limits
from tokenmw.providers import ClientCredentials, TokenHTTP
from tokenmw.providers.network import failures
from tokenmw.providers.network.failures import Progress, failure_of


async def failure(http: TokenHTTP, url: str) -> TokenUnavailable:
    """Request a token with a secret, and return the error, which does not show the secret."""
    with pytest.raises(TokenUnavailable) as caught:
        await http.request("POST", url, data={"client_secret": SECRET}, headers={"authorization": SECRET})
    assert_silent(caught.value)
    return caught.value


def says(error: TokenUnavailable, server: str, text: str) -> bool:
    """Return whether an error's text names the server and then has a text."""
    return re.fullmatch(rf"the token endpoint at {re.escape(server)} {text}.*", str(error)) is not None


async def test_refused_port(any_http: TokenHTTP) -> None:
    """A port that nothing listens on is `refused`, and the cause is the system's error."""
    with closed_port() as port:
        error = await failure(any_http, f"https://127.0.0.1:{port}/")
    assert says(error, f"127.0.0.1:{port}", r"could not be reached \(refused\): .*check host and port")
    assert isinstance(error.__cause__, ConnectionRefusedError)
    assert errno.ECONNREFUSED == error.__cause__.errno


async def test_name_that_does_not_resolve(any_http: TokenHTTP) -> None:
    """A name without an address is `dns`."""
    error = await failure(any_http, "https://nowhere.invalid/")
    assert says(error, "nowhere.invalid:443", r"could not be reached \(dns\): .*check")
    assert isinstance(error.__cause__, socket.gaierror)


@pytest.mark.parametrize(
    ("host", "days", "text"),
    [
        ("127.0.0.1", 1, r"self-signed certificate: to trust its CA, use http=HTTPOptions\(ca_file="),
        ("127.0.0.1", -1, "certificate has expired: the server needs a new one"),
        ("other.example", 1, "self-signed certificate: to trust its CA"),
    ],
)
async def test_untrusted_certificate(any_http: TokenHTTP, tmp_path: Path, host: str, days: int, text: str) -> None:
    """A certificate that is not trusted is `certificate`, with what OpenSSL found and the fix for that."""
    _, context = self_signed(tmp_path, host=host, days=days)
    async with listening(answers(GRANT), ssl=context) as port:
        error = await failure(any_http, f"https://127.0.0.1:{port}/")
    found = rf"could not be reached \(certificate\): ({text}|self-signed certificate)"
    assert says(error, f"127.0.0.1:{port}", found)
    assert isinstance(error.__cause__, ssl.SSLCertVerificationError)


@pytest.mark.parametrize("serve", [answers(GRANT), closes, resets, says_nothing])
async def test_tls_to_a_plain_port(any_http: TokenHTTP, serve: Any) -> None:
    """A server that does not speak TLS is `tls`, however it reacts."""

    async def plain(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if serve is resets or serve is closes or serve is says_nothing:
            await serve(reader, writer)
        else:
            await reader.read(1)
            writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
            await writer.drain()

    async with listening(plain) as port:
        error = await failure(any_http, f"https://127.0.0.1:{port}/")
    assert says(error, f"127.0.0.1:{port}", r"could not be reached \(tls\): .*whether the URL must begin with http://")


async def test_plain_http_to_a_tls_port(any_http: TokenHTTP, tmp_path: Path) -> None:
    """A server that expects TLS closes the connection, and the text says that the URL may need https."""
    _, context = self_signed(tmp_path)
    async with listening(answers(GRANT), ssl=context) as port:
        error = await failure(any_http, f"http://127.0.0.1:{port}/")
    assert says(error, f"127.0.0.1:{port}", r"did not answer \((closed|reset)\): .*")


async def test_tls_alert_instead_of_a_response(any_http: TokenHTTP) -> None:
    """A server that answers plain HTTP with a TLS alert is `https expected`."""
    async with listening(answers(b"\x15\x03\x01\x00\x02\x02\x16\r\n\r\n")) as port:
        error = await failure(any_http, f"http://127.0.0.1:{port}/")
    assert says(error, f"127.0.0.1:{port}", r"did not answer \(https expected\): .*use https:// in the URL")


async def test_time_outs(any_http: TokenHTTP) -> None:
    """The text says whether the connection or the answer took too long."""
    with full_port() as port:
        error = await failure(any_http, f"http://127.0.0.1:{port}/")
    assert says(error, f"127.0.0.1:{port}", r"could not be reached \(connect timeout\): no connection within 0\.6 s: ")
    async with listening(says_nothing) as port:
        error = await failure(any_http, f"http://127.0.0.1:{port}/")
    assert says(error, f"127.0.0.1:{port}", r"did not answer within 0\.6 s \(read timeout\)")


@pytest.mark.parametrize(
    ("serve", "reason"), [(resets, "reset"), (closes, "closed"), (answers(b"SSH-2\r\n\r\n"), "protocol")]
)
async def test_broken_connections(any_http: TokenHTTP, serve: Any, reason: str) -> None:
    """A connection that breaks after the request has its reason, too."""
    async with listening(serve) as port:
        error = await failure(any_http, f"http://127.0.0.1:{port}/")
    assert says(error, f"127.0.0.1:{port}", rf"did not answer \({reason}\): .*check")


@pytest.mark.parametrize("library", ["httpx", "httpx2"])
async def test_proxy_is_named(library: str) -> None:
    """Where the client uses a proxy, the text says that it is the proxy that failed, and names it."""
    module = pytest.importorskip(library)
    refusal = b"HTTP/1.1 407 Proxy Authentication Required\r\ncontent-length: 0\r\n\r\n"
    async with listening(answers(refusal)) as port:
        proxy = f"http://user:{SECRET}@127.0.0.1:{port}"
        async with module.AsyncClient(proxy=proxy, trust_env=False) as client:
            http = TokenHTTP(client, limits=Limits(), clock=SYSTEM_CLOCK)
            error = await failure(http, "https://idp.example/token")
    assert says(error, "idp.example:443", rf"could not be reached through the proxy at 127\.0\.0\.1:{port} \(proxy\): ")
    assert "(HTTP 407)" in str(error)
    with closed_port() as port:
        async with module.AsyncClient(proxy=f"http://127.0.0.1:{port}", trust_env=False) as client:
            http = TokenHTTP(client, limits=Limits(), clock=SYSTEM_CLOCK)
            error = await failure(http, "https://idp.example/token")
    assert says(
        error, "idp.example:443", rf"could not be reached through the proxy at 127\.0\.0\.1:{port} \(refused\): "
    )


class OfTheProgram(OSError):
    """An error of a program's own transport, which holds the request."""

    def __init__(self, request: Any) -> None:
        super().__init__(errno.ECONNREFUSED, f"refused: {SECRET}", SECRET)
        self.request = request


ERRORS: list[Callable[[httpx.Request], Exception]] = [
    OfTheProgram,
    lambda _: ssl.SSLError(1, SECRET),
    lambda _: socket.gaierror(socket.EAI_NONAME, SECRET),
    lambda _: ExceptionGroup(SECRET, [OSError(SECRET), ConnectionResetError(errno.ECONNRESET, SECRET)]),
    lambda request: httpx.ConnectError(SECRET, request=request),
    lambda _: RuntimeError(SECRET),
]


@pytest.mark.parametrize("make", ERRORS)
async def test_no_text_of_a_transport_is_shown_or_kept(make: Any) -> None:
    """Causes are made anew from numbers, so that nothing of an error of the program's transport is reachable."""

    def refuse(request: httpx.Request) -> httpx.Response:
        raise make(request)

    async with httpx.AsyncClient(transport=httpx.MockTransport(refuse)) as client:
        http = TokenHTTP(client, limits=Limits(), clock=SYSTEM_CLOCK)
        error = await failure(http, "https://idp.example/token")
    assert SECRET not in repr(error.__cause__)
    assert error.__cause__ is None or SECRET not in str(error.__cause__.args)


@pytest.mark.parametrize(
    ("number", "reason"),
    [
        (errno.EMFILE, "files"),
        (errno.EHOSTUNREACH, "no route"),
        (errno.ETIMEDOUT, "connect timeout"),
        (errno.EACCES, "network"),
    ],
)
def test_numbers_of_the_system(number: int, reason: str) -> None:
    """Each error of the operating system has a reason; a rare one has the system's text."""
    found = failure_of(OSError(number, "x"), seconds=5, progress=Progress(), server="idp.example:443")
    assert f"({reason})" in found.text
    assert isinstance(found.cause, OSError)


def test_an_interrupted_read_is_not_the_reason() -> None:
    """A time-out over TLS interrupts a read that wants more data; that is no failure of TLS."""
    interrupted = asyncio.CancelledError()
    interrupted.__context__ = ssl.SSLWantReadError(2, "more")
    timed_out = TimeoutError()
    timed_out.__cause__ = interrupted
    found = failure_of(timed_out, seconds=5, progress=Progress(), server="idp.example:443")
    fix = "find out why it is slow; if it needs more, raise Limits(fetch_seconds=…)"
    assert f"did not answer within 5 s (read timeout): {fix}" == found.text


async def test_callers_of_a_broker_get_the_reason_and_its_cause() -> None:
    """Each caller's error, also one during the backoff, has the reason in its text and the system's error as cause."""
    with closed_port() as port:
        provider = ClientCredentials(token_url=f"http://127.0.0.1:{port}/", client_id="c", client_secret=SECRET)
        async with TokenBroker({"crm": provider}) as broker:
            for _ in range(2):
                with pytest.raises(
                    TokenUnavailable, match=rf"127\.0\.0\.1:{port} could not be reached \(refused\)"
                ) as caught:
                    await broker.token("crm")
                assert isinstance(caught.value.__cause__, ConnectionRefusedError)
                assert "127.0.0.1" not in caught.value.detail
                assert_silent(caught.value)


def test_every_reason_is_in_the_guide() -> None:
    """The table in "Troubleshooting" has each reason that the code gives, and no other."""
    guide = (ROOT / "examples" / "guides" / "troubleshooting.md").read_text()
    section = guide.partition("## Reasons of token requests that fail")[2].partition("\n## ")[0]
    values: list[Any] = [*vars(failures).values(), *failures._BY_NUMBER.values(), *failures._BY_NAME.values()]
    constants = {str(value[0]) for value in values if isinstance(value, tuple) and len(value) == 2}  # pyright: ignore[reportUnknownArgumentType]
    composed = {"certificate", "network", "proxy", "read timeout", "tls"}  # their texts depend on the error
    assert constants | composed == set(re.findall(r"^\| `([a-z ]+)` \|", section, re.MULTILINE))
