"""The client golang.org/x/oauth2 gets tokens from the test server."""

from __future__ import annotations

from typing import Any

import pytest

from tests.interop.running import compiled, result_of
from tests.providers.private_keys import make_key, pem_of
from tests.providers.verifying import VerifiedGrants, serving
from tokenmw.testing import ProviderServer

pytestmark = pytest.mark.sdk

RESOURCES = ["https://orders.example/api", "https://bills.example/api"]
CALLBACK = "https://app.example/callback"
# It form-encodes both in Basic credentials.
CLIENT, SECRET = "crm:one", "a secret:with/special+characters%3D&as=well"
ROBOT = "robot@project.example"
STYLES = ("header", "params", "found")


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The compiled program."""
    directory = tmp_path_factory.mktemp("go")
    return compiled("go_client.go", package="golang.org/x/oauth2", directory=directory)


@pytest.fixture(scope="module")
def served(client: list[str]) -> tuple[ProviderServer, VerifiedGrants, dict[str, Any]]:
    """A server that knows one client and one robot, and what the program got from it."""
    key = make_key("RSA-2048")
    with serving(VerifiedGrants, key.public_key(), algorithms=["RS256"]) as (grants, base_url):
        server = grants.server
        server.clients = {CLIENT: SECRET}
        server.users.register(CLIENT, CALLBACK)
        server.users.auto = "ada"
        result = result_of(
            client,
            url=base_url,
            client=CLIENT,
            secret=SECRET,
            callback=CALLBACK,
            resources=RESOURCES,
            assertion_url=grants.url,
            email=ROBOT,
            subject="ada",
            key=pem_of(key, form="traditional"),
        )
        return server, grants, result


@pytest.mark.parametrize("style", STYLES)
def test_each_style_gets_a_token_for_two_resources(
    served: tuple[ProviderServer, VerifiedGrants, dict[str, Any]], style: str
) -> None:
    """Credentials in the header, in the form, and in the one of both that the library finds by trying."""
    server, _, results = served
    token = results["granted"][style]
    issued = server.issued.find(token["access_token"])
    assert issued is not None
    assert (CLIENT, "crm.read crm.write", tuple(RESOURCES)) == (issued.client, issued.scope, issued.resources)
    assert "Bearer" == token["token_type"]
    assert "invalid_client" == results["refused"][style]


def test_a_user_is_connected_and_the_refresh_token_rotates(
    served: tuple[ProviderServer, VerifiedGrants, dict[str, Any]],
) -> None:
    """By a code with PKCE; a refresh token that was used is refused."""
    server, _, results = served
    first, second = results["user"]
    family = server.users.family_of(first["refresh_token"])
    assert [first["refresh_token"], second["refresh_token"]] == family.refresh_tokens
    assert ("ada", CLIENT, "read") == (family.user, family.client, family.scope)
    assert ("invalid_grant", "reuse") == (results["refused"]["reused"], family.revoked_because)


def test_an_assertion_of_its_own_is_granted(
    served: tuple[ProviderServer, VerifiedGrants, dict[str, Any]],
) -> None:
    """As service accounts of Google sign them: the scope is a claim."""
    server, grants, results = served
    issued = server.issued.find(results["assertion"]["access_token"])
    assert issued is not None
    ((_, claims),) = grants.seen
    assert ("ada", ROBOT, "ada", "crm.read") == (issued.user, claims["iss"], claims["sub"], claims["scope"])
