"""Plain HTTP to a port that expects TLS: the text says that the URL needs https, however the server answers."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import pytest

from tests.providers.network.certificates import self_signed
from tests.providers.network.servers import answers, listening
from tests.providers.wire import http_answer
from tokenmw import TokenBroker
from tokenmw.clock import SYSTEM_CLOCK
from tokenmw.errors import TokenUnavailable
from tokenmw.limits import Limits
from tokenmw.providers import ClientCredentials, DingTalk, HTTPOptions, Provider, TokenHTTP
from tokenmw.providers.http_client import default_client

if TYPE_CHECKING:
    import asyncio
    from pathlib import Path

NGINX = http_answer(
    400,
    headers="content-type: text/html\r\n",
    body=b"<html>\r\n<head><title>400 The plain HTTP request was sent to HTTPS port</title></head>\r\n</html>\r\n",
)
GO = b"HTTP/1.0 400 Bad Request\r\n\r\nClient sent an HTTP request to an HTTPS server.\n"
APACHE = http_answer(
    400,
    headers="content-type: text/html; charset=iso-8859-1\r\n",
    body=b"<p>Reason: You're speaking plain HTTP to an SSL-enabled server port.<br />\n Instead use HTTPS</p>",
)
TOMCAT = http_answer(400, body=b"Bad Request\r\nThis combination of host and port requires TLS.\r\n")
ALERT = b"\x15\x03\x01\x00\x02\x02\x46"
SERVERS = {
    "nginx": NGINX,
    "Go": GO,
    "Apache": APACHE,
    "Tomcat": TOMCAT,
    "alert": ALERT,
    "alert and line": ALERT + b"\r\n\r\n",
}


def once(response: bytes) -> Any:
    """Answer the first request of a connection, and close it."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(response)
        await writer.drain()

    return serve


def reason(port: int) -> str:
    """Return the pattern of the text."""
    server = re.escape(f"127.0.0.1:{port}")
    return rf"token endpoint at {server} did not answer \(https expected\): .*use https:// in the URL"


@pytest.mark.parametrize("server", SERVERS)
async def test_any_client_reports_that_https_is_expected(any_http: TokenHTTP, server: str) -> None:
    """The answers of common servers, and the TLS alerts of others."""
    async with listening(once(SERVERS[server])) as port:
        with pytest.raises(TokenUnavailable, match=reason(port)):
            await any_http.request("POST", f"http://127.0.0.1:{port}/token", data={"grant_type": "x"})


@pytest.mark.parametrize("server", ["nginx", "Go"])
@pytest.mark.parametrize("kind", ["oauth2", "dingtalk"])
async def test_a_provider_does_not_blame_the_credential(server: str, kind: str) -> None:
    """It is no `CredentialRejected`: the credential has not been read."""
    async with listening(once(SERVERS[server])) as port:
        url = f"http://127.0.0.1:{port}"
        provider: Provider = (
            ClientCredentials(token_url=f"{url}/token", client_id="crm", client_secret="s3cr3t")
            if kind == "oauth2"
            else DingTalk(app_key="crm", app_secret="s3cr3t", base_url=url)
        )
        async with TokenBroker({"crm": provider}) as broker:
            with pytest.raises(TokenUnavailable, match=reason(port)):
                await broker.token("crm")


@pytest.mark.parametrize("body", [b'{"error": "invalid_client"}', b"Bad Request", b""])
async def test_another_400_is_the_endpoints_own(any_http: TokenHTTP, body: bytes) -> None:
    """Only the sentences of those servers count, and only with status 400."""
    async with listening(answers(http_answer(400, body=body))) as port:
        assert 400 == (await any_http.request("POST", f"http://127.0.0.1:{port}/token")).status
    other = http_answer(200, body=b"Client sent an HTTP request to an HTTPS server.")
    async with listening(answers(other)) as port:
        assert 200 == (await any_http.request("POST", f"http://127.0.0.1:{port}/token")).status


async def test_over_tls_it_is_another_protocol(tmp_path: Path) -> None:
    """A server that speaks something else inside TLS is not reported as one that expects it."""
    certificate, context = self_signed(tmp_path)
    http = TokenHTTP(
        default_client(HTTPOptions(ca_file=certificate), limits=Limits()), limits=Limits(), clock=SYSTEM_CLOCK
    )
    async with listening(answers(b"\x00\x00\x12\x04\x00\x00\x00\x00\x00\r\n\r\n"), ssl=context) as port:
        with pytest.raises(TokenUnavailable, match=r"did not answer \(protocol\)"):
            await http.request("POST", f"https://127.0.0.1:{port}/token")
    await http.aclose()
