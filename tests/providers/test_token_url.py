from __future__ import annotations

from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tokenmw.errors import ConfigurationError
from tokenmw.outgoing.request import may_receive_token
from tokenmw.providers import ClientCredentials, WeCom
from tokenmw.providers.base_url import checked_base_url
from tokenmw.providers.token_url import token_url

OPTION = "ClientCredentials(token_url=…)"


@pytest.mark.parametrize(
    "url",
    [
        "https://idp.example/token",
        "https://idp.example:8443/token?tenant=a",
        "HTTPS://IdP.example",
        "https://[2001:db8::1]/token",
        "https://idp.exämple/token",
        "http://localhost/token",
        "http://localhost:8080/token",
        "http://127.0.0.1:8080/token",
        "http://127.9.9.9/token",
        "http://[::1]:8080/token",
    ],
)
def test_tls_and_this_machine_are_fine(url: str) -> None:
    """The URL comes back as it was given."""
    assert url == token_url(url, option=OPTION, allow_http=False)


@pytest.mark.parametrize(
    ("url", "mend"),
    [
        ("", "absolute URL"),
        ("idp.example/token", "absolute URL"),
        ("/token", "absolute URL"),
        ("https:///token", "absolute URL"),
        ("https://", "absolute URL"),
        ("https://[::bad/", "absolute URL"),
        ("https://idp.example:port/", "absolute URL"),
        ("https://idp.example:99999/pa55word", "a host or a port that cannot be"),
        ("https://idp.example:65536/", "a host or a port that cannot be"),
        ("https://idp.example:0/", "a host or a port that cannot be"),
        ("https://idp.example:/", "a host or a port that cannot be"),
        ("https://idp.example:\uff14\uff14\uff13/", "a host or a port that cannot be"),
        ("https://ex%61mple.example/", "a host or a port that cannot be"),
        ("https://a,b.example/", "a host or a port that cannot be"),
        ("https://[::1%25eth0]/", "a host or a port that cannot be"),
        ("https://[::1%25\xe4]/", "absolute URL"),
        ("https://xn--/", "absolute URL"),
        ("https://a\uff20b.example/", "absolute URL|cannot be"),
        ("https://idp.example/" + "a" * 8000, "of 8000 characters at most"),
        ("https://idp.example/\n", "absolute URL"),
        (" https://idp.example/", "absolute URL"),
        ("ftp://idp.example/", "absolute URL"),
        (b"https://idp.example/", "must be a str, not bytes"),
        (None, "must be a str, not NoneType"),
        ("https://user:pa55word@idp.example/", "take it out"),
        ("https://pa55word@idp.example/", "take it out"),
        ("https://localhost\\@pa55word.example/", "take it out|absolute URL"),
        ("https://idp.example/#pa55word", "take it out"),
        ("http://idp.example/?p=pa55word", "use https://, or pass allow_http=True"),
        ("http://localhost.idp.example/", "use https://"),
        ("http://127.0.0.1.idp.example/", "use https://"),
        ("http://0.0.0.0/", "use https://"),
        ("http://10.0.0.1/", "use https://"),
        ("http://2130706433/", "use https://"),
    ],
)
def test_anything_else_is_refused_with_the_mend(url: Any, mend: str) -> None:
    """The text names the option, and repeats nothing of a URL that may hold a password."""
    with pytest.raises(ConfigurationError, match=mend) as caught:
        token_url(url, option=OPTION, allow_http=False)
    assert str(caught.value).startswith(OPTION)
    assert "pa55word" not in f"{caught.value!r}{caught.value.__cause__!r}{caught.value.__context__!r}"


def test_plain_http_can_be_allowed() -> None:
    """Behind a mesh that encrypts, `allow_http` says that one knows."""
    assert "http://idp.internal/" == token_url("http://idp.internal/", option=OPTION, allow_http=True)
    with pytest.raises(ConfigurationError, match="take it out"):
        token_url("http://user@idp.internal/", option=OPTION, allow_http=True)


LABELS = st.from_regex(r"[a-z0-9]([a-z0-9-]{0,8}[a-z0-9])?", fullmatch=True).filter(lambda label: label[2:4] != "--")
NAMES = st.lists(LABELS, min_size=1, max_size=3).map(".".join)
FOREIGN = st.sampled_from(["ex\xe4mple.example", "www.ex\xe4mple.example", "xn--exmple-cua.example", "\u5bc6.example"])
PLACES = NAMES | FOREIGN | st.ip_addresses(v=4).map(str) | st.ip_addresses(v=6).map(lambda address: f"[{address}]")
PATHS = st.text("abc/%\xe4 .", max_size=8).map(lambda path: f"/{path}")


@given(PLACES, st.none() | st.integers(1, 65_535), PATHS)
def test_a_token_may_go_where_it_came_from(place: str, port: int | None, path: str) -> None:
    """However the host is spelled: the client, the credential and the hosts mean the same place."""
    url = f"HTTPS://{place.upper()}{'' if port is None else f':{port}'}{path}"
    base = checked_base_url(url, option="o", allow_http=False)
    assert base == checked_base_url(base, option="o", allow_http=False)
    given_url, kept = httpx.URL(url), httpx.URL(base)
    assert given_url.raw_host.lower() == kept.raw_host
    assert given_url.port == kept.port
    provider = WeCom(corp_id="c", corp_secret="s", base_url=url)
    assert may_receive_token(httpx.URL(f"{base}/cgi-bin/x"), provider=provider)
    assert may_receive_token(given_url, provider=provider)
    assert not may_receive_token(httpx.URL("https://elsewhere.test/"), provider=provider)
    named = ClientCredentials(token_url=url, client_id="c", client_secret="s", hosts=[place.strip("[]")])
    assert may_receive_token(given_url, provider=named)


PIECES = [
    *("https", "http", "://", ":", "/", "@", "[", "]", "?", "#", "\\", "%"),
    *("a.example", "::1", "443", "xn--", "\xe4"),
]


@given(st.lists(st.sampled_from(PIECES) | st.text(max_size=2)).map("".join))
def test_no_url_is_too_strange(url: str) -> None:
    """It is used as it is, by https, without anything but a place; or it is our error, which does not repeat it."""
    try:
        taken = token_url(url, option=OPTION, allow_http=False)
    except ConfigurationError:
        return
    assert url == taken
    parsed = httpx.URL(url)
    assert parsed.scheme == "https" or parsed.host in ("localhost", "::1") or parsed.host.startswith("127.")
    assert (b"", "") == (parsed.userinfo, parsed.fragment)
    assert parsed.port is None or 0 < parsed.port < 65_536


@pytest.mark.parametrize("given", [None, b"https://idp.example/token", httpx.URL("https://idp.example/token")])
def test_what_is_no_text_is_told_as_that(given: Any) -> None:
    """Settings objects hold URLs in classes of their own, whose text is a good URL."""
    with pytest.raises(ConfigurationError, match=r"token_url=…\) must be a str, not"):
        token_url(given, option=OPTION, allow_http=False)
