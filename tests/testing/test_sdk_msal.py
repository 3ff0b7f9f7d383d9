"""Microsoft's own library works with the test server."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.interop.running import imported
from tokenmw.testing import Fault, ProviderServer

msal = imported("msal")
pytestmark = pytest.mark.sdk

LOGIN = "https://login.test"


class Login:
    """The HTTP client for the library. The library requires https, so this maps a name to the test server."""

    def __init__(self, base_url: str) -> None:
        self._http = httpx.Client(base_url=base_url, trust_env=False)

    def get(self, url: str, **options: Any) -> Any:
        """Get a discovery document from the test server."""
        return self._http.get(url.removeprefix(LOGIN))

    def post(self, url: str, *, data: Any = None, headers: Any = None, params: Any = None, **options: Any) -> Any:
        """Send a token request to the test server."""
        return self._http.post(url.removeprefix(LOGIN), data=data, headers=headers, params=params)

    def close(self) -> None:
        """Close all connections."""
        self._http.close()


@pytest.fixture
def server() -> ProviderServer:
    """A login that knows one app."""
    server = ProviderServer(clients={"app": "the secret"}, token_life=7200)
    server.entra_metadata.base_url = LOGIN
    return server


@pytest.fixture
def login(server: ProviderServer) -> Iterator[Login]:
    """The login over real HTTP."""
    with server.running() as base_url:
        client = Login(base_url)
        yield client
        client.close()


def ask(login: Login, *, secret: Any = "the secret") -> dict[str, Any]:
    """Get a token for the app with the library."""
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
    """The library gets a token with a secret and with an assertion; each request issues one."""
    for secret in ("the secret", {"client_assertion": lambda: "signed"}):
        granted = ask(login, secret=secret)
        issued = server.issued.find(granted["access_token"])
        assert issued is not None
        assert ("app", 7200, "Bearer") == (issued.client, granted["expires_in"], granted["token_type"])
    assert (2, 2) == (server.calls["entra", "app"], server.calls["entra_metadata"])


def test_msal_understands_an_error(server: ProviderServer, login: Login) -> None:
    """The library finds error, number and text in the answer."""
    refused = ask(login, secret="wrong")
    assert ("invalid_client", [7000215]) == (refused["error"], refused["error_codes"])
    assert refused["error_description"].startswith("AADSTS7000215: ")
    server.entra.script.then(Fault(status=503, body={"error": "temporarily_unavailable"}))
    with pytest.raises(msal.exceptions.MsalServiceError, match="503"):
        ask(login)
