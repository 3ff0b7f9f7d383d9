"""ProviderServer rotates refresh tokens, and revokes the family of one that is used twice."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import httpx2
import pytest

from tests.testing.conftest import CRM
from tokenmw.testing import Fault, ManualClock, ProviderServer
from tokenmw.testing.provider_server import Pair

CLOSED = (httpx.RemoteProtocolError, httpx.ReadError, httpx2.RemoteProtocolError)


@pytest.fixture
def pair(server: ProviderServer) -> Pair:
    """The pair of a user who has consented."""
    return server.users.grant("ada", client="crm", scope="read write")


async def refresh(client: Any, refresh_token: str, **form: str) -> Any:
    """Send a refresh token."""
    fields = {"grant_type": "refresh_token", "refresh_token": refresh_token}
    return await client.post("/oauth2/token", data=fields | CRM | form)


async def refused(client: Any, refresh_token: str, **form: str) -> str:
    """Send a refresh token that is refused, and return the error code."""
    answer = await refresh(client, refresh_token, **form)
    assert 400 == answer.status_code
    return str(answer.json()["error"])


async def user_of(client: Any, access_token: str) -> str | None:
    """Return the user for whom the API accepts a token; None if it does not."""
    answer = await client.get("/api/me", headers={"authorization": f"Bearer {access_token}"})
    assert answer.status_code in (200, 401)
    user: str | None = answer.json().get("user")
    return user


async def test_each_refresh_gives_a_new_pair(server: ProviderServer, client: Any, pair: Pair) -> None:
    """The API knows the user of each access token, and each request is recorded with its token."""
    assert "ada" == await user_of(client, pair.access_token)
    tokens = [pair.refresh_token]
    for _ in range(3):
        fields = (await refresh(client, tokens[-1])).json()
        assert {"token_type": "Bearer", "expires_in": 3600.0, "scope": "read write"}.items() <= fields.items()
        assert "ada" == await user_of(client, fields["access_token"])
        tokens.append(fields["refresh_token"])
    family = pair.family
    assert (tokens, 4, 3) == (family.refresh_tokens, len(set(family.access_tokens)), family.refreshes)
    assert tokens[:3] == [post.credential for post in server.users.refreshes]
    assert {"granted"} == {post.outcome for post in server.users.posts}
    assert family is server.users.family_of(tokens[1])
    assert family.alive
    assert [] == server.users.sent_twice
    with pytest.raises(KeyError):
        server.users.family_of("never-issued")


async def test_a_second_use_revokes_the_whole_family(server: ProviderServer, client: Any, pair: Pair) -> None:
    """Its access tokens and its refresh tokens, but none of another family of the same user (RFC 9700 §4.14.2)."""
    other = server.users.grant("ada", client="crm", scope="read write")
    new = (await refresh(client, pair.refresh_token)).json()
    assert "invalid_grant" == await refused(client, pair.refresh_token)
    assert (False, "reuse") == (pair.family.alive, pair.family.revoked_because)
    for value in (pair.access_token, new["access_token"]):
        assert await user_of(client, value) is None
    assert "invalid_grant" == await refused(client, new["refresh_token"])
    assert ["granted", "reused", "revoked"] == [post.outcome for post in pair.family.posts]
    assert [pair.refresh_token] == server.users.sent_twice
    assert 2 == server.users.refresh_counts[pair.refresh_token]
    assert "ada" == await user_of(client, other.access_token)
    assert 200 == (await refresh(client, other.refresh_token)).status_code


async def test_of_two_requests_at_the_same_time_one_is_reuse(server: ProviderServer, client: Any, pair: Pair) -> None:
    """The first request spends the token, however close the second one is."""
    answers = await asyncio.gather(*(refresh(client, pair.refresh_token) for _ in range(2)))
    assert [200, 400] == sorted(answer.status_code for answer in answers)
    assert not pair.family.alive


async def test_without_detection_a_second_use_is_only_refused(server: ProviderServer, client: Any, pair: Pair) -> None:
    """Some servers refuse a spent token and do no more."""
    server.users.detects_reuse = False
    new = (await refresh(client, pair.refresh_token)).json()
    assert "invalid_grant" == await refused(client, pair.refresh_token)
    assert 200 == (await refresh(client, new["refresh_token"])).status_code
    assert pair.family.alive


async def test_in_the_grace_window_the_same_pair_comes_again(
    server: ProviderServer, clock: ManualClock, client: Any, pair: Pair
) -> None:
    """A client that lost the answer gets it, with what remains of its lifetime; after the window it is reuse."""
    server.users.grace = 10.0
    new = (await refresh(client, pair.refresh_token)).json()
    clock.advance(9)
    again = (await refresh(client, pair.refresh_token)).json()
    assert new | {"expires_in": 3591} == again
    assert ["granted", "repeated"] == [post.outcome for post in pair.family.posts]
    clock.advance(1)
    assert "invalid_grant" == await refused(client, pair.refresh_token)
    assert not pair.family.alive


async def test_the_grace_window_ends_with_the_use_of_the_new_token(
    server: ProviderServer, client: Any, pair: Pair
) -> None:
    """Only the token spent last may be repeated: a client with an older one is not the one with the newest pair."""
    server.users.grace = 10.0
    new = (await refresh(client, pair.refresh_token)).json()
    assert 200 == (await refresh(client, new["refresh_token"])).status_code
    assert "invalid_grant" == await refused(client, pair.refresh_token)
    assert not pair.family.alive


async def test_without_rotation_the_answer_has_no_refresh_token(
    server: ProviderServer, client: Any, pair: Pair
) -> None:
    """The old one stays (RFC 6749 §6), as at Google."""
    server.users.rotation = False
    for _ in range(3):
        fields = (await refresh(client, pair.refresh_token)).json()
        assert "refresh_token" not in fields
        assert "ada" == await user_of(client, fields["access_token"])
    assert (1, 3, True) == (len(pair.family.refresh_tokens), pair.family.refreshes, pair.family.alive)


async def test_a_refresh_can_revoke_the_old_access_token(server: ProviderServer, client: Any, pair: Pair) -> None:
    """GitHub does so."""
    server.users.revokes_old_access_token = True
    new = (await refresh(client, pair.refresh_token)).json()
    assert [None, "ada"] == [await user_of(client, value) for value in (pair.access_token, new["access_token"])]


async def test_the_scope_can_be_narrowed_and_not_widened(server: ProviderServer, client: Any, pair: Pair) -> None:
    """The new refresh token keeps the whole scope, and a refused request spends nothing (RFC 6749 §6)."""
    assert "invalid_scope" == await refused(client, pair.refresh_token, scope="read admin")
    narrow = (await refresh(client, pair.refresh_token, scope="read")).json()
    assert "read" == narrow["scope"]
    issued = server.issued.find(narrow["access_token"])
    assert issued is not None
    assert ("read", "ada", "crm") == (issued.scope, issued.user, issued.client)
    assert "read write" == (await refresh(client, narrow["refresh_token"])).json()["scope"]


async def test_invalid_refresh_tokens_are_refused(
    server: ProviderServer, clock: ManualClock, client: Any, pair: Pair
) -> None:
    """A missing, unknown or expired one, and one of another client, whose family stays alive."""
    server.clients = {"crm": "s", "other": "s"}
    assert "invalid_request" == await refused(client, "")
    assert "invalid_grant" == await refused(client, "never-issued")
    assert "invalid_grant" == await refused(client, pair.refresh_token, client_id="other")
    assert "invalid_client" == await refused(client, pair.refresh_token, client_secret="wrong")
    assert pair.family.alive
    clock.advance(server.users.refresh_life)
    assert "invalid_grant" == await refused(client, pair.refresh_token)
    assert ["missing", "unknown", "client", "", "expired"] == [post.outcome for post in server.users.posts]


async def test_a_scope_can_be_needed_for_a_refresh_token(server: ProviderServer) -> None:
    """Many servers want `offline_access`."""
    server.users.offline_scope = "offline_access"
    assert "" == server.users.grant("ada", client="crm", scope="read").refresh_token
    assert "" != server.users.grant("ada", client="crm", scope="read offline_access").refresh_token


async def test_a_user_can_revoke_a_client(server: ProviderServer, client: Any, pair: Pair) -> None:
    """Of one client or of all, as on the account page of a provider."""
    bob, billing = (server.users.grant(*names[:1], client=names[1]) for names in (("bob", "crm"), ("ada", "billing")))
    server.users.revoke("ada", client="crm")
    assert [False, True, True] == [one.family.alive for one in (pair, bob, billing)]
    assert "invalid_grant" == await refused(client, pair.refresh_token)
    server.users.revoke("ada")
    assert [True, False] == [one.family.alive for one in (bob, billing)]
    assert [None, "bob"] == [await user_of(client, one.access_token) for one in (billing, bob)]


async def test_an_answer_can_be_lost_after_the_rotation(server: ProviderServer, client: Any, pair: Pair) -> None:
    """The refresh token is spent, and the client gets a closed connection or a gateway's error."""
    server.oauth2.script.then(Fault(close=True, after=True))
    with pytest.raises(CLOSED):
        await refresh(client, pair.refresh_token)
    assert (2, ["granted"]) == (len(pair.family.refresh_tokens), [post.outcome for post in server.users.posts])
    server.oauth2.script.then(Fault(status=502, after=True))
    newest = pair.family.refresh_tokens[-1]
    assert (502, b"") == ((answer := await refresh(client, newest)).status_code, answer.content)
    assert "invalid_grant" == await refused(client, newest)


