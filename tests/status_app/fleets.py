"""Fleets of any size: heartbeats that the real writer has written."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.brokers import runtime_of
from tokenmw import __version__
from tokenmw.redis.fleet import FleetStore
from tokenmw.redis.heartbeat import Heartbeat

if TYPE_CHECKING:
    from tokenmw import TokenBroker

__all__ = ["write_heartbeats"]


async def write_heartbeats(broker: TokenBroker, count: int, *, wrong: int = 0) -> None:
    """Write the heartbeats of other instances, of which `wrong` have another version."""
    settings, runtime = broker._settings, runtime_of(broker)
    assert runtime.redis is not None
    own, _ = await runtime.fleet._heartbeat() if runtime.fleet is not None else (None, {})
    assert own is not None
    for number in range(count):
        store = FleetStore(runtime.redis, names=settings.names, sealer=settings.sealer)
        heartbeat = Heartbeat(
            host=f"web-{number % 50:02}.region-1.example",
            pid=1000 + number,
            version="0.0.9" if number < wrong else __version__,
            started_at=own.started_at,
            shared="up",
            shared_seconds=86_400.0,
            tokens=own.tokens,
            counts={"tokens": 500, "sessions": 10_000, "unshared": number % 2, "failing": number % 3},
        )
        assert await store.write(heartbeat)
