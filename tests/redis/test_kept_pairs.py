"""Redis keeps a new pair that the store of connections could not take, and any process finds it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.servers import RedisServer
from tokenmw.redis.errors import RedisUnavailable
from tokenmw.redis.kept_pairs import KeptPairs
from tokenmw.redis.keys import KeyNames
from tokenmw.redis.sealing import Sealer

if TYPE_CHECKING:
    from tests.redis.conftest import Connect

DAY = 86_400_000


def sealed(version: int, text: str = "pair") -> bytes:
    """Seal a value of a version."""
    return Sealer(["a-secret-of-some-length"]).seal(text.encode(), key=b"d1", version=version)


async def test_a_kept_pair_is_found_by_another_process(
    connect: Connect, names: KeyNames, redis_server: RedisServer
) -> None:
    """Another connection finds the value, under `<namespace>:v1:{<digest>}:pair`, and it expires after a day."""
    value = sealed(7)
    assert await KeptPairs(connect(redis_server.url), names=names).keep("d1", value)
    assert value == await KeptPairs(connect(redis_server.url), names=names).find("d1")
    assert DAY - 10_000 < redis_server.command("PTTL", "test:v1:{d1}:pair") <= DAY


async def test_nothing_is_found_where_nothing_was_kept(
    connect: Connect, names: KeyNames, redis_server: RedisServer
) -> None:
    """A connection without a kept pair has none, and forgetting one does nothing."""
    kept = KeptPairs(connect(redis_server.url), names=names)
    assert await kept.find("d1") is None
    await kept.forget("d1", sealed(1))


async def test_a_later_version_wins(connect: Connect, names: KeyNames, redis_server: RedisServer) -> None:
    """A later version replaces an earlier one, also when the earlier one arrives last."""
    kept = KeptPairs(connect(redis_server.url), names=names)
    earlier, later = sealed(7, "earlier"), sealed(8, "later")
    assert await kept.keep("d1", earlier)
    assert await kept.keep("d1", later)
    assert not await kept.keep("d1", earlier)
    assert later == await kept.find("d1")


async def test_the_same_version_is_replaced(connect: Connect, names: KeyNames, redis_server: RedisServer) -> None:
    """Of two values of one version the last one counts, and keeping it again changes nothing."""
    kept = KeptPairs(connect(redis_server.url), names=names)
    first, second = sealed(7, "first"), sealed(7, "second")
    for value in (first, second, second):
        assert await kept.keep("d1", value)
    assert second == await kept.find("d1")


async def test_a_pair_is_forgotten_by_comparison(connect: Connect, names: KeyNames, redis_server: RedisServer) -> None:
    """Forgetting a pair leaves another one that was kept in the meantime."""
    kept = KeptPairs(connect(redis_server.url), names=names)
    first, second = sealed(7), sealed(8)
    await kept.keep("d1", first)
    await kept.keep("d1", second)
    await kept.forget("d1", first)
    assert second == await kept.find("d1")
    await kept.forget("d1", second)
    assert await kept.find("d1") is None
    assert redis_server.command("EXISTS", "test:v1:{d1}:pair") == 0


async def test_a_value_of_somebody_else_counts_as_absent(
    connect: Connect, names: KeyNames, redis_server: RedisServer
) -> None:
    """A key of another type, or a value that is too long, is no pair and prevents none."""
    kept = KeptPairs(connect(redis_server.url), names=names)
    redis_server.command("LPUSH", "test:v1:{d1}:pair", "a")
    assert await kept.find("d1") is None
    assert await kept.keep("d1", sealed(1))
    redis_server.command("SET", "test:v1:{d2}:pair", "x" * 200_000)
    assert await kept.find("d2") is None
    redis_server.command("SET", "test:v1:{d3}:pair", "planted: neither format nor version")
    assert await kept.keep("d3", sealed(1))


async def test_an_unavailable_redis_raises(connect: Connect, names: KeyNames, private_redis: RedisServer) -> None:
    """While Redis is unavailable, each operation raises; None would mean that no pair is kept."""
    kept = KeptPairs(connect(private_redis.url), names=names)
    private_redis.kill()
    with pytest.raises(RedisUnavailable):
        await kept.find("d1")
    with pytest.raises(RedisUnavailable):
        await kept.keep("d1", sealed(1))
    with pytest.raises(RedisUnavailable):
        await kept.forget("d1", sealed(1))
