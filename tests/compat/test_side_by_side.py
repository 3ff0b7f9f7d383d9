"""A service is deployed worker by worker, so both versions use one Redis for a while and must agree."""

from __future__ import annotations

import asyncio

import pytest

from tests.compat.sides import Version, World, eventually
from tokenmw.testing.provider_server import Fault

pytestmark = pytest.mark.compat


async def test_a_cold_token_is_fetched_once(world: World) -> None:
    """Many callers of two workers of each version have one value, and the provider was asked once."""
    world.provider.delay = 0.3
    sides = await world.sides("old", "new", "old", "new")
    values = await asyncio.gather(*(side.token(callers=50) for side in sides))
    assert 1 == len(set(values))
    assert 1 == world.fetches


async def test_a_new_key_has_one_session_id(world: World) -> None:
    """Forty keys that both versions see first at the same time have one session id each."""
    sides = await world.sides("old", "new")
    keys = [f"key-{number}" for number in range(40)]
    old, new = await asyncio.gather(*(side.start("session", keys=keys, callers=3) for side in sides))
    assert old == new
    assert {1} == {len(ids) for ids in old}
    assert 40 == len({ids[0] for ids in old})


async def test_a_token_is_read_by_the_other_version(world: World, first: Version, second: Version) -> None:
    """A version can read the tokens and sessions that the other one stored, without a second fetch."""
    one, other = await world.sides(first, second)
    assert await one.token() == await other.token()
    assert await one.session("key") == await other.session("key")
    assert 1 == world.fetches
    for side in (one, other):
        status = await side.start("status")
        assert {"shared": "up", "sealed": "secret_key" in world.options, "unreadable": 0} == status


async def test_a_reset_session_is_taken_over(world: World, first: Version, second: Version) -> None:
    """The touch of the other version finds the new id."""
    world.options["session_ttl"] = 10.0
    one, other = await world.sides(first, second)
    before = await one.session("key")
    assert before == await other.session("key")
    after = await one.start("reset", key="key")
    assert after != before
    await eventually(lambda: other.session("key"), lambda found: found == after)
    assert after == await one.session("key")


async def test_a_key_that_was_reset_and_comes_back_has_one_id(world: World, first: Version, second: Version) -> None:
    """The version that sees it first stores an id, this one that of the reset; both serve it."""
    world.options["session_ttl"] = 1.0
    old, new = await world.sides("old", "new")
    ids = [await new.session("key"), await new.start("reset", key="key")]
    await world.stored(tokens=0, sessions=0)
    one, other = (old, new) if first == "old" else (new, old)
    ids.append(await one.session("key"))
    assert ids[2] == await other.session("key")
    assert ids[0] not in ids[1:]
    assert (ids[1] == ids[2]) is (first == "new" and "secret_key" in world.options)
    assert second == other.version


async def test_a_touch_keeps_the_session_for_the_other_version(world: World, first: Version, second: Version) -> None:
    """An id that only one version uses is not lost for the other one, which has not used it for longer than the TTL."""
    world.options["session_ttl"] = 4.0
    one, other = await world.sides(first, second)
    session = await one.session("key")
    assert session == await other.session("key")
    for _ in range(24):
        await asyncio.sleep(0.25)
        assert session == await one.session("key")
    assert session == await other.session("key")


async def test_a_rejected_token_is_dropped_by_the_other_version(world: World, first: Version, second: Version) -> None:
    """`invalidate(token)` causes one fetch, and both versions return its token."""
    one, other = await world.sides(first, second)
    rejected = await one.token()
    assert rejected == await other.token()
    await one.start("advance", seconds=10.0)  # a token younger than 5 s is not invalidated
    assert await one.start("invalidate", value=rejected)
    await eventually(other.token, lambda found: found != rejected)
    assert await one.token() == await other.token() != rejected
    assert 2 == world.fetches


async def test_an_invalidated_provider_is_dropped_by_the_other_version(
    world: World, first: Version, second: Version
) -> None:
    """`invalidate_provider` causes one fetch, and both versions return its token."""
    one, other = await world.sides(first, second)
    dropped = await one.token()
    assert dropped == await other.token()
    await one.start("invalidate_provider")
    await eventually(other.token, lambda found: found != dropped)
    assert await one.token() == await other.token() != dropped
    assert 2 == world.fetches


async def test_a_tombstone_stops_a_commit_of_the_other_version(world: World, first: Version, second: Version) -> None:
    """A token that is invalidated while the other version fetches it is not stored, but fetched again."""
    one, other = await world.sides(first, second)
    hang = world.provider.oauth2.script.hang()
    fetching = asyncio.ensure_future(other.token())
    await world.fetched(1)
    await one.start("invalidate_provider")
    world.provider.oauth2.script.clear()
    hang.release()
    value = await fetching
    assert 2 == world.fetches
    newest = world.provider.issued.current("oauth2", "crm", scope="")
    assert newest is not None
    assert newest.value == value == await one.token()
    assert 2 == world.fetches


