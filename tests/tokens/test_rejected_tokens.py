"""A token that an API rejected is used again only if its provider grants it again, and then reports back off."""

from __future__ import annotations

from tests.tokens.providers import ScriptedProvider
from tests.tokens.world import World
from tokenmw.errors import TokenUnavailable
from tokenmw.redis.token_store import TokenRecord
from tokenmw.values import Grant


async def repeat() -> Grant:
    """Grant the same token each time."""
    return Grant("the-one", expires_in=7200)


async def reject_and_refresh(world: World) -> bool:
    """Report the current token as rejected, and get the next one. Return whether the report counted."""
    instance = world.instances[0]
    counted = await instance.sync.invalidate(await world.get(0))
    await world.get(0)
    return counted


async def test_a_rejected_token_is_not_adopted_under_a_higher_version(world: World) -> None:
    """A process that still has it may store it again; only the provider can grant it again."""
    assert "token-1" == (await world.get(0)).value
    world.clock.advance(60)
    instance = world.instances[0]
    entry = instance.entry(ScriptedProvider(world.endpoint))
    assert entry.keys is not None
    assert await instance.sync.invalidate(await world.get(0))
    version = world.redis.now() + 1
    record = TokenRecord("token-1", "Bearer", 7200.0, None, {})
    await world.stores[1].commit(entry.keys, "another", record, version=version, left=7000.0)
    assert "token-2" == (await world.get(0)).value
    assert entry.current is not None
    assert version < entry.current.version


async def test_a_rejected_token_that_its_provider_repeats_is_served(world: World) -> None:
    """There is no other token, so all instances use it, and none asks for it again."""
    world.endpoint.answer = repeat
    assert "the-one" == (await world.get(0)).value
    await world.get(1)
    world.clock.advance(60)
    assert await reject_and_refresh(world)
    assert {"the-one"} == {(await world.get(number)).value for number in range(3)}
    assert 2 == len(world.endpoint.calls)


async def test_rejecting_a_token_that_was_just_repeated_causes_no_fetch(world: World) -> None:
    """Each time the provider repeats its token, reports about it are ignored for twice as long."""
    world.endpoint.answer = repeat
    await world.get(0)
    for _ in range(5):
        world.clock.advance(120)
        assert await reject_and_refresh(world)
    asked = len(world.endpoint.calls)
    for _ in range(22):  # seconds; the backoff after the fifth report is at most 16 s, and at least 24 s after a sixth
        world.clock.advance(1)
        assert not await reject_and_refresh(world)
    assert asked == len(world.endpoint.calls)


async def test_an_older_stored_token_is_not_adopted_after_a_failure(world: World) -> None:
    """A process that was cut off has a newer token than Redis, and keeps it when its next refresh fails."""
    assert "token-1" == (await world.get(1)).value
    world.stores[0].cut = True
    world.endpoint.lifetime = 600.0
    assert "token-2" == (await world.get(0)).value
    world.stores[0].cut = False  # and housekeeping has not uploaded it yet
    world.endpoint.fails(TokenUnavailable("busy", said=True))
    world.clock.advance(500)
    assert "token-2" == (await world.get(0)).value
    await world.clock.elapse(1.0)
    assert 3 == len(world.endpoint.calls)
    assert "token-2" == (await world.get(0)).value


async def test_reports_of_all_instances_share_one_backoff(world: World) -> None:
    """An API that rejects every token costs a fleet as many tokens as one instance, whichever instance reports them."""
    entries = [instance.entry(ScriptedProvider(world.endpoint)) for instance in world.instances[:2]]
    for number in (0, 1, 0, 1):
        tokens = [await world.get(one) for one in (0, 1)]
        world.clock.advance(5.5)  # a report about a token younger than 5 s is ignored
        assert await world.instances[number].sync.invalidate(tokens[number])
        lost, _newer, _unanswered = await world.instances[1 - number].sync.check_hinted([entries[1 - number]])
        assert [entries[1 - number]] == lost
    tokens = [await world.get(one) for one in (0, 1)]
    world.clock.advance(5.5)  # the backoff after the fourth report is at least 6 s
    assert [False, False] == [await world.instances[one].sync.invalidate(tokens[one]) for one in (0, 1)]
