"""The servers that the documents' programs name, replaced by servers on this machine."""

from __future__ import annotations

from collections.abc import Iterator

import prometheus_client
import pytest

from tests.docs.world import ENVIRONMENT, World, world
from tests.servers import RedisServer


@pytest.fixture(scope="module")
def _hosts() -> Iterator[World]:
    with world() as opened:
        yield opened


@pytest.fixture
def hosts(_hosts: World, redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch) -> World:
    """The world of the programs, with an empty Redis and counts from zero."""
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(prometheus_client, "REGISTRY", prometheus_client.CollectorRegistry())
    _hosts.server.calls.clear()
    return World(_hosts.server, {**_hosts.replacements, "redis://localhost:6379/0": redis_server.url})
