"""Microsoft's own library gets its tokens from the test server."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tokenmw.testing import Fault, ProviderServer

msal = pytest.importorskip("msal", reason="the extra `sdk` is not installed")

LOGIN = "https://login.test"


class Login:
    """The HTTP client that the library is given: it insists on https, so the test server stands behind a name."""

    def __init__(self, base_url: str) -> None:
        self._http = httpx.Client(base_url=base_url, trust_env=False)

    def get(self, url: str, **options: Any) -> Any:
        """Tell where the endpoints are; only tokens are asked of the test server."""
        document = {name: f"{LOGIN}/contoso.test/oauth2/v2.0/{name[:5]}" for name in ("token_endpoint", "issuer")}
        document |= {"authorization_endpoint": f"{LOGIN}/contoso.test/oauth2/v2.0/authorize"}
        return httpx.Response(200, json=document)

    def post(self, url: str, *, data: Any = None, headers: Any = None, params: Any = None, **options: Any) -> Any:
        """Ask for a token."""
        return self._http.post(url.removeprefix(LOGIN), data=data, headers=headers, params=params)

    def close(self) -> None:
        """Close all connections."""
        self._http.close()


@pytest.fixture
def server() -> ProviderServer:
    """A login that knows one app."""
    return ProviderServer(clients={"app": "the secret"}, token_life=7200)


@pytest.fixture
def login(server: ProviderServer) -> Iterator[Login]:
    """It, over real HTTP."""
    with server.running() as base_url:
        client = Login(base_url)
        yield client
        client.close()


def ask(login: Login, *, secret: Any = "the secret") -> dict[str, Any]:
    """Let the library get a token for the app."""
    app: Any = msal.ConfidentialClientApplication(
        "app",
        authority=f"{LOGIN}/contoso.test",
        client_credential=secret,
        http_client=login,
        instance_discovery=False,
        validate_authority=False,
    )
    return dict(app.acquire_token_for_client(scopes=["https://graph.microsoft.com/.default"]))


def test_msal_gets_its_token(server: ProviderServer, login: Login) -> None:
    """With a secret, and with an assertion; each request is one token."""
    for secret in ("the secret", {"client_assertion": lambda: "signed"}):
        granted = ask(login, secret=secret)
        issued = server.issued.find(granted["access_token"])
        assert issued is not None
        assert ("app", 7200, "Bearer") == (issued.client, granted["expires_in"], granted["token_type"])
    assert 2 == server.calls["entra", "app"]


def test_msal_understands_a_refusal(server: ProviderServer, login: Login) -> None:
    """Error, number and text are where it looks for them."""
    refused = ask(login, secret="wrong")
    assert ("invalid_client", [7000215]) == (refused["error"], refused["error_codes"])
    assert refused["error_description"].startswith("AADSTS7000215: ")
    server.entra.script.then(Fault(status=503, body={"error": "temporarily_unavailable"}))
    with pytest.raises(msal.exceptions.MsalServiceError, match="503"):
        ask(login)
