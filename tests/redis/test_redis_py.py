"""How the package copes with the differences between versions of redis-py."""

from __future__ import annotations

from typing import Any

import pytest
import redis.asyncio
from redis.asyncio.connection import AbstractConnection

from tests.redis.clusters import needs_cluster_urls
from tokenmw.errors import ConfigurationError
from tokenmw.redis.client import _no_maintenance, checked_redis


def test_option_that_redis_py_does_not_know_is_not_passed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its async connections have had maintenance notifications only since long after the module for them."""

    def as_before(_self: object, *, host: str = "localhost") -> None:
        """Have the signature of redis-py 7."""

    monkeypatch.setattr(AbstractConnection, "__init__", as_before)
    assert _no_maintenance() == {}


@pytest.mark.parametrize("version", ["6.0.0", "7.4.1", "8.0.0"])
def test_cluster_url_needs_a_redis_py_that_releases_connections(monkeypatch: pytest.MonkeyPatch, version: str) -> None:
    """The error names the installed version and the fix; a single server and a client of the user do not need it."""
    monkeypatch.setattr("tokenmw.redis.url.redis_version", version)
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
def test_object_that_is_no_async_client_is_refused(given: object, hint: str) -> None:
    """The error has a hint if the object is close to one."""
    with pytest.raises(ConfigurationError, match=f"not (the sync )?{type(given).__name__}") as caught:
        checked_redis(given)
    text = str(caught.value)
    assert hint in text if hint else text.endswith(f"not {type(given).__name__}.")


@needs_cluster_urls
@pytest.mark.parametrize("version", ["8.0.1", "8.1.0b2", "8.10.0", "10.0"])
def test_cluster_url_is_accepted_with_a_newer_redis_py(monkeypatch: pytest.MonkeyPatch, version: str) -> None:
    """Versions are compared as numbers, and not as text."""
    monkeypatch.setattr("tokenmw.redis.url.redis_version", version)
    assert checked_redis("redis+cluster://host")
