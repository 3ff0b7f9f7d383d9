"""The client requests_oauth2client gets tokens from the test server."""

from __future__ import annotations

from typing import Any

import pytest

from tests.interop.running import python, result_of
from tests.providers.private_keys import jwk_of, make_key
from tokenmw.testing import ProviderServer

pytestmark = pytest.mark.sdk

# This client encodes neither in Basic credentials, and the server decodes both.
CLIENT, SECRET = "crm", "a secret of sufficient length: 0123456789"
RESOURCES = ["https://orders.example/api", "https://bills.example/api"]


@pytest.fixture(scope="module")
def served() -> tuple[ProviderServer, dict[str, Any]]:
    """A server that knows one client, and what the library got from it."""
    command = python("requests_client.py", modules=["requests_oauth2client"])
    server = ProviderServer(clients={CLIENT: SECRET})
    user = server.subjects.issue("ada")
    key = jwk_of(make_key("P-256"), kid="new", alg="ES256")
    server.oauth2.dpop.nonces = server.api.dpop.nonces = True
    with server.running() as base_url:
        return server, result_of(
            command, issuer=base_url, client=CLIENT, secret=SECRET, key=key, resources=RESOURCES, user=user
        )


def test_the_client_gets_tokens_for_two_resources(served: tuple[ProviderServer, dict[str, Any]]) -> None:
    """It finds the endpoint, every method gets a token for both resources, and a wrong secret is `invalid_client`."""
    server, results = served
    for method in ("client_secret_basic", "client_secret_post", "client_secret_jwt", "private_key_jwt"):
        issued = server.issued.find(results["granted"][method]["access_token"])
        assert issued is not None
        assert (CLIENT, "crm.read", tuple(RESOURCES)) == (issued.client, issued.scope, issued.resources)
    assert "InvalidClient" == results["refused"]
    assert 9 == server.calls["oauth2"]


def test_the_client_gets_tokens_for_a_user(served: tuple[ProviderServer, dict[str, Any]]) -> None:
    """A token exchange and the JWT bearer grant turn the user's token into one for the user and the client."""
    server, results = served
    for grant in ("exchange", "assertion"):
        issued = server.issued.find(results["for_user"][grant]["access_token"])
        assert issued is not None
        assert ("ada", CLIENT) == (issued.user, issued.client)
    assert "urn:ietf:params:oauth:token-type:access_token" == results["for_user"]["exchange"]["issued_token_type"]


def test_the_client_proves_bound_tokens(served: tuple[ProviderServer, dict[str, Any]]) -> None:
    """It learns the nonces of both sides, and the API accepts its proofs."""
    server, results = served
    issued = server.issued.find(results["bound"])
    assert issued is not None
    assert issued.thumbprint
    assert [(CLIENT, 4)] * 3 == [(one["client"], one["received"]) for one in results["calls"]]
    assert (1, 3) == (len(server.oauth2.dpop.verified), len(server.api.dpop.verified))
