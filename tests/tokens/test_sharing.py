"""Tokens in several instances over one Redis, on a manual clock: one fetch serves all."""

from __future__ import annotations

import asyncio

import pytest

from tests.tokens.instance import Instance, settle
from tests.tokens.memory_store import StoredValue
from tests.tokens.providers import ScriptedProvider
from tests.tokens.world import World
from tokenmw.errors import CredentialRejected, TokenUnavailable


async def test_one_fetch_serves_all_instances(world: World) -> None:
    """A crowd on each instance causes one fetch, though the wall clocks of two instances are wrong by ten minutes."""
    world.endpoint.takes(1.0)
    tasks = [
        asyncio.create_task(instance.manager.get(instance.entry(ScriptedProvider(world.endpoint))))
        for instance in world.instances
        for _ in range(50)
    ]
    await settle()
    await world.clock.elapse(1.2)
    assert {"token-1"} == {token.value for token in await asyncio.gather(*tasks)}
    assert 1 == len(world.endpoint.calls)


async def test_each_instance_counts_the_remaining_lifetime_by_its_own_clocks(world: World) -> None:
    """Redis stores durations, so an instance's wrong clock does not change another instance's expiry."""
    await world.get(0)
    world.clock.advance(3600)
    for number, wall in enumerate((0.0, 600.0, -600.0)):
        token = await world.get(number)
        assert world.clock.time() + wall + 3600 == pytest.approx(token.expires_at, abs=1.0)
    assert 1 == len(world.endpoint.calls)


async def test_a_crashed_holder_is_replaced_when_its_lease_expires(world: World) -> None:
    """A waiting instance takes over: the token is there after the lease's time plus the provider's."""
    world.endpoint.takes(4.0)
    crashing = world.instances[0]
    abandoned = asyncio.create_task(crashing.manager.get(crashing.entry(ScriptedProvider(world.endpoint))))
    await settle()
    world.stores[0].cut = True  # it crashes: none of its commands reaches Redis any more
    waiting = asyncio.create_task(world.get(1))
    await asyncio.wait_for(waiting, 5)
    assert world.clock.monotonic() - 1000.0 < 6.0 + 4.0 + 0.5
    assert 2 == len(world.endpoint.calls)
    await abandoned


async def test_a_late_commit_is_refused_and_the_newer_token_adopted(world: World) -> None:
    """A process that was paused past its lease does not overwrite what another one stored."""
    late = world.instances[0]
    gate = asyncio.Event()

    async def paused() -> object:
        grant = await world.endpoint.new()
        await gate.wait()
        return grant

    world.endpoint.answer = paused  # type: ignore[assignment]
    waiting = asyncio.create_task(late.manager.get(late.entry(ScriptedProvider(world.endpoint))))
    await settle()
    world.redis.delete(late.entry(ScriptedProvider(world.endpoint)).keys, "lease")  # type: ignore[arg-type]
    world.endpoint.answer = world.endpoint.new
    assert "token-2" == (await world.get(1)).value
    gate.set()
    await settle()
    assert "token-2" == (await waiting).value
    assert "token-2" == (await world.get(2)).value


async def test_a_providers_answer_is_shared_as_a_failure_note(world: World) -> None:
    """A rejected credential causes one request, not one for each instance; a fixed one works immediately."""
    world.endpoint.fails(CredentialRejected("wrong secret", code="invalid_client"))
    for number in range(3):
        with pytest.raises(CredentialRejected) as info:
            await world.get(number)
        assert "invalid_client" == info.value.code
    assert 1 == len(world.endpoint.calls)
    world.endpoint.answer = world.endpoint.new
    assert "token-1" == (await world.get(2, secret="fixed")).value


async def test_a_failure_note_does_not_reset_a_higher_count(world: World) -> None:
    """A process that was just started fails for the first time; an instance with more failures keeps its count."""
    world.endpoint.fails(TokenUnavailable("ConnectError"))
    for _ in range(8):
        with pytest.raises(TokenUnavailable):
            await world.get(0)
        world.clock.advance(300)
    world.endpoint.fails(TokenUnavailable("503", said=True))
    with pytest.raises(TokenUnavailable):
        await world.get(1)
    with pytest.raises(TokenUnavailable, match="503"):
        await world.get(0)
    failure = world.instances[0].entry(ScriptedProvider(world.endpoint)).failure
    assert failure is not None
    assert 8 == failure.count


async def test_network_failures_are_not_shared(world: World) -> None:
    """A machine with a broken network does not stop the others."""
    world.endpoint.fails(TokenUnavailable("ConnectError"))
    with pytest.raises(TokenUnavailable):
        await world.get(0)
    world.endpoint.answer = world.endpoint.new
    assert "token-1" == (await world.get(1)).value


async def test_without_redis_each_process_asks_once_and_all_agree_afterwards(world: World) -> None:
    """Each process fetches once; when Redis is available again, all use the token with the highest version."""
    world.redis.up = False
    values = {(await world.get(number)).value for number in range(3)}
    assert {"token-1", "token-2", "token-3"} == values
    world.redis.up = True
    for _round in range(2):
        for instance in world.instances:
            await instance.housekeep()
    world.clock.advance(31)
    tokens: list[str] = []
    for number, instance in enumerate(world.instances):
        tokens.append((await world.get(number)).value)
        await instance.housekeep()
    for number in range(3):
        tokens[number] = (await world.get(number)).value
    assert 1 == len(set(tokens))
    assert 3 == len(world.endpoint.calls)


