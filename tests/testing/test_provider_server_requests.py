"""Requests of other clients than this package's, which ProviderServer answers as real servers do."""

from __future__ import annotations

import json
from base64 import urlsafe_b64encode
from typing import Any

import pytest

from tests.testing.conftest import CRM, FORM, token_of
from tokenmw.testing import Fault, ProviderServer

ASSERTION_TYPE = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
METADATA = "metadata/identity/oauth2/token?api-version=2018-02-01&resource=r"


def jwt(*, number: int = 0, **claims: Any) -> str:
    """Make a JWT whose signature nobody checks."""
    payload = urlsafe_b64encode(json.dumps({**claims, "jti": number}).encode()).decode().rstrip("=")
    return f"e30.{payload}.c2ln"


@pytest.mark.parametrize(
    ("form", "status"),
    [
        ({"client_assertion": jwt(sub="crm")}, 200),
        ({"client_assertion": jwt(sub="crm"), "client_id": "crm"}, 200),
        ({"client_assertion": "opaque", "client_id": "crm"}, 200),
        ({"client_assertion": jwt(sub="other"), "client_id": "crm"}, 400),
        ({"client_assertion": jwt(sub="other")}, 400),
        ({"client_assertion": jwt(iss="crm")}, 400),
        ({"client_assertion": "opaque"}, 400),
        ({"client_assertion": "a.b.c"}, 400),
        ({"client_assertion": "a.\u00e4.c"}, 400),
    ],
)
async def test_client_id_is_optional_beside_an_assertion(
    server: ProviderServer, client: Any, form: dict[str, str], status: int
) -> None:
    """The client is the `sub` of the assertion (RFC 7521 §4.2), which Authlib relies on."""
    answer = await client.post("/oauth2/token", data=FORM | {"client_assertion_type": ASSERTION_TYPE} | form)
    assert status == answer.status_code
    if status == 200:
        assert 1 == server.calls["oauth2", "crm"]
    else:
        assert "invalid_client" == answer.json()["error"]


async def test_token_is_for_several_resources(server: ProviderServer, client: Any) -> None:
    """`resource` may be repeated (RFC 8707 §2); no other field may."""
    resources = ["https://a.example", "https://b.example/api"]
    server.oauth2.renewal_window = 0.0
    answer = await client.post("/oauth2/token", data=FORM | CRM | {"resource": resources})
    assert 200 == answer.status_code
    issued = server.issued.find(answer.json()["access_token"])
    assert issued is not None
    assert tuple(resources) == issued.resources
    assert issued.value != (await token_of(client, resource=resources[0]))["access_token"]
    for form, error in (
        ({"scope": ["a", "b"]}, "invalid_request"),
        ({"resource": ["https://a.example", "b"]}, "invalid_target"),
        ({"resource": "https://a.example#x"}, "invalid_target"),
    ):
        refused = await client.post("/oauth2/token", data=FORM | CRM | form)
        assert (400, error) == (refused.status_code, refused.json()["error"])


@pytest.mark.parametrize(
    ("path", "issuer"),
    [
        ("/.well-known/oauth-authorization-server", ""),
        ("/.well-known/openid-configuration", ""),
        ("/.well-known/oauth-authorization-server/realms/one", "/realms/one"),
        ("/realms/one/.well-known/openid-configuration", "/realms/one"),
    ],
)
async def test_discovery_documents_name_the_token_endpoint(client: Any, path: str, issuer: str) -> None:
    """Both documents exist for every issuer, with and without a path (RFC 8414 §3.1)."""
    document = (await client.get(path)).json()
    base = str(client.base_url).rstrip("/")
    assert base + issuer == document["issuer"]
    granted = await client.post(document["token_endpoint"], data=FORM | CRM)
    assert 200 == granted.status_code
    assert {"keys": []} == (await client.get(document["jwks_uri"])).json()
    assert {"client_secret_basic", "private_key_jwt"} <= set(document["token_endpoint_auth_methods_supported"])


async def test_discovery_documents_have_faults_and_a_base_of_their_own(server: ProviderServer, client: Any) -> None:
    """A test can give a document another issuer, or leave one of the two out."""
    server.oauth2_metadata.script.then(Fault(fields={"issuer": "https://other.example"}), Fault(status=404))
    path = "/.well-known/oauth-authorization-server"
    assert "https://other.example" == (await client.get(path)).json()["issuer"]
    assert 404 == (await client.get(path)).status_code
    server.openid_metadata.base_url = "https://idp.example/"
    document = (await client.get("/.well-known/openid-configuration")).json()
    assert ("https://idp.example", "https://idp.example/oauth2/token") == (
        document["issuer"],
        document["token_endpoint"],
    )
    assert (2, 1) == (server.calls["oauth2_metadata"], server.calls["openid_metadata"])


async def test_discovery_document_of_a_tenant(server: ProviderServer, client: Any) -> None:
    """Microsoft's libraries read it before their first request."""
    server.entra.tenants = {"contoso.test"}
    document = (await client.get("/contoso.test/v2.0/.well-known/openid-configuration")).json()
    assert document["issuer"].endswith("/contoso.test/v2.0")
    form = FORM | CRM | {"scope": "https://graph.microsoft.com/.default"}
    assert 200 == (await client.post(document["token_endpoint"], data=form)).status_code
    assert {"keys": []} == (await client.get(document["jwks_uri"])).json()
    unknown = await client.get("/other.test/v2.0/.well-known/openid-configuration")
    assert (400, "invalid_tenant") == (unknown.status_code, unknown.json()["error"])


@pytest.mark.parametrize("name", ["client_id", "object_id", "msi_res_id", "mi_res_id"])
async def test_identity_that_is_not_assigned_is_refused(server: ProviderServer, client: Any, name: str) -> None:
    """By whatever id it is named; it does not get the token of the machine's own identity."""

    async def get(query: str) -> Any:
        return await client.get(f"/{METADATA}{query}", headers={"metadata": "true"})

    own, assigned = await get(""), await get(f"&{name}=crm")
    assert (200, 200) == (own.status_code, assigned.status_code)
    assert own.json()["access_token"] != assigned.json()["access_token"]
    assert 1 == server.calls["managed_identity", "crm"]
    for query in (f"&{name}=other", f"&{name}=", "&client_id=crm&object_id=crm"):
        assert 400 == (await get(query)).status_code


@pytest.mark.parametrize("path", ["tenant_access_token", "app_access_token"])
async def test_feishu_s_paths_may_end_with_a_slash(client: Any, path: str) -> None:
    """The library go-lark posts there."""
    app = {"app_id": "crm", "app_secret": "s"}
    answers = [await client.post(f"/open-apis/auth/v3/{path}/internal{end}", json=app) for end in ("", "/")]
    assert [0, 0] == [answer.json()["code"] for answer in answers]
    assert 1 == len({answer.json()[path] for answer in answers})


@pytest.mark.parametrize(
    "body", [{}, {"app_id": "crm"}, {"app_id": 5, "app_secret": "s"}, {"app_id": "", "app_secret": ""}]
)
async def test_feishu_s_refusals_have_status_200(client: Any, body: dict[str, Any]) -> None:
    """As of the platform itself: malformed input has empty `data`, an unknown app has not."""
    url = "/open-apis/auth/v3/tenant_access_token/internal"
    malformed = await client.post(url, json=body)
    assert (200, 10003, {}) == (malformed.status_code, malformed.json()["code"], malformed.json()["data"])
    unknown = await client.post(url, json={"app_id": "other", "app_secret": "s"})
    assert (200, 10014) == (unknown.status_code, unknown.json()["code"])
