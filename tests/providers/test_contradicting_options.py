"""Options without effect, or that cannot work, are refused when the provider is made, with the fix."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tokenmw.errors import ConfigurationError
from tokenmw.providers import ClientCredentials, Entra, EntraOnBehalfOf, JWTBearer, SubjectToken, TokenExchange

if TYPE_CHECKING:
    from collections.abc import Callable

URL = "https://idp.example/token"
LONG = "a secret that is long enough for HS512, which has 64 bytes as its key"


def client(**options: Any) -> ClientCredentials:
    """Make a client with a secret."""
    given: dict[str, Any] = {"token_url": URL, "client_id": "c", "client_secret": "s"}
    return ClientCredentials(**given | options)


def exchange(**options: Any) -> TokenExchange:
    """Make a token exchange."""
    given: dict[str, Any] = {
        "token_url": URL,
        "client_id": "c",
        "client_secret": "s",
        "subject": SubjectToken(),
        "audience": "orders",
    }
    return TokenExchange(**given | options)


def bearer(**options: Any) -> JWTBearer:
    """Make a JWT bearer grant of the caller's token."""
    given: dict[str, Any] = {"token_url": URL, "subject": SubjectToken()}
    return JWTBearer(**given | options)


def on_behalf_of(**options: Any) -> EntraOnBehalfOf:
    """Make an app that acts for its callers."""
    given: dict[str, Any] = {
        "tenant": "contoso.example",
        "client_id": "c",
        "client_secret": "s",
        "subject": SubjectToken(),
    }
    return EntraOnBehalfOf(**given | options)


def entra(**options: Any) -> Entra:
    """Make an app of Entra."""
    given: dict[str, Any] = {"tenant": "contoso.example", "client_id": "c", "client_secret": "s"}
    return Entra(**given | options)


REFUSED: list[tuple[Callable[..., object], dict[str, Any], str]] = [
    (exchange, {"actor_type": "jwt"}, r"actor_type=…\) is the type of actor=…: give an actor, or leave it out"),
    *(
        (make, {"credential_id": "k"}, r"credential_id=…\) is the name .*: leave it out with client_secret=…")
        for make in (client, exchange, on_behalf_of, entra)
    ),
    *(
        (make, {"auth_method": "client_secret_post", "form_encode_basic": False}, r'"client_secret_post": leave it out')
        for make in (client, exchange)
    ),
    (
        client,
        {"auth_method": "client_secret_jwt", "form_encode_basic": False, "client_secret": LONG},
        r"leave it out",
    ),
    *(
        (make, {"auth_method": "client_secret_jwt", "client_secret": secret}, "fewer than 16 bytes.* or use another")
        for make in (client, exchange)
        for secret in ("s", "15 bytes: 密ä", [LONG, "s"])
    ),
    (client, {"grant_type": "account_credentials"}, r'needs params=\{"account_id": "…"\} with it'),
    (
        bearer,
        {"auth_method": "client_secret_basic"},
        r"for a client with client_secret=… or certificate=…: give one of them, or leave",
    ),
    (
        bearer,
        {"params": {"client_assertion": "a"}},
        "client_secret=…, because this grant signs no client assertion",
    ),
    *(
        (
            make,
            {"params": {"grant_type": "password"}},
            r"the field grant_type, .*: use ClientCredentials for another",
        )
        for make in (exchange, bearer)
    ),
    *((make, {"params": {"client_id": "x"}}, r"use client_id=…") for make in (client, exchange, bearer)),
    (exchange, {"params": {"subject_token": "x"}}, r"use subject=…"),
    (bearer, {"params": {"assertion": "x"}}, r"use assertion=…, or subject=…"),
    (
        on_behalf_of,
        {"scope": "https://graph.microsoft.com/User.Read api://orders/read"},
        "scopes of two APIs, and a token is for one: make a provider for each API",
    ),
    (on_behalf_of, {"scope": "User.Read api://orders/read"}, "User.Read, is one of Microsoft Graph"),
]


@pytest.mark.parametrize(("make", "options", "text"), REFUSED)
def test_a_contradicting_option_is_refused(make: Callable[..., object], options: dict[str, Any], text: str) -> None:
    """The text names the option and the fix."""
    with pytest.raises(ConfigurationError, match=text):
        make(**options)


ACCEPTED: list[tuple[Callable[..., object], dict[str, Any]]] = [
    (exchange, {"actor": "a", "actor_type": "jwt"}),
    (client, {"client_secret": None, "client_assertion": lambda: "a", "credential_id": "k"}),
    (client, {"form_encode_basic": False}),
    (client, {"form_encode_basic": False, "token_url": None, "issuer": "https://idp.example"}),
    (client, {"auth_method": "client_secret_jwt", "client_secret": "sixteen bytes: 1"}),
    (client, {"grant_type": "account_credentials", "params": {"account_id": "1"}}),
    (bearer, {"auth_method": "client_secret_post", "client_id": "c", "client_secret": "s"}),
    (bearer, {"params": {"audience": "orders", "resource": "urn:orders"}}),
    (on_behalf_of, {"scope": "openid offline_access User.Read https://graph.microsoft.com/Mail.Read"}),
    (on_behalf_of, {"scope": "api://orders/read api://orders/write"}),
]


@pytest.mark.parametrize(("make", "options"), ACCEPTED)
def test_what_belongs_together_is_accepted(make: Callable[..., object], options: dict[str, Any]) -> None:
    """The checks refuse no more than that."""
    make(**options)


@pytest.mark.parametrize("header", ["Cookie", "set-cookie"])
def test_a_header_of_cookies_is_refused(header: str) -> None:
    """The text shows how to take the token of a cookie."""
    with pytest.raises(ConfigurationError, match=r'provider\.for_subject\(connection\.cookies\["…"\]\)'):
        SubjectToken(header=header)


@pytest.mark.parametrize("header", ["Host", "content-length", "Connection", "Proxy-Authorization"])
def test_a_header_that_never_has_a_token_is_refused(header: str) -> None:
    """The text says which one to give."""
    with pytest.raises(ConfigurationError, match=r"never has a token.* Give Authorization, or the header of your own"):
        SubjectToken(header=header, scheme="")


def test_a_header_of_a_proxy_is_accepted() -> None:
    """It has the token alone."""
    SubjectToken(header="X-Forwarded-Access-Token", scheme="")
