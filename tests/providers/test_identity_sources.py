"""The managed identities of Azure's platforms, found by their environment variables, over real HTTP."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tokenmw.errors import ConfigurationError, CredentialRejected
from tokenmw.providers import Entra, ManagedIdentity, TokenHTTP, arc_challenge
from tokenmw.testing import ProviderServer

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

GRAPH = "https://graph.microsoft.com"
VAULT = "https://vault.azure.net"
HEADER = "platform-secret"
RESOURCE_ID = "/subscriptions/s/resourcegroups/g/providers/Microsoft.ManagedIdentity/userAssignedIdentities/i"
VARIABLES = (
    *("IDENTITY_ENDPOINT", "IDENTITY_HEADER", "IDENTITY_SERVER_THUMBPRINT", "IMDS_ENDPOINT", "MSI_ENDPOINT"),
    *("MSI_SECRET", "AZURE_FEDERATED_TOKEN_FILE", "AZURE_CLIENT_ID", "AZURE_TENANT_ID", "AZURE_AUTHORITY_HOST"),
)


@pytest.fixture(autouse=True)
def empty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Unset the variables of all platforms."""
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def server() -> ProviderServer:
    """An endpoint that knows an identity by each id."""
    return ProviderServer(clients=dict.fromkeys(("client", "object", RESOURCE_ID), ""), token_life=86400)


@pytest.fixture
def endpoint(server: ProviderServer) -> Iterator[str]:
    """Its URL."""
    with server.running() as base_url:
        yield f"{base_url}{server.managed_identity.path}"


