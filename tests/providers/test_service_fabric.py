"""The managed identity of Service Fabric, whose endpoint only a thumbprint verifies, over real TLS."""

from __future__ import annotations

import hashlib
import ssl
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from tokenmw import TokenBroker
from tokenmw.errors import ConfigurationError, CredentialRejected, TokenUnavailable
from tokenmw.providers import ManagedIdentity
from tokenmw.testing import ProviderServer

if TYPE_CHECKING:
    from collections.abc import Generator

VAULT = "https://vault.azure.net"
HEADER = "code-of-the-service"


@pytest.fixture(scope="module")
def running() -> Generator[tuple[ProviderServer, str]]:
    """A server over TLS, whose authority nobody trusts."""
    server = ProviderServer(token_life=86400, tls=True)
    with server.running() as base_url:
        yield server, base_url


@pytest.fixture
def server(running: tuple[ProviderServer, str], monkeypatch: pytest.MonkeyPatch) -> ProviderServer:
    """The server as the endpoint of Service Fabric, and the variables that the platform sets."""
    server, base_url = running
    server.managed_identity.platform, server.managed_identity.header = "service_fabric", HEADER
    monkeypatch.setenv("IDENTITY_ENDPOINT", f"{base_url}{server.managed_identity.path}")
    monkeypatch.setenv("IDENTITY_HEADER", HEADER)
    monkeypatch.setenv("IDENTITY_SERVER_THUMBPRINT", thumbprint(server).upper())
    return server


def thumbprint(server: ProviderServer, *, algorithm: str = "sha1") -> str:
    """Return the thumbprint of the server's certificate."""
    assert server.ca_file is not None
    pem = (Path(server.ca_file).parent / "server.pem").read_text(encoding="ascii")
    return hashlib.new(algorithm, ssl.PEM_cert_to_DER_cert(pem)).hexdigest()


async def fetched(identity: Any) -> str:
    """Return a token, fetched by a broker."""
    async with TokenBroker({"vault": identity}) as broker:
        return (await broker.token("vault")).value


async def test_a_service_gets_its_token(server: ProviderServer) -> None:
    """Found by its variables, with the certificate of the thumbprint."""
    identity = ManagedIdentity.from_environment(resource=VAULT)
    issued = server.issued.find(await fetched(identity))
    assert issued is not None
    assert ("managed_identity", VAULT) == (issued.endpoint, issued.scope)
    assert isinstance(identity, ManagedIdentity)
    assert not identity.shareable


@pytest.mark.parametrize("algorithm", ["sha1", "sha256"])
async def test_the_thumbprint_may_be_written_in_each_way(
    server: ProviderServer, monkeypatch: pytest.MonkeyPatch, algorithm: str
) -> None:
    """SHA-1 or SHA-256, with colons or without."""
    digits = thumbprint(server, algorithm=algorithm)
    colons = ":".join(digits[place : place + 2] for place in range(0, len(digits), 2))
    monkeypatch.setenv("IDENTITY_SERVER_THUMBPRINT", colons)
    assert await fetched(ManagedIdentity.from_environment(resource=VAULT))


async def test_another_certificate_gets_nothing(server: ProviderServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """The handshake fails, so that the secret is not sent; the text names the variable."""
    calls = server.calls["managed_identity"]
    monkeypatch.setenv("IDENTITY_SERVER_THUMBPRINT", "a" * 40)
    with pytest.raises(TokenUnavailable, match=r"\(certificate\).*another thumbprint: .*IDENTITY_SERVER_THUMBPRINT"):
        await fetched(ManagedIdentity.from_environment(resource=VAULT))
    assert calls == server.calls["managed_identity"]


async def test_each_server_has_connections_of_its_own(server: ProviderServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """A connection that one thumbprint has verified serves no provider with another."""
    assert server.ca_file
    identity = ManagedIdentity.from_environment(resource=VAULT)
    monkeypatch.setenv("IDENTITY_SERVER_THUMBPRINT", "a" * 40)
    other = ManagedIdentity.from_environment(resource=f"{VAULT}/other")
    async with TokenBroker({"vault": identity, "other": other}) as broker:
        await broker.token("vault")
        with pytest.raises(TokenUnavailable, match="another thumbprint"):
            await broker.token("other")


async def test_a_wrong_secret_is_refused(server: ProviderServer) -> None:
    """With the platform's code, and without the secret."""
    server.managed_identity.header = "another"
    with pytest.raises(CredentialRejected, match=r"ManagedIdentityNotFound, HTTP 404\).*identity_header") as refused:
        await fetched(ManagedIdentity.from_environment(resource=VAULT))
    assert HEADER not in str(refused.value)


async def test_it_needs_the_brokers_own_client(server: ProviderServer) -> None:
    """Another client's TLS is not ours to set, which the broker says when it is made."""
    assert server.ca_file
    identity = ManagedIdentity.from_environment(resource=VAULT)
    async with httpx.AsyncClient() as client:
        with pytest.raises(ConfigurationError, match=r'source="service_fabric" needs the HTTP client of tokenmw'):
            TokenBroker({"vault": identity}, http=client)
