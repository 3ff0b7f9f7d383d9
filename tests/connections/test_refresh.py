"""Refreshing a connection: one request for all callers, stored before it is returned."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterable
from typing import Any

import pytest

from tests.connections.world import LIFETIME, World, make_world
from tokenmw import TokenUnavailable
from tokenmw.errors import ReconnectRequired
from tokenmw.observe.events import ConnectionChanged
from tokenmw.testing.provider_server import Fault


async def _all(calls: Iterable[Coroutine[Any, Any, str]]) -> list[str]:
    return await asyncio.gather(*calls)


async def test_a_stored_access_token_is_returned_without_a_refresh(world: World) -> None:
    """A process that starts uses the access token that another one has stored."""
    family = await world.connect()
    assert await world.token() == family.access_tokens[-1]
    assert 0 == family.refreshes


async def test_all_callers_share_one_refresh(two: World) -> None:
    """200 callers of two processes at the expiry cause one request, and all get its token."""
    family = await two.connect()
    two.clock.advance(LIFETIME)
    values = await two.while_time_passes(_all(two.token(number % 2) for number in range(200)))
    assert {family.access_tokens[-1]} == set(values)
    assert 1 == family.refreshes
    assert family.alive


async def test_the_pair_is_stored_before_its_token_is_returned(world: World) -> None:
    """No caller has the new access token while the store does not have the new refresh token."""
    family = await world.connect()
    world.clock.advance(LIFETIME)
    storing, go_on = asyncio.Event(), asyncio.Event()
    writes = 0

    async def hold(method: str) -> None:
        nonlocal writes
        writes += method == "save"
        if writes > 1:
            storing.set()
            await go_on.wait()

    world.store.before = hold
    asking = asyncio.ensure_future(world.token())
    await storing.wait()
    await world.settle()
    returned = asking.done()
    go_on.set()  # also if the test fails: closing waits for what is being stored
    assert not returned
    value, document = await asking, (await world.stored()).document
    assert (value, family.refresh_tokens[-1]) == (document.access_token, document.refresh_token)
    assert document.claim is None


async def test_an_aging_token_is_refreshed_in_the_background(world: World) -> None:
    """Within its refresh window the old token is returned without waiting, and a new one is fetched once."""
    family = await world.connect()
    await world.token()
    world.clock.advance(LIFETIME * 0.9)
    assert family.access_tokens[0] == await world.token()
    await world.clock.elapse(1)
    assert family.access_tokens[1] == await world.token()
    assert 1 == family.refreshes


async def test_an_answer_without_a_refresh_token_keeps_the_old_one(world: World) -> None:
    """A server without rotation is sent the same refresh token each time (RFC 6749 §6)."""
    world.server.users.rotation = False
    family = await world.connect()
    for _ in range(3):
        world.clock.advance(LIFETIME)
        await world.token()
    assert family.refresh_tokens == [(await world.stored()).document.refresh_token]
    assert 3 == family.refreshes


async def test_what_another_process_has_refreshed_is_used(two: World) -> None:
    """A process whose own token has expired finds the token that another one has stored a moment ago."""
    family = await two.connect()
    await two.token(0)
    await two.token(1)
    two.clock.advance(LIFETIME)
    await two.token(0)
    assert await two.token(1) == family.access_tokens[-1]
    assert 1 == family.refreshes


async def test_users_and_apps_have_tokens_of_their_own(world: World) -> None:
    """Two users at one app, and one user at two apps, never share anything."""
    families = [
        await world.connect("user-1", user="ada"),
        await world.connect("user-2", user="bob"),
        await world.connect("user-1", name="mail", user="ada"),
    ]
    for _ in range(2):
        world.clock.advance(LIFETIME)
        values = [await world.token(), await world.token(subject="user-2"), await world.token(name="mail")]
        assert [family.access_tokens[-1] for family in families] == values


async def test_an_imported_refresh_token_is_spent_for_the_first_request(world: World) -> None:
    """`save` without an access token: the first request gets one."""
    pair = world.server.users.grant("ada", client="crm")
    await world.broker.connections.save("crm", "user-1", refresh_token=pair.refresh_token)
    assert await world.token() == pair.family.access_tokens[-1]
    assert 1 == pair.family.refreshes


async def test_a_connection_without_a_refresh_token_ends_with_its_access_token(world: World) -> None:
    """Its token is returned until it expires; then the user has to connect again."""
    await world.broker.connections.save("crm", "user-1", refresh_token=None, access_token="t-1", expires_in=60)
    assert "t-1" == await world.token()
    world.clock.advance(60)
    with pytest.raises(ReconnectRequired) as raised:
        await world.token()
    assert ("expired", "/connect/crm") == (raised.value.reason, raised.value.connect_url)


async def test_a_token_that_an_api_rejected_is_refreshed(two: World) -> None:
    """No process returns the stored access token once an API has rejected it, also while the server is busy."""
    family = await two.connect()
    token = await two.broker.connections.token("crm", "user-1")
    two.clock.advance(10)
    assert await two.broker.invalidate(token)
    two.server.oauth2.script.then(Fault(status=503))
    with pytest.raises(TokenUnavailable):
        await two.token(0)
    assert token.value != await two.token(1) == family.access_tokens[-1]


async def test_a_refresh_is_reported_once_it_succeeds_after_a_failure(world: World) -> None:
    """An event says that a connection fails, one that it works again; none says whose it is."""
    await world.connect()
    world.events.clear()
    world.clock.advance(LIFETIME)
    world.server.oauth2.script.then(Fault(status=503), Fault(status=503))
    for _ in range(2):
        with pytest.raises(TokenUnavailable):
            await world.token()
        world.clock.advance(10)
    state = await world.broker.connections.state("crm", "user-1")
    assert state is not None
    assert ("failing", "unavailable") == (state.state, state.reason)
    await world.token()
    changes = [event for event in world.events if isinstance(event, ConnectionChanged)]
    assert [ConnectionChanged("crm", "failing", "unavailable"), ConnectionChanged("crm", "ok")] == changes


async def test_a_refresh_goes_on_when_its_fetch_is_over(world: World) -> None:
    """An answer that comes after `fetch_seconds` is stored; the next request has its token, without another refresh."""
    family = await world.connect()
    world.clock.advance(LIFETIME)
    hang = world.server.oauth2.script.hang(after=True)
    with pytest.raises(TokenUnavailable):
        await world.while_time_passes(world.token())
    world.server.oauth2.script.clear()
    hang.release()
    await world.settle()
    world.clock.advance(10)
    assert await world.while_time_passes(world.token()) == family.access_tokens[-1]
    assert 1 == family.refreshes


async def test_closing_waits_for_a_refresh_that_has_begun() -> None:
    """A broker that is closed while the server answers stores the new pair first."""
    async with make_world() as world:
        family = await world.connect()
        world.clock.advance(LIFETIME)
        hang = world.server.oauth2.script.hang(after=True)
        asking = asyncio.ensure_future(world.token())
        await hang.arrived.wait()
        closing = asyncio.ensure_future(world.broker.__aexit__())
        await asyncio.sleep(0.05)
        assert not closing.done()
        hang.release()
        await closing
        await asyncio.gather(asking, return_exceptions=True)
        assert family.refresh_tokens[-1] == (await world.stored()).document.refresh_token
        assert 2 == len(family.refresh_tokens)
