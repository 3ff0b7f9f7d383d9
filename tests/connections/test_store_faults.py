"""The store fails, at each point of a refresh: nothing is spent that cannot be stored, and no pair is lost."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from tests.connections.world import LIFETIME, World, documents_of, make_world
from tokenmw import TokenUnavailable
from tokenmw.connections.store import StoreUnavailable
from tokenmw.errors import ReconnectRequired

if TYPE_CHECKING:
    from tests.servers import RedisServer


async def test_a_store_that_takes_no_writes_costs_no_refresh_token(world: World) -> None:
    """Nothing is sent to the server while the database is read-only; afterwards the connection is refreshed."""
    family = await world.connect()
    world.clock.advance(LIFETIME)
    world.store.readonly = True
    for _ in range(3):
        with pytest.raises(TokenUnavailable, match="takes no writes"):
            await world.token()
        world.clock.advance(10)
    assert 0 == family.refreshes
    world.store.readonly = False
    assert await world.token() == family.access_tokens[-1]
    assert (1, True) == (family.refreshes, family.alive)


async def test_a_store_that_is_gone_serves_the_tokens_in_memory(world: World) -> None:
    """A token that is valid is returned without the store; then the error says what is unavailable."""
    family = await world.connect()
    value = await world.token()
    world.store.gone = True
    world.clock.advance(LIFETIME * 0.9)
    assert value == await world.token()
    world.clock.advance(LIFETIME * 0.1)
    with pytest.raises(TokenUnavailable, match="the store of connections cannot answer"):
        await world.token()
    assert 0 == family.refreshes


async def test_a_store_that_hangs_is_unavailable_after_a_while(world: World) -> None:
    """A call of the store ends after `store_seconds`, and the request is refused."""
    family = await world.connect()
    world.clock.advance(LIFETIME)
    stuck = asyncio.Event()

    async def hang(_method: str) -> None:
        await stuck.wait()

    world.store.before = hang
    with pytest.raises(TokenUnavailable, match=r"did not answer within 3 s"):
        await world.token()
    assert 0 == family.refreshes


@pytest.mark.parametrize("write", [1, 2], ids=["claim", "pair"])
async def test_a_write_whose_reply_is_lost(world: World, write: int) -> None:
    """The store has done the write and raised: the process finds that out, and sends the refresh token once."""
    family = await world.connect()
    world.clock.advance(LIFETIME)
    writes = 0

    async def lose_reply(method: str) -> None:
        nonlocal writes
        writes += method == "save"
        if method == "save" and writes == write:
            raise StoreUnavailable("the connection was reset")

    world.store.after = lose_reply
    assert await world.while_time_passes(world.token()) == family.access_tokens[-1]
    assert (1, True) == (family.refreshes, family.alive)
    assert (await world.stored()).document.refresh_token == family.refresh_tokens[-1]


@pytest.mark.parametrize("error", [StoreUnavailable("gone"), RuntimeError("password=secret"), TimeoutError()])
async def test_a_store_that_fails_after_the_answer(
    world: World, error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    """The new token is used, the pair is kept, and it is stored as soon as the store takes it."""
    family = await world.connect()
    world.clock.advance(LIFETIME)
    writes = 0

    async def fail(method: str) -> None:
        nonlocal writes
        writes += method == "save"
        if writes > 1:
            raise error

    world.store.before = fail
    value = await world.while_time_passes(world.token())
    assert value == family.access_tokens[-1]
    assert (await world.stored_whatever()).refresh_token == family.refresh_tokens[0]
    assert "New tokens of crm are not stored yet" in caplog.text
    assert "secret" not in caplog.text
    writes = -100
    await world.clock.elapse(3)
    assert (await world.stored()).document.refresh_token == family.refresh_tokens[-1]
    assert "All new tokens of users are stored" in caplog.text
    world.clock.advance(LIFETIME)
    assert await world.while_time_passes(world.token()) == family.access_tokens[-1]
    assert (2, True) == (family.refreshes, family.alive)
    assert world.server.users.sent_twice == []


async def test_a_pair_that_was_not_stored_survives_its_process(redis_server: RedisServer) -> None:
    """The store fails after the answer, and the process ends: another one finds the pair in Redis, and stores it."""
    async with make_world(redis=redis_server.url) as world:
        family = await world.connect()
        world.clock.advance(LIFETIME)
        writes = 0

        async def fail(method: str) -> None:
            nonlocal writes
            writes += method == "save"
            if writes > 1:
                raise StoreUnavailable("gone")

        world.store.before = fail
        assert await _in_real_time(world, 0) == family.access_tokens[-1]
        data = world.broker._data.connections
        assert data.unsaved
        data.unsaved.clear()  # as if it had been killed
        data.newest.clear()
        world.store.before = _nothing
        world.clock.advance(LIFETIME)
        for key in redis_server.command("KEYS", "*:token"):  # the manual clock does not move those of Redis
            redis_server.command("DEL", key)
        async with world.make_broker(redis=redis_server.url):
            # The claim of the first process is in the store, and the pair that it got is in Redis.
            assert await _in_real_time(world, 1) == family.access_tokens[-1]
    assert (2, True) == (family.refreshes, family.alive)
    assert world.server.users.sent_twice == []


async def _in_real_time(world: World, number: int) -> str:
    asking = asyncio.ensure_future(world.token(number))
    while not asking.done():
        await asyncio.sleep(0.01)
        world.clock.advance(0.05)
    return await asking


async def test_a_store_that_was_rolled_back(world: World) -> None:
    """The database loses the last write, as after a failover: the process that made it stores its pair again."""
    family = await world.connect()
    before = dict(world.store.rows)
    world.clock.advance(LIFETIME)
    await world.token()
    world.store.rows = before
    world.clock.advance(LIFETIME)
    assert await world.token() == family.access_tokens[-1]
    assert (2, True) == (family.refreshes, family.alive)
    assert world.server.users.sent_twice == []


async def test_a_row_with_an_unknown_secret_is_left_alone(world: World) -> None:
    """It is another program's mistake, or a rotation in progress: the user need not connect again."""
    await world.connect()
    found = await world.stored()
    foreign = documents_of(world.store, secrets=("another secret of the tests",))
    await foreign.save(world.key(), found.document, expected=found.version)
    rows = dict(world.store.rows)
    world.clock.advance(LIFETIME)
    with pytest.raises(TokenUnavailable, match="a secret that this instance does not have"):
        await world.token()
    assert rows == world.store.rows


@pytest.mark.parametrize("damage", ["other user", "other version", "garbage", "empty"])
async def test_a_damaged_row_needs_a_new_connection(world: World, damage: str) -> None:
    """A value that was copied from another user, changed or cut never serves a token; connecting again replaces it."""
    await world.connect()
    await world.connect("user-2", user="bob")
    row, other = world.store.rows[world.key()], world.store.rows[world.key(subject="user-2")]
    value, version = {
        "other user": (other.value, other.version),
        "other version": (row.value, row.version + 1),
        "garbage": (b"garbage" * 10, 1),
        "empty": (b"", 1),
    }[damage]
    world.store.rows[world.key()] = type(row)(version, value)
    with pytest.raises(ReconnectRequired) as raised:
        await world.token()
    assert "damaged" == raised.value.reason
    family = await world.connect()
    assert await world.token() == family.access_tokens[-1]


async def _nothing(_method: str) -> None:
    return
