"""Which hosts match a provider's `hosts`, as both client libraries read URLs."""

from __future__ import annotations

import importlib
import re
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tests.outgoing.conftest import Numbered
from tokenmw.outgoing.hosts import may_receive_token

LIBRARIES = [importlib.import_module(name) for name in ("httpx", "httpx2")]
LABEL = re.compile(r"[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?", re.ASCII)
# Host names, and what parsers of URLs disagree about.
PIECES = """
evil.test a xn--exmple-cua . .. \\ %2f %2e @ : :443 [ ] ::1 %25eth0 - _ * ; ! ~ / ? # 127.0.0.1 1 api.example
.api.example \uff41 \u3002 ä ß
"""
HOSTS = st.lists(st.sampled_from(PIECES.split()), min_size=1, max_size=6).map("".join)
BELOW = """
a.api.example a.b.api.example A.API.example tenant_1.api.example xn--exmple-cua.api.example exämple.api.example
a\u3002api.example 1.api.example user:pw@a.api.example:8443
"""
NOT_BELOW = """
api.example .api.example ..api.example a..api.example a.api.example. evilapi.example a.api.example.evil.test
evil.test\\.api.example evil.test%2f.api.example evil.test%2e.api.example evil.test;.api.example *.api.example
-a.api.example a-.api.example a.api.example@evil.test evil.test#.api.example evil.test?.api.example
[::1%25.api.example] \uff41.api.example a.api%2eexample
"""


def receives(library: Any, host: str, *hosts: str) -> bool | None:
    """Return whether a URL with a host gets the token; None if the library refuses the URL."""
    try:
        url = library.URL(f"https://{host}/x")
    except (library.InvalidURL, ValueError):
        return None
    return may_receive_token(url, provider=Numbered(hosts=frozenset(hosts)))


@pytest.mark.parametrize("host", [*BELOW.split(), f"{'a' * 63}.api.example"])
def test_leading_dot_matches_names_below_it(host: str, library: Any) -> None:
    """A host name below the domain matches, in any spelling that the client sends as that name."""
    assert receives(library, host, ".api.example") is True


@pytest.mark.parametrize(
    "host", [*NOT_BELOW.split(), "evil test.api.example", f"{'a' * 64}.api.example", f"{'a.' * 130}api.example"]
)
def test_leading_dot_matches_nothing_else(host: str, library: Any) -> None:
    """What is not a host name below the domain gets no token, or is refused by the client."""
    assert not receives(library, host, ".api.example")


def test_leading_dot_matches_no_address(library: Any) -> None:
    """The parts of an address are not domains."""
    assert not receives(library, "10.0.0.1", ".0.0.1", ".1")
    assert not receives(library, "a.0x1", ".0x1")
    assert receives(library, "10.0.0.1", "10.0.0.1")


def test_names_of_a_provider_class_may_be_in_any_spelling(library: Any) -> None:
    """A class of the program's own need not write its hosts as they are on the wire."""
    assert receives(library, "a.xn--exmple-cua.test", ".Exämple.test") is True
    assert receives(library, "xn--exmple-cua.test", "EXÄMPLE.test") is True
    for name in (".", "", "..api.example"):
        assert not receives(library, "a..api.example", name)
        assert not receives(library, "a.", name)


def test_any_port_of_a_host_is_allowed_for_the_first_request(library: Any) -> None:
    """The program has chosen the port itself."""
    assert receives(library, "api.example:8443", "api.example") is True


@given(
    st.lists(st.sampled_from(PIECES.split()), min_size=1, max_size=6).map("".join) | st.text(max_size=30), st.booleans()
)
@example("evil.test\\", True)  # noqa: FBT003  hypothesis passes arguments by position
def test_every_host_that_matches_is_named(text: str, below: bool) -> None:  # noqa: FBT001  hypothesis
    """Whatever a URL has in place of its host, a token goes to a named host, or to a host name below a named domain."""
    host = f"{text}.api.example" if below else text
    for library in LIBRARIES:
        if receives(library, host, ".api.example", "api.example"):
            sent = library.URL(f"https://{host}/x").raw_host.decode()
            assert sent == "api.example" or sent.endswith(".api.example")
            assert all(LABEL.fullmatch(label) for label in sent.split("."))
