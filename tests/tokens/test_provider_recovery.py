"""A provider that is back is found within seconds, by one instance, and all the others use its token."""

from __future__ import annotations

import asyncio
import json
import re
from itertools import pairwise

import pytest

from tests.tokens.demand import Demand
from tests.tokens.instance import Instance, settle
from tests.tokens.memory_store import StoredValue
from tests.tokens.providers import Endpoint, ScriptedProvider
from tests.tokens.world import World
from tokenmw.errors import TokenUnavailable
from tokenmw.limits import Limits
from tokenmw.testing import ManualClock
from tokenmw.tokens.entry import TokenEntry
from tokenmw.tokens.failures import Failure
from tokenmw.values import Grant

REFUSED = "idp.example:443 could not be reached (refused): check host and port"
BUSY = "idp.example:443 is busy (HTTP 503)"
ERRORS = [TokenUnavailable(REFUSED), TokenUnavailable(BUSY, said=True)]


def entry_of(world: World, number: int) -> TokenEntry:
    """Return the entry of an instance."""
    return world.instances[number].entry(ScriptedProvider(world.endpoint))


async def hang(world: World, *, log: list[str]) -> None:
    """Let the endpoint time out, as the HTTP client reports it, and log which instance asked."""

    async def slow() -> Grant:
        log.append("asked")
        await world.clock.sleep(4.75)
        raise TokenUnavailable("idp.example:443 did not answer within 5 s (read timeout)")

    world.endpoint.answer = slow


@pytest.mark.parametrize("outage", [30.0, 600.0])
@pytest.mark.parametrize("error", ERRORS, ids=["network", "503"])
async def test_requests_are_refused_for_seconds_after_the_provider_is_back(
    world: World, outage: float, error: TokenUnavailable
) -> None:
    """However long the outage was, the next probe is 3 to 5 s after the last one, and the others read its token."""
    world.endpoint.fails(error)
    demand = Demand(world)
    await demand.run(outage)
    back = world.clock.monotonic()
    probes = len(world.endpoint.calls)
    world.endpoint.answer = world.endpoint.new
    await demand.run(60.0)
    await demand.finish()
    assert max(demand.refused_since(back), default=0.0) <= 6.5
    assert 1 == len(world.endpoint.issued)
    waits = [later - earlier for earlier, later in pairwise(world.endpoint.calls[:probes])]
    # One probe for the fleet, not one for each instance.
    assert all(3.0 <= wait <= 6.0 for wait in waits[4:])


async def test_probes_of_a_machines_fault_rotate(world: World) -> None:
    """The instance that wrote the note stands back, so that one machine with a broken network is not the only one."""
    probers: list[int] = []

    async def fail() -> Grant:
        for number in range(3):
            if world.instances[number].manager.refreshing(entry_of(world, number)):
                lease = next((v for (_, kind), v in world.redis.data.items() if kind == "lease"), None)
                if lease is not None and entry_of(world, number).requested_version == lease.version:
                    probers.append(number)
        raise TokenUnavailable(REFUSED)

    world.endpoint.answer = fail
    await Demand(world).run(120.0)
    assert len(probers) > 20
    assert all(one != next_one for one, next_one in pairwise(probers))


@pytest.mark.parametrize("broken", [0, 1, 2])
async def test_a_machine_with_a_broken_network_does_not_fail_the_requests_of_the_others(
    world: World, broken: int
) -> None:
    """They wait for a second when it is the first to ask, and get a token."""
    asked: list[int] = []

    class Here(ScriptedProvider):
        """The credential as one instance has it."""

        __slots__ = ("number",)

        def __init__(self, number: int) -> None:
            super().__init__(world.endpoint)
            self.number = number

        def identity(self) -> tuple[object, ...]:
            return super().identity()

        async def fetch(self, http: object) -> Grant:
            asked.append(self.number)
            if self.number == broken:
                raise TokenUnavailable(REFUSED)
            return await world.endpoint.new()

    began = world.clock.monotonic()
    tasks: list[asyncio.Task[object]] = []
    for number in sorted(range(3), key=lambda number: number != broken):
        instance = world.instances[number]
        tasks.append(asyncio.create_task(instance.manager.get(instance.entry(Here(number)))))
        await settle(10)
    for _ in range(12):
        await world.clock.elapse(0.1)
    assert broken == asked[0]
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert isinstance(results[0], TokenUnavailable)
    assert [] == [result for result in results[1:] if isinstance(result, BaseException)]
    assert 2 == len(asked)
    assert world.clock.monotonic() - began < 1.3