@pytest.fixture
def key(server: ProviderServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The challenge file of Azure Arc, as whose agent the server answers."""
    directory = tmp_path / "tokens"
    directory.mkdir()
    monkeypatch.setattr(arc_challenge, "_DIRECTORY", directory)
    file = directory / "1234.key"
    file.write_text("content-of-the-file", encoding="utf-8")
    server.managed_identity.platform, server.managed_identity.key_file = "azure_arc", file
    return file


def set_variables(monkeypatch: pytest.MonkeyPatch, **values: str) -> None:
    """Set environment variables."""
    for name, value in values.items():
        monkeypatch.setenv(name, value)


def variables(platform: str, endpoint: str) -> dict[str, str]:
    """Return the environment variables of a platform."""
    return {
        "imds": {},
        "app_service": {"IDENTITY_ENDPOINT": endpoint, "IDENTITY_HEADER": HEADER, "MSI_ENDPOINT": "http://old.test"},
        "azure_arc": {"IDENTITY_ENDPOINT": endpoint, "IMDS_ENDPOINT": "http://localhost:40342"},
        "azure_ml": {"MSI_ENDPOINT": endpoint, "MSI_SECRET": HEADER},
        "cloud_shell": {"MSI_ENDPOINT": endpoint},
    }[platform]


@pytest.mark.parametrize("platform", ["app_service", "azure_arc", "azure_ml", "cloud_shell"])
async def test_each_platform_is_found_by_its_variables(
    platform: Any,
    *,
    server: ProviderServer,
    endpoint: str,
    key: Path,
    http: TokenHTTP,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The server refuses any other method, header and api-version than the platform's."""
    del key
    server.managed_identity.platform = platform
    server.managed_identity.header = HEADER if platform in ("app_service", "azure_ml") else None
    set_variables(monkeypatch, **variables(platform, endpoint))
    own = ManagedIdentity.from_environment(resource=VAULT)
    assert isinstance(own, ManagedIdentity)
    assert not own.shareable
    granted = await own.fetch(http)
    assert 86400.0 == pytest.approx(granted.expires_in, abs=2)
    issued = server.issued.find(granted.value)
    assert issued is not None
    assert ("", VAULT) == (issued.client, issued.scope)


@pytest.mark.parametrize(
    ("platform", "options", "name"),
    [
        *(
            (platform, option, name)
            for platform, resource in (
                ("imds", "msi_res_id"),
                ("app_service", "mi_res_id"),
                ("azure_arc", "msi_res_id"),
            )
            for option, name in (
                ({"client_id": "client"}, "client_id"),
                ({"resource_id": RESOURCE_ID}, resource),
                ({"object_id": "object"}, "object_id"),
            )
        ),
        ("azure_ml", {"client_id": "client"}, "clientid"),
    ],
)
async def test_user_assigned_identity_is_named_as_the_platform_does(
    platform: Any,
    options: dict[str, Any],
    name: str,
    *,
    server: ProviderServer,
    endpoint: str,
    key: Path,
    http: TokenHTTP,
) -> None:
    """By one of its ids; another identity is refused."""
    del key
    secret = HEADER if platform in ("app_service", "azure_ml") else None
    server.managed_identity.platform, server.managed_identity.header = platform, secret
    given: dict[str, Any] = {"source": platform, "identity_endpoint": endpoint, "identity_header": secret}
    assigned = ManagedIdentity(resource=VAULT, **given, **options)
    issued = server.issued.find((await assigned.fetch(http)).value)
    assert issued is not None
    assert [issued.client] == list(options.values())
    assert assigned.shareable
    others: dict[str, Any] = dict.fromkeys(options, "other")
    unknown = ManagedIdentity(resource=VAULT, **given, **others)
    with pytest.raises(CredentialRejected, match=f"HTTP 400.: check that .* has {next(iter(options))}=other"):
        await unknown.fetch(http)
    assert assigned._request.parameters(VAULT, assigned._identity)[name] in options.values()


def test_machine_is_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    """Empty variables count as not set, and the credential is that of an object without a source."""
    set_variables(monkeypatch, IDENTITY_ENDPOINT="", MSI_ENDPOINT="", AZURE_FEDERATED_TOKEN_FILE="")
    assert ManagedIdentity(resource=VAULT) == ManagedIdentity.from_environment(resource=VAULT)
    assert ManagedIdentity(resource=VAULT, client_id="c") == ManagedIdentity.from_environment(
        resource=VAULT, client_id="c"
    )


def test_credential_is_that_of_the_first_version() -> None:
    """Processes of both versions share tokens while a new one is rolled out."""
    url = "http://169.254.169.254/metadata/identity/oauth2/token"
    assert ("managed_identity", VAULT, None, (url, None)) == ManagedIdentity(resource=VAULT).credential
    assert ("managed_identity", VAULT, "c", None) == ManagedIdentity(resource=VAULT, client_id="c").credential
    given: dict[str, Any] = {"identity_endpoint": "http://localhost/msi", "identity_header": "h"}
    app = ManagedIdentity(resource=VAULT, **given)
    assert ("managed_identity", VAULT, None, ("http://localhost/msi", "h")) == app.credential
    assert app == ManagedIdentity(resource=VAULT, source="app_service", **given)


def test_ids_and_sources_are_parts_of_the_credential() -> None:
    """One text as a client id and as an object id names two identities."""
    ids: list[dict[str, Any]] = [{name: "i"} for name in ("client_id", "object_id", "resource_id")]
    made = [ManagedIdentity(resource=VAULT, **one) for one in ids]
    local: dict[str, Any] = {"resource": VAULT, "identity_endpoint": "http://localhost/msi"}
    made += [
        ManagedIdentity(**local),
        ManagedIdentity(source="azure_arc", **local),
        ManagedIdentity(source="cloud_shell", **local),
        ManagedIdentity(source="app_service", identity_header="h", **local),
        ManagedIdentity(source="azure_ml", identity_header="h", **local),
    ]
    assert 8 == len(set(made))


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"client_id": "a", "object_id": "b"}, "only one of client_id and object_id"),
        ({"resource_id": ""}, r"\(resource_id=…\) is empty"),
        ({"source": "azure"}, r"\(source=…\) must be one of 'imds'"),
        ({"source": ["imds"]}, r"\(source=…\) must be one of 'imds'"),
        ({"source": "azure_arc"}, r'\(source="azure_arc"\) needs identity_endpoint=…'),
        ({"source": "azure_ml", "identity_endpoint": "http://localhost"}, "needs identity_header=…"),
        (
            {"source": "azure_arc", "identity_endpoint": "http://localhost", "identity_header": "h"},
            "takes no identity_header",
        ),
        (
            {"source": "azure_ml", "identity_endpoint": "http://localhost", "identity_header": "h", "object_id": "o"},
            r"\(object_id=…\): Azure ML does not take it: use client_id",
        ),
        (
            {"source": "cloud_shell", "identity_endpoint": "http://localhost", "client_id": "c"},
            r"\(client_id=…\): Cloud Shell does not take it: leave it out",
        ),
        (
            {"source": "service_fabric", "identity_endpoint": "https://10.0.0.4:2377", "identity_header": "h"},
            "needs server_thumbprint=…, the value of IDENTITY_SERVER_THUMBPRINT",
        ),
        (
            {"source": "service_fabric", "identity_endpoint": "https://10.0.0.4:2377", "server_thumbprint": "a" * 40},
            "needs identity_header=…",
        ),
        ({"server_thumbprint": "a" * 40}, r'server_thumbprint=…\) is for source="service_fabric": give that, or leave'),
    ],
)
def test_contradicting_options_are_refused(options: dict[str, Any], text: str) -> None:
    """The text names the option and the fix."""
    with pytest.raises(ConfigurationError, match=text):
        ManagedIdentity(resource=VAULT, **options)


