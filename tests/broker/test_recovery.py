"""After an outage, instances have what the others have invalidated, and keep what was fetched after that."""

from __future__ import annotations

import asyncio
import itertools
from typing import TYPE_CHECKING, Any

from tests.brokers import runtime_of
from tests.redis.waiting import passes, until
from tests.servers import RedisServer
from tokenmw import Limits, TokenBroker
from tokenmw.providers import StaticToken
from tokenmw.testing import ManualClock

if TYPE_CHECKING:
    from tokenmw.runtime.runtime import Runtime
    from tokenmw.tokens.hints import TokenHints


def broker(server: RedisServer, clock: ManualClock, *, hints: bool = False) -> TokenBroker:
    """Make one of two instances, each with its own clock."""
    crm = StaticToken(lambda: "t", credential_id="c")
    secret = "a-secret-of-some-length"
    limits = Limits(command_seconds=5.0, check_seconds=300.0)
    return TokenBroker({"crm": crm}, redis=server.url, secret_key=secret, limits=limits, clock=clock, hints=hints)


def part_of(runtime: Runtime) -> TokenHints:
    """Return the part that checks what others announce."""
    assert runtime._hints is not None
    return runtime._hints._tokens


async def test_an_invalidation_after_the_first_upload_is_found_by_the_second(redis_server: RedisServer) -> None:
    """It is found within seconds, and not at the next comparison of a token in use."""
    clock = ManualClock()
    async with broker(redis_server, clock) as one, broker(redis_server, ManualClock()) as two:
        await two.token("crm")
        await one.token("crm")
        runtime, (entry,) = runtime_of(one), one._data.tokens
        assert runtime._redis_jobs is not None
        assert entry.current is not None
        before, checked = entry.current.version, entry.current.checked
        runtime._redis_jobs._recovery.schedule()
        await passes(
            clock,
            lambda: entry.current is not None and entry.current.shared and entry.current.checked > checked,
            within=4,
        )
        assert before == entry.current.version
        await two.invalidate_provider("crm")
        await passes(clock, lambda: entry.invalid_version >= before, within=9)
        assert entry.current is None or entry.current.version > before


async def test_without_silent_processes_there_is_no_second_upload(redis_server: RedisServer) -> None:
    """What others invalidated is announced when they upload it, so the tokens of a large fleet are compared once."""
    clock = ManualClock()
    async with broker(redis_server, clock, hints=True) as one:
        await one.token("crm")
        runtime, (entry,) = runtime_of(one), one._data.tokens
        jobs = runtime._redis_jobs
        assert jobs is not None
        await until(lambda: jobs._all_announced and not part_of(runtime)._missed, within=5)
        current = entry.current
        assert current is not None
        for processes_are_silent in (False, True):
            one._data.epochs.silent = processes_are_silent
            before = current.checked
            jobs._check_epochs_at = clock.monotonic() + 100.0
            jobs._recovery.schedule()
            await passes(clock, lambda before=before: current.checked > before, within=4)  # type: ignore[misc]
            first = current.checked
            for _ in range(40):
                clock.advance(0.25)
                await asyncio.sleep(0.02)
            assert (current.checked > first) is processes_are_silent


async def test_a_token_that_is_invalidated_after_its_upload_is_replaced(redis_server: RedisServer) -> None:
    """The upload is no sign that no request uses it: the announcement of an invalidation gets the next token."""
    values = itertools.count()
    crm = StaticToken(lambda: f"token-{next(values)}", credential_id="c")
    options: Any = {"redis": redis_server.url, "secret_key": "a-secret-of-some-length"}
    clock = ManualClock()
    async with TokenBroker({"crm": crm}, clock=clock, **options) as one, TokenBroker({"crm": crm}, **options) as two:
        await two.token("crm")
        await one.token("crm")
        runtime, (entry,) = runtime_of(one), one._data.tokens
        jobs = runtime._redis_jobs
        assert jobs is not None
        await until(lambda: jobs._all_announced and not part_of(runtime)._missed, within=5)
        assert entry.current is not None
        before, checked = entry.current.version, entry.current.checked
        jobs._recovery.schedule()
        await passes(clock, lambda: entry.current is not None and entry.current.checked > checked, within=4)
        await two.invalidate_provider("crm")
        await until(lambda: entry.current is not None and entry.current.version > before, within=10)


async def test_a_token_fetched_after_an_invalidation_survives_a_server_that_was_suspended() -> None:
    """When it continues, it executes commands that have timed out; they must not invalidate the next token."""
    values = itertools.count()
    crm = StaticToken(lambda: f"token-{next(values)}", credential_id="c")
    limits = Limits(command_seconds=0.1)
    with RedisServer() as server:
        # The real clock: the server's own decides.
        async with TokenBroker(
            {"crm": crm}, redis=server.url, secret_key="a-secret-of-some-length", limits=limits
        ) as one:
            await one.token("crm")
            (entry,) = one._data.tokens
            server.freeze()
            await one.invalidate_provider("crm")
            token = await one.token("crm")
            server.thaw()
            await until(lambda: entry.current is not None and entry.current.shared, within=15)
            assert token.value == (await one.token("crm")).value
    assert 2 == next(values)