async def test_a_fleet_does_not_ask_a_provider_that_times_out_in_turns(world: World) -> None:
    """Requests of the second wave fail at once with the cause, and there is no text about another process."""
    asked: list[str] = []
    await hang(world, log=asked)
    demand = Demand(world)
    await demand.run(120.0)
    await demand.finish()
    texts = {str(error) for _, _, error in demand.refused}
    assert all("p: no valid token: idp.example:443 did not answer within 5 s (read timeout)" in text for text in texts)
    assert any("(reported by " in text for text in texts)
    # Each takes 4.75 s, and the pauses between them are as long: before, there were none.
    assert len(asked) <= 15
    # Requests that arrive in a pause are refused at once.
    assert len([wait for wait in demand.waits if wait < 0.5]) > 0.3 * len(demand.waits)
    assert max(demand.waits) <= 12.0


async def test_the_note_of_a_machines_fault_is_short_and_names_its_writer(world: World) -> None:
    """It has the four fields that earlier versions read; they take it for a failure that lasts for seconds."""
    world.endpoint.fails(TokenUnavailable(REFUSED))
    for expected in (1.0, 2.0, 4.0, 5.0, 5.0):
        with pytest.raises(TokenUnavailable):
            await world.get(0)
        note = next(value for (_, kind), value in world.redis.data.items() if kind == "note")
        assert 0 < world.redis.left(note) <= expected
        permanent, detail, code, count = json.loads(note.note)
        assert (False, REFUSED) == (permanent, detail)
        assert code.startswith("machine:")
        assert count >= 1
        world.clock.advance(30)


@pytest.mark.parametrize("code", ["", "unknown:kind", "provider", "machine:web-1:7"])
def test_a_note_of_another_version_is_obeyed(code: str) -> None:
    """Versions before these kinds wrote no code, and a later one may write another."""
    note = json.dumps([False, "busy", code, 3]).encode()
    failure = Failure.from_note(note, left=3.0, before=None, now=1_000.0)
    assert failure.in_backoff(1_002.9, served=False)
    assert not failure.in_backoff(1_003.1, served=False)
    assert "" == failure.code


async def test_a_retry_after_is_obeyed_by_the_whole_fleet(world: World) -> None:
    """After other failures too, the next request to the provider is 5 to 5.5 s later, whatever the demand."""
    world.endpoint.fails(TokenUnavailable(BUSY, said=True))
    demand = Demand(world)
    await demand.run(60.0)
    world.endpoint.fails(TokenUnavailable("idp.example:443 is busy (HTTP 429)", said=True, retry_after=5.0))
    await demand.run(6.0)
    first = len(world.endpoint.calls)
    await demand.run(60.0)
    waits = [later - earlier for earlier, later in pairwise(world.endpoint.calls[first:])]
    assert waits
    assert all(5.0 <= wait <= 5.8 for wait in waits)


async def test_a_provider_is_asked_once_more_before_the_served_token_expires(
    clock: ManualClock, endpoint: Endpoint
) -> None:
    """The backoff of minutes ends before the token does, so that a provider that is back refuses no request."""
    async with Instance(clock) as instance:
        entry = instance.entry(ScriptedProvider(endpoint))
        await instance.manager.get(entry)
        clock.advance(7200 - 1500)
        endpoint.fails(TokenUnavailable(BUSY, said=True))
        while _left(entry, clock) > 8.0:
            assert instance.manager.fresh(entry) is not None
            await settle(5)
            clock.advance(1)
        endpoint.answer = endpoint.new
        while _left(entry, clock) > 0 and 1 == len(endpoint.issued):
            assert instance.manager.fresh(entry) is not None
            await settle(5)
            clock.advance(0.5)
        assert 2 == len(endpoint.issued)