@pytest.mark.parametrize(
    ("environment", "options", "text"),
    [
        ({"IDENTITY_ENDPOINT": "http://localhost"}, {}, "IDENTITY_ENDPOINT is set, and neither IDENTITY_HEADER"),
        ({"IDENTITY_HEADER": "h"}, {}, "IDENTITY_HEADER is set and IDENTITY_ENDPOINT is not"),
        ({"MSI_SECRET": "h"}, {}, "MSI_SECRET is set and MSI_ENDPOINT is not"),
        (
            {"IDENTITY_ENDPOINT": "https://l", "IDENTITY_HEADER": "h", "IDENTITY_SERVER_THUMBPRINT": "t"},
            {},
            "The variable IDENTITY_SERVER_THUMBPRINT must be the SHA-1 thumbprint .* in 40 hexadecimal digits",
        ),
        (
            {"IDENTITY_ENDPOINT": "http://localhost", "IDENTITY_HEADER": "h", "IDENTITY_SERVER_THUMBPRINT": "a" * 40},
            {},
            "needs an https identity_endpoint, because it verifies a certificate",
        ),
        (
            {"IDENTITY_ENDPOINT": "https://l", "IDENTITY_HEADER": "h", "IDENTITY_SERVER_THUMBPRINT": "a" * 40},
            {"client_id": "c"},
            "Service Fabric does not take it: leave it out, the identity that the application's manifest gives",
        ),
        (
            {"IDENTITY_ENDPOINT": "https://l", "IDENTITY_SERVER_THUMBPRINT": "a" * 40},
            {},
            "IDENTITY_ENDPOINT is set, and neither IDENTITY_HEADER",
        ),
        (
            {"IDENTITY_ENDPOINT": "http://10.0.0.1/msi", "IDENTITY_HEADER": "h"},
            {},
            "The variable IDENTITY_ENDPOINT would send .* allow_http=True",
        ),
        ({"MSI_ENDPOINT": "http://localhost/msi"}, {"client_id": "c"}, "Cloud Shell does not take it"),
        ({"AZURE_FEDERATED_TOKEN_FILE": "/t"}, {}, r"AZURE_TENANT_ID, AZURE_CLIENT_ID not set\. AKS sets it"),
        ({"AZURE_FEDERATED_TOKEN_FILE": "/t"}, {"object_id": "o"}, "use client_id, or unset the variable"),
        ({"AZURE_FEDERATED_TOKEN_FILE": "/t"}, {"object_id": "o", "resource_id": "r"}, "only one of"),
    ],
)
def test_contradicting_environments_are_refused(
    environment: dict[str, str], options: dict[str, Any], text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The text names the variable and the fix."""
    set_variables(monkeypatch, **environment)
    with pytest.raises(ConfigurationError, match=text):
        ManagedIdentity.from_environment(resource=VAULT, **options)


def test_platforms_may_use_link_local_addresses(monkeypatch: pytest.MonkeyPatch) -> None:
    """App Service on Linux has its endpoint on one; other addresses need TLS or `allow_http`."""
    url = "http://169.254.130.2:8081/msi/token"
    set_variables(monkeypatch, IDENTITY_ENDPOINT=url, IDENTITY_HEADER="h")
    made = ManagedIdentity.from_environment(resource=VAULT)
    assert made == ManagedIdentity(resource=VAULT, identity_endpoint=url, identity_header="h")
    assert made.allow_http is False
    ManagedIdentity(resource=VAULT, identity_endpoint="http://[fe80::1]/msi", identity_header="h")
    for other in ("http://169.255.1.1/msi", "http://169.254.1.1.example/msi"):
        with pytest.raises(ConfigurationError, match="allow_http=True"):
            ManagedIdentity(resource=VAULT, identity_endpoint=other, identity_header="h")


async def test_pod_of_aks_has_the_identity_of_its_workload(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One call serves a pod as well; the provider is then an app of Entra."""
    set_variables(monkeypatch, AZURE_FEDERATED_TOKEN_FILE=str(tmp_path / "t"), AZURE_CLIENT_ID="a", AZURE_TENANT_ID="t")
    made = ManagedIdentity.from_environment(resource=GRAPH, refresh_before=60)
    assert Entra.from_environment(scope=f"{GRAPH}/.default") == made
    assert 60.0 == made.refresh_before
    assert Entra.from_environment(client_id="other") == ManagedIdentity.from_environment(
        resource=GRAPH, client_id="other"
    )
