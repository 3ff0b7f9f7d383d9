"""What the package asks of redis-py, whose versions differ."""

from __future__ import annotations

import pytest
import redis.asyncio

from tests.shared.clusters import needs_cluster_urls
from tokenmw.errors import ConfigurationError
from tokenmw.shared.client import _no_maintenance, checked_redis


def test_an_option_that_redis_py_does_not_know_is_not_given(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its async connections learnt of maintenance notifications long after the module for them was there."""

    def as_before(_self: object, *, host: str = "localhost") -> None:
        """Be made as a connection of redis-py 7 is."""

    monkeypatch.setattr(redis.asyncio.connection.AbstractConnection, "__init__", as_before)
    assert _no_maintenance() == {}


@pytest.mark.parametrize("version", ["6.0.0", "7.4.1", "8.0.0"])
def test_a_cluster_url_needs_a_redis_py_that_gives_connections_back(
    monkeypatch: pytest.MonkeyPatch, version: str
) -> None:
    """The text says which one is there, and what to do; neither a single server nor a ready client needs it."""
    monkeypatch.setattr("tokenmw.shared.client.redis_version", version)
    for scheme in ("redis+cluster", "rediss+cluster"):
        with pytest.raises(ConfigurationError, match=rf"redis-py {version} .* `pip install \"redis>=8\.0\.1\"`"):
            checked_redis(f"{scheme}://:pass-w0rd@host")
    assert checked_redis("rediss://host")
    client = redis.asyncio.RedisCluster(host="127.0.0.1")
    assert checked_redis(client) is client


@needs_cluster_urls
@pytest.mark.parametrize("version", ["8.0.1", "8.1.0b2", "8.10.0", "10.0"])
def test_a_cluster_url_is_taken_by_those_that_do(monkeypatch: pytest.MonkeyPatch, version: str) -> None:
    """Numbers are compared, and not texts."""
    monkeypatch.setattr("tokenmw.shared.client.redis_version", version)
    assert checked_redis("redis+cluster://host")
