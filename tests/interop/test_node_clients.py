"""The clients `openid-client` and `oauth4webapi` for Node.js get tokens from the test server."""

from __future__ import annotations

from typing import Any

import pytest

from tests.interop.running import node, result_of
from tokenmw.testing import ProviderServer

pytestmark = pytest.mark.sdk

RESOURCES = ["https://orders.example/api", "https://bills.example/api"]
METHODS = {"client_secret_basic", "client_secret_post", "client_secret_jwt", "private_key_jwt"}
# Both libraries encode more characters than RFC 6749 §2.3.1 asks for.
CLIENT, SECRET = "crm:one", "a secret:with/special+characters%3D&as=well"


@pytest.fixture(scope="module")
def served() -> tuple[ProviderServer, dict[str, Any]]:
    """A server that knows one client, and what the two libraries got from it."""
    server = ProviderServer(clients={CLIENT: SECRET})
    command = node("clients.mjs")
    with server.running() as base_url:
        return server, result_of(command, issuer=base_url, client=CLIENT, secret=SECRET, resources=RESOURCES)


@pytest.mark.parametrize("library", ["openid-client", "oauth4webapi"])
def test_a_client_of_node_gets_tokens_for_two_resources(
    served: tuple[ProviderServer, dict[str, Any]], library: str
) -> None:
    """Every method gets a token of its own, for both resources, and a wrong secret is `invalid_client`."""
    server, results = served
    granted = results[library]["granted"]
    assert set(granted) == METHODS
    for answer in granted.values():
        issued = server.issued.find(answer["access_token"])
        assert issued is not None
        assert (CLIENT, "crm.read", tuple(RESOURCES)) == (issued.client, issued.scope, issued.resources)
        # Both libraries write the type in lower case.
        assert ("bearer", 3600, "crm.read") == (answer["token_type"], answer["expires_in"], answer["scope"])
    assert 4 == len({answer["access_token"] for answer in granted.values()})
    assert "invalid_client" == results[library]["refused"]


def test_each_library_finds_the_endpoint(served: tuple[ProviderServer, dict[str, Any]]) -> None:
    """One reads the metadata of OpenID, the other those of RFC 8414, and accepts them."""
    server, _ = served
    assert (5, 5, 10) == tuple(server.calls[name] for name in ("openid_metadata", "oauth2_metadata", "oauth2"))
