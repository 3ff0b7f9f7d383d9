"""What a failed refresh means: `invalid_grant` only after the store was read again, all else changes nothing."""

from __future__ import annotations

import asyncio

import pytest

from tests.connections.world import LIFETIME, World, documents_of
from tokenmw import CredentialRejected, TokenUnavailable
from tokenmw.errors import ReconnectRequired
from tokenmw.observe.events import ConnectionChanged
from tokenmw.testing.provider_server import Fault

TRANSIENT = [
    Fault(status=503),
    Fault(status=429, headers={"Retry-After": "1"}),
    Fault(close=True),
    Fault(body="<h1>Sign in to the network</h1>"),
    Fault(body={"error": "temporarily_unavailable"}, status=400),
]


@pytest.mark.parametrize("fault", TRANSIENT)
async def test_a_transient_failure_changes_nothing(world: World, fault: Fault) -> None:
    """The connection has the same refresh token and no claim, and the next attempt succeeds."""
    family = await world.connect()
    before = (await world.stored()).document
    world.clock.advance(LIFETIME)
    world.server.oauth2.script.then(fault)
    with pytest.raises(TokenUnavailable):
        await world.token()
    after = (await world.stored()).document
    assert before == after.changed(failing="", failing_since=0.0)
    world.clock.advance(10)
    assert await world.token() == family.access_tokens[-1]
    assert family.alive


async def test_a_refused_client_changes_nothing(world: World) -> None:
    """A wrong client secret is the operator's problem, and ends no user's connection."""
    family = await world.connect()
    world.clock.advance(LIFETIME)
    world.server.oauth2.script.then(Fault(status=401, body={"error": "invalid_client"}))
    with pytest.raises(CredentialRejected):
        await world.token()
    state = await world.broker.connections.state("crm", "user-1")
    assert state is not None
    assert ("failing", "credential rejected") == (state.state, state.reason)
    world.clock.advance(3600)
    assert await world.token() == family.access_tokens[-1]


async def test_invalid_grant_ends_a_connection(world: World) -> None:
    """If the store has no newer refresh token, the user has to connect again, and the server is not asked again."""
    family = await world.connect()
    world.events.clear()
    world.server.users.revoke("ada")
    world.clock.advance(LIFETIME)
    for _ in range(3):
        with pytest.raises(ReconnectRequired) as raised:
            await world.token()
        assert ("invalid_grant", 403) == (raised.value.reason, raised.value.status_code)
        world.clock.advance(10)
    assert 1 == family.refreshes
    assert [ConnectionChanged("crm", "reconnect", "invalid_grant")] == [
        event for event in world.events if isinstance(event, ConnectionChanged)
    ]
    state = await world.broker.connections.state("crm", "user-1")
    assert state is not None
    assert ("reconnect", "invalid_grant") == (state.state, state.reason)


async def test_connecting_again_serves_at_once(two: World) -> None:
    """After a connection has ended, a new one is used by the process that stores it, and by others within a second."""
    await two.connect()
    two.server.users.revoke("ada")
    two.clock.advance(LIFETIME)
    for number in (0, 1):
        with pytest.raises(ReconnectRequired):
            await two.token(number)
    family = await two.connect()
    assert await two.token(0) == family.access_tokens[-1]
    two.clock.advance(1)
    assert await two.token(1) == family.access_tokens[-1]


async def test_invalid_grant_after_another_process_has_rotated_is_not_believed(world: World) -> None:
    """The store is read again: it has a newer refresh token, which is used."""
    family = await world.connect()
    world.clock.advance(LIFETIME)
    hang = world.server.oauth2.script.hang()
    asking = asyncio.ensure_future(world.token())
    await hang.arrived.wait()
    # A process that knows nothing of claims, such as the program's former version, refreshes at the same time.
    world.server.users.detects_reuse = False
    endpoint = world.server.oauth2
    pair = world.server.users.families.refresh(endpoint, family.refresh_tokens[0], client="crm")
    found = await world.stored()
    newer = found.document.changed(
        refresh_token=pair.refresh_token,
        access_token=pair.access_token,
        expires_at=world.clock.time() + LIFETIME,
        claim=None,
    )
    assert await documents_of(world.store).save(world.key(), newer, expected=found.version)
    world.server.oauth2.script.clear()
    hang.release()
    assert pair.access_token == await asking
    state = await world.broker.connections.state("crm", "user-1")
    assert state is not None
    assert "ok" == state.state


async def test_a_failure_of_one_user_is_not_that_of_another(world: World) -> None:
    """A user who has to connect again does not keep another one from being served."""
    await world.connect("user-1", user="ada")
    family = await world.connect("user-2", user="bob")
    world.server.users.revoke("ada")
    world.clock.advance(LIFETIME)
    with pytest.raises(ReconnectRequired):
        await world.token()
    assert await world.token(subject="user-2") == family.access_tokens[-1]


async def test_an_unknown_user_is_asked_to_connect(world: World) -> None:
    """No connection: 403 with the URL, and the server is not asked."""
    with pytest.raises(ReconnectRequired) as raised:
        await world.token(subject="unknown")
    assert ("not connected", "/connect/crm", 403) == (
        raised.value.reason,
        raised.value.connect_url,
        raised.value.status_code,
    )
    assert not world.server.users.posts
