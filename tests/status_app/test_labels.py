"""`TokenBroker(label=…)` names the credentials of requests that fail, for operators and for nobody else."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import httpx2
import pytest
from starlette.requests import HTTPConnection

from tests.asgi_client import call, scope_of
from tokenmw import ConfigurationError, CredentialRejected, RequestTokens, TokenBroker
from tokenmw.providers import StaticToken
from tokenmw.status_app import StatusApp

if TYPE_CHECKING:
    from collections.abc import Callable

    from tokenmw.observe import Event

LABEL = "Tenant <7> & Söhne"


def tenant(connection: HTTPConnection) -> StaticToken:
    """Return the provider of a tenant, whose credential is rejected unless its name begins with "good"."""
    name = connection.headers["x-tenant"]

    async def fetch() -> str:
        if name.startswith("good"):
            return "t"
        raise CredentialRejected("no such client")

    return StaticToken(fetch, credential_id=name)


def label(connection: HTTPConnection) -> str:
    """Name a tenant."""
    return f"Tenant <{connection.headers['x-tenant']}> & Söhne"


async def resolve(broker: TokenBroker, name: str) -> None:
    """Need a tenant's token in a request."""
    await RequestTokens(broker, scope_of("http", headers=[(b"x-tenant", name.encode())])).resolve("crm")


async def inject(broker: TokenBroker, name: str) -> None:
    """Inject it."""
    await RequestTokens(broker, scope_of("http", headers=[(b"x-tenant", name.encode())]))._inject(["crm"])
    raise CredentialRejected


async def send(broker: TokenBroker, name: str) -> None:
    """Send a request with it."""
    tokens = RequestTokens(broker, scope_of("http", headers=[(b"x-tenant", name.encode())]))
    async with httpx2.AsyncClient(auth=tokens.auth("crm"), transport=httpx2.MockTransport(lambda _: None)) as http:  # type: ignore[arg-type]
        await http.get("https://crm.example")


@pytest.mark.parametrize("need", [resolve, inject, send])
async def test_a_failing_credential_has_its_label(need: Any, caplog: pytest.LogCaptureFixture) -> None:
    """On the page, escaped, and in the JSON beside the opaque name; not in the log and not in events."""
    seen: list[Event] = []
    broker = TokenBroker({"crm": tenant}, label=label, observers=[seen.append])
    async with broker:
        with pytest.raises(CredentialRejected):
            await need(broker, "7")
        await resolve(broker, "good")
        app = StatusApp(broker, allow_all=True)
        (failing,) = (await call(app, path="/status.json")).json["failing_credentials"]["worst"]
        page = (await call(app)).body.decode()
    assert failing["label"] == LABEL
    assert failing["credential"]
    assert "Tenant &lt;7&gt; &amp; Söhne" in page
    assert "Tenant" not in caplog.text + repr(seen)


async def test_it_is_called_only_for_a_credential_that_fails() -> None:
    """Once for each, and never for one that works or that a name stands for."""
    called: list[str] = []

    def counting(connection: HTTPConnection) -> str:
        called.append(connection.headers["x-tenant"])
        return "x"

    async def rejected() -> str:
        raise CredentialRejected("no such client")

    async with TokenBroker({"crm": tenant, "own": StaticToken(rejected)}, label=counting) as broker:
        for _ in range(3):
            await resolve(broker, "good")
            with pytest.raises(CredentialRejected):
                await resolve(broker, "bad")
            with pytest.raises(CredentialRejected):
                await RequestTokens(broker, scope_of("http", headers=[(b"x-tenant", b"bad")])).resolve("own")
    assert ["bad"] == called


def raises(_connection: HTTPConnection) -> str:
    """Raise an error with a secret."""
    raise LookupError("c4n4ry")


GIVEN: list[tuple[Callable[[HTTPConnection], Any], str, str]] = [
    (raises, "", "tokenmw: TokenBroker(label=…) raised LookupError at tests.status_app.test_labels:"),
    (lambda _: 7, "", "tokenmw: TokenBroker(label=…) returned int, not text"),
    (lambda _: "a\x1b[2Jb\n" + "x" * 100, "a[2Jb" + "x" * 53, ""),
]


@pytest.mark.parametrize(("function", "shown", "line"), GIVEN)
async def test_what_is_no_label_is_left_out(
    function: Any, shown: str, line: str, caplog: pytest.LogCaptureFixture
) -> None:
    """The request's own error is raised; the log has the place and not the text; a label is short and printable."""
    async with TokenBroker({"crm": tenant}, label=function) as broker:
        with caplog.at_level(logging.WARNING), pytest.raises(CredentialRejected):
            await resolve(broker, "7")
        (failing,) = (await call(StatusApp(broker, allow_all=True), path="/status.json")).json["failing_credentials"][
            "worst"
        ]
    assert failing["label"] == shown
    assert [one for one in caplog.messages if "label" in one] == ([] if not line else [caplog.messages[-1]])
    assert caplog.messages[-1].startswith(line)
    assert "c4n4ry" not in caplog.text


async def late(_connection: HTTPConnection) -> str:
    """Return a label too late."""
    return "x"


@pytest.mark.parametrize("wrong", [late, "label", lambda: "x"])
def test_a_callable_that_cannot_work_is_an_error(wrong: Any) -> None:
    """At the start."""
    with pytest.raises(ConfigurationError, match="label"):
        TokenBroker({}, label=wrong)
