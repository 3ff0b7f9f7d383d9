"""Values that an API refused: taken back from their provider alone, and then not reported for nothing."""

from __future__ import annotations

from tests.tokens.scripted import Scripted
from tests.tokens.world import World
from tokenmw.errors import TokenUnavailable
from tokenmw.redis.token_store import TokenRecord
from tokenmw.values import Grant


async def repeat() -> Grant:
    """Give out one token whatever happens."""
    return Grant("the-one", expires_in=7200)


async def refuse_and_renew(world: World) -> bool:
    """Report the token that there is as refused, and get the next one; return whether the report counted."""
    one = world.instances[0]
    counted = await one.sync.invalidate(await world.get(0))
    await world.get(0)
    return counted


async def test_a_refused_value_is_not_adopted_under_a_higher_version(world: World) -> None:
    """Whoever has it still, or got it repeated, may have stored it anew; only the provider itself is believed."""
    assert "token-1" == (await world.get(0)).value
    world.clock.advance(60)
    one = world.instances[0]
    entry = one.entry(Scripted(world.stage))
    assert entry.keys is not None
    assert await one.sync.invalidate(await world.get(0))
    version = world.redis.now() + 1
    record = TokenRecord("token-1", "Bearer", 7200.0, None, {})
    await world.stores[1].commit(entry.keys, "another", record, version=version, left=7000.0)
    assert "token-2" == (await world.get(0)).value
    assert entry.current is not None
    assert version < entry.current.version


async def test_a_refused_value_that_its_provider_repeats_is_served_to_all(world: World) -> None:
    """There is no other one: nobody is left without a token, and nobody asks again for it."""
    world.stage.answer = repeat
    assert "the-one" == (await world.get(0)).value
    await world.get(1)
    world.clock.advance(60)
    assert await refuse_and_renew(world)
    assert {"the-one"} == {(await world.get(number)).value for number in range(3)}
    assert 2 == len(world.stage.calls)


async def test_refusing_what_was_just_repeated_causes_no_fetch(world: World) -> None:
    """Each time the provider stands by its token, reports about it count for nothing twice as long."""
    world.stage.answer = repeat
    await world.get(0)
    for _ in range(5):
        world.clock.advance(120)
        assert await refuse_and_renew(world)
    asked = len(world.stage.calls)
    for _ in range(22):  # seconds; the pause after the fifth report is 16 s at most, that after a sixth 24 at least
        world.clock.advance(1)
        assert not await refuse_and_renew(world)
    assert asked == len(world.stage.calls)


async def test_a_token_that_is_older_than_the_own_one_is_not_taken(world: World) -> None:
    """A process that was cut off has a newer one than Redis; its next attempt fails, and what Redis has stays there."""
    assert "token-1" == (await world.get(1)).value
    world.stores[0].cut = True
    world.stage.life = 600.0
    assert "token-2" == (await world.get(0)).value
    world.stores[0].cut = False  # and housekeeping has not come round to offering it
    world.stage.fails(TokenUnavailable("busy", said=True))
    world.clock.advance(500)
    assert "token-2" == (await world.get(0)).value
    await world.clock.elapse(1.0)
    assert 3 == len(world.stage.calls)
    assert "token-2" == (await world.get(0)).value