async def test_an_exclusive_providers_token_is_served_while_it_is_valid_and_redis_is_unavailable(world: World) -> None:
    """After that there is an error: a new token would invalidate the one that other processes use."""
    assert "token-1" == (await world.get(0, exclusive=True)).value
    world.redis.up = False
    world.clock.advance(7100)
    assert "token-1" == (await world.get(0, exclusive=True)).value
    world.clock.advance(100)
    with pytest.raises(TokenUnavailable, match="lease"):
        await world.get(0, exclusive=True)
    assert 1 == len(world.endpoint.calls)


async def test_an_exclusive_provider_needs_a_lease_wherever_redis_is_configured(world: World) -> None:
    """`single_process` is only for programs without Redis."""
    world.redis.up = False
    async with Instance(world.clock, store=world.stores[0], single=True) as instance:
        with pytest.raises(TokenUnavailable, match="lease"):
            await instance.manager.get(instance.entry(ScriptedProvider(world.endpoint, exclusive=True)))
    assert [] == world.endpoint.calls


async def test_an_exclusive_provider_that_is_not_shareable_needs_no_lease_in_a_single_process(world: World) -> None:
    """Its token never goes to Redis, so there is no lease for it."""
    async with Instance(world.clock, store=world.stores[0], single=True) as instance:
        entry = instance.entry(ScriptedProvider(world.endpoint, exclusive=True, shareable=False))
        assert "token-1" == (await instance.manager.get(entry)).value


async def test_a_process_that_closes_during_a_fetch_releases_the_lease(world: World) -> None:
    """In a rolling restart, the others do not wait until the lease expires."""
    world.endpoint.takes(4.0)
    leaving = world.instances[0]
    waiting = asyncio.create_task(leaving.manager.get(leaving.entry(ScriptedProvider(world.endpoint))))
    await settle()
    await leaving.stop()
    with pytest.raises(TokenUnavailable):
        await waiting
    world.endpoint.answer = world.endpoint.new
    before = world.clock.monotonic()
    assert "token-1" == (await world.get(1)).value
    assert world.clock.monotonic() - before < 1.0


async def test_a_token_that_is_not_shareable_does_not_go_to_redis(world: World) -> None:
    """Each instance fetches its own."""
    await world.get(0, shareable=False)
    await world.get(1, shareable=False)
    assert {} == world.redis.data
    assert 2 == len(world.endpoint.calls)


async def test_a_refresh_ends_when_housekeeping_adopts_the_token_first(world: World) -> None:
    """While the refresh waits for the holder of the lease, the periodic check may find the new token."""
    await world.get(0)
    await world.get(1)
    world.clock.advance(7199)
    world.endpoint.takes(1.0)
    first = asyncio.create_task(
        world.instances[0].manager.get(world.instances[0].entry(ScriptedProvider(world.endpoint)))
    )
    await settle()
    second = asyncio.create_task(
        world.instances[1].manager.get(world.instances[1].entry(ScriptedProvider(world.endpoint)))
    )
    await settle()
    await world.clock.elapse(1.0)
    await first
    instance = world.instances[1]
    instance.entry(ScriptedProvider(world.endpoint)).used = True
    await instance.sync.compare(instance.entry(ScriptedProvider(world.endpoint)))
    await world.clock.elapse(1.0)
    assert "token-2" == (await asyncio.wait_for(second, 5)).value
    assert 2 == len(world.endpoint.calls)


async def test_requests_wait_for_a_slow_provider_after_the_holder_crashed(world: World) -> None:
    """The lease expires after 6 s and the next holder takes 4 s: all requests have the token within 12 s."""
    world.endpoint.takes(4.0)
    crashing = world.instances[0]
    abandoned = asyncio.create_task(crashing.manager.get(crashing.entry(ScriptedProvider(world.endpoint))))
    await settle()
    world.stores[0].cut = True
    await crashing.stop()
    waiting = [
        asyncio.create_task(instance.manager.get(instance.entry(ScriptedProvider(world.endpoint))))
        for instance in world.instances[1:]
        for _ in range(20)
    ]
    await settle()
    await world.clock.elapse(11.0)
    assert {"token-1"} == {token.value for token in await asyncio.wait_for(asyncio.gather(*waiting), 5)}
    with pytest.raises(TokenUnavailable, match="closed"):
        await abandoned


async def test_no_request_waits_longer_than_wait_seconds(world: World) -> None:
    """A request fails after 12 s, even if holder after holder crashes; later requests get the refresh's failure."""
    instance = world.instances[0]
    entry = instance.entry(ScriptedProvider(world.endpoint))
    assert entry.keys is not None
    world.endpoint.takes(4.0)
    waiting = asyncio.create_task(instance.manager.get(entry))
    for _ in range(115):
        world.redis.data[entry.keys, "lease"] = StoredValue(world.redis.expires_in(6.0), version=1, owner="another")
        await settle()
        await world.clock.elapse(0.1)
    assert not waiting.done()
    await world.clock.elapse(0.6)
    with pytest.raises(TokenUnavailable, match=r"12 s|too long"):
        await asyncio.wait_for(waiting, 5)
    # The refresh ends as well, so that a later request does not wait for it.
    await world.clock.elapse(0.2)
    assert not instance.manager.refreshing(entry)
    with pytest.raises(TokenUnavailable, match="did not store a token within 12 s"):
        await asyncio.wait_for(instance.manager.get(entry), 5)
