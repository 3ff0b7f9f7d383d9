"""A request that gets no token because of `hosts` is logged, once for each host."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from tests.asgi_client import scope_of
from tests.outgoing.conftest import Numbered
from tokenmw import ConfigurationError, TokenBroker
from tokenmw.asgi.request import tokens_of

API = Numbered(hosts=frozenset({"api.example"}))


@pytest.fixture
def client(library: Any) -> Any:
    """A client whose every request is answered."""

    def answer(_request: Any) -> Any:
        return library.Response(200)

    return library.AsyncClient(transport=library.MockTransport(answer))


async def test_host_outside_of_hosts_is_logged_once(client: Any, caplog: pytest.LogCaptureFixture) -> None:
    """The line names the provider, the host and the option; it comes once for each provider and host."""
    async with TokenBroker({"crm": API, "other": API}) as broker, client as http:
        tokens = tokens_of(broker, scope_of("http"))
        for auth in (
            broker.auth("crm"),
            broker.auth("crm"),
            tokens.auth("crm"),
            broker.auth("other"),
            broker.auth(API),
        ):
            for url in ("https://api.example/x", "https://cdn.example/x", "https://cdn.example:8443/y"):
                await http.get(url, auth=auth)
        await http.get("https://img.example/", auth=broker.auth("crm"))
    lines = [record for record in caplog.records if record.name == "tokenmw"]
    assert [
        ("hosts:crm", "cdn.example"),
        ("hosts:other", "cdn.example"),
        ("hosts:numbered", "cdn.example"),
        ("hosts:crm", "img.example"),
    ] == [(vars(line)["tokenmw.kind"], line.getMessage().split()[3]) for line in lines]
    assert (
        "tokenmw: Requests to cdn.example are sent without the token of crm, because its hosts do not include this "
        "host; add it to hosts=[…] of the provider if it may receive the token."
    ) == lines[0].getMessage()


async def test_lines_are_bounded(client: Any, caplog: pytest.LogCaptureFixture) -> None:
    """A program that takes hosts from its callers gets at most 8 lines, each with at most 100 characters of a host."""
    async with TokenBroker({"crm": API}) as broker, client as http:
        for number in range(100):
            await http.get(f"https://{'a' * 1_000}{number}.example/", auth=broker.auth("crm"))
            await http.get(f"https://h{number}.example/", auth=broker.auth("crm"))
    lines = [record.getMessage() for record in caplog.records if record.name == "tokenmw"]
    assert 8 == len(lines)
    assert max(map(len, lines)) < 300


async def test_a_provider_does_not_use_up_the_lines_of_another(client: Any, caplog: pytest.LogCaptureFixture) -> None:
    """Each has its first lines, however many hosts the requests of the others went to before."""
    crowd = {f"crm-{number}": API for number in range(20)}
    async with TokenBroker({**crowd, "billing": API}) as broker, client as http:
        for name in crowd:
            for number in range(10):
                await http.get(f"https://h{number}.example/", auth=broker.auth(name))
        for number in range(10):
            await http.get(f"https://cdn{number}.example/", auth=broker.auth("billing"))
    kinds = Counter(vars(record)["tokenmw.kind"] for record in caplog.records if record.name == "tokenmw")
    assert {"hosts:billing", *(f"hosts:{name}" for name in crowd)} == set(kinds)
    assert 8 == max(kinds.values())


async def test_auth_without_a_call_names_the_fix(library: Any, client: Any) -> None:
    """A client calls any callable that it gets as `auth`; the error says what to write instead."""
    async with TokenBroker({"crm": API}) as broker, client as http:
        for auth in (broker.auth, tokens_of(broker, scope_of("http")).auth):
            with pytest.raises(ConfigurationError, match=r'without a call: .*auth=broker\.auth\("crm"\)'):
                await http.get("https://api.example/", auth=auth)
