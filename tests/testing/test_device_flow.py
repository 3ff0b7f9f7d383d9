"""ProviderServer connects programs without a browser (RFC 8628)."""

from __future__ import annotations

from typing import Any

import pytest

from tests.testing.conftest import CRM
from tokenmw.testing import Fault, ManualClock, ProviderServer

GRANT = "urn:ietf:params:oauth:grant-type:device_code"


async def begin(client: Any, **form: str) -> dict[str, Any]:
    """Get a device code and a user code."""
    answer = await client.post("/oauth2/device", data=CRM | form)
    assert 200 == answer.status_code
    fields: dict[str, Any] = answer.json()
    return fields


async def poll(client: Any, device_code: str, **form: str) -> str:
    """Poll with a device code, and return the error code; "" if there were tokens."""
    answer = await client.post("/oauth2/token", data={"grant_type": GRANT, "device_code": device_code} | CRM | form)
    fields = answer.json()
    assert (200 if "access_token" in fields else 400) == answer.status_code
    return str(fields.get("error", ""))


async def test_a_device_gets_tokens_when_its_user_has_approved(
    server: ProviderServer, clock: ManualClock, client: Any
) -> None:
    """Until then it waits, and the tokens are the user's."""
    begun = await begin(client, scope="read")
    base = str(client.base_url).rstrip("/")
    assert {
        "verification_uri": f"{base}/oauth2/device/verify",
        "expires_in": 600,
        "interval": 5,
    }.items() <= begun.items()
    assert f"{begun['verification_uri']}?user_code={begun['user_code']}" == begun["verification_uri_complete"]
    assert "authorization_pending" == await poll(client, begun["device_code"])
    server.users.approve_device(begun["user_code"].lower().replace("-", ""), "ada")
    clock.advance(5)
    assert "" == await poll(client, begun["device_code"])
    family = server.users.posts[-1].family
    assert family is not None
    assert ("ada", "crm", "read", base) == (family.user, family.client, family.scope, family.issuer)
    assert "invalid_grant" == await poll(client, begun["device_code"])
    assert ["authorization_pending", "granted", "reused"] == [post.outcome for post in server.users.posts]
    assert {("device", "crm"): 1, ("oauth2", "crm"): 3}.items() <= server.calls.items()


async def test_a_device_that_polls_too_often_must_slow_down(
    server: ProviderServer, clock: ManualClock, client: Any
) -> None:
    """Each time by five seconds more, for all later polls (RFC 8628 §3.5)."""
    device_code = (await begin(client))["device_code"]
    for seconds, error in (
        (0, "authorization_pending"),
        (4, "slow_down"),
        (9, "slow_down"),
        (15, "authorization_pending"),
    ):
        clock.advance(seconds)
        assert error == await poll(client, device_code)
    assert 0 == len(server.users.families.all())


async def test_a_device_can_be_denied_and_expires(server: ProviderServer, clock: ManualClock, client: Any) -> None:
    """A user code is known only as long as its device code."""
    denied, late = await begin(client), await begin(client)
    server.users.deny_device(denied["user_code"])
    assert "access_denied" == await poll(client, denied["device_code"])
    clock.advance(600)
    assert "expired_token" == await poll(client, late["device_code"])
    for user_code in (late["user_code"], "never-issued"):
        with pytest.raises(KeyError):
            server.users.approve_device(user_code, "ada")


async def test_invalid_requests_of_devices_are_refused(server: ProviderServer, client: Any) -> None:
    """The client proves itself at both endpoints, and a device code is bound to it."""
    server.clients = {"crm": "s", "other": "s"}
    server.users.scopes = {"read"}
    for form, error in (({"client_secret": "wrong"}, "invalid_client"), ({"scope": "admin"}, "invalid_scope")):
        answer = await client.post("/oauth2/device", data=CRM | form)
        assert (400, error) == (answer.status_code, answer.json()["error"])
    device_code = (await begin(client))["device_code"]
    assert "invalid_grant" == await poll(client, device_code, client_id="other")
    assert "invalid_client" == await poll(client, device_code, client_secret="wrong")
    assert "invalid_grant" == await poll(client, "never-issued")
    assert "invalid_request" == await poll(client, "")
    server.device.script.then(Fault(without=["interval"]))
    assert "interval" not in await begin(client)


@pytest.mark.parametrize(("decision", "error"), [("allow", ""), ("deny", "access_denied")])
async def test_a_user_decides_on_a_page(client: Any, decision: str, error: str) -> None:
    """It asks for the code, unless the URL has it."""
    begun = await begin(client, scope="read")
    assert "asks for" not in (await client.get(begun["verification_uri"])).text
    page = await client.get(begun["verification_uri_complete"])
    assert "<b>crm</b> asks for: <i>read</i>" in page.text
    form = {"user_code": begun["user_code"], "user": "ada", "decision": decision}
    answers = [
        await client.post(begun["verification_uri"], data=form | {"user_code": code})
        for code in ("x", form["user_code"])
    ]
    assert [400, 200] == [answer.status_code for answer in answers]
    assert error == await poll(client, begun["device_code"])
