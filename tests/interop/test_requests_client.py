"""The client requests_oauth2client gets tokens from the test server."""

from __future__ import annotations

import pytest

from tests.interop.running import python, result_of
from tests.providers.private_keys import jwk_of, make_key
from tokenmw.testing import ProviderServer

pytestmark = pytest.mark.sdk

# This client encodes neither in Basic credentials, and the server decodes both.
CLIENT, SECRET = "crm", "a secret of sufficient length: 0123456789"
RESOURCES = ["https://orders.example/api", "https://bills.example/api"]


def test_the_client_gets_tokens_for_two_resources() -> None:
    """It finds the endpoint, every method gets a token for both resources, and a wrong secret is `invalid_client`."""
    command = python("requests_client.py", modules=["requests_oauth2client"])
    server = ProviderServer(clients={CLIENT: SECRET})
    key = jwk_of(make_key("P-256"), kid="new", alg="ES256")
    with server.running() as base_url:
        results = result_of(command, issuer=base_url, client=CLIENT, secret=SECRET, key=key, resources=RESOURCES)
    for method in ("client_secret_basic", "client_secret_post", "client_secret_jwt", "private_key_jwt"):
        issued = server.issued.find(results["granted"][method]["access_token"])
        assert issued is not None
        assert (CLIENT, "crm.read", tuple(RESOURCES)) == (issued.client, issued.scope, issued.resources)
    assert "InvalidClient" == results["refused"]
    assert 5 == server.calls["oauth2"]
