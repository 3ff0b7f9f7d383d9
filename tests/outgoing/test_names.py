"""Names with equal credentials share a token; each has its own rules for where the token goes."""

from __future__ import annotations

from typing import Any

import pytest

from tests.asgi_client import scope_of
from tests.outgoing.conftest import API, Numbered
from tokenmw import ConfigurationError, TokenAuth, TokenBroker
from tokenmw.asgi.request import tokens_of
from tokenmw.testing import ManualClock

HERE = frozenset({"127.0.0.1"})
ELSEWHERE = frozenset({"elsewhere.example"})


def auth_of(broker: TokenBroker, name: str, *, by: str) -> TokenAuth:
    """Return the auth object of a name, from the broker or from a request."""
    return broker.auth(name) if by == "broker" else tokens_of(broker, scope_of("http")).auth(name)


@pytest.mark.parametrize("by", ["broker", "request"])
async def test_each_name_has_its_own_hosts_place_and_rejections(
    http: Any, api: API, clock: ManualClock, *, by: str
) -> None:
    """One fetch serves both names; each has its own hosts, place of the token, and meaning of a 401."""
    first = Numbered(hosts=ELSEWHERE)
    second = Numbered(hosts=HERE, place="header", reads_body=True)
    async with TokenBroker({"first": first, "second": second}, clock=clock) as broker:
        await http.get("/x", auth=auth_of(broker, "first", by=by))
        sent = await http.get("/x", auth=auth_of(broker, "second", by=by))
        assert ["", "t-1"] == api.seen
        assert "t-1" == sent.request.headers["x-api-token"]
        clock.advance(10)
        api.refused.add("t-1")  # with a 401, which does not mean a rejected token for the second name
        await http.get("/x", auth=auth_of(broker, "second", by=by))
    assert (["t-1"], []) == (first.asked, second.asked)


@pytest.mark.parametrize("by", ["broker", "request"])
async def test_override_has_its_own_hosts(http: Any, api: API, clock: ManualClock, *, by: str) -> None:
    """The hosts of an override apply, even for a known credential; later the name's own hosts apply again."""
    async with TokenBroker({"a": Numbered(hosts=ELSEWHERE)}, clock=clock) as broker:
        auth = auth_of(broker, "a", by=by)
        with broker.override({"a": Numbered(hosts=HERE)}):
            await http.get("/x", auth=auth)
        await http.get("/x", auth=auth)
    assert ["t-1", ""] == api.seen


async def test_equal_credential_is_checked_like_the_first(broker: TokenBroker, http: Any, api: API) -> None:
    """`hosts` must not be a str, in which any part would match; an equal provider is checked as well."""
    text: Any = "api.example"
    with pytest.raises(ConfigurationError, match=r"Numbered\.hosts"):
        TokenBroker({"a": Numbered(hosts=HERE), "b": Numbered(hosts=text)})
    await http.get("/x", auth=broker.auth(Numbered(hosts=HERE)))
    with pytest.raises(ConfigurationError, match=r"Numbered\.hosts"):
        await http.get("http://127.0.0.1/x", auth=broker.auth(Numbered(hosts=text)))
    assert ["t-1"] == api.seen