async def test_a_token_that_is_invalidated_during_a_long_backoff_is_probed_for(world: World) -> None:
    """The note was written while nobody was refused; now requests are, so that one instance asks within seconds."""
    await world.get(0)
    for number in range(3):
        await world.get(number)
    world.clock.advance(7200 - 1500)
    world.endpoint.fails(TokenUnavailable(BUSY, said=True))
    demand = Demand(world)
    for _ in range(100):
        await demand.run(5.0)
        note = next(value for (_, kind), value in world.redis.data.items() if kind == "note")
        if world.redis.left(note) > 30:
            break
    else:
        pytest.fail("there was no long backoff")
    assert [] == demand.refused
    current = entry_of(world, 1).current
    assert current is not None
    await world.instances[1].sync.invalidate(current.token)
    world.endpoint.answer = world.endpoint.new
    await world.instances[0].housekeep()
    began = world.clock.monotonic()
    world.clock.advance(5.0)
    assert "token-2" == (await world.get(1)).value
    assert world.clock.monotonic() - began < 6.0


async def test_each_instance_logs_the_beginning_and_the_end_of_an_outage_once(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    """Instances that read the cause in a note say who reported it; their requests are refused, too."""
    world.endpoint.fails(TokenUnavailable(REFUSED))
    demand = Demand(world)
    await demand.run(50.0)
    world.endpoint.answer = world.endpoint.new
    await demand.run(10.0)
    await demand.finish()
    lines = [line for line in caplog.messages if line.startswith("tokenmw: p")]
    assert f"tokenmw: p: no token: {REFUSED}" == lines[0]
    instances = len(world.instances)
    assert all(f"p: no token: {REFUSED}" in line for line in lines[:instances])
    assert any("(reported by " in line for line in lines[:instances])
    ends = [line for line in lines if "there is a token again" in line]
    assert instances == len(ends)
    (seconds,) = re.findall(r"^tokenmw: p: there is a token again after (\d+) s", ends[0])
    assert 45 <= int(seconds) < 60


async def test_the_pauses_are_options(clock: ManualClock, endpoint: Endpoint) -> None:
    """Half a second between probes, and at most ten between requests while a token is served."""
    limits = Limits(probe_seconds=0.4, backoff_seconds=0.1, max_backoff_seconds=10.0)
    async with Instance(clock, limits=limits) as instance:
        entry = instance.entry(ScriptedProvider(endpoint))
        endpoint.fails(TokenUnavailable(REFUSED))
        for _ in range(100):
            with pytest.raises(TokenUnavailable):
                await instance.manager.get(entry)
            clock.advance(0.05)
        assert 9 <= len(endpoint.calls) <= 18
        endpoint.answer = endpoint.new
        clock.advance(1.0)
        await instance.manager.get(entry)
        clock.advance(7200 - 1500)
        endpoint.fails(TokenUnavailable(REFUSED))
        for _ in range(200):
            assert instance.manager.fresh(entry) is not None
            await settle(5)
            clock.advance(1)
        waits = [later - earlier for earlier, later in pairwise(endpoint.calls[-10:])]
        assert all(7.0 <= wait <= 11.0 for wait in waits)


@pytest.mark.parametrize(("exclusive", "expected"), [(False, 5.3), (True, 6.0)])
async def test_the_lease_of_a_holder_that_died_expires(world: World, exclusive: bool, expected: float) -> None:  # noqa: FBT001
    """It lasts little longer than a request, and `lease_seconds` where a second request costs the token."""
    world.endpoint.takes(4.0)
    holder = world.instances[0]
    task = asyncio.create_task(holder.manager.get(holder.entry(ScriptedProvider(world.endpoint, exclusive=exclusive))))
    await settle()
    lease: StoredValue = next(value for (_, kind), value in world.redis.data.items() if kind == "lease")
    assert expected == pytest.approx(world.redis.left(lease))
    await world.clock.elapse(4.0)
    await task


def _left(entry: TokenEntry, clock: ManualClock) -> float:
    current = entry.current
    assert current is not None
    return current.stop_mono - clock.monotonic()
