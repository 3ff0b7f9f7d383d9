"""What a process remembers of connections: bounded, and the same from one event loop to the next."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from tokenmw.caches import LRUCache
from tokenmw.redaction import Unpicklable

if TYPE_CHECKING:
    from tokenmw.clock import Instant
    from tokenmw.connections.document import ConnectionDocument
    from tokenmw.connections.store import ConnectionKey
    from tokenmw.limits import Limits

__all__ = ["ConnectionData", "Ended", "SeenClaim", "Unsaved"]


class SeenClaim(NamedTuple):
    """Another process's claim, and when this process saw it first.

    Attributes:
        id: That of the claim: a connection that was made anew counts its versions from 1 again.
        version: The version of the document with it.
        at: When it was first seen with that version.
    """

    id: str
    version: int
    at: Instant


class Ended(NamedTuple):
    """The row of a connection that its user has ended, and when this process saw it first."""

    key: ConnectionKey
    version: int
    at: Instant


class Unsaved(NamedTuple):
    """A document that the store does not have yet, and the one whose refresh token was spent for it."""

    key: ConnectionKey
    document: ConnectionDocument
    spent: ConnectionDocument

    def __repr__(self) -> str:
        return "<Unsaved>"


class ConnectionData(Unpicklable):
    """What one process remembers of connections, by the digest of each.

    Attributes:
        claims: Claims of other processes, while their version does not change.
        ended_claims: The ids of this process's own claims for which no request is in progress, and the `writer` of
            each: after a fork, the child has those of its parent, whose requests go on.
        ended: The rows of connections that their users have ended, until they are deleted.
        newest: The documents that this process has made last, in case the store goes back to an older one.
        unsaved: Documents that the store has yet to take.
        limit: The bound of each.
    """

    __slots__ = ("claims", "ended", "ended_claims", "limit", "newest", "unsaved")

    def __init__(self, limits: Limits) -> None:
        self.limit = limits.connections_remembered
        self.claims: LRUCache[str, SeenClaim] = LRUCache(self.limit)
        self.ended_claims: LRUCache[str, str] = LRUCache(self.limit)
        self.ended: LRUCache[str, Ended] = LRUCache(self.limit)
        self.newest: LRUCache[str, ConnectionDocument] = LRUCache(self.limit)
        self.unsaved: dict[str, Unsaved] = {}

    def forget(self, digest: str, *, newest: ConnectionDocument | None) -> None:
        """Forget a connection that the user has ended or made anew, but for what was made of the newest document."""
        self.claims.pop(digest, None)
        own, unsaved = self.newest.get(digest), self.unsaved.get(digest)
        if own is not None and not (newest and own.replaces(newest)):
            del self.newest[digest]
        if unsaved is not None and not (newest and unsaved.document.replaces(newest)):
            del self.unsaved[digest]
