"""Values of configuration files and environment variables: URLs and hosts."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

import httpx

from tests.fuzz.messages import read_message, run, token_http
from tests.fuzz.oracles import Target, Violation, check_error, require
from tokenmw.errors import ConfigurationError
from tokenmw.limits import Limits
from tokenmw.outgoing.hosts import may_receive_token
from tokenmw.providers import ClientCredentials, WeCom
from tokenmw.redis.client import checked_redis, open_client

__all__ = ["TARGETS"]

_PASSWORD = "pa55word"


def _refused(error: ConfigurationError) -> None:
    check_error(error, secret=_PASSWORD)
    require(error.__cause__ is None, "a chained error, which may have the URL")


def _check_url(url: httpx.URL) -> None:
    """Require a URL to which secrets may be sent."""
    require(url.scheme == "https" or url.host in ("localhost", "::1") or url.host.startswith("127."), "no TLS")
    require(url.host and not url.userinfo and not url.fragment, "a URL without a host, or with a password or fragment")
    require(url.port is None or 0 < url.port < 65_536, "an invalid port")


def _token_url(data: bytes) -> None:
    text = data.decode("utf-8", "replace")
    try:
        provider = ClientCredentials(token_url=text, client_id="c", client_secret="s")
    except ConfigurationError as error:
        _refused(error)
        return
    require(provider.token_url == text, "another URL than the given one")
    url = httpx.URL(text)
    _check_url(url)
    try:
        parts = urlsplit(text)
        address = (httpx.URL(scheme="https", host=parts.hostname or "").raw_host, parts.port)
    except ValueError:
        raise Violation("a URL that only one of two parsers accepts") from None
    default = {"https": 443, "http": 80}[url.scheme]
    require(address in ((url.raw_host, url.port), (url.raw_host, default)), "a URL that two parsers read differently")


def _base_url(data: bytes) -> None:
    text = data.decode("utf-8", "replace")
    try:
        provider = WeCom(corp_id="c", corp_secret="s", base_url=text)
    except ConfigurationError as error:
        _refused(error)
        return
    given, kept = httpx.URL(text), httpx.URL(provider.base_url)
    _check_url(kept)
    require((given.scheme, given.raw_host, given.port) == (kept.scheme, kept.raw_host, kept.port), "another address")
    require(
        not provider.base_url.endswith("/") and "?" not in provider.base_url,
        "a base URL to which no path can be appended",
    )
    require(
        WeCom(corp_id="c", corp_secret="s", base_url=provider.base_url) == provider,
        "a base URL that changes when it is passed again",
    )
    require(
        may_receive_token(httpx.URL(f"{provider.base_url}/cgi-bin/x"), provider=provider),
        "a token that may not go home",
    )
    require(
        not may_receive_token(httpx.URL("https://evil.example/"), provider=provider) or kept.host == "evil.example",
        "a leak",
    )
    run(_fetch(provider))


async def _fetch(provider: WeCom) -> None:
    """Fetch a token from the base URL."""
    await provider.fetch(token_http(read_message(b'200\n\n{"access_token": "t", "expires_in": 60}')))


def _hosts(data: bytes) -> None:
    """Pass hosts, one in each line; a token may be sent to these only."""
    hosts = data.decode("utf-8", "replace").split("\n")
    try:
        provider = ClientCredentials(token_url="https://a.example", client_id="c", client_secret="s", hosts=hosts)
    except ConfigurationError as error:
        _refused(error)
        return
    names = [host.lower() for host in hosts]
    require(provider.hosts is not None and len(provider.hosts) <= len(names), "hosts that restrict nothing")
    for host in names:
        bare = f"a{host}" if host.startswith(".") else host
        url = httpx.URL(scheme="https", host=bare, path="/")
        require(may_receive_token(url, provider=provider), "a host that was named, and gets no token")
    stranger = httpx.URL("https://evil.test/")
    require(
        not may_receive_token(stranger, provider=provider) or {"evil.test", ".test"} & set(names),
        "a host that was not named",
    )


def _redis_url(data: bytes) -> None:
    text = data.decode("utf-8", "replace")
    try:
        given = checked_redis(text)
    except ConfigurationError as error:
        _refused(error)
        return
    client, ours = open_client(given, limits=Limits())
    require(given == text and ours, "another URL than the given one")
    made: Any = client
    options: dict[str, Any] = getattr(made, "connection_kwargs", None) or made.connection_pool.connection_kwargs
    port: object = options.get("port", 6379)
    require(isinstance(port, int) and 0 < port < 65_536, "an invalid port")
    require(not options.get("decode_responses"), "a client that decodes values")
    require(isinstance(options.get("db") or 0, int), "an invalid database")


_URLS = (
    b"https://idp.example/token",
    b"https://IdP.Example:8443/token?tenant=a",
    b"http://localhost:8080/",
    b"http://[::1]:8080/token",
    b"https://user:pa55word@idp.example/",
    b"https://idp.example:99999/",
    b"https://idp.example:/",
    b"https://idp.example:0/",
    "https://idp.exämple/".encode(),
    "https://a\uff20b.example/".encode(),
    "https://www.exämple.example:\uff14\uff14\uff13/".encode(),
    b"https://xn--exmple-cua.example/",
    b"https://localhost\\@idp.example/",
    b"https://ex%61mple.example/",
    b"https://[::1%25eth0]/",
)
_URL_WORDS = (
    b"https://",
    b"http://",
    b"@",
    b":",
    b"/",
    b"\\",
    b"%",
    b"[",
    b"]",
    b"#",
    b"?",
    b"xn--",
    "ä".encode(),
    b"127.0.0.1",
)
_REDIS = (
    b"redis://localhost:6379/0",
    b"rediss://:pa55word@redis.example:6380/1?ssl_cert_reqs=none",
    b"unix:///run/redis.sock?db=1",
    b"redis+cluster://redis.example:7000",
    b"redis://:pa55word@host:99999",
    b"redis://:pa55word@host:/0",
    b"redis://:pa55word@host:0/0",
    b"redis://:pa55word@[::1/0",
    b"redis://host?protocol=3&socket_timeout=5&health_check_interval=x",
    b"redis://:pa55word?x@host",
)
_REDIS_WORDS = (
    b"redis://",
    b"rediss://",
    b"unix://",
    b"+cluster",
    b"?",
    b"&",
    b"=",
    b"@",
    b":",
    b"/",
    b"db=",
    b"protocol=",
    b"%",
)

TARGETS = (
    Target("token_url", _token_url, _URLS, _URL_WORDS, 1 << 16),
    Target("base_url", _base_url, (*_URLS, b"https://open.feishu.cn:443/a/b//"), _URL_WORDS, 1 << 16),
    Target(
        "hosts",
        _hosts,
        (b"api.example", b".example\n::1", "api.exämple".encode(), b"a b", b"xn--exmple-cua.de"),
        _URL_WORDS,
        1 << 16,
    ),
    Target("redis_url", _redis_url, _REDIS, _REDIS_WORDS, 1 << 16),
)
