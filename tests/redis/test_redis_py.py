"""What the package asks of redis-py, whose versions differ."""

from __future__ import annotations

from typing import Any

import pytest
import redis.asyncio
from redis.asyncio.connection import AbstractConnection

from tests.redis.clusters import needs_cluster_urls
from tokenmw.errors import ConfigurationError
from tokenmw.redis.client import _no_maintenance, checked_redis


def test_an_option_that_redis_py_does_not_know_is_not_given(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its async connections learnt of maintenance notifications long after the module for them was there."""

    def as_before(_self: object, *, host: str = "localhost") -> None:
        """Be made as a connection of redis-py 7 is."""

    monkeypatch.setattr(AbstractConnection, "__init__", as_before)
    assert _no_maintenance() == {}


@pytest.mark.parametrize("version", ["6.0.0", "7.4.1", "8.0.0"])
def test_a_cluster_url_needs_a_redis_py_that_gives_connections_back(
    monkeypatch: pytest.MonkeyPatch, version: str
) -> None:
    """The text says which one is there, and what to do; neither a single server nor a ready client needs it."""
    monkeypatch.setattr("tokenmw.redis.client.redis_version", version)
    for scheme in ("redis+cluster", "rediss+cluster"):
        with pytest.raises(ConfigurationError, match=rf"redis-py {version} .* `pip install \"redis>=8\.0\.1\"`"):
            checked_redis(f"{scheme}://:pass-w0rd@host")
    assert checked_redis("rediss://host")
    client = redis.asyncio.RedisCluster(host="127.0.0.1")
    assert checked_redis(client) is client


_SENTINEL: Any = redis.asyncio.Sentinel  # a class without types


@pytest.mark.parametrize(
    ("given", "hint"),
    [
        (redis.Redis(), "A sync client would block the event loop"),
        (redis.asyncio.ConnectionPool(), "redis.asyncio.Redis(connection_pool=pool)"),
        (_SENTINEL([]), "sentinel.master_for(name)"),
        (b"redis://localhost", ""),
        (7, ""),
    ],
)
def test_what_is_no_async_client_is_refused(given: object, hint: str) -> None:
    """With a word on what to use instead, where it is near to one."""
    with pytest.raises(ConfigurationError, match=f"not {type(given).__name__}") as caught:
        checked_redis(given)
    text = str(caught.value)
    assert hint in text if hint else text.endswith(f"not {type(given).__name__}.")


@needs_cluster_urls
@pytest.mark.parametrize("version", ["8.0.1", "8.1.0b2", "8.10.0", "10.0"])
def test_a_cluster_url_is_taken_by_those_that_do(monkeypatch: pytest.MonkeyPatch, version: str) -> None:
    """Numbers are compared, and not texts."""
    monkeypatch.setattr("tokenmw.redis.client.redis_version", version)
    assert checked_redis("redis+cluster://host")
