"""Loading a connection: its newest document, or why its user has to connect."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from tokenmw.connections.document import DISCONNECTED
from tokenmw.connections.documents import Unusable
from tokenmw.connections.store import StoreUnavailable
from tokenmw.errors import ReconnectRequired, TokenUnavailable
from tokenmw.redaction import Unpicklable
from tokenmw.redis.errors import RedisUnavailable

if TYPE_CHECKING:
    from tokenmw.connections.documents import Documents, Found
    from tokenmw.connections.ended import EndedConnections
    from tokenmw.connections.pair_storage import PairStorage
    from tokenmw.connections.store import ConnectionKey
    from tokenmw.connections.user_token import UserToken
    from tokenmw.observe.throttle import ThrottledLog

__all__ = ["FORESTALLED", "MAX_FORESTALLED", "NOT_CONNECTED", "ConnectionLoader", "reconnect_required"]

NOT_CONNECTED: Final = "not connected"
MAX_FORESTALLED: Final = 10  # writes of one exchange
FORESTALLED: Final = (
    "the store of connections refused each write, because the connection has another version than the one that was "
    "read: it returns old values, as a replica does; give it the URL of the primary"
)
_DAMAGED: Final = "damaged"
_UNREADABLE: Final = {
    "unknown-key": (
        "A connection of %s cannot be opened (unknown-key): it is sealed with a secret that this instance does not "
        "have; give all instances the same secret_key=[…], with that secret in the list"
    ),
    "damaged": "A connection of %s cannot be opened (damaged): its user has to connect again; find out what wrote it",
}


class ConnectionLoader(Unpicklable):
    """Loads connections, and stores the pairs that a process could not store.

    Args:
        documents: The store.
        storage: Finds such pairs.
        ended: Deletes the rows of connections that their users have ended.
        log: Where the operator learns of connections that cannot be opened.
    """

    __slots__ = ("_documents", "_ended", "_log", "_storage")

    def __init__(
        self, documents: Documents, *, storage: PairStorage, ended: EndedConnections, log: ThrottledLog
    ) -> None:
        self._documents = documents
        self._ended = ended
        self._storage = storage
        self._log = log

    async def load(self, provider: UserToken, key: ConnectionKey) -> Found:
        """Return the newest document, after storing one that a process could not store."""
        for _ in range(MAX_FORESTALLED):
            try:
                found = await self._documents.load(key)
            except StoreUnavailable as error:
                raise TokenUnavailable(f"the store of connections cannot answer: {error}") from None
            except Unusable as error:
                self._log.problem(
                    f"connection-{error.reason}",
                    _UNREADABLE[error.reason],
                    key.app,
                    provider=key.app,
                    reason=error.reason,
                )
                if error.reason == "damaged":
                    raise reconnect_required(provider, _DAMAGED) from None
                raise TokenUnavailable(
                    "the connection is sealed with a secret that this instance does not have"
                ) from None
            if found is not None and found.document.reconnect == DISCONNECTED:
                self._ended.note(key, found.version)
            if found is None or found.document.reconnect == DISCONNECTED:
                raise reconnect_required(provider, NOT_CONNECTED)
            if not await self.store_newer(key, found):
                break
        else:
            raise TokenUnavailable(FORESTALLED)
        if found.document.reconnect:
            raise reconnect_required(provider, found.document.reconnect)
        return found

    async def store_newer(self, key: ConnectionKey, found: Found, *, required: bool = False) -> bool:
        """Store a newer document that a process could not store. Return whether there was one."""
        newer = await self._storage.newer(key, found, required=required)
        if newer is None:
            return False
        try:
            await self._documents.save(key, newer, expected=found.version)
        except StoreUnavailable as error:
            raise TokenUnavailable(f"the store of connections takes no writes: {error}") from None
        return True

    async def redis_has_none(self, key: ConnectionKey, found: Found) -> bool:
        """Return whether a claim can be taken over: False if Redis had the pair of the process that claimed it."""
        try:
            return not await self.store_newer(key, found, required=True)
        except RedisUnavailable as error:
            raise TokenUnavailable(
                f"the process that refreshed the connection has ended, and Redis, which may have its new tokens, is "
                f"unavailable ({error.reason})"
            ) from None


def reconnect_required(provider: UserToken, reason: str) -> ReconnectRequired:
    """Return the error for a user who has to connect."""
    text = f"a user has to connect the account (again): {reason}"
    return ReconnectRequired(text, provider=provider.app_name, connect_url=provider.connect_url, reason=reason)
