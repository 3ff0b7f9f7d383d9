"""The rows of connections that their users have ended: deleted when no write from before can arrive any more.

Versions count from 1 for each row. If a row were deleted at once and the user connected again, a process that read the
former row and was stopped since could write its document over the next connection. So a document without tokens stays
for `claim_seconds`, and the next connection continues its versions.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tokenmw.clock import Instant
from tokenmw.connections.data import Ended
from tokenmw.connections.store import StoreUnavailable
from tokenmw.redaction import Unpicklable

if TYPE_CHECKING:
    from tokenmw.clock import Clock
    from tokenmw.connections.data import ConnectionData
    from tokenmw.connections.documents import Documents
    from tokenmw.connections.store import ConnectionKey

__all__ = ["EndedConnections"]


class EndedConnections(Unpicklable):
    """Deletes such rows, each process those that it has seen.

    Args:
        documents: The store.
        data: What this process remembers.
        seconds: How long a row stays after this process has seen it first.
        clock: Time.
    """

    __slots__ = ("_clock", "_data", "_documents", "_seconds")

    def __init__(self, documents: Documents, *, data: ConnectionData, seconds: float, clock: Clock) -> None:
        self._documents = documents
        self._data = data
        self._seconds = seconds
        self._clock = clock

    def note(self, key: ConnectionKey, version: int) -> None:
        """Remember a row that is to be deleted, if it then has the same version."""
        known = self._data.ended.get(key.digest)
        if known is None or known.version != version:
            self._data.ended[key.digest] = Ended(key, version, Instant(self._clock))

    async def delete(self, *, early: bool = False) -> None:
        """Delete the rows that have stayed long enough; `early`: all, because the process ends."""
        now = Instant(self._clock)
        for ended in list(self._data.ended.values()):
            if not early and now.mono - ended.at.mono < self._seconds:
                continue
            try:
                await self._documents.delete(ended.key, expected=ended.version)
            except StoreUnavailable:
                return  # later, or by another process that sees it
            if self._data.ended.get(ended.key.digest) is ended:
                del self._data.ended[ended.key.digest]
