"""What the OAuth 2.0 grants have in common: the server, fields, a JSON body, and names that stay as they were."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import parse_qsl

import httpx
import pytest

from tests.providers.wire import http_answer, wire
from tokenmw import TokenBroker
from tokenmw.errors import ConfigurationError
from tokenmw.providers import (
    BotFramework,
    ClientCredentials,
    Entra,
    EntraOnBehalfOf,
    JWTBearer,
    Provider,
    TokenExchange,
    TokenHTTP,
)
from tokenmw.testing import ProviderServer

if TYPE_CHECKING:
    from collections.abc import Callable

URL = "https://idp.example/token"
GRANTED = b'{"access_token": "t-1", "token_type": "bearer", "expires_in": 60}'
CLIENT: dict[str, Any] = {"client_id": "crm", "client_secret": "s"}


def exchange(**options: Any) -> Provider:
    """Make a token exchange."""
    given: dict[str, Any] = CLIENT | {"subject": "sub"} | options
    return TokenExchange(**given)


def bearer(**options: Any) -> Provider:
    """Make a JWT bearer grant."""
    given: dict[str, Any] = {"assertion": "a.b.c"} | options
    return JWTBearer(**given)


def credentials(**options: Any) -> Provider:
    """Make a client credentials grant."""
    return ClientCredentials(**(CLIENT | options))


GRANTS: list[Callable[..., Provider]] = [credentials, exchange, bearer]

# The digest of each credential as the version before had named it: instances of two versions share their tokens.
NAMES: dict[str, tuple[Callable[[], Provider], str]] = {
    "cc": (
        lambda: ClientCredentials(
            token_url=URL, client_id="crm", client_secret="s", scope="b a", audience="x", resource="https://a.example"
        ),
        "050c53cd954de6e9",
    ),
    "cc post": (
        lambda: ClientCredentials(
            token_url=URL,
            client_id="crm",
            client_secret=["n", "o"],
            auth_method="client_secret_post",
            params={"a": "b"},
            json=True,
            scheme="X",
        ),
        "86be950d16682e8a",
    ),
    "cc issuer": (
        lambda: ClientCredentials(issuer="https://idp.example", client_id="crm", client_secret="s"),
        "b36d97efc0a63526",
    ),
    "cc jwt": (
        lambda: ClientCredentials(
            token_url=URL,
            client_id="crm",
            client_secret="s" * 16,
            auth_method="client_secret_jwt",
            assertion_audience="a",
        ),
        "7f302a40ee7c9082",
    ),
    "ex": (
        lambda: TokenExchange(
            token_url=URL,
            client_id="crm",
            client_secret="s",
            subject="sub",
            actor="act",
            requested_type="id_token",
            scope="b a",
            audience=["x", "y"],
            resource="https://a.example",
        ),
        "1ffea99c6438c1e9",
    ),
    "ex plain": (
        lambda: TokenExchange(token_url=URL, client_id="crm", client_secret="s", subject="sub", audience="x"),
        "3d5dd734fd1c56f1",
    ),
    "jb": (lambda: JWTBearer(token_url=URL, assertion="a.b.c", scope="b a", client_id="crm"), "bce7cdcff0b38f95"),
    "jb secret": (
        lambda: JWTBearer(token_url=URL, assertion="a.b.c", client_id="crm", client_secret="s"),
        "3eb689fe0cb70cf0",
    ),
    "jb none": (lambda: JWTBearer(token_url=URL, assertion=lambda: "a", credential_id="k"), "75e4a99f4dbd5cb4"),
    "jb subject": (
        lambda: JWTBearer(token_url=URL, subject="sub", client_id="crm", client_secret="s"),
        "31ba77149b5a8e32",
    ),
    "entra": (lambda: Entra(tenant="contoso.example", client_id="crm", client_secret="s"), "b8c513d492f716b6"),
    "obo": (
        lambda: EntraOnBehalfOf(
            tenant="contoso.example", client_id="crm", client_secret="s", subject="sub", scope="b a"
        ),
        "d7695c2225305972",
    ),
    "bot": (lambda: BotFramework(app_id="crm", app_secret="s"), "22515e6abaf2736b"),
}


def parts(value: object) -> object:
    """Return the parts of a credential as plain text, which a digest of them needs."""
    if isinstance(value, tuple):
        return tuple(parts(one) for one in cast("tuple[object, ...]", value))
    return str(value) if isinstance(value, str) else value


@pytest.mark.parametrize("name", NAMES)
def test_credentials_keep_their_names(name: str) -> None:
    """Another name would be another token in Redis, so each instance of a new version would fetch one."""
    make, digest = NAMES[name]
    assert digest == hashlib.sha256(repr(parts(make().key_parts)).encode()).hexdigest()[:16]


@pytest.mark.parametrize("make", GRANTS)
async def test_each_grant_finds_its_endpoint_by_the_issuer(make: Callable[..., Provider]) -> None:
    """One request for the metadata serves all grants of that server."""
    server = ProviderServer(clients={"crm": "s"})
    issuer = "https://idp.example"
    async with httpx.AsyncClient(transport=server.transport()) as http, TokenBroker({}, http=http) as broker:
        options = {"subject": server.subjects.issue("ada")} if make is exchange else {}
        if make is bearer:
            options = {"assertion": server.subjects.issue("ada"), **CLIENT}
        made = make(issuer=issuer, **options)
        assert (await broker.token(made)).value
    assert 1 == server.calls["oauth2"]


@pytest.mark.parametrize("make", GRANTS)
async def test_each_grant_sends_more_fields_and_json(http: TokenHTTP, make: Callable[..., Provider]) -> None:
    """The fields are the same in a form and in a JSON object."""
    seen: list[dict[str, Any]] = []
    for as_json in (False, True):
        async with wire(http_answer(200, body=GRANTED)) as server:
            provider = make(token_url=f"{server.url}/t", params={"organization_id": "o-1"}, json=as_json)
            assert "t-1" == (await provider.fetch(http)).value
        body = server.requests[0].decode().partition("\r\n\r\n")[2]
        seen.append(json.loads(body) if as_json else dict(parse_qsl(body)))
    assert seen[0] == seen[1]
    assert "o-1" == seen[0]["organization_id"]


@pytest.mark.parametrize("make", GRANTS)
@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({}, "needs token_url=…, or issuer=…"),
        ({"token_url": URL, "issuer": "https://idp.example"}, "needs token_url=…, or issuer=…"),
        ({"issuer": "http://idp.example"}, "issuer=…"),
        ({"token_url": URL, "params": {"scope": "a"}}, "use scope=…"),
        ({"token_url": URL, "json": 1}, "json=…. must be True or False"),
        ({"token_url": URL, "allow_http": 1}, "allow_http=…. must be True or False"),
        ({"token_url": URL, "log_description": 1}, "log_description=…. must be True or False"),
        ({"token_url": URL, "default_life": 0}, "default_life=…"),
    ],
)
def test_each_grant_checks_the_common_options(
    make: Callable[..., Provider], options: dict[str, Any], text: str
) -> None:
    """The text names the option."""
    with pytest.raises(ConfigurationError, match=text):
        make(**options)


def test_fields_of_the_grant_itself_have_an_option() -> None:
    """They cannot be in `params`, where the package would overwrite them."""
    with pytest.raises(ConfigurationError, match="use subject=…"):
        exchange(token_url=URL, params={"subject_token": "a"})
    with pytest.raises(ConfigurationError, match="use assertion=…"):
        bearer(token_url=URL, params={"assertion": "a"})


@pytest.mark.parametrize("make", GRANTS)
def test_other_fields_are_another_credential(make: Callable[..., Provider]) -> None:
    """A token that was granted for other fields is never served."""
    plain = make(token_url=URL)
    for options in ({"params": {"organization_id": "o-1"}}, {"json": True}):
        assert plain != make(token_url=URL, **options)
    assert plain != make(issuer="https://idp.example")
