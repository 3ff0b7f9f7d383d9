"""Tokens from `oidc-provider` by mutual TLS (RFC 8705), with each method and bound to the certificate."""

from __future__ import annotations

import asyncio
import base64
import ssl
from typing import TYPE_CHECKING, Any, NamedTuple

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from tests.interop.running import node, running
from tests.providers.mtls import Files, authority
from tests.providers.network.certificates import self_signed
from tests.providers.private_keys import jwk_of, make_key, public_jwk_of
from tokenmw import CredentialRejected, TokenBroker
from tokenmw.providers import ClientCredentials, HTTPOptions, PrivateKeyJWT

if TYPE_CHECKING:
    from collections.abc import Generator

    from tokenmw.values import Token

pytestmark = pytest.mark.sdk

SECRET = "a secret of sufficient length: 0123456789"


class Server(NamedTuple):
    """A server that runs, and the client's certificate."""

    issuer: str
    ca_file: str
    files: Files


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Generator[Server]:
    """A server with a client for each method."""
    directory, own = tmp_path_factory.mktemp("client"), tmp_path_factory.mktemp("server")
    files = Files(directory)
    public, _ = self_signed(own)
    der = x509.load_pem_x509_certificate(files.certificate.read_bytes()).public_bytes(Encoding.DER)
    jwk = {**public_jwk_of(make_key("P-256")), "x5c": [base64.b64encode(der).decode()]}
    bound = {"tls_client_certificate_bound_access_tokens": True}
    clients: list[dict[str, Any]] = [
        {"client_id": "tls", "token_endpoint_auth_method": "tls_client_auth", "tls_client_auth_subject_dn": "CN=crm"},
        {"client_id": "self", "token_endpoint_auth_method": "self_signed_tls_client_auth", "jwks": {"keys": [jwk]}},
        {"client_id": "secret", "client_secret": SECRET, "token_endpoint_auth_method": "client_secret_basic"},
        {
            "client_id": "jwt",
            "token_endpoint_auth_method": "private_key_jwt",
            "token_endpoint_auth_signing_alg": "ES256",
            "jwks": {"keys": [{**public_jwk_of(make_key("P-256")), "kid": "new"}]},
        },
    ]
    tls = {"cert": public.read_text(), "key": (own / "key.pem").read_text(), "ca": authority()}
    options: dict[str, Any] = {"clients": [{**one, **bound} for one in clients], "resources": {}, "tls": tls}
    options["clients"].append(
        {"client_id": "plain", "client_secret": SECRET, "token_endpoint_auth_method": "client_secret_post"}
    )
    with running(node("oidc_provider.mjs"), **options) as issuer:
        yield Server(issuer, str(public), files)


async def fetched(server: Server, **options: Any) -> Token:
    """Return a token, fetched by a broker."""
    crm = ClientCredentials(issuer=server.issuer, **options)
    async with TokenBroker({"crm": crm}, http=HTTPOptions(ca_file=server.ca_file)) as broker:
        return await broker.token("crm")


async def introspected(server: Server, token: Token) -> dict[str, Any]:
    """Return what the server knows about a token."""
    context = ssl.create_default_context(cafile=server.ca_file)
    form = {"token": token.value, "client_id": "plain", "client_secret": SECRET}
    async with httpx.AsyncClient(trust_env=False, verify=context) as http:
        answer = await http.post(f"{server.issuer}/token/introspection", data=form)
    fields: dict[str, Any] = answer.json()
    return fields


@pytest.fixture
def key() -> PrivateKeyJWT:
    """The key of the client that signs assertions."""
    return PrivateKeyJWT(jwk_of(make_key("P-256")), key_id="new", algorithm="ES256")


@pytest.mark.parametrize("method", ["tls_client_auth", "self_signed_tls_client_auth"])
async def test_each_method_gets_a_token_that_is_bound(server: Server, method: str) -> None:
    """The token belongs to the client, and to the certificate."""
    client = {"tls_client_auth": "tls", "self_signed_tls_client_auth": "self"}[method]
    certificate = await asyncio.to_thread(server.files.load)
    token = await fetched(server, client_id=client, certificate=certificate, auth_method=method)
    known = await introspected(server, token)
    assert (True, client, "Bearer") == (known["active"], known["client_id"], token.token_type)
    assert {"x5t#S256": certificate.thumbprint} == known["cnf"]


async def test_tokens_of_other_methods_are_bound(server: Server, key: PrivateKeyJWT) -> None:
    """FAPI has clients that sign assertions and hold tokens by a certificate."""
    certificate = await asyncio.to_thread(server.files.load)
    for options in ({"client_id": "jwt", "client_assertion": key}, {"client_id": "secret", "client_secret": SECRET}):
        known = await introspected(server, await fetched(server, certificate=certificate, **options))
        assert {"x5t#S256": certificate.thumbprint} == known["cnf"]


async def test_a_client_without_its_certificate_is_refused(server: Server) -> None:
    """The text names the option that is missing."""
    with pytest.raises(CredentialRejected, match=r"certificate=…"):
        await fetched(server, client_id="secret", client_secret=SECRET)


async def test_another_certificate_is_refused(server: Server, tmp_path_factory: pytest.TempPathFactory) -> None:
    """The text names the certificate and what to check."""
    other = Files(tmp_path_factory.mktemp("other"), name="another", key=make_key("P-256", number=2))
    certificate = await asyncio.to_thread(other.load)
    for client, method in (("tls", "tls_client_auth"), ("self", "self_signed_tls_client_auth")):
        with pytest.raises(CredentialRejected, match=r"invalid_client.*check client_id.*tls\.crt"):
            await fetched(server, client_id=client, certificate=certificate, auth_method=method)
