"""Tokens of users: a user connects an account once, and then every worker has that user's access token.

1. A *connection* is one user's account at one app: the refresh token, the last access token, its state.
2. The durable store has the only copy that counts, sealed, with a version that each write compares.
3. A refresh is single-flight over all processes. Before the refresh token is spent, the process *claims* the
   connection by a write to the store: that proves that the store takes writes, and excludes all others.
4. The exchange is owned by the broker. It outlives the requests that wait for it, and the fetch that began it.
5. The new pair is stored before its access token is returned to anyone.
6. `invalid_grant` is believed only if the store has no newer refresh token. Other failures change nothing.
7. A claim whose process died is taken over when it was unchanged for a time by this process's own clock, and the
   last access token can no longer be used.

It uses `providers` for requests, `redis` for sealing and digests, and `tokens` for the access tokens.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from tokenmw.connections.app import OAuthApp
    from tokenmw.connections.connect_app import ConnectApp
    from tokenmw.connections.connections import Connections
    from tokenmw.connections.device import DeviceFlow
    from tokenmw.connections.dialect import Dialect
    from tokenmw.connections.flow_problem import FlowProblem
    from tokenmw.connections.outcome import Connected, NotConnected
    from tokenmw.connections.pair import TokenPair
    from tokenmw.connections.redis_store import RedisStore
    from tokenmw.connections.sql_store import SQLStore
    from tokenmw.connections.store import ConnectionKey, ConnectionStore, StoredConnection, StoreUnavailable
    from tokenmw.connections.user_connections import ConnectionState, UserConnections
    from tokenmw.errors import ReconnectRequired

__all__ = [
    "ConnectApp",
    "Connected",
    "ConnectionKey",
    "ConnectionState",
    "ConnectionStore",
    "Connections",
    "DeviceFlow",
    "Dialect",
    "FlowProblem",
    "NotConnected",
    "OAuthApp",
    "ReconnectRequired",
    "RedisStore",
    "SQLStore",
    "StoreUnavailable",
    "StoredConnection",
    "TokenPair",
    "UserConnections",
]

# Each is imported when it is used first.
_MODULES: Final = {
    "ConnectApp": "tokenmw.connections.connect_app",
    "Connected": "tokenmw.connections.outcome",
    "ConnectionKey": "tokenmw.connections.store",
    "ConnectionState": "tokenmw.connections.user_connections",
    "ConnectionStore": "tokenmw.connections.store",
    "Connections": "tokenmw.connections.connections",
    "DeviceFlow": "tokenmw.connections.device",
    "Dialect": "tokenmw.connections.dialect",
    "FlowProblem": "tokenmw.connections.flow_problem",
    "NotConnected": "tokenmw.connections.outcome",
    "OAuthApp": "tokenmw.connections.app",
    "ReconnectRequired": "tokenmw.errors",
    "RedisStore": "tokenmw.connections.redis_store",
    "SQLStore": "tokenmw.connections.sql_store",
    "StoreUnavailable": "tokenmw.connections.store",
    "StoredConnection": "tokenmw.connections.store",
    "TokenPair": "tokenmw.connections.pair",
    "UserConnections": "tokenmw.connections.user_connections",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value = getattr(import_module(_MODULES[name]), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_MODULES})
