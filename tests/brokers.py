"""The inside of an open broker, for tests of what only the inside shows."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tokenmw import TokenBroker
    from tokenmw.runtime import Runtime
    from tokenmw.sessions.sync import SessionSync

__all__ = ["runtime_of", "session_sync_of"]


def runtime_of(broker: TokenBroker) -> Runtime:
    """Return the runtime of an open broker."""
    assert broker._runtime is not None
    return broker._runtime


def session_sync_of(broker: TokenBroker) -> SessionSync:
    """Return what shares the sessions of an open broker with Redis."""
    sync = runtime_of(broker).session_sync
    assert sync is not None
    return sync
