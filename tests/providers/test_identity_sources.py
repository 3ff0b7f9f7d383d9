"""The managed identities of Azure's platforms, found by their environment variables, over real HTTP."""

from __future__ import annotations

import asyncio
import os
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tokenmw.errors import ConfigurationError, CredentialRejected, TokenUnavailable
from tokenmw.providers import Answer, Entra, ManagedIdentity, TokenHTTP, arc_challenge
from tokenmw.providers.arc_challenge import challenge_secret
from tokenmw.testing import ProviderServer

if TYPE_CHECKING:
    from collections.abc import Iterator

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


def write(file: Path, content: str) -> None:
    """Replace a file's content."""
    file.write_text(content, encoding="utf-8")


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
    options: dict[str, str],
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
    unknown = ManagedIdentity(resource=VAULT, **given, **dict.fromkeys(options, "other"))
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
    made = [ManagedIdentity(resource=VAULT, **{name: "i"}) for name in ("client_id", "object_id", "resource_id")]
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
            "IDENTITY_SERVER_THUMBPRINT is set, .* use StaticToken with a function",
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


# Azure Arc's challenge


def arc(endpoint: str, **options: Any) -> ManagedIdentity:
    """Make the identity of a machine with the agent of Azure Arc."""
    return ManagedIdentity(resource=VAULT, source="azure_arc", identity_endpoint=endpoint, **options)


async def test_challenge_file_is_read_in_a_thread(
    key: Path, endpoint: str, http: TokenHTTP, server: ProviderServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first request gets the file's name, the second one has its content; each fetch reads it again."""
    threads: list[int] = []
    read = arc_challenge._read

    def counted(path: Path) -> bytes | None:
        threads.append(threading.get_ident())
        return read(path)

    monkeypatch.setattr(arc_challenge, "_read", counted)
    await arc(endpoint).fetch(http)
    write(key, "other-content\n")
    await arc(endpoint).fetch(http)
    assert 4 == server.calls["managed_identity"]
    assert 2 == len(threads)
    assert threading.get_ident() not in threads


async def test_file_that_the_agent_does_not_accept_is_a_refusal(
    key: Path, endpoint: str, http: TokenHTTP, server: ProviderServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There is one challenge for each fetch, and the content is in no text."""
    monkeypatch.setattr(server.managed_identity, "_has_read_file", lambda _request: False)
    with pytest.raises(CredentialRejected, match=r"refuses .unauthorized, HTTP 401") as caught:
        await arc(endpoint).fetch(http)
    assert 2 == server.calls["managed_identity"]
    assert "content-of-the-file" not in str(caught.value)


@pytest.mark.parametrize(
    "path",
    [
        "{outside}/secret.key",
        "{tokens}/../outside/secret.key",
        "{tokens}/sub/secret.key",
        "{tokens}/1234.txt",
        "{tokens}/.key",
        "{tokens}",
        "1234.key",
        "/etc/passwd",
    ],
)
async def test_other_files_are_not_read(
    path: str, *, key: Path, endpoint: str, http: TokenHTTP, server: ProviderServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What listens at the port may be another program."""
    outside = key.parent.parent / "outside"
    for directory in (outside, key.parent / "sub"):
        directory.mkdir()
        (directory / "secret.key").write_text("secret", encoding="utf-8")
    (key.parent / "1234.txt").write_text("secret", encoding="utf-8")
    server.managed_identity.key_file = Path(path.format(outside=outside, tokens=key.parent))
    monkeypatch.setattr(arc_challenge, "_read", lambda _path: pytest.fail("it was read"))
    with pytest.raises(TokenUnavailable, match=r"names a challenge file that is no .key file in"):
        await arc(endpoint).fetch(http)
    assert 1 == server.calls["managed_identity"]


@pytest.mark.parametrize("links_to", ["outside", "inside"])
async def test_link_is_not_followed(
    links_to: str, key: Path, endpoint: str, http: TokenHTTP, server: ProviderServer
) -> None:
    """A link in the directory may lead to any file of the machine."""
    target = key if links_to == "inside" else key.parent.parent / "outside.key"
    target.write_text("secret", encoding="utf-8")
    link = key.with_name("link.key")
    link.symlink_to(target)
    server.managed_identity.key_file = link
    with pytest.raises(TokenUnavailable, match=r"cannot be read .it is a link.: add the user"):
        await arc(endpoint).fetch(http)
    assert 1 == server.calls["managed_identity"]


@pytest.mark.parametrize("content", ["x" * 4097, "", "\n", "two\nlines", "caf\u00e9", "a\x00b", "a b"])
async def test_content_that_cannot_be_sent_is_refused(key: Path, endpoint: str, http: TokenHTTP, content: str) -> None:
    """No part of it is shown."""
    write(key, content)
    with pytest.raises(TokenUnavailable, match="is not one line of ASCII of at most 4096 bytes") as caught:
        await arc(endpoint).fetch(http)
    assert not content or content not in str(caught.value)


async def test_file_of_the_greatest_size_is_sent(key: Path, endpoint: str, http: TokenHTTP) -> None:
    """4096 bytes are allowed."""
    write(key, "x" * 4096)
    assert (await arc(endpoint).fetch(http)).value


async def test_file_that_is_missing_or_no_file_is_unavailability(key: Path, endpoint: str, http: TokenHTTP) -> None:
    """The text has the cause and the group that may read; a pipe does not block the thread."""
    await asyncio.to_thread(key.unlink)
    with pytest.raises(TokenUnavailable, match=r"cannot be read .No such file or directory.: .* group himds"):
        await arc(endpoint).fetch(http)
    await asyncio.to_thread(key.mkdir)
    with pytest.raises(TokenUnavailable, match=r"cannot be read|is not one line"):
        await arc(endpoint).fetch(http)
    await asyncio.to_thread(key.rmdir)
    os.mkfifo(key)
    with pytest.raises(TokenUnavailable, match="is not one line"):
        await arc(endpoint).fetch(http)


@pytest.mark.parametrize(
    "challenge", ["", "Bearer", "Basic", "Basic realm=", 'Basic realm="', "Basic realm=/a\x00.key"]
)
async def test_response_without_a_file_is_unavailability(challenge: str) -> None:
    """The text says what the agent would send."""
    with pytest.raises(TokenUnavailable, match=r"HTTP 401 without the name of a file .*: check identity_endpoint"):
        await challenge_secret(Answer(401, headers={"WWW-Authenticate": challenge}))


async def test_name_may_be_quoted(key: Path) -> None:
    """As RFC 7617 writes it."""
    for challenge in (f'Basic realm="{key}"', f"basic realm={key}"):
        assert "content-of-the-file" == await challenge_secret(Answer(401, headers={"WWW-Authenticate": challenge}))


async def test_agent_that_ignores_the_identity_is_not_believed(
    key: Path, endpoint: str, http: TokenHTTP, server: ProviderServer
) -> None:
    """An old agent answers with the token of the machine's own identity."""
    del key
    server.managed_identity.knows_ids = False
    with pytest.raises(
        CredentialRejected, match=r"another identity than that of client_id=client: .* update the agent"
    ):
        await arc(endpoint, client_id="client").fetch(http)
    assert (await arc(endpoint).fetch(http)).value