async def test_a_lease_makes_the_other_version_wait(world: World, first: Version, second: Version) -> None:
    """While one version asks a slow provider the other does not, and takes the token that the first one stores."""
    one, other = await world.sides(first, second)
    hang = world.provider.oauth2.script.hang()
    holding = asyncio.ensure_future(one.token())
    await world.fetched(1)
    waiting = asyncio.ensure_future(other.token(callers=20))
    await asyncio.sleep(1.0)
    assert not waiting.done()
    assert 1 == world.fetches
    hang.release()
    assert await holding == await waiting
    assert 1 == world.fetches


async def test_a_rejected_credential_is_not_tried_by_the_other_version(
    world: World, first: Version, second: Version
) -> None:
    """Because of the failure note, it does not ask a provider that has refused the secret."""
    one, other = await asyncio.gather(*(world.side(one, client_secret="wrong") for one in (first, second)))
    assert "CredentialRejected" == await one.token_or_error()
    assert "CredentialRejected" == await other.token_or_error()
    assert 1 == world.fetches


async def test_a_busy_provider_is_not_asked_by_the_other_version(world: World, first: Version, second: Version) -> None:
    """Because of the failure note, it does not ask a provider that has responded with 429."""
    world.provider.oauth2.script.then(Fault(status=429, headers={"Retry-After": "30"}))
    one, other = await world.sides(first, second)
    assert "TokenUnavailable" == await one.token_or_error()
    assert "TokenUnavailable" == await other.token_or_error()
    assert 1 == world.fetches


async def test_an_invalidated_provider_may_be_asked_again_by_the_other_version(
    world: World, first: Version, second: Version
) -> None:
    """`invalidate_provider` removes the failure note that the other version wrote."""
    world.provider.oauth2.script.then(Fault(status=429, headers={"Retry-After": "30"}))
    one, other = await world.sides(first, second)
    assert "TokenUnavailable" == await other.token_or_error()
    await one.start("invalidate_provider")
    value = await one.token()
    assert 2 == world.fetches
    await eventually(other.token_or_error, lambda found: found == value)


@pytest.mark.parametrize("survivor", ["old", "new"])
async def test_after_a_flush_both_upload_again(world: World, survivor: Version) -> None:
    """The worker notices that the marker is missing, and a new worker of the other version finds what it uploaded."""
    other_version: Version = "new" if survivor == "old" else "old"
    side = await world.side(survivor)
    token, session = await side.token(), await side.session("key")
    world.redis.command("FLUSHALL")
    await world.stored(tokens=1, sessions=1)
    other = await world.side(other_version)
    assert (token, session) == (await other.token(), await other.session("key"))
    assert 1 == world.fetches


async def test_after_a_flush_both_agree(world: World) -> None:
    """Each uploads the session of its own callers; of the token they both have, there is still one."""
    old, new = await world.sides("old", "new")
    token = await old.token()
    assert token == await new.token()
    sessions = [await old.session("of old"), await new.session("of new")]
    world.redis.command("FLUSHALL")
    await world.stored(tokens=1, sessions=2)
    assert sessions == [await new.session("of old"), await old.session("of new")]
    for side in (old, new, *await world.sides("old", "new")):
        assert token == await side.token()
    assert 1 == world.fetches


async def test_after_an_outage_both_agree(private_world: World) -> None:
    """Each served its callers alone; then there is one token again, and each key has one session id."""
    world = private_world
    old, new = await world.sides("old", "new")
    world.redis.kill()
    sessions = [await old.session("key"), await new.session("key")]
    if "secret_key" in world.options:
        assert sessions[0] == sessions[1]  # both derive it
    assert await old.token() != await new.token()
    world.redis.restart()
    await world.stored(tokens=1, sessions=1)
    third = await world.side("old")
    session = await third.session("key")
    assert session in sessions
    for side in (old, new):
        await eventually(lambda side=side: side.session("key"), lambda found: found == session)  # type: ignore[misc]

    async def tokens() -> set[str]:
        return {await old.token(), await new.token()}

    # The second one to upload may have the newer token, which replaces the first one's.
    await eventually(tokens, lambda found: len(found) == 1)
    assert {await (await world.side("old")).token()} == await tokens()
    assert 2 == world.fetches


async def test_an_invalidation_in_an_outage_reaches_the_other_version(
    private_world: World, first: Version, second: Version
) -> None:
    """One drops the token while Redis is down; the other stops using it when Redis is back."""
    world = private_world
    one, other = await world.sides(first, second)
    dropped = await one.token()
    assert dropped == await other.token()
    world.redis.kill()
    await one.start("invalidate_provider")
    replaced = await one.token()
    assert dropped == await other.token() != replaced
    world.redis.restart()
    await eventually(other.token, lambda found: found == replaced)
    assert replaced == await one.token()
    assert 2 == world.fetches