async def test_an_answer_can_be_held_back_after_the_rotation(server: ProviderServer, client: Any, pair: Pair) -> None:
    """So that a test can end the client between the use of the refresh token and the answer."""
    hang = server.oauth2.script.hang(after=True)
    waiting = asyncio.create_task(refresh(client, pair.refresh_token))
    assert await hang.arrived.wait(5)
    assert 2 == len(pair.family.refresh_tokens)
    hang.release()
    assert pair.family.refresh_tokens[-1] == (await waiting).json()["refresh_token"]


async def test_a_fault_before_the_rotation_spends_nothing(server: ProviderServer, client: Any, pair: Pair) -> None:
    """The request is recorded, without an outcome, and the same refresh token can be sent again."""
    server.oauth2.script.then(Fault(status=503), Fault(close=True))
    assert 503 == (await refresh(client, pair.refresh_token)).status_code
    with pytest.raises(CLOSED):
        await refresh(client, pair.refresh_token)
    assert 200 == (await refresh(client, pair.refresh_token)).status_code
    assert ["", "", "granted"] == [post.outcome for post in pair.family.posts]


async def test_faults_change_the_fields_of_a_refresh(server: ProviderServer, client: Any, pair: Pair) -> None:
    """As those of any other token response."""
    server.oauth2.script.then(Fault(fields={"expires_in": "60"}, without=["refresh_token"]))
    fields = (await refresh(client, pair.refresh_token)).json()
    assert ("60", False) == (fields["expires_in"], "refresh_token" in fields)


