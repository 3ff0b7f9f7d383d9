"""ProviderServer revokes tokens on request (RFC 7009)."""

from __future__ import annotations

from typing import Any

import pytest

from tests.testing.conftest import CRM, token_of
from tokenmw.testing import Fault, ProviderServer


async def revoke(client: Any, token: str, **form: str) -> tuple[int, str]:
    """Send a token, and return the status and the error code."""
    answer = await client.post("/oauth2/revoke", data={"token": token} | CRM | form)
    return answer.status_code, answer.json()["error"] if answer.content else ""


async def accepts(client: Any, token: str) -> bool:
    """Return whether the API accepts a token."""
    answer = await client.get("/api/x", headers={"authorization": f"Bearer {token}"})
    return bool(answer.status_code == 200)


@pytest.mark.parametrize("hint", ["refresh_token", "access_token", "other"])
async def test_a_refresh_token_revokes_its_family(server: ProviderServer, client: Any, hint: str) -> None:
    """Whatever the hint says, and whether it is spent or not."""
    pair = server.users.grant("ada", client="crm")
    form = {"grant_type": "refresh_token", "refresh_token": pair.refresh_token} | CRM
    new = (await client.post("/oauth2/token", data=form)).json()
    assert (200, "") == await revoke(client, new["refresh_token"], token_type_hint=hint)
    assert (False, "revocation") == (pair.family.alive, pair.family.revoked_because)
    assert not await accepts(client, pair.access_token)
    assert not await accepts(client, new["access_token"])
    refused = await client.post("/oauth2/token", data=form | {"refresh_token": new["refresh_token"]})
    assert "invalid_grant" == refused.json()["error"]


async def test_an_access_token_revokes_itself(server: ProviderServer, client: Any) -> None:
    """The family stays alive; a token of a client can be revoked, too."""
    pair, own = server.users.grant("ada", client="crm"), (await token_of(client))["access_token"]
    for token in (pair.access_token, own):
        assert await accepts(client, token)
        assert (200, "") == await revoke(client, token)
        assert not await accepts(client, token)
    assert pair.family.alive


async def test_other_requests_for_revocation(server: ProviderServer, client: Any) -> None:
    """An unknown token is no error; a client that has not proved itself, and a token of another client, are."""
    server.clients = {"crm": "s", "other": "s"}
    pair = server.users.grant("ada", client="crm")
    assert (200, "") == await revoke(client, "never-issued")
    assert (400, "invalid_request") == await revoke(client, "")
    assert (400, "invalid_client") == await revoke(client, pair.refresh_token, client_secret="wrong")
    assert (400, "invalid_grant") == await revoke(client, pair.refresh_token, client_id="other")
    assert (400, "invalid_grant") == await revoke(client, pair.access_token, client_id="other")
    assert pair.family.alive
    server.revocation.script.then(Fault(status=503))
    assert 503 == (await revoke(client, pair.refresh_token))[0]
    assert pair.family.alive
    document = (await client.get("/.well-known/oauth-authorization-server")).json()
    assert document["revocation_endpoint"].endswith("/oauth2/revoke")
    assert document["device_authorization_endpoint"].endswith("/oauth2/device")
    assert 6 == server.calls["revocation"]
