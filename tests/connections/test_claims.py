"""Claims: one process at a time may spend a refresh token, and one that died is replaced without a second use."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

import pytest

from tests.connections.world import LIFETIME, World, documents_of
from tokenmw import Limits, TokenUnavailable
from tokenmw.connections.document import Claim

if TYPE_CHECKING:
    from tokenmw.connections.documents import Found

CLAIM_SECONDS = 30.0


async def claimed_by_another(world: World) -> Found:
    """Write the claim of a process that dies before it sends anything."""
    found = await world.stored()
    document = found.document.changed(claim=Claim(id="of another process", by="elsewhere:1", at=world.clock.time()))
    assert await documents_of(world.store).save(world.key(), document, expected=found.version)
    return await world.stored()


async def test_a_claim_is_respected_and_then_taken_over(world: World) -> None:
    """Another process's claim is waited for, for 30 s since it was first seen; then the connection is refreshed."""
    family = await world.connect()
    await claimed_by_another(world)
    world.clock.advance(LIFETIME)
    began = world.clock.monotonic()
    while not family.refreshes and world.clock.monotonic() - began < 2 * CLAIM_SECONDS:
        with contextlib.suppress(TokenUnavailable):
            await world.while_time_passes(world.token())
    # The other process gets some seconds more to store what it has, if it lives.
    assert world.clock.monotonic() - began >= CLAIM_SECONDS + Limits().store_seconds + 2
    world.clock.advance(10)  # the request that took it over was refused before, as a fetch lasts 5 s
    assert await world.token() == family.access_tokens[-1]
    assert family.alive


async def test_a_usable_token_is_returned_under_a_claim(world: World) -> None:
    """While the last access token is valid, no claim is taken over, however old it is."""
    family = await world.connect()
    await claimed_by_another(world)
    world.clock.advance(LIFETIME * 0.8)
    for _ in range(5):
        assert family.access_tokens[0] == await world.token()
        await world.clock.elapse(CLAIM_SECONDS)
    assert 0 == family.refreshes


async def test_a_claim_that_changes_is_seen_anew(world: World) -> None:
    """The 30 s begin again with each write of the connection: its process lives."""
    family = await world.connect()
    world.clock.advance(LIFETIME)
    for _ in range(6):
        await claimed_by_another(world)
        with pytest.raises(TokenUnavailable):
            await world.while_time_passes(world.token())
        world.clock.advance(CLAIM_SECONDS / 2)
    assert 0 == family.refreshes


async def test_a_wall_clock_that_is_set_forward_ends_no_claim(world: World) -> None:
    """A process whose wall clock jumps by a day does not take over the claim of a process that works."""
    family = await world.connect()
    await claimed_by_another(world)
    world.clock.advance(LIFETIME)
    for _ in range(2):
        with pytest.raises(TokenUnavailable):
            await world.while_time_passes(world.token())
        world.clock.step_wall(86_400)
    assert 0 == family.refreshes


@pytest.mark.parametrize("suspended", [False, True])
async def test_a_claim_that_became_old_is_not_used(world: World, *, suspended: bool) -> None:
    """A process that was paused after its claim sends nothing with it: another may have taken over meanwhile."""
    family = await world.connect()
    world.clock.advance(LIFETIME)
    paused = 0

    async def pause_after_claim(method: str) -> None:
        nonlocal paused
        if method == "save" and not paused:
            paused += 1
            if suspended:
                world.clock.step_wall(60)  # the monotonic clock stands still while the machine is suspended
            else:
                world.clock.advance(60)  # the caller is served later
            assert not world.server.users.refreshes
            assert (await world.stored()).document.claim is not None

    world.store.after = pause_after_claim
    saves = world.store.calls["save"]
    if not suspended:
        with pytest.raises(TokenUnavailable):
            await world.token()
        await world.settle()
        world.clock.advance(10)
    await world.token()
    assert 1 == paused
    assert 1 == family.refreshes
    assert 4 == world.store.calls["save"] - saves  # claim, released; claim, new pair


async def test_a_process_that_was_paused_while_it_connected_sends_nothing(world: World) -> None:
    """The claim's age is checked once more when the request is about to be sent."""
    family = await world.connect()
    world.clock.advance(LIFETIME)
    send = world.http.send

    async def paused_send(*args: object, **options: object) -> object:
        world.http.send = send  # type: ignore[method-assign]
        request: object = args[0]
        world.clock.advance(60)
        await request.extensions["trace"]("http11.send_request_headers.started", {})  # type: ignore[attr-defined]
        return await send(*args, **options)  # type: ignore[arg-type]

    world.http.send = paused_send  # type: ignore[method-assign, assignment]
    with pytest.raises(TokenUnavailable):
        await world.token()
    await world.settle()
    assert not world.server.users.refreshes
    assert (await world.stored()).document.claim is None
    world.clock.advance(10)
    assert await world.token() == family.access_tokens[-1]


async def test_a_process_knows_its_own_claim(world: World) -> None:
    """If the store took a claim but not its removal, this process goes on without waiting for its own claim."""
    family = await world.connect()
    world.clock.advance(LIFETIME)
    saves = 0

    async def fail_after_claim(method: str) -> None:
        nonlocal saves
        saves += method == "save"
        if saves == 1 and method == "save":
            world.store.readonly = True
            world.clock.step_wall(15)  # too late to send it

    world.store.after = fail_after_claim
    with pytest.raises(TokenUnavailable, match="takes no writes"):
        await world.token()
    assert (await world.stored()).document.claim is not None
    world.store.readonly = False
    world.clock.advance(5)
    assert await world.token() == family.access_tokens[-1]
    assert 1 == family.refreshes


async def test_a_paused_process_that_wakes_with_the_answer_saves_the_connection(two: World) -> None:
    """Taken over by a process that the server refuses, a connection is good when the first one stores its pair."""
    two.server.users.detects_reuse = False
    family = await two.connect()
    two.clock.advance(LIFETIME)
    hang = two.server.oauth2.script.hang(after=True)
    asking = asyncio.ensure_future(two.token(0))
    await hang.arrived.wait()
    two.server.oauth2.script.clear()
    for _ in range(20):
        try:
            await two.while_time_passes(two.token(1))
        except TokenUnavailable:
            two.clock.advance(5)
        except Exception:  # noqa: BLE001  ReconnectRequired
            break
    assert "invalid_grant" == (await two.stored()).document.reconnect
    hang.release()
    await asyncio.gather(asking, return_exceptions=True)
    for _ in range(100):
        await asyncio.sleep(0)
    document = (await two.stored()).document
    assert ("", family.refresh_tokens[-1]) == (document.reconnect, document.refresh_token)
    two.clock.advance(2)
    assert await two.token(1) == family.access_tokens[-1]
