"""Housekeeping compares tokens by their versions: the values of those that have not changed are not read."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.broker.hints import SECRET
from tests.brokers import runtime_of
from tokenmw import TokenBroker
from tokenmw.providers import StaticToken
from tokenmw.testing import ManualClock

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.servers import RedisServer

TOKENS = 40
VALUE = "v" * 700


def broker_of(server: RedisServer, clock: ManualClock, secret: str | Sequence[str] = SECRET) -> TokenBroker:
    """Make a broker without hints, whose housekeeping does nothing while the clock stands still."""
    providers = {f"p{n}": StaticToken(lambda: VALUE, credential_id=f"c{n}") for n in range(TOKENS)}
    return TokenBroker(
        providers, redis=server.url, secret_key=secret, name_key="a-name-key-of-some-length", clock=clock, hints=False
    )


def _stat(server: RedisServer, name: str) -> int:
    lines: list[bytes] = server.command("INFO", "stats").splitlines()
    return next(int(line.partition(b":")[2]) for line in lines if line.startswith(name.encode()))


def _key_ids(server: RedisServer) -> set[bytes]:
    return {server.command("GETRANGE", key, 9, 12) for key in server.command("KEYS", "*:token")}


async def _compare(broker: TokenBroker, clock: ManualClock) -> None:
    jobs = runtime_of(broker)._redis_jobs
    assert jobs is not None
    for entry in broker._data.tokens:
        assert entry.current is not None
        entry.current.checked = clock.monotonic() - 31
        entry.used = True
    await jobs.compare_tokens()


async def test_an_unchanged_token_costs_forty_bytes(redis_server: RedisServer) -> None:
    """The reply for each is below 40 bytes however long the token is, and each entry counts as checked."""
    clock = ManualClock()
    async with broker_of(redis_server, clock) as broker:
        for n in range(TOKENS):
            await broker.token(f"p{n}")
        _stat(redis_server, "total_net_output_bytes")
        before = _stat(redis_server, "total_net_output_bytes")
        info = _stat(redis_server, "total_net_output_bytes") - before
        before += info
        await _compare(broker, clock)
        after = _stat(redis_server, "total_net_output_bytes")
        assert (after - before - info) / TOKENS < 40
        assert {clock.monotonic()} == {entry.current.checked for entry in broker._data.tokens if entry.current}


async def test_what_differs_is_read(redis_server: RedisServer) -> None:
    """One token was evicted and another one invalidated: the first is uploaded again, the second dropped."""
    clock = ManualClock()
    async with broker_of(redis_server, clock) as broker, broker_of(redis_server, clock) as other:
        for n in range(TOKENS):
            await broker.token(f"p{n}")
        evicted, invalid = (broker._credentials.entry(name) for name in ("p0", "p1"))
        dropped = invalid.current
        assert evicted.keys is not None
        assert dropped is not None
        redis_server.command("DEL", evicted.keys.token)
        await other.invalidate_provider("p1")
        await _compare(broker, clock)
        assert 1 == redis_server.command("EXISTS", evicted.keys.token)
        # A refresh in the background may have got the next one.
        assert invalid.current is not dropped
        assert invalid.invalid_version >= dropped.version


async def test_a_token_sealed_with_an_old_secret_is_sealed_again(redis_server: RedisServer) -> None:
    """During a rotation the comparison finds it, although its version is the same."""
    clock, new = ManualClock(), "another-secret-of-some-length"
    async with broker_of(redis_server, clock) as old, broker_of(redis_server, clock, [new, SECRET]) as broker:
        for n in range(TOKENS):
            await old.token(f"p{n}")
            await broker.token(f"p{n}")
        before = _key_ids(redis_server)
        await _compare(broker, clock)
        assert 1 == len(_key_ids(redis_server))
        assert before != _key_ids(redis_server)
