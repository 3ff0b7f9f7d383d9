"""Tokens in one process: returned while fresh, else from a single-flight refresh, and never expired."""

from __future__ import annotations

import asyncio
import contextvars

import pytest

from tests.tokens.instance import Instance, settle
from tests.tokens.providers import DependentProvider, Endpoint, ScriptedProvider
from tokenmw.errors import TokenUnavailable
from tokenmw.limits import Limits
from tokenmw.testing import ManualClock
from tokenmw.values import Grant, Token


async def test_a_fresh_token_is_returned_without_asking_again(clock: ManualClock, endpoint: Endpoint) -> None:
    """While the token is fresh, neither the provider nor anything else is waited for."""
    async with Instance(clock) as instance:
        entry = instance.entry(ScriptedProvider(endpoint))
        first = await instance.manager.get(entry)
        clock.advance(7200 - 1801)
        assert first is await instance.manager.get(entry)
        assert first is instance.manager.fresh(entry)
        await settle()
        assert 1 == len(endpoint.calls)


async def test_an_aging_token_is_served_while_one_refresh_runs(clock: ManualClock, endpoint: Endpoint) -> None:
    """A thousand requests in the refresh window cause one fetch, and none of them waits."""
    async with Instance(clock) as instance:
        entry = instance.entry(ScriptedProvider(endpoint))
        first = await instance.manager.get(entry)
        endpoint.takes(2.0)
        clock.advance(7200 - 1400)  # past the refresh window, which is 1800 to 1440 s before expiry
        for _ in range(1000):
            assert first is instance.manager.fresh(entry)
        await settle()
        assert 2 == len(endpoint.calls)
        assert first is instance.manager.fresh(entry)
        await clock.elapse(2.0)
        assert "token-2" == (await instance.manager.get(entry)).value
        assert 2 == len(endpoint.calls)


async def test_refreshes_have_jitter(clock: ManualClock, endpoint: Endpoint) -> None:
    """The time is drawn once per token and instance, evenly in the first fifth of the window."""
    draws: list[float] = []
    for _ in range(200):
        async with Instance(clock) as instance:
            entry = instance.entry(ScriptedProvider(endpoint))
            await instance.manager.get(entry)
            assert entry.current is not None
            draws.append(entry.current.expires_mono - entry.current.refresh_mono)
            assert entry.current.expires_wall - entry.current.refresh_wall == pytest.approx(draws[-1])
    assert 1440.0 <= min(draws) < 1500.0
    assert 1740.0 < max(draws) <= 1800.0


async def test_all_requests_for_an_expired_token_wait_for_one_refresh(clock: ManualClock, endpoint: Endpoint) -> None:
    """No request gets the old token, and the provider is asked once."""
    async with Instance(clock) as instance:
        entry = instance.entry(ScriptedProvider(endpoint))
        await instance.manager.get(entry)
        clock.advance(7200 - 9)  # less than 10 s before expiry: expired for this package
        assert instance.manager.fresh(entry) is None
        endpoint.takes(1.0)
        waiting = [asyncio.create_task(instance.manager.get(entry)) for _ in range(100)]
        await settle()
        await clock.elapse(1.0)
        assert {"token-2"} == {token.value for token in await asyncio.gather(*waiting)}
        assert 2 == len(endpoint.calls)


@pytest.mark.parametrize("step", [7300.0, -7300.0])
async def test_the_stricter_clock_counts(clock: ManualClock, endpoint: Endpoint, step: float) -> None:
    """A token expires when the wall clock is set forward, and lives no longer when it is set back."""
    async with Instance(clock) as instance:
        entry = instance.entry(ScriptedProvider(endpoint))
        await instance.manager.get(entry)
        clock.step_wall(step)
        assert (instance.manager.fresh(entry) is None) == (step > 0)
        clock.advance(7195)
        assert instance.manager.fresh(entry) is None
        assert "token-2" == (await instance.manager.get(entry)).value


async def test_cancelled_requests_do_not_cancel_the_fetch(clock: ManualClock, endpoint: Endpoint) -> None:
    """Requests that are cancelled after 0.9 s cause one fetch from a provider that takes 2 s, not one each."""
    async with Instance(clock) as instance:
        entry = instance.entry(ScriptedProvider(endpoint))
        endpoint.takes(2.0)
        for _ in range(2):
            waiting = [asyncio.create_task(instance.manager.get(entry)) for _ in range(50)]
            await settle()
            await clock.elapse(0.9)
            for task in waiting:
                task.cancel()
            await settle()
        await clock.elapse(0.3)
        assert "token-1" == (await instance.manager.get(entry)).value
        assert 1 == len(endpoint.calls)


async def test_the_fetch_does_not_see_the_context_variables_of_a_request(
    clock: ManualClock, endpoint: Endpoint
) -> None:
    """The fetch serves all requests, so it runs in an empty context."""
    variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="nothing")
    seen = []

    async def read() -> Grant:
        seen.append(variable.get())
        return await endpoint.new()

    endpoint.answer = read
    async with Instance(clock) as instance:
        variable.set("the first request's")
        await instance.manager.get(instance.entry(ScriptedProvider(endpoint)))
    assert ["nothing"] == seen


async def test_refreshes_are_bounded(clock: ManualClock, endpoint: Endpoint) -> None:
    """One more than `Limits(flights=…)` is refused immediately, and the error names the option."""
    async with Instance(clock, limits=Limits(flights=3)) as instance:
        endpoint.takes(1.0)
        waiting = [
            asyncio.create_task(instance.manager.get(instance.entry(ScriptedProvider(endpoint, secret=str(n)))))
            for n in range(3)
        ]
        await settle()
        with pytest.raises(TokenUnavailable, match="flights=3"):
            await instance.manager.get(instance.entry(ScriptedProvider(endpoint, secret="one more")))
        await clock.elapse(1.0)
        await asyncio.gather(*waiting)