async def test_a_client_can_leave_before_the_answer(server: ProviderServer, pair: Pair) -> None:
    """As a killed process does: its refresh token is spent, and no process has the new one."""
    with server.running() as base_url:
        hang = server.oauth2.script.hang(after=True)
        async with httpx.AsyncClient(base_url=base_url, trust_env=False) as client:
            waiting = asyncio.create_task(refresh(client, pair.refresh_token))
            assert await hang.arrived.wait(5)
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting
        hang.release()
        server.oauth2.script.clear()
        async with httpx.AsyncClient(base_url=base_url, trust_env=False) as client:
            assert "invalid_grant" == await refused(client, pair.refresh_token)
    assert ["granted", "reused"] == [post.outcome for post in pair.family.posts]


async def test_a_client_without_a_secret_is_public(server: ProviderServer, client: Any) -> None:
    """It names itself, and has no other proof than the refresh token (RFC 6749 §3.2.1)."""
    server.clients = {"crm": ""}
    pair = server.users.grant("ada", client="crm")
    fields = {"grant_type": "refresh_token", "refresh_token": pair.refresh_token, "client_id": "crm"}
    assert 400 == (await client.post("/oauth2/token", data=fields | {"client_secret": "x"})).status_code
    assert 200 == (await client.post("/oauth2/token", data=fields)).status_code
