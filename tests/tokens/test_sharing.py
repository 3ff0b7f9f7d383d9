"""Tokens in several instances over one Redis, on a manual clock: one fetch, and all agree."""

from __future__ import annotations

import asyncio

import pytest

from tests.tokens.instance import Instance, settle
from tests.tokens.memory_store import Held
from tests.tokens.scripted import Scripted
from tests.tokens.world import World
from tokenmw.errors import CredentialRejected, TokenUnavailable


async def test_one_fetch_serves_all_instances(world: World) -> None:
    """Promise 2, with the wall clocks of two instances wrong by ten minutes."""
    world.stage.takes(1.0)
    tasks = [
        asyncio.create_task(one.manager.get(one.entry(Scripted(world.stage))))
        for one in world.instances
        for _ in range(50)
    ]
    await settle()
    await world.clock.elapse(1.2)
    assert {"token-1"} == {token.value for token in await asyncio.gather(*tasks)}
    assert 1 == len(world.stage.calls)


async def test_each_instance_counts_the_rest_of_the_life_by_its_own_clocks(world: World) -> None:
    """Redis holds durations: no wrong clock lengthens or shortens another one's token."""
    await world.get(0)
    world.clock.advance(3600)
    for number, wall in enumerate((0.0, 600.0, -600.0)):
        token = await world.get(number)
        assert world.clock.time() + wall + 3600 == pytest.approx(token.expires_at, abs=1.0)
    assert 1 == len(world.stage.calls)


async def test_a_crashed_holder_is_replaced_when_its_lease_lapses(world: World) -> None:
    """Whoever waits takes over: within the lease's time and the provider's."""
    world.stage.takes(4.0)
    victim = world.instances[0]
    doomed = asyncio.create_task(victim.manager.get(victim.entry(Scripted(world.stage))))
    await settle()
    world.stores[0].cut = True  # it dies: nothing it does reaches Redis any more
    waiting = asyncio.create_task(world.get(1))
    await asyncio.wait_for(waiting, 5)
    assert world.clock.monotonic() - 1000.0 < 6.0 + 4.0 + 0.5
    assert 2 == len(world.stage.calls)
    await doomed


async def test_a_late_commit_is_refused_and_the_newer_token_taken_over(world: World) -> None:
    """A process that was stopped past its lease comes back."""
    late = world.instances[0]
    hold = asyncio.Event()

    async def held() -> object:
        grant = await world.stage.new()
        await hold.wait()
        return grant

    world.stage.answer = held  # type: ignore[assignment]
    waiting = asyncio.create_task(late.manager.get(late.entry(Scripted(world.stage))))
    await settle()
    world.redis.delete(late.entry(Scripted(world.stage)).keys, "lease")  # type: ignore[arg-type]
    world.stage.answer = world.stage.new
    assert "token-2" == (await world.get(1)).value
    hold.set()
    await settle()
    assert "token-2" == (await waiting).value
    assert "token-2" == (await world.get(2)).value


async def test_what_the_provider_said_is_told_to_the_others(world: World) -> None:
    """A rejected credential is found out once, not by each instance; a fixed one works at once."""
    world.stage.fails(CredentialRejected("wrong secret", code="invalid_client"))
    for number in range(3):
        with pytest.raises(CredentialRejected) as info:
            await world.get(number)
        assert "invalid_client" == info.value.code
    assert 1 == len(world.stage.calls)
    world.stage.answer = world.stage.new
    assert "token-1" == (await world.get(2, secret="mended")).value


async def test_a_note_does_not_shorten_the_pauses_of_who_has_failed_more_often(world: World) -> None:
    """A process that has just been started fails for the first time; the others go on counting."""
    world.stage.fails(TokenUnavailable("ConnectError"))
    for _ in range(8):
        with pytest.raises(TokenUnavailable):
            await world.get(0)
        world.clock.advance(300)
    world.stage.fails(TokenUnavailable("503", said=True))
    with pytest.raises(TokenUnavailable):
        await world.get(1)
    with pytest.raises(TokenUnavailable, match="503"):
        await world.get(0)
    failure = world.instances[0].entry(Scripted(world.stage)).failure
    assert failure is not None
    assert 8 == failure.count


async def test_network_faults_stay_with_the_machine_that_has_them(world: World) -> None:
    """One broken machine does not stop the healthy ones."""
    world.stage.fails(TokenUnavailable("ConnectError"))
    with pytest.raises(TokenUnavailable):
        await world.get(0)
    world.stage.answer = world.stage.new
    assert "token-1" == (await world.get(1)).value


async def test_without_redis_each_process_asks_once_and_all_agree_afterwards(world: World) -> None:
    """Promise 2 and 4: at most one fetch for each process; versions decide when Redis is back."""
    world.redis.up = False
    values = {(await world.get(number)).value for number in range(3)}
    assert {"token-1", "token-2", "token-3"} == values
    world.redis.up = True
    for _round in range(2):
        for one in world.instances:
            await one.housekeep()
    world.clock.advance(31)
    tokens: list[str] = []
    for number, one in enumerate(world.instances):
        tokens.append((await world.get(number)).value)
        await one.housekeep()
    for number in range(3):
        tokens[number] = (await world.get(number)).value
    assert 1 == len(set(tokens))
    assert 3 == len(world.stage.calls)


