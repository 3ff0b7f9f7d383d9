from __future__ import annotations

from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tokenmw.errors import ConfigurationError
from tokenmw.outgoing.hosts import may_receive_token
from tokenmw.providers import ClientCredentials, WeCom
from tokenmw.providers.urls import checked_base_url, checked_hosts, checked_token_url

OPTION = "ClientCredentials(token_url=…)"


@pytest.mark.parametrize(
    "url",
    [
        "https://idp.example/token",
        "https://idp.example:8443/token?tenant=a",
        "https://idp.example/token?api-version=2018-02-01&key=k&grant_type=client_credentials",
        "https://idp.example/@tenant/token?mail=a@b.example",
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
def test_https_and_this_machine_are_allowed(url: str) -> None:
    """An https URL, or a URL of this machine, is returned unchanged."""
    assert url == checked_token_url(url, option=OPTION, allow_http=False)


@pytest.mark.parametrize(
    ("url", "fix"),
    [
        ("", "absolute URL"),
        ("idp.example/token", "absolute URL"),
        ("/token", "absolute URL"),
        ("https:///token", "absolute URL"),
        ("https://", "absolute URL"),
        ("https://[::bad/", "absolute URL"),
        ("https://idp.example:port/", "absolute URL"),
        ("https://idp.example:99999/pa55word", "invalid host or port"),
        ("https://idp.example:65536/", "invalid host or port"),
        ("https://idp.example:0/", "invalid host or port"),
        ("https://idp.example:/", "invalid host or port"),
        ("https://idp.example:\uff14\uff14\uff13/", "invalid host or port"),
        ("https://ex%61mple.example/", "invalid host or port"),
        ("https://a,b.example/", "invalid host or port"),
        ("https://[::1%25eth0]/", "invalid host or port"),
        ("https://[::1%25\xe4]/", "absolute URL"),
        ("https://xn--/", "absolute URL"),
        ("https://a\uff20b.example/", "absolute URL|invalid host"),
        ("https://idp.example/" + "a" * 8000, "of at most 8000 characters"),
        ("https://idp.example/\n", r"strip\(\) it"),
        (" https://idp.example/", r"strip\(\) it"),
        ("https://idp.example/pa55word x", "a space in it: remove it, or write %20"),
        ("https://idp example/", "a space in it"),
        ("https://idp.example/a\tb", "absolute URL"),
        ("https://@idp.example/", "remove it"),
        ("https://:@idp.example?x=y", "remove it"),
        ("https://idp.example/?client_secret=pa55word", r"looks like a secret \(secret\).*its own option"),
        ("https://idp.example/?a=b&Corp-Secret=pa55word", "looks like a secret"),
        ("https://idp.example/?x=1&password=pa55word", r"looks like a secret \(password\)"),
        ("https://idp.example/?access_token=pa55word", "looks like a secret"),
        ("https://idp.example/?%63lient_assertion=pa55word", "looks like a secret"),
        ("ftp://idp.example/", "absolute URL"),
        (b"https://idp.example/", "must be a str, not bytes"),
        (None, "must be a str, not NoneType"),
        ("https://user:pa55word@idp.example/", "remove it"),
        ("https://pa55word@idp.example/", "remove it"),
        ("https://localhost\\@pa55word.example/", "remove it|absolute URL"),
        ("https://idp.example/#pa55word", "remove it"),
        ("http://idp.example/?p=pa55word", "use https://, or pass allow_http=True"),
        ("http://localhost.idp.example/", "use https://"),
        ("http://127.0.0.1.idp.example/", "use https://"),
        ("http://0.0.0.0/", "use https://"),
        ("http://10.0.0.1/", "use https://"),
        ("http://2130706433/", "use https://"),
    ],
)
def test_other_urls_are_refused_with_the_fix(url: Any, fix: str) -> None:
    """The text names the option and the fix, and repeats no part of the URL, which may hold a password."""
    with pytest.raises(ConfigurationError, match=fix) as caught:
        checked_token_url(url, option=OPTION, allow_http=False)
    assert str(caught.value).startswith(OPTION)
    assert "pa55word" not in f"{caught.value!r}{caught.value.__cause__!r}{caught.value.__context__!r}"


def test_plain_http_can_be_allowed() -> None:
    """`allow_http=True` allows plain HTTP, and nothing else that is refused."""
    assert "http://idp.internal/" == checked_token_url("http://idp.internal/", option=OPTION, allow_http=True)
    with pytest.raises(ConfigurationError, match="remove it"):
        checked_token_url("http://user@idp.internal/", option=OPTION, allow_http=True)


LABELS = st.from_regex(r"[a-z0-9]([a-z0-9-]{0,8}[a-z0-9])?", fullmatch=True).filter(lambda label: label[2:4] != "--")
NAMES = st.lists(LABELS, min_size=1, max_size=3).map(".".join)
FOREIGN = st.sampled_from(["ex\xe4mple.example", "www.ex\xe4mple.example", "xn--exmple-cua.example", "\u5bc6.example"])
HOSTS = NAMES | FOREIGN | st.ip_addresses(v=4).map(str) | st.ip_addresses(v=6).map(lambda address: f"[{address}]")
PATHS = st.text("abc/%\xe4.", max_size=8).map(lambda path: f"/{path}")


@given(HOSTS, st.none() | st.just(443) | st.integers(1, 65_535), PATHS)
def test_token_may_be_sent_to_its_own_base_url(host: str, port: int | None, path: str) -> None:
    """Whatever the spelling of a host: the client, the credential and `hosts` mean the same one."""
    url = f"HTTPS://{host.upper()}{'' if port is None else f':{port}'}{path}"
    base = checked_base_url(url, option="o", allow_http=False)
    assert base == checked_base_url(base, option="o", allow_http=False)
    given_url, kept = httpx.URL(url), httpx.URL(base)
    assert given_url.raw_host.lower() == kept.raw_host
    assert (given_url.port or 443) == (kept.port or 443)
    provider = WeCom(corp_id="c", corp_secret="s", base_url=url)
    assert may_receive_token(httpx.URL(f"{base}/cgi-bin/x"), provider=provider)
    assert may_receive_token(given_url, provider=provider)
    assert not may_receive_token(httpx.URL("https://elsewhere.test/"), provider=provider)
    named = ClientCredentials(token_url=url, client_id="c", client_secret="s", hosts=[host.strip("[]")])
    assert may_receive_token(given_url, provider=named)


PIECES = [
    *("https", "http", "://", ":", "/", "@", "[", "]", "?", "#", "\\", "%"),
    *("a.example", "::1", "443", "xn--", "\xe4"),
]


@given(st.lists(st.sampled_from(PIECES) | st.text(max_size=2)).map("".join))
def test_any_text_is_a_safe_url_or_our_error(url: str) -> None:
    """A text is refused, or it is used unchanged: by https or on this machine, without user information or fragment."""
    try:
        checked = checked_token_url(url, option=OPTION, allow_http=False)
    except ConfigurationError:
        return
    assert url == checked
    parsed = httpx.URL(url)
    assert parsed.scheme == "https" or parsed.host in ("localhost", "::1") or parsed.host.startswith("127.")
    assert (b"", "") == (parsed.userinfo, parsed.fragment)
    assert parsed.port is None or 0 < parsed.port < 65_536


@pytest.mark.parametrize("given", [None, b"https://idp.example/token", httpx.URL("https://idp.example/token")])
def test_url_that_is_not_a_str_is_refused(given: Any) -> None:
    """A settings library's URL object is refused by its type, although its text is a valid URL."""
    with pytest.raises(ConfigurationError, match=r"token_url=…\) must be a str, not"):
        checked_token_url(given, option=OPTION, allow_http=False)


@pytest.mark.parametrize(
    ("hosts", "expected"),
    [
        (None, None),
        (["api.example"], {"api.example"}),
        (("API.Example", "b.example"), {"api.example", "b.example"}),
        ({"localhost", "127.0.0.1", "::1"}, {"localhost", "127.0.0.1", "::1"}),
        ((host for host in ["a.example"]), {"a.example"}),
        (["API.Ex\xe4mple", ".ex\xe4mple"], {"api.xn--exmple-cua", ".xn--exmple-cua"}),
        (["2001:DB8::1"], {"2001:db8::1"}),
    ],
)
def test_hosts_become_a_set_in_lower_case(hosts: Any, expected: set[str] | None) -> None:
    """Any iterable of names is accepted; None means no restriction."""
    assert expected == checked_hosts(hosts, option="o")


@pytest.mark.parametrize(
    ("hosts", "fix"),
    [
        ("api.example", "a lone str would be read letter by letter"),
        (b"api.example", "a lone bytes would be read letter by letter"),
        ([], "an empty list would keep the token from every host"),
        (5, "not int"),
        ([5], r"hosts\[0\] is of type int"),
        (["a.example", None], r"hosts\[1\] is of type NoneType"),
        (["*.Example"], r'write "\.example" instead of "\*\.example"'),
        (["*.ex\xe4mple"], 'write ".xn--exmple-cua"'),
        (["*"], "for every host, leave the option out"),
        (["."], "for every host, leave the option out"),
        ([""], "for every host, leave the option out"),
        ([" api.example"], r"strip\(\) it"),
        (["api.example\n"], r"strip\(\) it"),
        (["https://api.example"], "without scheme, port and path"),
        (["api.example:443"], "without scheme, port and path"),
        (["api.example/v1"], "without scheme, port and path"),
        (["user@api.example"], "is not a host name"),
        (["[::1]"], "is not a host name"),
        (["a,b"], "is not a host name"),
        (["xn--\x00"], "is not a host name"),
        (["a%b"], "is not a host name"),
        (["a b"], "is not a host name"),
        (["a..b"], "is not a host name"),
        (["a." + "b" * 64], "is not a host name"),
        (["*.0.0.1"], "is not a host name"),
        (["api.example", "crm.example."], r"hosts\[1\] ends with a dot: leave it out"),
        (["CRM.example."], r"hosts\[0\] ends with a dot: leave it out"),
        (["127.0.0.1."], r"hosts\[0\] ends with a dot: leave it out"),
        (["api.example", "b.example", " c.example"], r"hosts\[2\] has a blank"),
        (["api.example", "*.example"], r'hosts\[1\]: for all names below a domain, write "\.example"'),
        (["api.example", ""], r"hosts\[1\] has no name"),
        (["api.example", "https://api.example"], r"hosts\[1\] is not a host name"),
        (["api.example", ".0.0.1"], r"hosts\[1\] begins with a dot"),
        *(
            ([f".{part}"], "the name of a domain")
            for part in ("::1", "1", "0.0.1", "127.0.0.1", ".x", "x..y", "x.7", "7.", "example.")
        ),
    ],
)
def test_other_values_of_hosts_are_refused(hosts: Any, fix: str) -> None:
    """The text has the fix; a suffix is a domain, because ".0.0.1" would be a part of an address."""
    with pytest.raises(ConfigurationError, match=fix) as caught:
        checked_hosts(hosts, option="P(hosts=…)")
    assert str(caught.value).startswith('P(hosts=…) must be a list of host names, such as ["api.example"]')
