"""An operator's request to retry ends the backoff of each instance once, also of the one that the provider refused."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import pytest

from tests.tokens.instance import settle
from tests.tokens.providers import ScriptedProvider
from tokenmw.errors import CredentialRejected
from tokenmw.redis.retries import commands_to_read, commands_to_write, retry_of
from tokenmw.redis.sealing import Sealer

if TYPE_CHECKING:
    from tests.tokens.world import World

KEY = b"test:v1:{digest}:token"
SECRET = "a secret for the tests only"


async def fail_everywhere(world: World) -> None:
    """Let the provider refuse the credential, and all instances have that failure."""
    world.endpoint.fails(CredentialRejected("refused", said=True))
    for number in range(3):
        with pytest.raises(CredentialRejected):
            await world.get(number)


async def hear(world: World, *numbers: int) -> None:
    """Let instances read what a hint has announced."""
    for number in numbers:
        instance = world.instances[number]
        instance.manager.read_soon(instance.entry(ScriptedProvider(world.endpoint)))
    for _ in range(20):
        await settle(5)
        await world.clock.elapse(0.1)


async def ask_to_retry(world: World, number: int) -> bool:
    """Ask on one instance for a retry on all."""
    instance = world.instances[number]
    return await instance.sync.retry(instance.entry(ScriptedProvider(world.endpoint)), by="alice@web-1")


async def test_each_instance_gets_a_token_after_one_request(world: World, caplog: pytest.LogCaptureFixture) -> None:
    """The instance that asked the provider, and those that read its note, end their backoff; each logs who asked."""
    caplog.set_level(logging.INFO)
    await fail_everywhere(world)
    calls = len(world.endpoint.calls)
    world.endpoint.answer = world.endpoint.new
    await world.clock.elapse(1)
    assert await ask_to_retry(world, 2)
    await hear(world, 0, 1)
    tokens = {(await world.get(number)).value for number in range(3)}
    assert (len(tokens), len(world.endpoint.calls)) == (1, calls + 1)
    logged = [record.getMessage() for record in caplog.records if record.levelno == logging.INFO]
    assert logged == ["tokenmw: An operator at alice@web-1 requested retry of p"] * 2


async def test_a_request_is_followed_once(world: World) -> None:
    """If the provider fails again, that failure has its own backoff, although the request is still in Redis."""
    await fail_everywhere(world)
    await world.clock.elapse(1)
    await ask_to_retry(world, 2)
    await hear(world, 0, 1)
    calls = len(world.endpoint.calls)
    await hear(world, 0, 1)
    await hear(world, 0, 1)
    assert len(world.endpoint.calls) == calls


async def test_a_failure_after_the_request_is_not_ended(world: World) -> None:
    """An instance that had no failure when the operator asked keeps the backoff of one that comes later."""
    await ask_to_retry(world, 2)
    await world.clock.elapse(1)
    await fail_everywhere(world)
    calls = len(world.endpoint.calls)
    await hear(world, 0, 1)
    assert len(world.endpoint.calls) == calls


async def test_without_redis_only_this_instance_retries(world: World) -> None:
    """The result says that the others do not know of it."""
    await fail_everywhere(world)
    world.redis.up = False
    assert not await ask_to_retry(world, 0)
    world.endpoint.answer = world.endpoint.new
    assert (await world.get(0)).value


@pytest.mark.parametrize(
    "value",
    [b"", b"short", b"x" * 100, Sealer([SECRET]).seal(b"{", key=KEY, version=1), None, 7],
    ids=["empty", "short", "long", "no JSON", "none", "a number"],
)
def test_a_value_that_is_no_request_is_ignored(value: object) -> None:
    """So is one that is sealed with another secret, for another key, or that lasts for longer than one can."""
    sealer = Sealer([SECRET])
    assert retry_of(sealer, KEY, value, 30_000) is None
    (_, _, sealed, *_) = commands_to_write(sealer, KEY, b"note", version=5, by="alice@host")[1]
    assert retry_of(Sealer(["another secret of the tests"]), KEY, sealed, 30_000) is None
    assert retry_of(sealer, KEY.replace(b"digest", b"other0"), sealed, 30_000) is None
    assert retry_of(sealer, KEY, sealed, 70_000) is None
    found = retry_of(sealer, KEY, sealed, 50_000)
    assert found is not None
    assert (found.version, found.by, found.age) == (5, "alice@host", 10.0)
    assert commands_to_read(KEY)[0][1] == b"test:v1:{digest}:retry"
