"""Storing a new pair: no other process has it, so it is kept until the store has it.

It goes to Redis, sealed, while the store takes it: a process that dies in between has not lost it, and another one
finds it there. If the store fails, it stays in Redis and in the memory of this process, which offers it to the store
every second.
"""

from __future__ import annotations

import asyncio
import random
from typing import TYPE_CHECKING, Final, Literal, Protocol

from tokenmw.connections.data import Unsaved
from tokenmw.connections.document import DISCONNECTED
from tokenmw.connections.documents import Unusable
from tokenmw.connections.store import StoreUnavailable
from tokenmw.redaction import Unpicklable
from tokenmw.redis.errors import RedisUnavailable

if TYPE_CHECKING:
    from collections.abc import Coroutine
    from typing import Any

    from tokenmw.clock import Clock
    from tokenmw.connections.data import ConnectionData
    from tokenmw.connections.document import ConnectionDocument
    from tokenmw.connections.documents import Documents, Found
    from tokenmw.connections.store import ConnectionKey
    from tokenmw.observe.throttle import ThrottledLog

__all__ = ["Kept", "PairStorage", "Storing"]

Storing = Literal["stored", "unsaved", "superseded", "disconnected"]

_TRIES: Final = 3
_MAX_FORESTALLED: Final = 10  # writes of one pair; a store that refuses more returns old values
_FIRST_BACKOFF: Final = 0.1  # seconds
_KIND: Final = "connection-unsaved"


class Kept(Protocol):
    """Sealed documents in Redis, for a day; `KeptPairs` is one. Each method may raise `RedisUnavailable`."""

    async def keep(self, digest: str, value: bytes) -> bool:
        """Keep a value in place of an earlier one. Return whether it is kept."""
        ...

    async def find(self, digest: str) -> bytes | None:
        """Return the value that is kept, or None."""
        ...

    async def forget(self, digest: str, value: bytes) -> None:
        """Delete a value."""
        ...


