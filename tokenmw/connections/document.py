"""The document of one connection, as it is sealed and stored."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, fields
from typing import Any, Final

from tokenmw.redaction import Unpicklable

__all__ = ["Claim", "ConnectionDocument", "DamagedDocument"]

_FORMAT: Final = 1


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


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class ConnectionDocument(Unpicklable):
    """One connection.

    Attributes:
        refresh_token: The refresh token; None: the server gave none, and the connection ends with its access token.
        access_token: The last access token; None after an import without one.
        expires_at: When it expires, in seconds since 1970; 0 without one.
        lifetime: Its lifetime in seconds when it was granted; 0 without one.
        token_type: Its type.
        scope: The granted scopes, separated by spaces.
        granted_at: When the user connected, in seconds since 1970.
        refreshed_at: When the pair was granted, in seconds since 1970.
        reconnect: Why the user has to connect again; "" while the connection can be used.
        reconnect_at: Since when, in seconds since 1970.
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
    claim: Claim | None = None
    spent: tuple[str, ...] = ()
    extra: dict[str, Any] = field(default_factory=dict[str, Any])

    def encode(self) -> bytes:
        """Return the document as JSON, before it is sealed."""
        values: dict[str, Any] = {one.name: getattr(self, one.name) for one in fields(self)}
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
            known = {one.name for one in fields(cls)}
            given: dict[str, Any] = {name: value for name, value in values.items() if name in known}
            claim = given.pop("claim", None)
            given["claim"] = None if claim is None else Claim(id=claim[0], by=claim[1], at=claim[2])
            given["spent"] = tuple(given.get("spent", ()))
            return cls(**given)
        except (ValueError, TypeError, LookupError, AttributeError, RecursionError) as error:
            raise DamagedDocument(f"it cannot be read ({type(error).__name__})") from None
