"""Microsoft's own libraries get the tokens of managed identities from the test server."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.interop.running import imported
from tokenmw.testing import ProviderServer

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

msal = imported("msal")
requests = imported("requests")
pytestmark = pytest.mark.sdk

HEADER = "platform-secret"
VAULT = "https://vault.azure.net"
VARIABLES = (
    *("IDENTITY_ENDPOINT", "IDENTITY_HEADER", "IDENTITY_SERVER_THUMBPRINT", "IMDS_ENDPOINT", "MSI_ENDPOINT"),
    *("MSI_SECRET", "AZURE_FEDERATED_TOKEN_FILE", "AZURE_POD_IDENTITY_AUTHORITY_HOST"),
)
# The library MSAL has no Cloud Shell.
OF_MSAL = ("imds", "app_service", "azure_arc", "azure_ml")


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ProviderServer:
    """A server with one user-assigned identity, and with the challenge file of Azure Arc."""
    server = ProviderServer(clients={"assigned": ""}, token_life=86400)
    server.managed_identity.key_file = tmp_path / "1234.key"
    server.managed_identity.key_file.write_text("content-of-the-file", encoding="utf-8")
    monkeypatch.setattr(msal.managed_identity, "_supported_arc_platforms_and_their_prefixes", {"linux": str(tmp_path)})
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    return server


@pytest.fixture
def base_url(server: ProviderServer) -> Iterator[str]:
    """The URL of the server."""
    with server.running() as base_url:
        yield base_url


def use(server: ProviderServer, platform: Any, *, base_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Set the variables of a platform, and let the server answer as it does."""
    secret = HEADER if platform in ("app_service", "azure_ml") else None
    server.managed_identity.platform, server.managed_identity.header = platform, secret
    endpoint = f"{base_url}{server.managed_identity.path}"
    given = {
        "imds": {"AZURE_POD_IDENTITY_AUTHORITY_HOST": base_url},
        "app_service": {"IDENTITY_ENDPOINT": endpoint, "IDENTITY_HEADER": HEADER},
        "azure_arc": {"IDENTITY_ENDPOINT": endpoint, "IMDS_ENDPOINT": "http://localhost:40342"},
        "azure_ml": {"MSI_ENDPOINT": endpoint, "MSI_SECRET": HEADER},
        "cloud_shell": {"MSI_ENDPOINT": endpoint},
    }
    for name, value in given[platform].items():
        monkeypatch.setenv(name, value)


@pytest.mark.parametrize("platform", OF_MSAL)
def test_msal_gets_its_token(
    platform: str, server: ProviderServer, base_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The machine's own identity, a user-assigned one, and none for an unknown id."""
    use(server, platform, base_url=base_url, monkeypatch=monkeypatch)
    own, assigned = msal.SystemAssignedManagedIdentity(), msal.UserAssignedManagedIdentity(client_id="assigned")
    with requests.Session() as session:
        session.trust_env = False
        for identity, client in ((own, ""), (assigned, "assigned")):
            asked: Any = msal.ManagedIdentityClient(identity, http_client=session)
            issued = server.issued.find(asked.acquire_token_for_client(resource=VAULT)["access_token"])
            assert issued is not None
            assert (client, VAULT) == (issued.client, issued.scope)
        unknown = msal.UserAssignedManagedIdentity(client_id="unknown")
        refused: Any = msal.ManagedIdentityClient(unknown, http_client=session)
        assert "error" in refused.acquire_token_for_client(resource=VAULT)


@pytest.mark.parametrize("platform", [*OF_MSAL, "cloud_shell"])
def test_azure_identity_gets_its_token(
    platform: str, server: ProviderServer, base_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It finds the platform by the same variables as `ManagedIdentity.from_environment`."""
    identity = pytest.importorskip("azure.identity", reason="the extra `sdk` is not installed")
    use(server, platform, base_url=base_url, monkeypatch=monkeypatch)
    with identity.ManagedIdentityCredential() as credential:
        issued = server.issued.find(credential.get_token(f"{VAULT}/.default").token)
    assert issued is not None
    assert ("", VAULT) == (issued.client, issued.scope)
    if platform != "cloud_shell":
        with identity.ManagedIdentityCredential(client_id="assigned") as credential:
            assigned = server.issued.find(credential.get_token(f"{VAULT}/.default").token)
        assert assigned is not None
        assert "assigned" == assigned.client
