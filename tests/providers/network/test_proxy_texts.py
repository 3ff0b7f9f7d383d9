"""A proxy that fails is named, with what to check: the token endpoint's URL is not at fault."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import pytest

from tests.providers.network.servers import answers, closed_port, closes, listening, resets, says_nothing
from tokenmw.clock import SYSTEM_CLOCK
from tokenmw.errors import TokenUnavailable
from tokenmw.limits import Limits
from tokenmw.providers import HTTPOptions, TokenHTTP
from tokenmw.providers.http_client import default_client

if TYPE_CHECKING:
    from tests.providers.network.servers import Serve

SECRET = "pr0xy-passw0rd"
LIMITS = Limits(fetch_seconds=0.6)
LOGIN = (
    r": check its rules, and the user name and password in the proxy's URL: HTTPS_PROXY, HTTP_PROXY or ALL_PROXY with"
)
CHECK = r": check the proxy's URL: HTTPS_PROXY, HTTP_PROXY or ALL_PROXY with HTTPOptions\(trust_env=True\), or "


async def text_of(proxy: str, url: str, *, own: bool, monkeypatch: pytest.MonkeyPatch) -> str:
    """Return the text of a token request through a proxy, of our own client or of the program's."""
    client: Any
    if own:
        monkeypatch.setenv("HTTPS_PROXY", proxy)
        monkeypatch.setenv("HTTP_PROXY", proxy)
        monkeypatch.delenv("NO_PROXY", raising=False)
        client = default_client(HTTPOptions(trust_env=True), limits=LIMITS)
    else:
        httpx = pytest.importorskip("httpx")
        client = httpx.AsyncClient(proxy=proxy, trust_env=False)
    http = TokenHTTP(client, limits=LIMITS, clock=SYSTEM_CLOCK)
    try:
        with pytest.raises(TokenUnavailable) as caught:
            (await http.request("POST", url, data={"grant_type": "x"})).check_busy()
    finally:
        await http.aclose()
    text = str(caught.value)
    assert SECRET not in text
    assert "user" not in text.replace("user name", "")
    return text


@pytest.fixture(params=[True, False], ids=["ours", "httpx"])
def own(request: pytest.FixtureRequest) -> bool:
    """Whether the request goes through our own client."""
    return bool(request.param)


@pytest.mark.parametrize("url", ["https://idp.example/token", "http://idp.example/token"])
async def test_a_dead_proxy_is_named(monkeypatch: pytest.MonkeyPatch, url: str, *, own: bool) -> None:
    """Nothing listens there, or its name does not resolve; the fix is not "check host and port" of the URL."""
    with closed_port() as port:
        proxy = f"http://user:{SECRET}@127.0.0.1:{port}"
        text = await text_of(proxy, url, own=own, monkeypatch=monkeypatch)
    assert re.search(
        rf"through the proxy at 127\.0\.0\.1:{port} \(refused\): nothing accepts connections there{CHECK}", text
    )
    text = await text_of(f"http://user:{SECRET}@proxy.invalid:3128", url, own=own, monkeypatch=monkeypatch)
    assert re.search(rf"through the proxy at proxy\.invalid:3128 \(dns\): [^:]*{CHECK}", text)


@pytest.mark.parametrize("serve", [closes, resets, answers(b"SSH-2\r\n\r\n")])
@pytest.mark.parametrize("url", ["https://idp.example/token", "http://idp.example/token"])
async def test_a_proxy_that_breaks_off_is_named(
    monkeypatch: pytest.MonkeyPatch, serve: Serve, url: str, *, own: bool
) -> None:
    """It accepts the connection, and sends no answer or something else."""
    async with listening(serve) as port:
        text = await text_of(f"http://127.0.0.1:{port}", url, own=own, monkeypatch=monkeypatch)
    found = rf"did not answer through the proxy at 127\.0\.0\.1:{port} \((reset|closed|protocol)\): [^:]*{CHECK}"
    assert re.search(found, text)


async def test_a_proxy_that_hangs_is_named(monkeypatch: pytest.MonkeyPatch, *, own: bool) -> None:
    """It accepts the connection, and never answers."""
    async with listening(says_nothing) as port:
        text = await text_of(f"http://127.0.0.1:{port}", "https://idp.example/", own=own, monkeypatch=monkeypatch)
    assert f"did not answer within 0.6 s through the proxy at 127.0.0.1:{port} (read timeout)" in text


@pytest.mark.parametrize(
    ("status", "says"),
    [
        (403, rf"the proxy refused \(HTTP 403\){LOGIN}"),
        (407, rf"the proxy refused \(HTTP 407\){LOGIN}"),
        (502, r"the proxy has no connection to it \(HTTP 502\): check the host, and what the proxy can reach"),
    ],
)
async def test_a_proxy_that_refuses_is_named(
    monkeypatch: pytest.MonkeyPatch, status: int, says: str, *, own: bool
) -> None:
    """The text has its address, its status, and where its URL is configured."""
    async with listening(answers(b"HTTP/1.1 %d No\r\ncontent-length: 0\r\n\r\n" % status)) as port:
        proxy = f"http://user:{SECRET}@127.0.0.1:{port}"
        text = await text_of(proxy, "https://idp.example/token", own=own, monkeypatch=monkeypatch)
    assert re.search(rf"through the proxy at 127\.0\.0\.1:{port} \(proxy\): {says}", text)


async def test_a_server_behind_a_proxy_is_not_the_proxy(monkeypatch: pytest.MonkeyPatch, *, own: bool) -> None:
    """Once the tunnel is open, a failure is the server's: its certificate, its port."""

    async def tunnel(reader: Any, writer: Any) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 Connected\r\n\r\n")
        await writer.drain()
        await reader.read(1)

    async with listening(tunnel) as port:
        text = await text_of(f"http://127.0.0.1:{port}", "https://idp.example/token", own=own, monkeypatch=monkeypatch)
    assert re.search(
        rf"could not be reached through the proxy at 127\.0\.0\.1:{port} \(tls\): .*: check the port, and", text
    )


async def test_a_forward_proxy_that_requires_a_login(monkeypatch: pytest.MonkeyPatch, *, own: bool) -> None:
    """For a plain HTTP URL the proxy's 407 is the response; the text says where its password goes."""
    async with listening(answers(b"HTTP/1.1 407 No\r\ncontent-length: 0\r\n\r\n")) as port:
        text = await text_of(f"http://127.0.0.1:{port}", "http://idp.example/token", own=own, monkeypatch=monkeypatch)
    assert "idp.example:80 requires a login (HTTP 407)" in text
    assert "HTTP_PROXY with HTTPOptions(trust_env=True)" in text
