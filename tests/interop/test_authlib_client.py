"""Authlib's clients get tokens from the test server."""

from __future__ import annotations

from typing import Any

import pytest

from tests.interop.running import python, result_of
from tests.providers.private_keys import make_key, pem_of
from tokenmw.testing import ProviderServer

pytestmark = pytest.mark.sdk

# Authlib encodes neither in Basic credentials, and the server decodes both.
CLIENT, SECRET = "crm", "a secret of sufficient length: 0123456789"
RESOURCE = "https://orders.example/api"
METHODS = {"client_secret_basic", "client_secret_post", "client_secret_jwt", "private_key_jwt"}


@pytest.fixture(scope="module")
def served() -> tuple[ProviderServer, dict[str, Any]]:
    """A server that knows one client, and what Authlib's clients got from it."""
    command = python("authlib_client.py", modules=["authlib", "httpx", "requests"])
    server = ProviderServer(clients={CLIENT: SECRET})
    key = pem_of(make_key("RSA-2048"))
    with server.running() as base_url:
        url = f"{base_url}/oauth2/token"
        return server, result_of(command, url=url, client=CLIENT, secret=SECRET, key=key, resource=RESOURCE)


@pytest.mark.parametrize("library", ["httpx", "requests"])
def test_a_client_of_authlib_gets_tokens(served: tuple[ProviderServer, dict[str, Any]], library: str) -> None:
    """Every method gets a token of its own, for the resource, and an unknown client is `invalid_client`."""
    server, results = served
    granted = results[library]["granted"]
    assert set(granted) == METHODS
    for answer in granted.values():
        issued = server.issued.find(answer["access_token"])
        assert issued is not None
        assert (CLIENT, "crm.read", (RESOURCE,)) == (issued.client, issued.scope, issued.resources)
        assert ("Bearer", 3600, "crm.read") == (answer["token_type"], answer["expires_in"], answer["scope"])
    assert 4 == len({answer["access_token"] for answer in granted.values()})
    assert "invalid_client" == results[library]["refused"]
