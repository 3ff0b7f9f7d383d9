"""The parts of an open broker, for tests of what no public attribute shows."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tokenmw import TokenBroker
    from tokenmw.runtime.runtime import Runtime
    from tokenmw.sessions.sync import SessionSync

__all__ = ["runtime_of", "session_sync_of"]


def runtime_of(broker: TokenBroker) -> Runtime:
    """Return the runtime of an open broker."""
    assert broker._runtime is not None
    return broker._runtime


def session_sync_of(broker: TokenBroker) -> SessionSync:
    """Return the part of an open broker that shares its sessions through Redis."""
    sync = runtime_of(broker).session_sync
    assert sync is not None
    return sync
