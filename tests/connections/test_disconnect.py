"""A user disconnects or connects again, also while a process refreshes the connection: the user wins."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from tests.connections.world import LIFETIME, World
from tokenmw.connections import TokenPair
from tokenmw.errors import ReconnectRequired
from tokenmw.observe.events import ConnectionChanged

if TYPE_CHECKING:
    from tokenmw.testing.provider_server.families import Family


async def test_disconnecting_deletes_and_revokes(world: World) -> None:
    """The tokens are deleted and revoked, the row half a minute later, and the next request needs a new connection."""
    family = await world.connect()
    await world.token()
    assert await world.broker.connections.disconnect("crm", "user-1")
    document = (await world.stored()).document
    assert (document.refresh_token, document.access_token) == (None, None)
    assert not family.alive
    with pytest.raises(ReconnectRequired):
        await world.token()
    assert not await world.broker.connections.disconnect("crm", "user-1")
    assert ConnectionChanged("crm", "disconnected") in world.events
    assert {} == await world.broker.connections.list("user-1")
    await world.clock.elapse(28)
    assert world.store.rows, "a process that has read it may still write"
    await world.clock.elapse(3)
    assert {} == world.store.rows


async def test_a_row_of_an_ended_connection_is_deleted_by_a_process_that_sees_it(two: World) -> None:
    """The process that wrote it was killed: another one deletes it half a minute after a request or `state`."""
    await two.connect()
    assert await two.brokers[0].connections.disconnect("crm", "user-1")
    two.brokers[0]._data.connections.ended.clear()
    await two.clock.elapse(60)
    assert two.store.rows
    assert await two.brokers[1].connections.state("crm", "user-1") is None
    await two.clock.elapse(31)
    assert {} == two.store.rows


async def test_a_row_of_an_ended_connection_is_deleted_when_the_broker_is_closed(world: World) -> None:
    """As after a script that deletes a user."""
    await world.connect()
    async with world.make_broker() as broker:
        assert await broker.connections.disconnect("crm", "user-1")
    assert {} == world.store.rows


async def test_a_server_that_does_not_revoke_keeps_nothing_connected(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    """The tokens are deleted in any case, and the operator learns that the server still accepts them."""
    await world.connect()
    world.server.clients = {}
    assert await world.broker.connections.disconnect("crm", "user-1")
    assert (await world.stored()).document.refresh_token is None
    assert "did not revoke the tokens" in caplog.text
    assert "user-1" not in caplog.text


async def _refresh_in_progress(world: World) -> tuple[Family, asyncio.Future[str], asyncio.Event]:
    """Return the family, a request, and the event that lets the server's answer to its refresh arrive."""
    family = await world.connect()
    world.clock.advance(LIFETIME)
    hang = world.server.oauth2.script.hang(after=True)
    asking = asyncio.ensure_future(world.token())
    await hang.arrived.wait()
    world.server.oauth2.script.clear()
    answer = asyncio.Event()

    async def release() -> None:
        await answer.wait()
        hang.release()

    task = asyncio.ensure_future(release())
    answer.task = task  # type: ignore[attr-defined]  # kept, as the event loop keeps no reference
    return family, asking, answer


async def test_disconnecting_during_a_refresh_revokes_the_new_pair(world: World) -> None:
    """The process that refreshes finds that the user has gone: it revokes what it has got, and stores nothing."""
    family, asking, answer = await _refresh_in_progress(world)
    disconnecting = asyncio.ensure_future(world.broker.connections.disconnect("crm", "user-1"))
    await world.settle()
    assert not family.alive  # by the old refresh token; the new one is revoked as well, at servers without families
    revocations = world.server.calls["revocation"]
    answer.set()
    assert await disconnecting
    with pytest.raises(ReconnectRequired):
        await asking
    await world.settle()
    assert revocations < world.server.calls["revocation"]
    assert await world.broker.connections.state("crm", "user-1") is None
    with pytest.raises(ReconnectRequired):
        await world.token()


async def test_connecting_again_during_a_refresh_wins(world: World) -> None:
    """The pair that the user has just brought stays, whatever the refresh of the old one returns."""
    _, asking, answer = await _refresh_in_progress(world)
    family = await world.connect(user="ada")
    answer.set()
    await asyncio.gather(asking, return_exceptions=True)
    await world.settle()
    assert (await world.stored()).document.refresh_token == family.refresh_tokens[-1]
    assert await world.token() == family.access_tokens[-1]


async def test_disconnecting_and_connecting_during_a_refresh(world: World) -> None:
    """The versions of the new connection do not begin again: the old refresh takes none of them for its claim."""
    _, asking, answer = await _refresh_in_progress(world)
    await world.broker.connections.disconnect("crm", "user-1")
    pair = world.server.users.grant("ada", client="crm")
    await world.broker.connections.save("crm", "user-1", refresh_token=pair.refresh_token)
    async with world.make_broker():
        # Another process claims the new connection, and waits for the server.
        hang = world.server.oauth2.script.hang()
        other = asyncio.ensure_future(world.token(1))
        await hang.arrived.wait()
        answer.set()
        await world.settle()
        assert (await world.stored()).document.refresh_token == pair.refresh_token
        world.server.oauth2.script.clear()
        hang.release()
        assert await other == pair.family.access_tokens[-1]
        await world.clock.elapse(1)  # the first process waits for the claim of the other one
        assert await asking == pair.family.access_tokens[-1]
    assert (1, True) == (pair.family.refreshes, pair.family.alive)


async def test_connecting_without_a_refresh_token_keeps_the_old_one(world: World) -> None:
    """Some servers grant one only at the first consent: the connection keeps it, and the family is refreshed on."""
    family = await world.connect()
    pair = world.server.users.grant("ada", client="crm")

    async def exchange(_http: object) -> TokenPair:
        return TokenPair(access_token=pair.access_token, expires_in=60)

    await world.broker.connections.connect("crm", "user-1", exchange)
    assert await world.token() == pair.access_token
    world.clock.advance(60)
    assert await world.token() == family.access_tokens[-1]
    assert 1 == family.refreshes


async def test_a_pair_is_stored_although_its_request_is_cancelled(world: World) -> None:
    """A browser that closes the connection during the callback does not lose the account that it has connected."""
    pair = world.server.users.grant("ada", client="crm")
    exchanged, go = asyncio.Event(), asyncio.Event()

    async def exchange(_http: object) -> TokenPair:
        exchanged.set()
        await go.wait()
        return TokenPair(access_token=pair.access_token, refresh_token=pair.refresh_token, expires_in=pair.expires_in)

    request = asyncio.ensure_future(world.broker.connections.connect("crm", "user-1", exchange))
    await exchanged.wait()
    request.cancel()
    await asyncio.gather(request, return_exceptions=True)
    go.set()
    await world.settle()
    assert await world.token() == pair.access_token
