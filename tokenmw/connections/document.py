"""The document of one connection, as it is sealed and stored."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from tokenmw.redaction import Unpicklable, not_encoded

if TYPE_CHECKING:
    from tokenmw.connections.pair import TokenPair

__all__ = ["DISCONNECTED", "Claim", "ConnectionDocument", "DamagedDocument", "digest_of"]

_FORMAT: Final = 1
_MAX_SPENT: Final = 4  # digests that are kept
# The `reconnect` of a connection that the user has ended: a process that refreshes it finds it, and the versions of the
# next connection go on from there, so that none is taken for an older one.
DISCONNECTED: Final = "disconnected"


class DamagedDocument(Exception):
    """Raised when a document that was opened cannot be read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """The announcement of one process that it is about to spend the refresh token.

    Attributes:
        id: A random text, by which the process knows its own claim after a lost reply.
        by: The host and process, for the operator.
        at: The time in seconds since 1970, for the operator.
    """

    id: str
    by: str
    at: float


@not_encoded
@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class ConnectionDocument(Unpicklable):
    """One connection.

    Attributes:
        refresh_token: The refresh token; None: the server gave none, and the connection ends with its access token.
        access_token: The last access token; None after an import without one.
        expires_at: When it expires, in seconds since 1970; 0 without one, infinite if it never does.
        lifetime: Its lifetime in seconds when it was granted; 0 without one.
        token_type: Its type.
        scope: The granted scopes, separated by spaces.
        granted_at: When the user connected, in seconds since 1970.
        refreshed_at: When the pair was granted, in seconds since 1970.
        reconnect: Why the user has to connect again; "" while the connection can be used.
        reconnect_at: Since when, in seconds since 1970.
        failing: Why the last refresh failed, for the operator; "" if it did not.
        failing_since: Since when refreshes fail, in seconds since 1970.
        claim: The claim of the process that refreshes it; None if none does.
        spent: The SHA-256 digests, as hex, of the last few refresh tokens that were replaced.
        extra: Further fields of the answer, as in `Grant.extra`.
    """

    refresh_token: str | None
    access_token: str | None
    expires_at: float
    lifetime: float
    token_type: str = "Bearer"
    scope: str = ""
    granted_at: float
    refreshed_at: float
    reconnect: str = ""
    reconnect_at: float = 0.0
    failing: str = ""
    failing_since: float = 0.0
    claim: Claim | None = None
    spent: tuple[str, ...] = ()
    extra: dict[str, Any] = field(default_factory=dict[str, Any])

    @classmethod
    def of_pair(cls, pair: TokenPair, *, now: float, before: ConnectionDocument | None = None) -> ConnectionDocument:
        """Return the document of a pair that was granted now; `before` is the one whose refresh token was spent.

        Without a refresh token in the pair, the old one stays (RFC 6749 §6).
        """
        old = None if before is None else before.refresh_token
        spent = () if before is None else before._spent_after(pair.refresh_token)
        return cls(
            refresh_token=pair.refresh_token or old,
            access_token=pair.access_token,
            expires_at=now + pair.expires_in,
            lifetime=pair.expires_in,
            token_type=pair.token_type,
            scope=pair.scope if pair.scope is not None else "" if before is None else before.scope,
            granted_at=now if before is None else before.granted_at,
            refreshed_at=now,
            spent=spent,
            extra=pair.extra,
        )

    @classmethod
    def ended(cls, *, now: float) -> ConnectionDocument:
        """Return the document of a connection that the user has ended now."""
        return cls(
            refresh_token=None,
            access_token=None,
            expires_at=0.0,
            lifetime=0.0,
            granted_at=now,
            refreshed_at=now,
            reconnect=DISCONNECTED,
            reconnect_at=now,
        )

    def replaces(self, other: ConnectionDocument) -> bool:
        """Return whether this document was made by spending the other one's refresh token."""
        return other.refresh_token is not None and digest_of(other.refresh_token) in self.spent

    def same_tokens(self, other: ConnectionDocument) -> bool:
        """Return whether both have the same two tokens."""
        return (self.refresh_token, self.access_token) == (other.refresh_token, other.access_token)

    def left(self, now: float) -> float:
        """Return the seconds until the access token expires, at a time since 1970; 0 or less without a valid one.

        The clock of the process that stored it may be wrong, so it is never more than its lifetime.
        """
        return 0.0 if self.access_token is None else min(self.expires_at - now, self.lifetime)

    def rotated(self, refresh_token: str) -> ConnectionDocument:
        """Return this document with the refresh token that came in place of its own, and without its claim."""
        return self.changed(refresh_token=refresh_token, spent=self._spent_after(refresh_token), claim=None)

    def _spent_after(self, refresh_token: str | None) -> tuple[str, ...]:
        old = self.refresh_token
        if not old or refresh_token in (None, old):
            return self.spent
        return (*self.spent, digest_of(old))[-_MAX_SPENT:]

    def with_claim_of(self, other: ConnectionDocument) -> ConnectionDocument:
        """Return this document with the claim of the one that it replaces, if both have the same refresh token.

        A process may be spending it, and another one must not.
        """
        if self.refresh_token is None or self.refresh_token != other.refresh_token:
            return self
        return self.changed(claim=other.claim, spent=other.spent)

    def without_claim(self, *, failing: str = "", now: float = 0.0) -> ConnectionDocument:
        """Return this document without its claim; `failing` says why the refresh failed, "" if nothing was asked."""
        if not failing:
            return self.changed(claim=None)
        return self.changed(claim=None, failing=failing, failing_since=self.failing_since or now)

    def changed(self, **changes: Any) -> ConnectionDocument:
        """Return this document with other values of some fields."""
        return ConnectionDocument(**{name: getattr(self, name) for name in self.__slots__} | changes)

    def encode(self) -> bytes:
        """Return the document as JSON, before it is sealed."""
        values: dict[str, Any] = {name: getattr(self, name) for name in self.__slots__}
        values["claim"] = None if self.claim is None else [self.claim.id, self.claim.by, self.claim.at]
        return json.dumps([_FORMAT, values], separators=(",", ":")).encode()

    @classmethod
    def decode(cls, raw: bytes) -> ConnectionDocument:
        """Read a document; fields of later versions are ignored.

        Raises:
            DamagedDocument: It is not such a document.
        """
        try:
            document_format, values = json.loads(raw)
            if document_format != _FORMAT:
                raise DamagedDocument(f"its format is {document_format!r:.20}, not {_FORMAT}")
            given: dict[str, Any] = {name: value for name, value in values.items() if name in cls.__slots__}
            claim = given.pop("claim", None)
            given["claim"] = None if claim is None else Claim(id=claim[0], by=claim[1], at=claim[2])
            given["spent"] = tuple(given.get("spent", ()))
            return cls(**given)
        except (ValueError, TypeError, LookupError, AttributeError, RecursionError) as error:
            raise DamagedDocument(f"it cannot be read ({type(error).__name__})") from None


def digest_of(token: str) -> str:
    """Return the SHA-256 digest of a token, as hex."""
    return hashlib.sha256(token.encode()).hexdigest()
