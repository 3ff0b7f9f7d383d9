"""A provider that fails is asked less, not more, and a token that is still valid is still served."""

from __future__ import annotations

import asyncio

import pytest

from tests.tokens.instance import Instance, settle
from tests.tokens.scripted import Scripted, Stage
from tokenmw.errors import CredentialRejected, TokenUnavailable
from tokenmw.testing import ManualClock
from tokenmw.values import Grant


async def test_a_failing_provider_is_asked_less_and_the_old_token_is_served(clock: ManualClock, stage: Stage) -> None:
    """Promise 5: over 1 700 s of failures under load a dozen attempts, and every request has its token."""
    async with Instance(clock) as one:
        entry = one.entry(Scripted(stage))
        first = await one.manager.get(entry)
        clock.advance(7200 - 1800)
        stage.fails(TokenUnavailable("busy"))
        for _ in range(1780):
            assert first is one.manager.fresh(entry)
            await settle(5)
            clock.advance(1)
        attempts = len(stage.calls) - 1
        assert 8 <= attempts <= 16
        pauses = [later - earlier for earlier, later in zip(stage.calls[1:], stage.calls[2:], strict=False)]
        assert max(pauses) <= 302
        assert pauses[-1] > 20 * pauses[0]


async def test_without_a_token_the_failure_is_raised_at_once_until_its_time(clock: ManualClock, stage: Stage) -> None:
    """A failure is state: early requests get it without asking, each its own exception."""
    async with Instance(clock) as one:
        entry = one.entry(Scripted(stage))
        stage.fails(CredentialRejected("the secret is wrong", code="invalid_client"))
        with pytest.raises(CredentialRejected) as first:
            await one.manager.get(entry)
        with pytest.raises(CredentialRejected) as second:
            await one.manager.get(entry)
        assert first.value is not second.value
        assert "invalid_client" == second.value.code
        assert 1 == len(stage.calls)
        assert 22 < (second.value.retry_after or 0) <= 30
        clock.advance(31)
        stage.answer = stage.new
        assert "token-1" == (await one.manager.get(entry)).value


async def test_retry_after_is_obeyed(clock: ManualClock, stage: Stage) -> None:
    """What the provider asks for holds, up to an hour."""
    async with Instance(clock) as one:
        for wish, pause in ((120.0, 120.0), (86_400.0, 3600.0)):
            entry = one.entry(Scripted(stage, secret=str(wish)))
            stage.fails(TokenUnavailable("429", retry_after=wish, said=True))
            with pytest.raises(TokenUnavailable) as info:
                await one.manager.get(entry)
            assert pause == info.value.retry_after
            assert {"Retry-After": str(int(pause))} == info.value.headers


async def test_a_new_secret_is_not_blocked_by_the_old_ones_failure(clock: ManualClock, stage: Stage) -> None:
    """Another credential is another key."""
    async with Instance(clock) as one:
        stage.fails(CredentialRejected("the secret is wrong"))
        with pytest.raises(CredentialRejected):
            await one.manager.get(one.entry(Scripted(stage, secret="old")))
        stage.answer = stage.new
        assert "token-1" == (await one.manager.get(one.entry(Scripted(stage, secret="new")))).value


@pytest.mark.parametrize(
    "error", [RuntimeError("secret-canary"), ValueError("secret-canary"), KeyError("secret-canary")]
)
async def test_a_fault_in_a_providers_code_is_a_failure_without_its_text(
    clock: ManualClock, stage: Stage, error: Exception
) -> None:
    """The text of a foreign exception might hold anything."""
    async with Instance(clock) as one:
        stage.fails(error)
        with pytest.raises(TokenUnavailable) as info:
            await one.manager.get(one.entry(Scripted(stage)))
        assert type(error).__name__ in str(info.value)
        assert "canary" not in f"{info.value}{info.value!r}{info.value.__cause__}{info.value.__context__}"


async def test_a_provider_that_hangs_is_given_up(clock: ManualClock, stage: Stage) -> None:
    """After `fetch_seconds`, whatever its code does."""
    async with Instance(clock) as one:
        entry = one.entry(Scripted(stage))
        stage.takes(1e6)
        waiting = asyncio.create_task(one.manager.get(entry))
        await settle()
        await clock.elapse(4.9)
        assert not waiting.done()
        await clock.elapse(0.2)
        with pytest.raises(TokenUnavailable, match="did not answer within 5 s"):
            await waiting
        assert 0 == clock.sleepers


