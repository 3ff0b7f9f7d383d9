"""Answers to a refresh token that are not as they should be: what has rotated is never thrown away."""

from __future__ import annotations

from typing import Any

import pytest

from tests.connections.world import LIFETIME, World
from tokenmw import TokenUnavailable
from tokenmw.testing import Fault


@pytest.mark.parametrize(
    "fault",
    [
        Fault(fields={"expires_in": 0}),
        Fault(fields={"expires_in": "soon"}),
        Fault(fields={"token_type": "mac"}),
        Fault(fields={"access_token": {"value": "A"}}),
        Fault(fields={"access_token": "two\nlines"}),
        Fault(without=["access_token"]),
    ],
    ids=["expired", "no number", "another type", "no text", "not printable", "none"],
)
async def test_a_rotated_refresh_token_without_a_usable_access_token(world: World, fault: Fault) -> None:
    """The new refresh token is stored, and the next attempt uses it."""
    family = await world.connect()
    world.clock.advance(LIFETIME)
    world.server.oauth2.script.then(fault)
    with pytest.raises(TokenUnavailable) as raised:
        await world.token()
    assert (await world.stored()).document.refresh_token == family.refresh_tokens[-1]
    state = await world.broker.connections.state("crm", "user-1")
    assert state is not None
    assert ("failing", "unavailable") == (state.state, state.reason)
    assert not any(token in repr(vars(raised.value)) for token in family.refresh_tokens)
    world.clock.advance(10)
    assert await world.token() == family.access_tokens[-1]
    assert world.server.users.sent_twice == []
    assert family.alive


@pytest.mark.parametrize("id_token", [{"a": 1}, 7, "two\nlines", ""])
async def test_an_id_token_that_is_none_costs_nothing(world: World, id_token: Any) -> None:
    """A refresh does not need it."""
    family = await world.connect()
    world.clock.advance(LIFETIME)
    world.server.oauth2.script.then(Fault(fields={"id_token": id_token}))
    assert await world.token() == family.access_tokens[-1]
    assert (1, True) == (family.refreshes, family.alive)


@pytest.mark.parametrize("kind", ["none", "the same"])
async def test_an_answer_without_another_refresh_token(world: World, kind: str) -> None:
    """The server does not rotate: the refresh token is used again and again, and no pair is kept beside the store."""
    family = await world.connect()
    world.server.users.rotation = False
    for number in range(1, 4):
        world.clock.advance(LIFETIME)
        if kind == "the same":
            world.server.oauth2.script.then(Fault(fields={"refresh_token": family.refresh_tokens[0]}))
        assert await world.token() == family.access_tokens[-1]
        document = (await world.stored()).document
        assert (document.refresh_token, document.spent, document.claim) == (family.refresh_tokens[0], (), None)
        assert number == family.refreshes


@pytest.mark.parametrize("grace", [0.0, 60.0])
async def test_an_answer_that_is_cut_off(world: World, grace: float) -> None:
    """The named case: the same refresh token is sent again. A server with a grace window repeats the pair."""
    family = await world.connect()
    world.server.users.grace = grace
    world.clock.advance(LIFETIME)
    world.server.oauth2.script.then(Fault(after=True, body=b'{"access_token": "A1", "refresh_tok'))
    with pytest.raises(TokenUnavailable):
        await world.token()
    document = (await world.stored()).document
    assert (document.refresh_token, document.claim) == (family.refresh_tokens[0], None)
    world.clock.advance(10)
    if grace:
        assert await world.token() == family.access_tokens[-1]
        assert (await world.stored()).document.refresh_token == family.refresh_tokens[-1]
    else:
        with pytest.raises(Exception, match="connect the account"):
            await world.token()
    assert 2 == family.refreshes
