"""What others do to a connection while a process refreshes it: no token is sent twice, and no pair is lost."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from tests.connections.world import LIFETIME, World, documents_of
from tokenmw import TokenUnavailable
from tokenmw.connections import TokenPair
from tokenmw.connections.document import Claim
from tokenmw.connections.store import StoreUnavailable

if TYPE_CHECKING:
    from tokenmw.testing.provider_server.families import Family


async def _posting(world: World, number: int = 0) -> tuple[asyncio.Future[str], Any]:
    """Let one process send the refresh token: the server has answered, and the answer does not arrive yet."""
    hang = world.server.oauth2.script.hang(after=True)
    asking = asyncio.ensure_future(world.token(number))
    await hang.arrived.wait()
    world.server.oauth2.script.clear()
    return asking, hang


async def _arrives(world: World, asking: asyncio.Future[str], hang: Any) -> None:
    hang.release()
    await asyncio.gather(asking, return_exceptions=True)
    await world.settle()


def _unharmed(world: World, family: Family) -> None:
    assert world.server.users.sent_twice == []
    assert family.alive


async def test_a_claim_of_a_former_connection_is_not_that_of_the_next_one(two: World) -> None:
    """A connection that was made anew counts versions from 1 again: its first claim is not 30 s old for that."""
    await two.connect()
    two.clock.advance(LIFETIME)
    found = await two.stored()
    claimed = found.document.changed(claim=Claim(id="of a process that died", by="elsewhere:1", at=0.0))
    await documents_of(two.store).save(two.key(), claimed, expected=found.version)
    with pytest.raises(TokenUnavailable):
        await two.while_time_passes(two.token(1))
    two.store.rows.clear()
    family = await two.connect()
    two.clock.advance(LIFETIME)
    asking, hang = await _posting(two)
    assert (found.version + 1) == (await two.stored()).version
    with pytest.raises(TokenUnavailable):
        await two.while_time_passes(two.token(1))
    await _arrives(two, asking, hang)
    _unharmed(two, family)
    two.clock.advance(5)
    assert await two.while_time_passes(two.token(1)) == family.access_tokens[-1]


async def test_the_same_refresh_token_is_imported_during_a_refresh(two: World) -> None:
    """An import that is repeated leaves the claim of the process that spends this refresh token."""
    family = await two.connect()
    two.clock.advance(LIFETIME)
    asking, hang = await _posting(two)
    await two.broker.connections.save("crm", "user-1", refresh_token=family.refresh_tokens[0])
    with pytest.raises(TokenUnavailable):
        await two.while_time_passes(two.token(1))
    await _arrives(two, asking, hang)
    _unharmed(two, family)
    assert (await two.stored()).document.refresh_token == family.refresh_tokens[-1]


async def test_connecting_without_a_refresh_token_during_a_refresh(two: World) -> None:
    """A server that grants no refresh token this time: the claim of the process that spends the old one stays."""
    family = await two.connect()
    two.clock.advance(LIFETIME)
    asking, hang = await _posting(two)

    async def exchange(_http: object) -> TokenPair:
        return TokenPair(access_token="short", expires_in=1)

    await two.broker.connections.connect("crm", "user-1", exchange)
    two.clock.advance(2)
    with pytest.raises(TokenUnavailable):
        await two.while_time_passes(two.token(1), seconds=6)
    await _arrives(two, asking, hang)
    _unharmed(two, family)
    assert (await two.stored()).document.refresh_token == family.refresh_tokens[-1]


async def test_a_spent_refresh_token_is_imported_again(world: World) -> None:
    """An import that is repeated later changes nothing: the store has what came of that refresh token."""
    family = await world.connect()
    world.clock.advance(LIFETIME)
    await world.token()
    await world.broker.connections.save("crm", "user-1", refresh_token=family.refresh_tokens[0])
    assert (await world.stored()).document.refresh_token == family.refresh_tokens[-1]
    world.clock.advance(LIFETIME)
    assert await world.token() == family.access_tokens[-1]
    _unharmed(world, family)


async def test_a_pair_is_refreshed_before_its_writer_knows_that_it_is_stored(two: World) -> None:
    """The reply of the first write is lost, and another process spends the refresh token meanwhile: its pair stays."""
    pair = two.server.users.grant("ada", client="crm")
    lost = 0

    async def lose_reply(method: str) -> None:
        nonlocal lost
        if method == "save" and not lost:
            lost += 1
            assert await two.token(1) == pair.family.access_tokens[-1]
            raise StoreUnavailable("the connection was reset")

    two.store.after = lose_reply
    saving = two.broker.connections.save("crm", "user-1", refresh_token=pair.refresh_token)
    await two.while_time_passes(saving)
    assert (await two.stored()).document.refresh_token == pair.family.refresh_tokens[-1]
    two.clock.advance(LIFETIME)
    assert await two.while_time_passes(two.token(0)) == pair.family.access_tokens[-1]
    _unharmed(two, pair.family)


async def test_a_connection_is_made_anew_while_a_process_is_about_to_claim_it(two: World) -> None:
    """A process that was stopped with the former document does not write it over the next connection."""
    await two.connect()
    two.clock.advance(LIFETIME)
    new: list[Family] = []

    async def reconnect(method: str) -> None:
        if method == "load" and not new:
            two.store.after = _nothing
            await two.brokers[1].connections.disconnect("crm", "user-1")
            pair = two.server.users.grant("ada", client="crm")
            new.append(pair.family)
            await two.brokers[1].connections.save("crm", "user-1", refresh_token=pair.refresh_token)

    two.store.after = reconnect
    assert await two.while_time_passes(two.token(0)) == new[0].access_tokens[-1]
    _unharmed(two, new[0])


async def test_reseal_while_a_connection_is_made_anew(two: World) -> None:
    """Re-sealing writes no former document over a connection that was made anew since it was read."""
    secrets = {"secret_key": ["another secret of the tests", "a secret for the tests only"]}
    await two.connect()
    async with two.make_broker(**secrets, name_key="a secret for the tests only") as broker:
        new: list[Family] = []
        save = two.store.save

        async def reconnect(*args: Any, **options: Any) -> bool:
            if not new:
                pair = two.server.users.grant("ada", client="crm")
                new.append(pair.family)
                await two.brokers[1].connections.disconnect("crm", "user-1")
                await two.brokers[1].connections.save("crm", "user-1", refresh_token=pair.refresh_token)
            return await save(*args, **options)

        two.store.save = reconnect  # type: ignore[method-assign]
        await broker.connections.reseal()
        two.store.save = save  # type: ignore[method-assign]
    assert await two.while_time_passes(two.token(0)) == new[0].access_tokens[-1]
    _unharmed(two, new[0])


async def test_reseal_during_a_refresh(two: World) -> None:
    """The claim is sealed again with the document, and the pair is stored above the version of that."""
    family = await two.connect()
    two.clock.advance(LIFETIME)
    asking, hang = await _posting(two)
    secrets = {"secret_key": ["another secret of the tests", "a secret for the tests only"]}
    async with two.make_broker(**secrets, name_key="a secret for the tests only") as broker:
        assert 1 == await broker.connections.reseal()
    await _arrives(two, asking, hang)
    assert "TokenUnavailable" not in repr(asking)
    _unharmed(two, family)
    # What another process cannot read yet, it leaves alone: the first one has both secrets in a real rotation.


async def test_a_store_that_fails_for_longer_than_a_claim_lasts(two: World) -> None:
    """Without Redis, a process that cannot store its pair has it in memory: no other one spends the token meanwhile."""
    family = await two.connect()
    two.clock.advance(LIFETIME)
    asking, hang = await _posting(two)
    with pytest.raises(TokenUnavailable):  # it has seen the claim
        await two.while_time_passes(two.token(1))
    two.store.readonly = True
    hang.release()
    assert await two.while_time_passes(asking) == family.access_tokens[-1]
    for _ in range(8):
        two.clock.advance(5)
        with pytest.raises(TokenUnavailable):
            await two.while_time_passes(two.token(1))
    # The store takes writes again, and those of the second process arrive before the first one offers its pair.
    offers = asyncio.Event()

    async def offer_later(_method: str) -> None:
        task = asyncio.current_task()
        if task is not None and task.get_name() != "tokenmw exchange":
            await offers.wait()

    two.store.before = offer_later
    two.store.readonly = False
    two.clock.advance(60)
    other = asyncio.ensure_future(two.token(1))
    await two.settle()
    offers.set()
    for _ in range(8):
        await asyncio.gather(two.while_time_passes(other), return_exceptions=True)
        if other.exception() is None:
            break
        two.clock.advance(5)
        other = asyncio.ensure_future(two.token(1))
    assert other.result() == family.access_tokens[-1]
    _unharmed(two, family)


@pytest.mark.parametrize("what", ["claim", "commit"])
async def test_a_store_that_reads_from_a_stale_replica(world: World, what: str) -> None:
    """Each write is refused, and each read returns the same old value: it is given up, not tried without an end."""
    await world.connect()
    world.clock.advance(LIFETIME)
    stale = dict(world.store.rows)
    if what == "commit":
        asking, hang = await _posting(world)
        stale = dict(world.store.rows)
    else:
        asking, hang = asyncio.ensure_future(world.token()), None
    save = world.store.save

    async def refuse(key: Any, value: bytes, *, expected: int) -> bool:
        await save(key, value, expected=-1)
        return False

    world.store.save = refuse  # type: ignore[method-assign]
    calls = sum(world.store.calls.values())
    if hang is not None:
        hang.release()
    await asyncio.gather(world.while_time_passes(asking, seconds=20), return_exceptions=True)
    for _ in range(50):
        await world.settle()
    assert sum(world.store.calls.values()) - calls < 500
    assert stale == world.store.rows
    world.store.save = save  # type: ignore[method-assign]


async def _nothing(_method: str) -> None:
    return