@pytest.mark.parametrize("tenants", [9, 10, 15])
async def test_tenants_that_fill_the_bound_still_get_the_apps_token(clock: ManualClock, tenants: int) -> None:
    """The refresh that they all wait for is not counted, so as many tenants as the bound allows get their tokens."""
    app, endpoint = Endpoint(clock), Endpoint(clock)
    app.takes(1.0)
    async with Instance(clock, limits=Limits(flights=10)) as instance:
        entries = [
            instance.entry(DependentProvider(endpoint, ScriptedProvider(app), secret=str(number)))
            for number in range(tenants)
        ]
        waiting = [asyncio.create_task(instance.manager.get(entry)) for entry in entries]
        await settle()
        await clock.elapse(1.0)
        results = await asyncio.gather(*waiting, return_exceptions=True)
    assert min(tenants, 10) == len(endpoint.issued) == len([result for result in results if isinstance(result, Token)])
    assert all("flights=10" in str(result) for result in results if not isinstance(result, Token))
    assert 1 == len(app.calls)


async def test_entries_are_bounded_and_purged(clock: ManualClock, endpoint: Endpoint) -> None:
    """Entries of tenants are evicted beyond the bound and purged when unused; named ones stay."""
    async with Instance(clock, limits=Limits(tokens=10)) as instance:
        named = instance.entries.add_named(ScriptedProvider(endpoint, secret="named"), "named")
        for number in range(50):
            await instance.manager.get(instance.entry(ScriptedProvider(endpoint, secret=str(number))))
        assert 11 == len(instance.entries)
        clock.advance(7300)
        instance.entries.purge()
        assert [named] == list(instance.entries)


async def test_an_entry_evicted_during_its_refresh_is_found_again(clock: ManualClock, endpoint: Endpoint) -> None:
    """Requests during and after the refresh get its token, and the bound holds."""
    async with Instance(clock, limits=Limits(tokens=3)) as instance:
        endpoint.takes(1.0)
        waiting: list[asyncio.Task[Token]] = []
        for name in ("0", "1", "2", "3", "0", "1", "0"):
            waiting.append(
                asyncio.create_task(instance.manager.get(instance.entry(ScriptedProvider(endpoint, secret=name))))
            )
            await settle(5)
            assert 3 >= len(instance.entries)
        await clock.elapse(1.0)
        tokens = await asyncio.gather(*waiting)
        assert (
            tokens[0]
            is tokens[4]
            is tokens[6]
            is await instance.manager.get(instance.entry(ScriptedProvider(endpoint, secret="0")))
        )
        assert tokens[1] is tokens[5]
        assert 4 == len(endpoint.calls)
        named = instance.entry(ScriptedProvider(endpoint, secret="5"))
        waiting_for_named = asyncio.create_task(instance.manager.get(named))
        await settle(5)
        for number in range(6, 10):
            instance.entry(ScriptedProvider(endpoint, secret=str(number)))
        assert named is instance.entries.add_named(ScriptedProvider(endpoint, secret="5"), "five")
        await clock.elapse(1.0)
        assert await waiting_for_named is instance.manager.fresh(named)


async def test_an_entry_whose_refresh_never_ends_is_purged(clock: ManualClock, endpoint: Endpoint) -> None:
    """A refresh ends with nothing when its event loop stops, or in a fork: the credential must not stay in memory."""
    endpoint.takes(3600.0)
    async with Instance(clock) as instance:
        entry = instance.entry(ScriptedProvider(endpoint))
        instance.manager.refresh_soon(entry)
        await settle()
        clock.advance(1)
        instance.entries.purge()
        assert [entry] == list(instance.entries)
        clock.advance(60)
        instance.entries.purge()
        assert [] == list(instance.entries)
        assert instance.manager.refreshing(entry)


async def test_housekeeping_does_not_change_which_entry_is_evicted(clock: ManualClock, endpoint: Endpoint) -> None:
    """A tenant with steady requests keeps its entry, however many other tenants there are and housekeeping reads."""
    async with Instance(clock, limits=Limits(tokens=3)) as instance:
        busy = instance.entry(ScriptedProvider(endpoint, secret="busy"))
        await instance.manager.get(busy)
        for number in range(10):
            await instance.manager.get(instance.entry(ScriptedProvider(endpoint, secret=str(number))))
            assert busy is instance.entry(ScriptedProvider(endpoint, secret="busy"))
            await instance.housekeep()
            instance.entries.purge()


async def test_close_cancels_refreshes_in_progress(clock: ManualClock, endpoint: Endpoint) -> None:
    """The waiting requests get an error, not a `CancelledError` of their own."""
    async with Instance(clock) as instance:
        endpoint.takes(3.0)
        waiting = asyncio.create_task(instance.manager.get(instance.entry(ScriptedProvider(endpoint))))
        await settle()
    with pytest.raises(TokenUnavailable):
        await waiting
    assert 0 == clock.sleepers


async def test_an_exclusive_provider_is_not_asked_without_a_lease(clock: ManualClock, endpoint: Endpoint) -> None:
    """Without Redis it is asked only with `single_process=True`."""
    async with Instance(clock) as instance:
        with pytest.raises(TokenUnavailable, match="lease"):
            await instance.manager.get(instance.entry(ScriptedProvider(endpoint, exclusive=True)))
        assert [] == endpoint.calls
    async with Instance(clock, single=True) as instance:
        assert (
            "token-1" == (await instance.manager.get(instance.entry(ScriptedProvider(endpoint, exclusive=True)))).value
        )