class PairStorage(Unpicklable):
    """Stores the documents of new pairs, and finds those that another process could not store.

    Args:
        documents: The store.
        kept: The kept pairs in Redis; None without Redis.
        data: What this process remembers.
        clock: Time.
        log: Where the operator learns of what is not stored.
    """

    __slots__ = ("_clock", "_data", "_documents", "_kept", "_log", "_tasks")

    def __init__(
        self,
        *,
        documents: Documents,
        kept: Kept | None,
        data: ConnectionData,
        clock: Clock,
        log: ThrottledLog,
    ) -> None:
        self._documents = documents
        self._kept = kept
        self._data = data
        self._clock = clock
        self._log = log
        self._tasks: set[asyncio.Task[Any]] = set()

    async def newer(self, key: ConnectionKey, found: Found, *, required: bool = False) -> ConnectionDocument | None:
        """Return a document that was made by spending the refresh token of the stored one, if there is one.

        Args:
            key: The connection.
            found: What the store has.
            required: Whether it matters that Redis is asked, because another process may have kept one.

        Raises:
            RedisUnavailable: It matters, and Redis cannot be asked.
        """
        unsaved = self._data.unsaved.get(key.digest)
        for own in (self._data.newest.get(key.digest), None if unsaved is None else unsaved.document):
            if own is not None and own.replaces(found.document):
                return own
        if self._kept is None or (found.document.claim is None and not found.document.reconnect and not required):
            return None
        try:
            value = await self._kept.find(key.digest)
            kept = None if value is None else self._documents.opened(key, value, version=0)
        except RedisUnavailable:
            if required:
                raise
            return None
        except Unusable:
            return None
        return kept if kept is not None and kept.replaces(found.document) else None

    async def store(
        self, key: ConnectionKey, document: ConnectionDocument, *, spent: ConnectionDocument, expected: int, late: bool
    ) -> Storing:
        """Store the document of a new pair, whatever it takes.

        Args:
            key: The connection.
            document: The new document.
            spent: The document whose refresh token was spent for it.
            expected: The version of this process's claim.
            late: Whether the claim is so old that another process may have taken it over.
        """
        keeping: asyncio.Task[bytes | None] | None = None
        if document.replaces(spent):
            self._data.newest[key.digest] = document
            if self._kept is not None:
                keeping = self._start(self._keep(self._kept, key, document))
        try:
            outcome = await self._save(key, document, spent=spent, expected=expected, load_first=late, tries=_TRIES)
        except asyncio.CancelledError:  # the broker is closed: it offers the pair once more
            self._remember(key, document, spent, in_redis=False)
            raise
        if outcome == "unsaved":
            self._remember(key, document, spent, in_redis=keeping is not None and await keeping is not None)
        else:
            self._data.unsaved.pop(key.digest, None)
            if keeping is not None and self._kept is not None:
                self._start(self._discard_value(self._kept, key, after=keeping))
        return outcome

    async def offer(self) -> list[tuple[ConnectionKey, ConnectionDocument]]:
        """Offer to the store what it has not taken yet. Return the documents of connections that the user has ended."""
        disconnected: list[tuple[ConnectionKey, ConnectionDocument]] = []
        for unsaved in list(self._data.unsaved.values()):
            key, document, spent = unsaved
            outcome = await self._save(key, document, spent=spent, expected=0, load_first=True, tries=1)
            current = self._data.unsaved.get(key.digest) is unsaved
            if outcome == "unsaved":
                if current:  # behind the others: perhaps the store takes those
                    self._data.unsaved[key.digest] = self._data.unsaved.pop(key.digest)
                return disconnected
            if current:
                del self._data.unsaved[key.digest]
            if outcome == "disconnected":
                disconnected.append((key, document))
            if self._kept is not None:
                await self._discard(self._kept, key, newest=document)
        if not self._data.unsaved:
            self._log.recovered(_KIND, "All new tokens of users are stored")
        return disconnected

    async def forget(self, key: ConnectionKey, *, newest: ConnectionDocument | None) -> None:
        """Forget the pairs of a connection that the user has ended or made anew.

        Args:
            key: The connection.
            newest: The document that is stored now; None if the user has ended the connection. What a process has made
                of it since then stays.
        """
        self._data.forget(key.digest, newest=newest)
        if self._kept is not None:
            await self._discard(self._kept, key, newest=newest)

    async def close(self) -> None:
        """Wait for what is being kept or discarded: no longer than for a command of Redis each."""
        if self._tasks:
            await asyncio.wait(self._tasks)

    async def _save(
        self,
        key: ConnectionKey,
        document: ConnectionDocument,
        *,
        spent: ConnectionDocument,
        expected: int,
        load_first: bool,
        tries: int,
    ) -> Storing:
        failures = forestalled = 0
        while forestalled < _MAX_FORESTALLED:
            try:
                if not load_first:
                    if await self._documents.save(key, document, expected=expected):
                        return "stored"
                    forestalled += 1
                load_first = False
                found = await self._documents.load(key)
            except StoreUnavailable:
                failures += 1
                if failures >= tries:
                    return "unsaved"
                await self._clock.sleep(_FIRST_BACKOFF * 2**failures * random.uniform(0.5, 1.0))
                continue
            except Unusable:
                return "unsaved"  # written by a process with a secret that this one does not have
            outcome = _outcome_of(found, document, spent=spent)
            if found is None or outcome is not None:
                return outcome or "disconnected"
            expected = found.version
        return "unsaved"

    def _remember(
        self, key: ConnectionKey, document: ConnectionDocument, spent: ConnectionDocument, *, in_redis: bool
    ) -> None:
        unsaved = self._data.unsaved
        if not document.replaces(spent):
            return  # the old refresh token is still valid, and the store has it
        while len(unsaved) >= self._data.limit:
            del unsaved[next(iter(unsaved))]
        unsaved[key.digest] = Unsaved(key, document, spent)
        where = "in Redis and in this process" if in_redis else "in this process only, so do not stop it"
        self._log.problem(
            _KIND,
            "New tokens of %s are not stored yet, and kept %s: the store is unavailable; it is tried every second",
            key.app,
            where,
            provider=key.app,
            reason="store unavailable",
        )

    async def _keep(self, kept: Kept, key: ConnectionKey, document: ConnectionDocument) -> bytes | None:
        # All of one version, so that each replaces the one before; which is newer, `replaces` says.
        value = self._documents.sealed(key, document, version=0)
        try:
            return value if await kept.keep(key.digest, value) else None
        except RedisUnavailable:
            return None

    async def _discard(self, kept: Kept, key: ConnectionKey, *, newest: ConnectionDocument | None) -> None:
        """Delete the kept pair, unless it was made of the newest one: its process may not have stored it yet."""
        try:
            value = await kept.find(key.digest)
            if value is not None and not (newest and self._is_made_of(newest, key, value)):
                await kept.forget(key.digest, value)
        except RedisUnavailable:
            return  # it expires, and is older than what the store has

    def _is_made_of(self, newest: ConnectionDocument, key: ConnectionKey, value: bytes) -> bool:
        try:
            return self._documents.opened(key, value, version=0).replaces(newest)
        except Unusable:
            return False

    async def _discard_value(self, kept: Kept, key: ConnectionKey, *, after: asyncio.Task[bytes | None]) -> None:
        try:
            value = await after
            if value is not None:
                await kept.forget(key.digest, value)
        except RedisUnavailable:
            return  # as above

    def _start(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        task = asyncio.get_running_loop().create_task(work, name="tokenmw kept pair")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task


def _outcome_of(found: Found | None, document: ConnectionDocument, *, spent: ConnectionDocument) -> Storing | None:
    """Return what the store's document means for a new one; None if the new one is to replace it."""
    if found is None or found.document.reconnect == DISCONNECTED:
        return "disconnected"
    if document.same_tokens(found.document):
        return "stored"  # by a write whose reply was lost
    # The token that was spent here, claimed by another process, or given up; or one from before, if the store has lost
    # its last writes.
    made_of_it = found.document.refresh_token == spent.refresh_token or document.replaces(found.document)
    return None if made_of_it else "superseded"
