"""`HTTPOptions`: certificates and proxies of the client that a broker makes for itself."""

from __future__ import annotations

import asyncio
import json
import os
import pickle
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import httpcore
import pytest

from tests.providers.network.certificates import self_signed
from tests.providers.network.servers import GRANT, answers, listening
from tokenmw import TokenBroker
from tokenmw.clock import SYSTEM_CLOCK
from tokenmw.errors import ConfigurationError, TokenUnavailable
from tokenmw.limits import Limits
from tokenmw.providers import ClientCredentials, HTTPOptions, TokenHTTP
from tokenmw.providers.http_client import default_client

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator
    from pathlib import Path

PLAIN_BACKEND: Any = httpcore.AnyIOBackend  # pyright sees the stand-in for a missing anyio
PASSWORD = "pa55word-of-the-proxy"
VARIABLES = [
    *("SSL_CERT_FILE", "SSL_CERT_DIR", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"),
    *("http_proxy", "https_proxy", "all_proxy", "no_proxy", "REQUEST_METHOD"),
]


@pytest.fixture(autouse=True)
def _empty_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in VARIABLES:
        monkeypatch.delenv(variable, raising=False)


@asynccontextmanager
async def http_of(options: HTTPOptions | None) -> AsyncGenerator[TokenHTTP]:
    """Make what providers get, over our own client with these options."""
    http = TokenHTTP(default_client(options, limits=Limits()), limits=Limits(), clock=SYSTEM_CLOCK)
    try:
        yield http
    finally:
        await http.aclose()


async def test_a_file_of_authorities_is_trusted(tmp_path: Path) -> None:
    """A server with a certificate of an own authority is trusted with `ca_file`, and only with it."""
    ca_file, context = self_signed(tmp_path)
    async with listening(answers(GRANT), ssl=context) as port:
        url = f"https://127.0.0.1:{port}/"
        async with http_of(HTTPOptions(ca_file=ca_file)) as http:
            assert "t-1" == (await http.request("POST", url)).json()["access_token"]
        for options in (None, HTTPOptions()):
            async with http_of(options) as http:
                with pytest.raises(TokenUnavailable, match=r"\(certificate\): .*HTTPOptions\(ca_file=…\)"):
                    await http.request("POST", url)


def test_public_authorities_stay_trusted(tmp_path: Path) -> None:
    """`ca_file` adds to the public authorities; the providers of other companies are still reached."""
    ca_file, _ = self_signed(tmp_path)
    public = HTTPOptions().ssl_context.cert_store_stats()["x509_ca"]
    assert public > 50
    assert public + 1 == HTTPOptions(ca_file=str(ca_file)).ssl_context.cert_store_stats()["x509_ca"]


async def test_certificates_of_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`SSL_CERT_FILE` is honoured with `trust_env`, and ignored without."""
    ca_file, context = self_signed(tmp_path)
    monkeypatch.setenv("SSL_CERT_FILE", str(ca_file))
    async with listening(answers(GRANT), ssl=context) as port:
        url = f"https://127.0.0.1:{port}/"
        async with http_of(HTTPOptions(trust_env=True)) as http:
            assert "t-1" == (await http.request("POST", url)).json()["access_token"]
        for options in (None, HTTPOptions()):
            async with http_of(options) as http:
                with pytest.raises(TokenUnavailable, match=r"\(certificate\): .*SSL_CERT_FILE"):
                    await http.request("POST", url)


async def test_broker_takes_the_options(tmp_path: Path) -> None:
    """`TokenBroker(http=HTTPOptions(…))` makes a client with them for each event loop, and closes it."""
    ca_file, context = self_signed(tmp_path)
    async with listening(answers(GRANT), ssl=context) as port:
        provider = ClientCredentials(token_url=f"https://127.0.0.1:{port}/", client_id="c", client_secret="s")
        broker = TokenBroker({"crm": provider}, http=HTTPOptions(ca_file=ca_file))
        async with broker:
            assert "t-1" == (await broker.token("crm")).value


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"ca_file": "nowhere.pem"}, r"ca_file='nowhere.pem'\) cannot be loaded \(No such file or directory\)"),
        ({"ca_file": __file__}, r"cannot be loaded \(it is not PEM\)"),
        ({"ca_file": True}, r"ca_file=…\) must be a path, not bool"),
        ({"trust_env": "false"}, r"trust_env=…\)"),
    ],
)
def test_options_that_cannot_work(options: dict[str, Any], text: str) -> None:
    """What cannot be loaded is refused when the program starts."""
    with pytest.raises(ConfigurationError, match=text) as caught:
        HTTPOptions(**options)
    assert caught.value.__cause__ is None


@pytest.mark.parametrize(
    ("variable", "value", "text"),
    [
        ("SSL_CERT_FILE", "/nowhere.pem", "the certificates of SSL_CERT_FILE cannot be loaded"),
        ("HTTPS_PROXY", f"socks5://user:{PASSWORD}@proxy.example", "variable HTTPS_PROXY must be .*SOCKS"),
        (
            "HTTP_PROXY",
            f"http://user:{PASSWORD}@proxy.example:port",
            "variable HTTP_PROXY must be the URL of an HTTP proxy",
        ),
        ("ALL_PROXY", f"ftp://user:{PASSWORD}@proxy.example", "variable ALL_PROXY must be the URL of an HTTP proxy"),
        ("ALL_PROXY", "http://", "variable ALL_PROXY must be the URL of an HTTP proxy"),
    ],
)
def test_variables_that_cannot_work(monkeypatch: pytest.MonkeyPatch, variable: str, value: str, text: str) -> None:
    """A variable that cannot be used is named, not its value, which may hold a password."""
    monkeypatch.setenv(variable, value)
    with pytest.raises(ConfigurationError, match=text) as caught:
        HTTPOptions(trust_env=True)
    assert PASSWORD not in f"{caught.value!r} {caught.value.__cause__!r} {caught.value.__context__!r}"
    HTTPOptions()


@asynccontextmanager
async def proxy(refusal: bytes = b"") -> AsyncGenerator[tuple[int, list[bytes]]]:
    """An HTTP proxy that records the head of each request, and connects every tunnel to the port of its host."""
    heads: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        heads.append(head)
        if refusal or not head.startswith(b"CONNECT "):
            writer.write(refusal or GRANT)
            await writer.drain()
            return
        port = int(head.split()[1].rpartition(b":")[2])
        their_reader, their_writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"HTTP/1.1 200 Connected\r\n\r\n")

        async def forward(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
            while data := await source.read(4096):
                target.write(data)
                await target.drain()

        try:
            await asyncio.gather(forward(reader, their_writer), forward(their_reader, writer))
        finally:
            their_writer.transport.abort()

    async with listening(serve) as port:
        yield port, heads


async def test_https_through_a_proxy_of_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The proxy of `HTTPS_PROXY` resolves the name; TLS is with the server, and the proxy sees no header of it."""
    ca_file, context = self_signed(tmp_path, host="idp.example")
    async with proxy() as (proxy_port, heads), listening(answers(GRANT), ssl=context) as port:
        monkeypatch.setenv("HTTPS_PROXY", f"user:{PASSWORD}@127.0.0.1:{proxy_port}")
        async with http_of(HTTPOptions(ca_file=ca_file, trust_env=True)) as http:
            answer = await http.request(
                "POST", f"https://idp.example:{port}/", headers={"authorization": "Basic c2VjcmV0"}
            )
        assert "t-1" == answer.json()["access_token"]
        async with http_of(HTTPOptions(ca_file=ca_file)) as http:
            with pytest.raises(TokenUnavailable, match=r"could not be reached \(dns\)"):
                await http.request("POST", f"https://idp.example:{port}/")
    assert 1 == len(heads)
    assert heads[0].startswith(b"CONNECT idp.example:")
    assert b"roxy-" in heads[0]
    assert b"c2VjcmV0" not in heads[0]


@pytest.mark.parametrize("variable", ["HTTP_PROXY", "http_proxy", "ALL_PROXY"])
async def test_plain_http_through_a_proxy(monkeypatch: pytest.MonkeyPatch, variable: str) -> None:
    """Plain HTTP to other machines goes through the proxy; requests to this machine do not."""
    async with proxy() as (proxy_port, heads), listening(answers(GRANT)) as port:
        monkeypatch.setenv(variable, f"http://127.0.0.1:{proxy_port}/")
        async with http_of(HTTPOptions(trust_env=True)) as http:
            await http.request("POST", "http://idp.example/token")
            for host in ("127.0.0.1", "localhost"):
                await http.request("POST", f"http://{host}:{port}/")
    assert [b"POST http://idp.example/token HTTP/1.1"] == [head.partition(b"\r\n")[0] for head in heads]


async def test_metadata_of_the_machine_is_not_requested_through_a_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    """A proxy would request it of its own machine, and would see the token. `NO_PROXY` need not name it."""

    async def refuse(_self: Any, host: str, port: int, **_: Any) -> Any:
        connected.append(f"{host} {port}")
        raise httpcore.ConnectError("refused")

    connected: list[str] = []
    monkeypatch.setattr(PLAIN_BACKEND, "connect_tcp", refuse)
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:3128/")
    async with http_of(HTTPOptions(trust_env=True)) as http:
        for host in ("169.254.169.254", "[fe80::1]", "10.0.0.1"):
            with pytest.raises(TokenUnavailable):
                await http.request("GET", f"http://{host}/token")
    assert ["169.254.169.254 80", "fe80::1 80", "127.0.0.1 3128"] == connected


async def test_hosts_without_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    """`NO_PROXY` names hosts that are reached directly."""
    async with proxy() as (proxy_port, heads):
        monkeypatch.setenv("ALL_PROXY", f"http://127.0.0.1:{proxy_port}")
        monkeypatch.setenv("NO_PROXY", "internal.invalid,.corp.invalid")
        async with http_of(HTTPOptions(trust_env=True)) as http:
            for host in ("internal.invalid", "idp.corp.invalid"):
                with pytest.raises(TokenUnavailable, match=r"could not be reached \(dns\)"):
                    await http.request("POST", f"http://{host}/")
    assert [] == heads


async def test_proxy_that_refuses_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """A proxy's refusal names the proxy and has its status, and not its password."""
    refusal = b"HTTP/1.1 407 Proxy Authentication Required\r\ncontent-length: 0\r\n\r\n"
    async with proxy(refusal) as (proxy_port, _):
        monkeypatch.setenv("HTTPS_PROXY", f"http://user:{PASSWORD}@127.0.0.1:{proxy_port}")
        async with http_of(HTTPOptions(trust_env=True)) as http:
            with pytest.raises(TokenUnavailable) as caught:
                await http.request("POST", "https://idp.example/token")
    said = f"idp.example:443 could not be reached through the proxy at 127.0.0.1:{proxy_port} (proxy): "
    assert str(caught.value).startswith(f"the token endpoint at {said}")
    assert "HTTP 407" in str(caught.value)
    assert PASSWORD not in str(caught.value)


async def test_private_addresses_cannot_be_refused_through_a_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    """A proxy would resolve the name, so a request that must not reach private addresses does not go through one."""
    async with proxy() as (proxy_port, heads):
        monkeypatch.setenv("ALL_PROXY", f"http://127.0.0.1:{proxy_port}")
        tenant = ClientCredentials(
            token_url="https://idp.example/", client_id="c", client_secret="s", allow_private=False
        )
        async with TokenBroker({"crm": tenant}, http=HTTPOptions(trust_env=True)) as broker:
            with pytest.raises(
                TokenUnavailable, match="is refused: the proxy of the environment would resolve its name"
            ):
                await broker.token("crm")
    assert [] == heads


def test_the_password_of_a_proxy_is_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither `repr` nor an encoder shows what the options hold, and they are not pickled."""
    monkeypatch.setenv("HTTPS_PROXY", f"http://user:{PASSWORD}@proxy.example")
    options = HTTPOptions(trust_env=True)
    assert "<HTTPOptions>" == repr(options)
    assert PASSWORD not in repr(options.proxies)
    with pytest.raises(TypeError):
        json.dumps(options)
    with pytest.raises(TypeError, match="holds secrets"):
        pickle.dumps(options)
    with pytest.raises(AttributeError):
        options.proxies = {}


def test_a_directory_of_certificates_that_is_missing_is_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """OpenSSL would ignore it and trust no server; of several directories, one that exists is enough."""
    monkeypatch.setenv("SSL_CERT_DIR", str(tmp_path / "missing"))
    with pytest.raises(ConfigurationError, match="SSL_CERT_DIR names no directory: check the path"):
        HTTPOptions(trust_env=True)
    HTTPOptions()
    monkeypatch.setenv("SSL_CERT_DIR", f"{tmp_path / 'missing'}{os.pathsep}{tmp_path}")
    HTTPOptions(trust_env=True)
