"""Clients of other projects get tokens of users from the test server."""

from __future__ import annotations

from typing import Any

import pytest

from tests.interop.running import node, python, result_of
from tokenmw.testing import ProviderServer

pytestmark = pytest.mark.sdk

# These clients do not encode Basic credentials, and the server decodes them.
CLIENT, SECRET = "crm", "a secret of sufficient length: 0123456789"
CALLBACK = "https://app.example/callback"


def make_server() -> ProviderServer:
    """Make a server whose user consents without a page, and which signs id tokens with a key of its own."""
    server = ProviderServer(clients={CLIENT: SECRET})
    server.users.register(CLIENT, CALLBACK)
    server.users.auto, server.users.id_token_algorithm = "ada", "RS256"
    return server


@pytest.fixture(scope="module")
def served() -> tuple[ProviderServer, dict[str, Any]]:
    """A server, and what clients in Python got from it."""
    command = python("user_clients.py", modules=["authlib", "httpx", "requests_oauth2client"])
    server = make_server()
    with server.running() as base_url:
        return server, result_of(command, issuer=base_url, client=CLIENT, secret=SECRET, callback=CALLBACK)


@pytest.mark.parametrize("library", ["authlib", "requests_oauth2client"])
def test_a_client_connects_a_user(served: tuple[ProviderServer, dict[str, Any]], library: str) -> None:
    """By a code with PKCE, whose refresh token it rotates and then revokes."""
    server, results = served
    result = results[library]
    first, second = result["tokens"]
    family = server.users.family_of(first["refresh_token"])
    assert [first["refresh_token"], second["refresh_token"]] == family.refresh_tokens
    assert ("ada", CLIENT, "openid read") == (family.user, family.client, family.scope)
    assert ("revocation", ["granted", "revoked"]) == (family.revoked_because, [post.outcome for post in family.posts])
    assert "id_token" in first
    assert result["revoked"] in (200, True)
    assert result["refused"] in ("invalid_grant", "InvalidGrant")


def test_a_client_connects_a_device(served: tuple[ProviderServer, dict[str, Any]]) -> None:
    """Its user has approved it on the page; the client verified the id token of its other user."""
    server, results = served
    family = server.users.family_of(results["requests_oauth2client"]["by_device"]["refresh_token"])
    assert ("eve", CLIENT, "read") == (family.user, family.client, family.scope)
    assert results["requests_oauth2client"]["nonce"]


@pytest.mark.parametrize("library", ["openid-client", "oauth4webapi"])
def test_a_client_in_javascript_connects_a_user(library: str) -> None:
    """It verifies `iss`, the state, and the claims of the id token."""
    command = node("user_clients.mjs")
    server = make_server()
    with server.running() as base_url:
        options: dict[str, Any] = {"issuer": base_url, "client": CLIENT, "secret": SECRET, "callback": CALLBACK}
        result = result_of(command, library=library, **options)
        server.users.iss = "https://foreign.example"
        foreign = result_of(command, library=library, **options)
    family = server.users.family_of(result["tokens"][0]["refresh_token"])
    assert [tokens["refresh_token"] for tokens in result["tokens"]] == family.refresh_tokens
    assert ("ada", "revocation") == (family.user, family.revoked_because)
    assert "ada" == result["subject"]
    assert "iss" in foreign["refused"]