async def test_an_exclusive_provider_is_served_from_what_is_valid_while_redis_is_away(world: World) -> None:
    """And then it is unavailable, rather than taken from another process."""
    assert "token-1" == (await world.get(0, exclusive=True)).value
    world.redis.up = False
    world.clock.advance(7100)
    assert "token-1" == (await world.get(0, exclusive=True)).value
    world.clock.advance(100)
    with pytest.raises(TokenUnavailable, match="lease"):
        await world.get(0, exclusive=True)
    assert 1 == len(world.stage.calls)


async def test_an_exclusive_provider_needs_the_lease_wherever_there_is_redis(world: World) -> None:
    """`single_process` is for programs without Redis."""
    world.redis.up = False
    async with Instance(world.clock, store=world.stores[0], single=True) as one:
        with pytest.raises(TokenUnavailable, match="lease"):
            await one.manager.get(one.entry(Scripted(world.stage, exclusive=True)))
    assert [] == world.stage.calls


async def test_an_exclusive_provider_that_shares_nothing_needs_no_lease_where_it_is_alone(world: World) -> None:
    """Its token never goes through Redis, so Redis can say nothing of it."""
    async with Instance(world.clock, store=world.stores[0], single=True) as one:
        entry = one.entry(Scripted(world.stage, exclusive=True, shareable=False))
        assert "token-1" == (await one.manager.get(entry)).value


async def test_a_process_that_ends_while_it_fetches_gives_the_lease_back(world: World) -> None:
    """A rolling restart does not make the others wait for the lease to lapse."""
    world.stage.takes(4.0)
    leaving = world.instances[0]
    waiting = asyncio.create_task(leaving.manager.get(leaving.entry(Scripted(world.stage))))
    await settle()
    await leaving.stop()
    with pytest.raises(TokenUnavailable):
        await waiting
    world.stage.answer = world.stage.new
    before = world.clock.monotonic()
    assert "token-1" == (await world.get(1)).value
    assert world.clock.monotonic() - before < 1.0


async def test_a_token_that_is_not_shareable_is_this_objects_own(world: World) -> None:
    """Nothing of it reaches Redis."""
    await world.get(0, shareable=False)
    await world.get(1, shareable=False)
    assert {} == world.redis.data
    assert 2 == len(world.stage.calls)


async def test_a_flight_that_housekeeping_has_overtaken_does_not_ask(world: World) -> None:
    """While it waits for the holder of the lease, the check of tokens in use may find the new token first."""
    await world.get(0)
    await world.get(1)
    world.clock.advance(7199)
    world.stage.takes(1.0)
    first = asyncio.create_task(world.instances[0].manager.get(world.instances[0].entry(Scripted(world.stage))))
    await settle()
    second = asyncio.create_task(world.instances[1].manager.get(world.instances[1].entry(Scripted(world.stage))))
    await settle()
    await world.clock.elapse(1.0)
    await first
    one = world.instances[1]
    one.entry(Scripted(world.stage)).used = True
    await one.sync.compare(one.entry(Scripted(world.stage)))
    await world.clock.elapse(1.0)
    assert "token-2" == (await asyncio.wait_for(second, 5)).value
    assert 2 == len(world.stage.calls)


async def test_a_slow_provider_is_waited_for_after_the_holder_has_died(world: World) -> None:
    """The lease lapses after 6 s and the next holder needs 4 more: all who wait have the token within 12."""
    world.stage.takes(4.0)
    victim = world.instances[0]
    doomed = asyncio.create_task(victim.manager.get(victim.entry(Scripted(world.stage))))
    await settle()
    world.stores[0].cut = True
    await victim.stop()
    waiting = [
        asyncio.create_task(one.manager.get(one.entry(Scripted(world.stage))))
        for one in world.instances[1:]
        for _ in range(20)
    ]
    await settle()
    await world.clock.elapse(11.0)
    assert {"token-1"} == {token.value for token in await asyncio.wait_for(asyncio.gather(*waiting), 5)}
    with pytest.raises(TokenUnavailable, match="closed"):
        await doomed


async def test_nobody_waits_longer_than_the_hard_bound(world: World) -> None:
    """Twelve seconds, even if holder after holder dies; who comes later finds what the flight has got."""
    one = world.instances[0]
    entry = one.entry(Scripted(world.stage))
    assert entry.keys is not None
    world.stage.takes(4.0)
    waiting = asyncio.create_task(one.manager.get(entry))
    for _ in range(115):
        world.redis.data[entry.keys, "lease"] = Held(world.redis.until(6.0), version=1, owner="another")
        await settle()
        await world.clock.elapse(0.1)
    assert not waiting.done()
    await world.clock.elapse(0.6)
    with pytest.raises(TokenUnavailable, match=r"12 s|too long"):
        await asyncio.wait_for(waiting, 5)
    # The flight ends as well: whoever comes later does not wait for what nobody waits for.
    await world.clock.elapse(0.2)
    assert not one.manager.refreshing(entry)
    with pytest.raises(TokenUnavailable, match="too long"):
        await asyncio.wait_for(one.manager.get(entry), 5)
