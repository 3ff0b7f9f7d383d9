"""The test server takes client certificates from a header, and binds tokens to them (RFC 8705)."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING
from urllib.parse import quote

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from tests.providers.mtls import make_certificate, thumbprint_of
from tokenmw.testing import ProviderServer

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

PEM = make_certificate()
DER = x509.load_pem_x509_certificate(PEM.encode()).public_bytes(Encoding.DER)
HEADERS = {
    "nginx": quote(PEM),
    "RFC 9440": f":{base64.b64encode(DER).decode()}:",
    "base64": base64.b64encode(DER).decode(),
}
FORM = {"grant_type": "client_credentials", "client_id": "crm"}
OTHER = {"x-client-cert": quote(make_certificate())}


@pytest.fixture
def server() -> ProviderServer:
    """A server with a client that has a certificate, and one that has a secret."""
    made = ProviderServer(clients={"erp": "s"})
    made.oauth2.certificates["crm"] = thumbprint_of(DER)
    return made


@pytest.fixture
async def http(server: ProviderServer) -> AsyncGenerator[httpx.AsyncClient]:
    """A client of the server."""
    async with httpx.AsyncClient(transport=server.transport(), base_url="https://idp.test") as client:
        yield client


@pytest.mark.parametrize("form", HEADERS)
async def test_a_client_proves_itself_by_its_certificate(
    server: ProviderServer, http: httpx.AsyncClient, form: str
) -> None:
    """The API takes the token only with the same certificate."""
    shown = {"x-client-cert": HEADERS[form]}
    token = (await http.post("/oauth2/token", data=FORM, headers=shown)).json()["access_token"]
    issued = server.issued.find(token)
    assert issued is not None
    assert thumbprint_of(DER) == issued.certificate
    bearer = {"authorization": f"Bearer {token}"}
    answers = [(await http.get("/api/x", headers=bearer | more)).status_code for more in (shown, {}, OTHER)]
    assert [200, 401, 401] == answers


@pytest.mark.parametrize("more", [{}, OTHER, {"x-client-cert": "nonsense"}])
async def test_another_certificate_is_refused(http: httpx.AsyncClient, more: dict[str, str]) -> None:
    """Neither does a secret replace it."""
    for form in (FORM, FORM | {"client_secret": "s"}):
        answer = await http.post("/oauth2/token", data=form, headers=more)
        assert "invalid_client" == answer.json()["error"]


async def test_a_secret_and_a_certificate_bind_the_token(server: ProviderServer, http: httpx.AsyncClient) -> None:
    """As RFC 8705 §3 has it for every method."""
    form = FORM | {"client_id": "erp", "client_secret": "s"}
    bound = (await http.post("/oauth2/token", data=form, headers={"x-client-cert": HEADERS["nginx"]})).json()
    plain = (await http.post("/oauth2/token", data=form)).json()
    found = [server.issued.find(one["access_token"]) for one in (bound, plain)]
    assert [thumbprint_of(DER), ""] == [one.certificate for one in found if one is not None]


async def test_the_methods_are_published(http: httpx.AsyncClient) -> None:
    """Only by a server that has such clients."""
    path = "/.well-known/oauth-authorization-server"
    fields = (await http.get(path)).json()
    assert "tls_client_auth" in fields["token_endpoint_auth_methods_supported"]
    async with httpx.AsyncClient(transport=ProviderServer().transport(), base_url="https://idp.test") as other:
        fields = (await other.get(path)).json()
    assert "tls_client_auth" not in fields["token_endpoint_auth_methods_supported"]
