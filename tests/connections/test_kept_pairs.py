"""The pairs that Redis keeps while the store fails: one is never deleted by a process that has an older one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.connections.memory_store import MemoryStore
from tests.connections.world import documents_of
from tokenmw import Limits
from tokenmw.connections.data import ConnectionData, Unsaved
from tokenmw.connections.document import ConnectionDocument
from tokenmw.connections.pair import TokenPair
from tokenmw.connections.pair_storage import PairStorage
from tokenmw.connections.store import ConnectionKey
from tokenmw.observe.throttle import ThrottledLog
from tokenmw.testing import ManualClock

if TYPE_CHECKING:
    from tokenmw.connections.documents import Documents


class MemoryKept:
    """Kept pairs in memory."""

    def __init__(self) -> None:
        self.values: dict[str, bytes] = {}

    async def keep(self, digest: str, value: bytes) -> bool:
        """Keep a value."""
        self.values[digest] = value
        return True

    async def find(self, digest: str) -> bytes | None:
        """Return the value of a connection."""
        return self.values.get(digest)

    async def forget(self, digest: str, value: bytes) -> None:
        """Delete a value."""
        if self.values.get(digest) == value:
            del self.values[digest]


class Process:
    """What one process has of a store, and the pairs that are kept beside it."""

    def __init__(self, store: MemoryStore, kept: MemoryKept) -> None:
        clock = ManualClock()
        self.documents: Documents = documents_of(store)
        self.data = ConnectionData(Limits())
        self.storage = PairStorage(
            documents=self.documents, kept=kept, data=self.data, clock=clock, log=ThrottledLog(clock)
        )

    def key(self, subject: str = "user-1") -> ConnectionKey:
        """Return the key of a connection."""
        return self.documents.key("crm", subject)

    async def store(self, document: ConnectionDocument, *, spent: ConnectionDocument, expected: int) -> str:
        """Store a document that was made of another one."""
        storing = self.storage.store(self.key(), document, spent=spent, expected=expected, late=False)
        outcome = await storing
        await self.storage.close()
        return outcome


def after(before: ConnectionDocument | None, number: int) -> ConnectionDocument:
    """Return the next document of a connection."""
    pair = TokenPair(access_token=f"A{number}", refresh_token=f"R{number}", expires_in=60)
    return ConnectionDocument.of_pair(pair, now=1000.0, before=before)


async def test_a_newer_pair_is_left_by_a_process_that_offers_an_older_one() -> None:
    """One process stores its pair late; the pair that another one has made of it since then stays in Redis."""
    store, kept = MemoryStore(), MemoryKept()
    first = Process(store, kept)
    r0, key = after(None, 0), first.key()
    assert await first.documents.save(key, r0, expected=0)
    r1 = after(r0, 1)
    first.data.unsaved[key.digest] = Unsaved(key, r1, r0)
    # Another process has found the first pair in Redis, stored it, and spent its refresh token.
    assert await first.documents.save(key, r1, expected=1)
    r2 = after(r1, 2)
    kept.values[key.digest] = first.documents.sealed(key, r2, version=0)
    assert [] == await first.storage.offer()
    assert first.documents.opened(key, kept.values[key.digest], version=0).same_tokens(r2)
    assert {} == first.data.unsaved


async def test_a_pair_is_left_by_a_process_that_has_connected_the_account() -> None:
    """Another process has refreshed the new connection before the one that stored it has deleted what was kept."""
    store, kept = MemoryStore(), MemoryKept()
    first = Process(store, kept)
    r0, key = after(None, 0), first.key()
    kept.values[key.digest] = first.documents.sealed(key, after(r0, 1), version=0)
    first.data.newest[key.digest] = after(r0, 1)
    await first.storage.forget(key, newest=r0)
    assert kept.values
    assert first.data.newest
    for newest in (after(None, 7), None):
        kept.values[key.digest] = first.documents.sealed(key, after(r0, 1), version=0)
        await first.storage.forget(key, newest=newest)
        assert {} == kept.values


async def test_one_pair_that_cannot_be_stored_does_not_keep_others_from_it() -> None:
    """A row that this process cannot open, such as one with an unknown secret, is tried again behind the others."""
    store, kept = MemoryStore(), MemoryKept()
    first = Process(store, kept)
    r0 = after(None, 0)
    for subject in ("user-1", "user-2", "user-3"):
        key = first.key(subject)
        assert await first.documents.save(key, r0, expected=0)
        first.data.unsaved[key.digest] = Unsaved(key, after(r0, 1), r0)
    foreign = documents_of(store, secrets=("another secret of the tests",))
    assert await foreign.save(first.key(), r0, expected=1)
    for _ in range(3):
        await first.storage.offer()
    assert [first.key().digest] == list(first.data.unsaved)


async def test_a_store_that_has_lost_its_last_writes_during_a_refresh() -> None:
    """It has the refresh token from before the one that was spent: the new pair is stored, not taken for an old one."""
    store, kept = MemoryStore(), MemoryKept()
    first = Process(store, kept)
    r0, key = after(None, 0), first.key()
    r1 = after(r0, 1)
    r2 = after(r1, 2)
    assert await first.documents.save(key, r0, expected=0)
    assert "stored" == await first.store(r2, spent=r1, expected=3)
    found = await first.documents.load(key)
    assert found is not None
    assert found.document.same_tokens(r2)