async def test_a_token_that_ends_before_it_arrives_is_a_failure(clock: ManualClock, stage: Stage) -> None:
    """Its life counts from when the request was sent."""
    async with Instance(clock) as one:
        stage.life = 3.0
        stage.takes(4.0)
        waiting = asyncio.create_task(one.manager.get(one.entry(Scripted(stage))))
        await settle()
        await clock.elapse(4.0)
        with pytest.raises(TokenUnavailable, match="already expired"):
            await waiting


async def test_injection_waits_only_for_a_first_flight_and_not_for_long(clock: ManualClock, stage: Stage) -> None:
    """A route that perhaps does not need the token is not held up by a provider that hangs."""
    async with Instance(clock) as one:
        entry = one.entry(Scripted(stage))
        stage.takes(4.0)
        waiting = asyncio.create_task(one.manager.get_for_injection(entry))
        await settle()
        await clock.elapse(2.9)
        assert not waiting.done()
        await clock.elapse(0.2)
        with pytest.raises(TokenUnavailable, match="still being fetched"):
            await waiting
        with pytest.raises(TokenUnavailable, match="still being fetched"):
            await one.manager.get_for_injection(entry)
        await clock.elapse(1.0)
        assert "token-1" == (await one.manager.get_for_injection(entry)).value


async def test_after_a_failure_injection_never_waits(clock: ManualClock, stage: Stage) -> None:
    """New attempts are made in the background; the error is the last failure's."""
    async with Instance(clock) as one:
        entry = one.entry(Scripted(stage))
        stage.fails(TokenUnavailable("busy"))
        with pytest.raises(TokenUnavailable, match="busy"):
            await one.manager.get_for_injection(entry)
        stage.takes(4.0)
        clock.advance(2)
        with pytest.raises(TokenUnavailable, match="busy"):
            await asyncio.wait_for(one.manager.get_for_injection(entry), 1)
        await settle()
        assert 2 == len(stage.calls)
        await clock.elapse(4.0)
        assert "token-1" == (await one.manager.get_for_injection(entry)).value


async def test_a_tenants_failures_are_not_forgotten_between_its_requests(clock: ManualClock, stage: Stage) -> None:
    """Tidying up after each pause would let a tenant of few requests ask, and wait for a provider that hangs, anew."""
    async with Instance(clock) as one:
        provider = Scripted(stage)
        stage.takes(1e6)
        waiting = asyncio.create_task(one.manager.get_for_injection(one.entry(provider)))
        await settle()
        await clock.elapse(10)
        with pytest.raises(TokenUnavailable, match="still being fetched"):
            await waiting
        for _ in range(170):
            one.entries.purge()
            with pytest.raises(TokenUnavailable, match="did not answer within 5 s"):
                await asyncio.wait_for(one.manager.get_for_injection(one.entry(provider)), 10)
            await clock.elapse(10)
        assert 8 <= len(stage.calls) <= 16
        await clock.elapse(2000)
        one.entries.purge()
        assert [] == list(one.entries)


@pytest.mark.parametrize("answer", [None, "t", ("t", 5), asyncio.CancelledError()])
async def test_a_fetch_that_gives_no_grant_is_a_failure_with_pauses(
    clock: ManualClock, stage: Stage, answer: object
) -> None:
    """What it gave instead is named, and a hundred requests cause one fetch."""

    async def wrong() -> Grant:
        if isinstance(answer, BaseException):
            raise answer
        return answer  # type: ignore[return-value]

    stage.answer = wrong
    async with Instance(clock) as one:
        entry = one.entry(Scripted(stage))
        for _ in range(100):
            with pytest.raises(TokenUnavailable, match=r"cancelled|Grant"):
                await one.manager.get(entry)
    assert 1 == len(stage.calls)


def test_an_extra_that_is_not_json_is_refused_at_once() -> None:
    """Not only where Redis is."""
    with pytest.raises(TokenUnavailable, match="extra"):
        Grant("t", expires_in=60, extra={"scopes": {"a", "b"}})
