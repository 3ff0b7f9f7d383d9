"""The status of a broker: a snapshot of its parts, without secrets and without I/O."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tokenmw.clock import Instant
from tokenmw.status import ServerStatus, Status

if TYPE_CHECKING:
    from tokenmw.credentials import Credentials
    from tokenmw.runtime.data import BrokerData
    from tokenmw.runtime.runtime import Runtime
    from tokenmw.runtime.settings import Settings

__all__ = ["snapshot"]


def snapshot(settings: Settings, data: BrokerData, runtime: Runtime | None, credentials: Credentials) -> Status:
    """Return the status of a broker; `runtime` is None while it is closed."""
    now, entries = Instant(settings.clock), list(data.tokens)
    redis, session_sync = (None, None) if runtime is None else (runtime.redis, runtime.session_sync)
    return Status(
        shared="off" if redis is None else redis.state,
        shared_since=None if redis is None else redis.since,
        shared_error="" if redis is None else redis.error,
        providers=credentials.statuses(now),
        tokens=sum(entry.current is not None for entry in entries),
        sessions=len(data.sessions),
        unshared_tokens=sum(entry.token_unshared(now) for entry in entries),
        unshared_invalidations=sum(entry.tombstone_unshared(now) for entry in entries),
        unshared_sessions=0 if session_sync is None else session_sync.unshared,
        touches=0 if session_sync is None else session_sync.touches,
        unreadable=data.unreadable,
        sealed=settings.sealer.sealing,
        shared_error_at=None if redis is None else redis.error_at,
        servers={} if redis is None else {server: ServerStatus(*state) for server, state in redis.servers.items()},
        instances=data.instances,
    )
