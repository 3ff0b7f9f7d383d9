"""Documents in the store: sealed, bound to their connection and version, and each call within a time limit."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final, NamedTuple, TypeVar

from tokenmw.connections.document import ConnectionDocument, DamagedDocument
from tokenmw.connections.store import ConnectionKey, StoreUnavailable
from tokenmw.redaction import Unpicklable
from tokenmw.redis.keys import KeyNames
from tokenmw.redis.sealing import Unreadable

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from tokenmw.connections.store import ConnectionStore, StoredConnection
    from tokenmw.observe.throttle import ThrottledLog
    from tokenmw.redis.sealing import Sealer

__all__ = ["Documents", "Found", "Unusable"]

T = TypeVar("T")

_LOG_KIND: Final = "connection-store"
# What a document is bound to. Not the digest of `name_key`: another `name_key` must not make documents unreadable.
_PLAIN_NAMES: Final = KeyNames("connections", name_key=None)


class Found(NamedTuple):
    """A document, and the version that the store has it with."""

    version: int
    document: ConnectionDocument


class Unusable(Exception):
    """Raised for a stored value that this process cannot use.

    Attributes:
        reason: `unknown-key` or `damaged`, as of `Unreadable`.
        version: The version of the value.
    """

    def __init__(self, reason: str, *, version: int) -> None:
        super().__init__(reason)
        self.reason = reason
        self.version = version


class Documents(Unpicklable):
    """Loads and saves documents; any error of the store is `StoreUnavailable`, logged once.

    Args:
        store: The program's store.
        names: Makes the digest of a connection.
        sealer: Seals documents.
        seconds: The limit of each call of the store.
        log: Where outages of the store are logged.
    """

    __slots__ = ("_log", "_names", "_sealer", "_seconds", "store")

    def __init__(
        self, store: ConnectionStore, *, names: KeyNames, sealer: Sealer, seconds: float, log: ThrottledLog
    ) -> None:
        self.store = store
        self._names = names
        self._sealer = sealer
        self._seconds = seconds
        self._log = log

    def key(self, app: str, subject: str) -> ConnectionKey:
        """Return the key of a connection."""
        return ConnectionKey(app, subject, self._names.digest("connection", (app, subject)))

    async def load(self, key: ConnectionKey) -> Found | None:
        """Return a connection's document; None if there is none.

        Raises:
            StoreUnavailable: The store cannot answer.
            Unusable: The document is sealed with an unknown secret, or damaged.
        """
        stored = await self._call(lambda: self.store.load(key))
        if stored is None:
            return None
        return Found(stored.version, self.opened(key, stored.value, version=stored.version))

    async def save(self, key: ConnectionKey, document: ConnectionDocument, *, expected: int) -> bool:
        """Store a document if the present version is `expected`. Return whether it was stored.

        Raises:
            StoreUnavailable: The store cannot answer; the document may be stored nevertheless.
        """
        value = self.sealed(key, document, version=expected + 1)
        return await self._call(lambda: self.store.save(key, value, expected=expected))

    async def delete(self, key: ConnectionKey, *, expected: int) -> bool:
        """Delete a document if its version is `expected`. Return whether it was deleted.

        Raises:
            StoreUnavailable: The store cannot answer; the document may be deleted nevertheless.
        """
        return await self._call(lambda: self.store.delete(key, expected=expected))

    async def scan(
        self, *, after: ConnectionKey | None, limit: int
    ) -> Sequence[tuple[ConnectionKey, StoredConnection]]:
        """Return up to `limit` stored values, those after a key.

        Raises:
            StoreUnavailable: The store cannot answer.
        """
        return await self._call(lambda: self.store.scan(after=after, limit=limit))

    async def reseal(self, key: ConnectionKey, stored: StoredConnection) -> bool:
        """Seal a value with the first secret. Return False if it is, was changed meanwhile, or cannot be opened.

        It is read again, because some time may have passed since the scan.

        Raises:
            StoreUnavailable: The store cannot answer.
        """
        if self._sealer.is_current(stored.value):
            return False
        try:
            found = await self.load(key)
        except Unusable:
            return False
        return found is not None and await self.save(key, found.document, expected=found.version)

    def sealed(self, key: ConnectionKey, document: ConnectionDocument, *, version: int) -> bytes:
        """Return a document as it is stored."""
        return self._sealer.seal(document.encode(), key=_bound_to(key), version=version)

    def opened(self, key: ConnectionKey, value: bytes, *, version: int) -> ConnectionDocument:
        """Return the document of a stored value.

        Raises:
            Unusable: It is sealed with an unknown secret, or damaged.
        """
        try:
            sealed_version, body = self._sealer.open(value, key=_bound_to(key))
            if sealed_version != version:  # a value of another version was written over this one
                raise Unusable("damaged", version=version)
            return ConnectionDocument.decode(body)
        except Unreadable as unreadable:
            raise Unusable(unreadable.reason, version=version) from None
        except DamagedDocument:
            raise Unusable("damaged", version=version) from None

    async def _call(self, call: Callable[[], Awaitable[T]]) -> T:
        # The program's store may raise anything, also with a password of its URL in the text.
        try:
            async with asyncio.timeout(self._seconds):
                result = await call()
        except StoreUnavailable as unavailable:
            reason = str(unavailable) or "it cannot answer"
        except TimeoutError:
            reason = f"it did not answer within {self._seconds:g} s"
        except Exception as error:  # noqa: BLE001  see above
            reason = f"it raised {type(error).__name__}"
        else:
            self._log.recovered(_LOG_KIND, "The store of connections is available again")
            return result
        self._log.problem(
            _LOG_KIND,
            "The store of connections is unavailable: %s; users' tokens are served until they expire",
            reason,
            reason=reason,
        )
        raise StoreUnavailable(reason)


def _bound_to(key: ConnectionKey) -> bytes:
    return _PLAIN_NAMES.digest("connection", (key.app, key.subject)).encode()
